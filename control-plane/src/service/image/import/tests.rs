//! Imports of every form, made here, and of hostile ones.

use super::*;
use crate::{service::image::blob_path, store::testing::sqlite};
use hoody_protocol::image::{Compression, Digest};
use serde_json::{Value, json};
use std::{fs, io::Write};

/// A data folder with a store, and a folder for sources.
struct Fixture {
    store: Store,
    data: tempfile::TempDir,
    sources: tempfile::TempDir,
    _database: tempfile::TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let (database, store) = sqlite().await;
        let folder = || tempfile::tempdir().unwrap();
        Self { store, data: folder(), sources: folder(), _database: database }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.sources.path().join(name)
    }

    async fn import(&self, source: &Path) -> Result<ImageRow, ImportError> {
        self.import_with(source, |_| {}).await
    }

    async fn import_with(
        &self,
        source: &Path,
        change: impl FnOnce(&mut ImportRequest),
    ) -> Result<ImageRow, ImportError> {
        let mut request = ImportRequest {
            naming: Naming { name: "debian/12".to_owned(), ..Naming::default() },
            source: source.to_owned(),
            platform: "linux/amd64".parse().unwrap(),
            reference: None,
            overrides: Overrides::default(),
        };
        change(&mut request);
        import(&self.store, self.data.path(), request).await
    }

    /// Names in the blob folder, without the lock.
    fn blobs(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.data.path().join("blobs")) else { return Vec::new() };
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).filter(|name| name != ".lock").collect()
    }
}

fn tar(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        // Written raw, because the crate refuses the names that a hostile archive has.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn root_tar() -> Vec<u8> {
    tar(&[("./etc/hostname", b"test\n"), ("./bin/sh", &[7; 4096])])
}

/// A layout that is being made.
struct LayoutBuilder {
    blobs: Vec<(String, Vec<u8>)>,
    manifests: Vec<Value>,
}

impl LayoutBuilder {
    fn new() -> Self {
        Self { blobs: Vec::new(), manifests: Vec::new() }
    }

    fn blob(&mut self, media_type: &str, bytes: Vec<u8>) -> Value {
        let digest = Digest::of(&bytes);
        let descriptor = json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()});
        self.blobs.push((digest.hex(), bytes));
        descriptor
    }

    fn document(&mut self, media_type: &str, value: &Value) -> Value {
        self.blob(media_type, serde_json::to_vec(value).unwrap())
    }

    /// Descriptor of a manifest whose one layer holds `content`.
    fn image(&mut self, architecture: &str, content: &[u8]) -> Value {
        let layer = self.blob(LAYER_GZIP, gzip(&tar(&[("file", content)])));
        self.image_of(architecture, vec![layer])
    }

    fn image_of(&mut self, architecture: &str, layers: Vec<Value>) -> Value {
        let config = json!({
            "architecture": architecture, "os": "linux",
            "config": {"Entrypoint": null, "Cmd": ["serve"], "Env": ["PATH=/bin"], "WorkingDir": "/srv"},
            "rootfs": {"type": "layers", "diff_ids": vec![Digest::of(b"").to_string(); layers.len()]},
        });
        let config = self.document(CONFIG, &config);
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
        self.document(MANIFEST, &manifest)
    }

    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let index = json!({"schemaVersion": 2, "manifests": self.manifests});
        let mut files = vec![
            ("oci-layout".to_owned(), br#"{"imageLayoutVersion": "1.0.0"}"#.to_vec()),
            ("index.json".to_owned(), serde_json::to_vec(&index).unwrap()),
        ];
        files.extend(self.blobs.iter().map(|(hex, bytes)| (format!("blobs/sha256/{hex}"), bytes.clone())));
        files
    }

    fn write(&self, folder: &Path) {
        fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
        for (name, bytes) in self.files() {
            fs::write(folder.join(name), bytes).unwrap();
        }
    }

    fn archive(&self) -> Vec<u8> {
        let files = self.files();
        let entries: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        tar(&entries)
    }
}

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

fn simple_layout() -> LayoutBuilder {
    let mut layout = LayoutBuilder::new();
    let image = layout.image("amd64", b"content");
    layout.manifests.push(image);
    layout
}

