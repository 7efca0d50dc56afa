//! Entry point for fuzzing: any text as a reference, and as what a registry answers with: its headers, its tokens.

use super::{auth, reference::Reference};

/// A reference, written and read again; a challenge; a challenge's realm; an answer with a token.
pub fn registry(bytes: &[u8]) {
    if let Ok(header) = auth::bearer(bytes) {
        assert!(header.is_sensitive() && !header.as_bytes().contains(&b'\n'));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(reference) = text.parse::<Reference>() {
        let written = reference.to_string();
        assert_eq!(written.parse(), Ok(reference.clone()));
        assert!(Reference::has_registry(&written));
        // What is asked for stays below the repository, whatever the reference says.
        let path = format!("{}/manifests/{}", reference.repository(), reference.manifest());
        let base: reqwest::Url = "https://registry.example/v2/".parse().expect("a URL");
        let joined = base.join(&path).expect("a path");
        assert_eq!((joined.path(), joined.host_str()), (format!("/v2/{path}").as_str(), Some("registry.example")));
    }
    if let Some(auth::Challenge::Bearer { realm, .. }) = auth::parse(text) {
        let _ = realm.parse::<reqwest::Url>();
    }
}
