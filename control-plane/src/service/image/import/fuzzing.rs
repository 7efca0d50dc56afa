//! Entry points for fuzzing: any bytes as an archive or as the documents of an OCI image.

use super::{
    archive, configuration,
    documents::{Configuration, Index, LayoutHeader, Manifest, parse},
    platform::Platform,
};
use std::path::Path;

/// The bytes at `path` as an archive to import; a layout is unpacked into `target`, which is empty.
pub fn archive(path: &Path, target: &Path) {
    let _ = archive::inspect(path);
    let _ = archive::unpack_layout(path, target);
}

/// Each kind of document.
pub fn documents(bytes: &[u8]) {
    let _ = parse::<LayoutHeader>("oci-layout", bytes);
    let index = parse::<Index>("index", bytes).map(|index| index.manifests).unwrap_or_default();
    let layers = parse::<Manifest>("manifest", bytes).map(|mut manifest| {
        manifest.layers.push(manifest.config);
        manifest.layers
    });
    for descriptor in index.into_iter().chain(layers.unwrap_or_default()) {
        let _ = (descriptor.kind(), descriptor.reference(), descriptor.compression());
        if let Ok(digest) = descriptor.digest() {
            assert_eq!(digest.to_string(), descriptor.digest);
        }
    }
    let Ok(document) = parse::<Configuration>("configuration", bytes) else { return };
    let platform = Platform::from(document.platform);
    assert!(platform.fits(&platform));
    if let Ok(config) = configuration::from_oci(document.config.unwrap_or_default()) {
        let texts = config.command.iter().map(|word| word.as_str()).chain([config.user.as_str()]);
        assert!(texts.chain([config.workdir.as_str()]).all(|text| !text.contains('\0')));
    }
}