#[tokio::test]
async fn a_root_file_system_is_taken_plain_gzipped_and_as_zstd() {
    let fixture = Fixture::new().await;
    let plain = root_tar();
    for (bytes, compression) in [
        (plain.clone(), Compression::None),
        (gzip(&plain), Compression::Gzip),
        (zstd::encode_all(&plain[..], 1).unwrap(), Compression::Zstd),
    ] {
        let source = fixture.path("rootfs");
        fs::write(&source, &bytes).unwrap();
        let row = fixture.import(&source).await.unwrap();
        let layer = row.spec.layers[0].clone();
        assert_eq!(
            layer,
            Layer { digest: Digest::of(&bytes), size: bytes.len() as u64, compression, archive_bytes: None }
        );
        assert_eq!(fs::read(blob_path(fixture.data.path(), layer.digest)).unwrap(), bytes);
        assert!(row.spec.is_consistent());
        assert_eq!((row.os.as_str(), row.release.as_str(), row.variant), ("debian", "12", None));
        assert_eq!(row.size_bytes, bytes.len() as u64);
    }
}

#[tokio::test]
async fn options_describe_a_root_file_system() {
    let fixture = Fixture::new().await;
    let source = fixture.path("rootfs.tar");
    fs::write(&source, root_tar()).unwrap();
    let row = fixture
        .import_with(&source, |request| {
            request.platform = "linux/arm64".parse().unwrap();
            request.naming.description = Some("A test".to_owned());
            request.naming.variant = Some("slim".to_owned());
            request.overrides.command = vec!["/bin/sh".to_owned(), "-c".to_owned()];
            request.overrides.stop_signal = Some("SIGRTMIN+3".to_owned());
        })
        .await
        .unwrap();
    assert_eq!((row.architecture.as_str(), row.description.as_str()), ("arm64", "A test"));
    assert_eq!(row.variant.as_deref(), Some("slim"));
    assert_eq!(row.spec.config.command.len(), 2);
    assert_eq!(row.spec.config.stop_signal.as_str(), "SIGRTMIN+3");
}

#[tokio::test]
async fn a_layout_and_its_archive_give_the_same_image() {
    let fixture = Fixture::new().await;
    let layout = simple_layout();
    layout.write(&fixture.path("layout"));
    fs::write(fixture.path("archive.tar"), layout.archive()).unwrap();
    fs::write(fixture.path("archive.tar.gz"), gzip(&layout.archive())).unwrap();
    let mut specs = Vec::new();
    for name in ["layout", "archive.tar", "archive.tar.gz"] {
        let row = fixture.import(&fixture.path(name)).await.unwrap();
        assert_eq!(row.spec.layers[0].compression, Compression::Gzip, "{name}");
        specs.push(row.spec);
    }
    assert!(specs.iter().all(|spec| *spec == specs[0]));
    let config = &specs[0].config;
    assert_eq!(config.command[0].as_str(), "serve");
    assert_eq!(config.workdir.as_str(), "/srv");
    // The layer only: documents are not blobs of the image, and nothing of the archives stays.
    assert_eq!(fixture.blobs(), [specs[0].layers[0].digest.hex()]);
}

#[tokio::test]
async fn indexes_are_resolved_by_platform() {
    let fixture = Fixture::new().await;
    let mut layout = LayoutBuilder::new();
    let mut children = Vec::new();
    for (architecture, content) in [("arm64", &b"arm"[..]), ("amd64", b"intel")] {
        let mut child = layout.image(architecture, content);
        child["platform"] = json!({"os": "linux", "architecture": architecture});
        children.push(child);
    }
    let mut attestation = layout.document(MANIFEST, &json!({"schemaVersion": 2}));
    attestation["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    children.insert(0, attestation);
    let index = layout.document(INDEX, &json!({"schemaVersion": 2, "manifests": children}));
    layout.manifests.push(index);
    let source = fixture.path("layout");
    layout.write(&source);
    let mut digests = Vec::new();
    for architecture in ["amd64", "arm64"] {
        let platform: Platform = format!("linux/{architecture}").parse().unwrap();
        let row = fixture.import_with(&source, |request| request.platform = platform).await.unwrap();
        assert_eq!(row.architecture, architecture);
        digests.push(row.spec.digest);
    }
    assert_ne!(digests[0], digests[1]);
    let refused = fixture.import_with(&source, |request| request.platform = "linux/riscv64".parse().unwrap()).await;
    match refused {
        Err(ImportError::NoMatch { found, .. }) => assert!(found.contains("linux/arm64"), "{found}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn one_of_several_references_has_to_be_chosen() {
    let fixture = Fixture::new().await;
    let mut layout = LayoutBuilder::new();
    for name in ["one", "two"] {
        let mut image = layout.image("amd64", name.as_bytes());
        image["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        layout.manifests.push(image);
    }
    let source = fixture.path("layout");
    layout.write(&source);
    let refused = fixture.import(&source).await;
    assert!(matches!(&refused, Err(ImportError::Ambiguous { found }) if found == "one, two"), "{refused:?}");
    fixture.import_with(&source, |request| request.reference = Some("two".to_owned())).await.unwrap();
    let refused = fixture.import_with(&source, |request| request.reference = Some("three".to_owned())).await;
    assert!(matches!(refused, Err(ImportError::NoMatch { .. })), "{refused:?}");
}

/// Imports what `change` made of a good layout; it must be refused, with nothing left behind.
async fn refused(change: impl FnOnce(&Path, &mut LayoutBuilder)) -> ImportError {
    let fixture = Fixture::new().await;
    let source = fixture.path("layout");
    let mut layout = simple_layout();
    fs::create_dir_all(source.join("blobs/sha256")).unwrap();
    layout.write(&source);
    change(&source, &mut layout);
    let error = fixture.import(&source).await.unwrap_err();
    assert!(fixture.blobs().is_empty(), "{error}: {:?}", fixture.blobs());
    assert!(image::names(&fixture.store).await.unwrap().is_empty());
    error
}

fn blob_file(source: &Path, layout: &LayoutBuilder, which: usize) -> PathBuf {
    source.join("blobs/sha256").join(&layout.blobs[which].0)
}

#[tokio::test]
async fn bytes_that_are_not_what_they_say_are_refused() {
    // Blobs are in the order layer, configuration, manifest.
    for which in 0..3 {
        let error = refused(|source, layout| {
            let path = blob_file(source, layout, which);
            let mut bytes = fs::read(&path).unwrap();
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            fs::write(&path, bytes).unwrap();
        })
        .await;
        assert!(
            matches!(error, ImportError::Blob(crate::service::image::blobs::BlobError::Mismatch { .. })),
            "{error}"
        );
        let error = refused(|source, layout| {
            let path = blob_file(source, layout, which);
            let mut file = fs::File::options().append(true).open(path).unwrap();
            file.write_all(b"\n").unwrap();
        })
        .await;
        assert!(matches!(error, ImportError::Size { .. }), "{error}");
        let error = refused(|source, layout| fs::remove_file(blob_file(source, layout, which)).unwrap()).await;
        assert!(matches!(error, ImportError::Io { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_link_or_a_pipe_in_a_layout_is_refused() {
    for which in 0..3 {
        let error = refused(|source, layout| {
            let path = blob_file(source, layout, which);
            fs::rename(&path, source.join("elsewhere")).unwrap();
            std::os::unix::fs::symlink(source.join("elsewhere"), &path).unwrap();
        })
        .await;
        assert!(matches!(error, ImportError::NotAFile(_)), "{error}");
    }
    let error = refused(|source, layout| {
        let path = blob_file(source, layout, 0);
        fs::remove_file(&path).unwrap();
        let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: `name` is a valid C string for the duration of the call.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    })
    .await;
    assert!(matches!(error, ImportError::NotAFile(_)), "{error}");
}

/// Rewrites the manifest by `change` and imports the layout.
async fn refused_manifest(change: impl FnOnce(&mut Value, &mut LayoutBuilder)) -> ImportError {
    refused(|source, layout| {
        let mut manifest: Value = serde_json::from_slice(&layout.blobs[2].1).unwrap();
        change(&mut manifest, layout);
        let descriptor = layout.document(MANIFEST, &manifest);
        layout.manifests = vec![descriptor];
        layout.write(source);
    })
    .await
}

#[tokio::test]
async fn digests_that_lead_elsewhere_are_refused() {
    for digest in [
        "sha256:../../../../etc/passwd",
        "sha256:",
        "../x",
        "sha512:ab",
        "sha256:/etc/passwd",
        &format!("sha256:{}", "A".repeat(64)),
        &format!("sha256:{}/../x", "a".repeat(64)),
    ] {
        let error = refused_manifest(|manifest, _| manifest["layers"][0]["digest"] = json!(digest)).await;
        assert!(matches!(&error, ImportError::Document { problem, .. } if problem.contains("a digest is")), "{error}");
        let error = refused_manifest(|manifest, _| manifest["config"]["digest"] = json!(digest)).await;
        assert!(matches!(error, ImportError::Document { .. }), "{error}");
    }
}

#[tokio::test]
async fn layers_that_nodes_cannot_take_are_refused() {
    let error = refused_manifest(|manifest, _| {
        manifest["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip");
    })
    .await;
    assert!(matches!(error, ImportError::LayerType { .. }), "{error}");
    let error = refused_manifest(|manifest, _| manifest["layers"][0]["mediaType"] = json!(LAYER)).await;
    assert!(matches!(error, ImportError::LayerContent { .. }), "{error}");
    let error = refused_manifest(|manifest, _| manifest["layers"][0]["size"] = json!(u64::MAX)).await;
    assert!(matches!(error, ImportError::Limit { max: MAX_LAYER_BYTES, .. }), "{error}");
    let error = refused_manifest(|manifest, _| manifest["layers"][0]["size"] = json!(-1)).await;
    assert!(matches!(error, ImportError::Document { .. }), "{error}");
    let error = refused_manifest(|manifest, _| manifest["layers"] = json!([])).await;
    assert!(matches!(error, ImportError::Document { .. }), "{error}");
    let error = refused_manifest(|manifest, _| {
        let layer = manifest["layers"][0].clone();
        manifest["layers"] = json!(vec![layer; 2]);
    })
    .await;
    assert!(matches!(&error, ImportError::Document { problem, .. } if problem.contains("2 layers")), "{error}");
    let error = refused_manifest(|manifest, _| {
        let layer = manifest["layers"][0].clone();
        manifest["layers"] = json!(vec![layer; 129]);
    })
    .await;
    assert!(matches!(error, ImportError::Limit { max: 128, .. }), "{error}");
}

#[tokio::test]
async fn endless_documents_and_indexes_are_refused() {
    let error = refused(|source, _| {
        let file = fs::File::create(source.join("index.json")).unwrap();
        file.set_len(1 << 40).unwrap();
    })
    .await;
    assert!(matches!(error, ImportError::Limit { .. }), "{error}");
    let error = refused_manifest(|manifest, _| manifest["config"]["size"] = json!(1u64 << 40)).await;
    assert!(matches!(error, ImportError::Limit { .. }), "{error}");
    let error = refused(|source, layout| {
        let mut descriptor = layout.manifests[0].clone();
        for _ in 0..9 {
            descriptor = layout.document(INDEX, &json!({"schemaVersion": 2, "manifests": [descriptor]}));
        }
        layout.manifests = vec![descriptor];
        layout.write(source);
    })
    .await;
    assert!(matches!(&error, ImportError::Limit { what, .. } if what.contains("depth")), "{error}");
    let error = refused(|source, layout| {
        let empty = layout.document(INDEX, &json!({"schemaVersion": 2, "manifests": []}));
        layout.manifests = vec![empty; 600];
        layout.write(source);
    })
    .await;
    assert!(matches!(&error, ImportError::Limit { what, .. } if what.contains("manifests")), "{error}");
}

#[tokio::test]
async fn what_is_no_image_is_refused() {
    let fixture = Fixture::new().await;
    let good = root_tar();
    let gzipped = gzip(&good);
    let cases: [(&str, Vec<u8>); 7] = [
        ("empty", Vec::new()),
        ("text", b"this is not an archive".repeat(100)),
        ("truncated", good[..good.len() / 2].to_vec()),
        ("truncated gzip", gzipped[..gzipped.len() - 9].to_vec()),
        ("no entries", tar(&[])),
        ("parent", tar(&[("a/../../etc/passwd", b"root::0:0:::\n")])),
        ("damaged gzip", [&gzipped[..gzipped.len() - 8], &[0; 8]].concat()),
    ];
    for (what, bytes) in cases {
        let source = fixture.path("source");
        fs::write(&source, bytes).unwrap();
        let error = fixture.import(&source).await.expect_err(what);
        let expected = matches!(error, ImportError::NotATar { .. } | ImportError::Entry { .. });
        assert!(expected, "{what}: {error}");
    }
    fs::create_dir(fixture.path("folder")).unwrap();
    let error = fixture.import(&fixture.path("folder")).await.unwrap_err();
    assert!(matches!(error, ImportError::NotALayout(_)), "{error}");
    assert!(matches!(fixture.import(&fixture.path("absent")).await, Err(ImportError::Io { .. })));
    assert!(fixture.blobs().is_empty());
}

#[tokio::test]
async fn an_archive_of_a_layout_writes_only_the_layouts_files() {
    let fixture = Fixture::new().await;
    let layout = simple_layout();
    let files = layout.files();
    let mut entries: Vec<(&str, &[u8])> = files.iter().map(|(n, b)| (n.as_str(), b.as_slice())).collect();
    entries.push(("blobs/sha256/not-a-digest", b"x"));
    entries.push(("manifest.json", b"[]"));
    fs::write(fixture.path("good.tar"), tar(&entries)).unwrap();
    fixture.import(&fixture.path("good.tar")).await.unwrap();
    entries.push(("../escape", b"x"));
    fs::write(fixture.path("bad.tar"), tar(&entries)).unwrap();
    let error = fixture.import(&fixture.path("bad.tar")).await.unwrap_err();
    assert!(matches!(error, ImportError::Entry { .. }), "{error}");

    let mut builder = tar::Builder::new(layout.archive());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, format!("blobs/sha256/{}", "a".repeat(64)), "/etc/passwd").unwrap();
    let mut linked = layout.archive();
    linked.truncate(linked.len() - 1024);
    let appended = builder.into_inner().unwrap();
    linked.extend_from_slice(&appended[layout.archive().len()..]);
    fs::write(fixture.path("link.tar"), linked).unwrap();
    let error = fixture.import(&fixture.path("link.tar")).await.unwrap_err();
    assert!(matches!(error, ImportError::Entry { .. }), "{error}");
}

#[tokio::test]
async fn a_failed_import_leaves_what_the_name_meant() {
    let fixture = Fixture::new().await;
    let source = fixture.path("rootfs.tar");
    fs::write(&source, root_tar()).unwrap();
    let before = fixture.import(&source).await.unwrap();
    fs::write(&source, b"damaged").unwrap();
    fixture.import(&source).await.unwrap_err();
    assert_eq!(image::find(&fixture.store, before.id).await.unwrap(), Some(before));
}

#[tokio::test]
async fn names_and_descriptions_are_validated() {
    let fixture = Fixture::new().await;
    let source = fixture.path("rootfs.tar");
    fs::write(&source, root_tar()).unwrap();
    let error = fixture.import_with(&source, |request| request.naming.name = "../x".to_owned()).await.unwrap_err();
    assert!(matches!(error, ImportError::Name(_)), "{error}");
    let error = fixture.import_with(&source, |request| request.naming.os = Some("a\nb".to_owned())).await.unwrap_err();
    assert!(matches!(error, ImportError::Config { field: "os", .. }), "{error}");
}

#[tokio::test]
async fn endless_headers_are_not_read_into_memory() {
    let fixture = Fixture::new().await;
    // A long name of 64 MiB, which compresses to a few kilobytes.
    let mut header = ::tar::Header::new_gnu();
    header.set_entry_type(::tar::EntryType::GNULongName);
    header.set_size(64 << 20);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.resize(bytes.len() + (64 << 20), b'a');
    bytes.extend(tar(&[("etc/a", b"abc")]));
    let source = fixture.path("long.tar.gz");
    fs::write(&source, gzip(&bytes)).unwrap();
    let error = fixture.import(&source).await.unwrap_err();
    assert!(
        matches!(&error, ImportError::NotATar { source, .. } if source.to_string().contains("too large")),
        "{error:?}"
    );
}
