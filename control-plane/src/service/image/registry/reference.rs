//! Names of images in registries: `host[:port]/repository[:tag][@sha256:…]`, for example
//! `docker.io/library/debian:12` (the grammar of the distribution specification's reference).
//!
//! The host is never guessed: a name without one is the catalogue's.

use hoody_protocol::image::Digest;
use std::{fmt, net::IpAddr, str::FromStr};

/// Characters of a whole reference.
pub const MAX_REFERENCE_CHARS: usize = 512;
/// Characters of a repository's name.
const MAX_REPOSITORY_CHARS: usize = 255;
/// Characters of a tag.
const MAX_TAG_CHARS: usize = 128;
/// Characters of a host name (RFC 1035, 2.3.4).
const MAX_HOST_CHARS: usize = 253;
/// The tag of a reference that has neither tag nor digest.
const DEFAULT_TAG: &str = "latest";
/// Docker Hub, as people call it; its API is elsewhere, and its own images are in a folder.
const HUB: &str = "docker.io";
const HUB_API: &str = "registry-1.docker.io";
const HUB_FOLDER: &str = "library";

/// An image in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// `host[:port]`, lowercase.
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// The text is not a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not an image of a registry: host[:port]/name[:tag][@sha256:…], for example docker.io/library/debian:12")]
pub struct InvalidReference;

impl Reference {
    /// True where the text begins with a registry's host, as no name of a catalogue's image does by itself.
    pub fn has_registry(text: &str) -> bool {
        text.split_once('/').is_some_and(|(host, _)| is_registry(host))
    }

    /// `host[:port]` of the registry's API.
    pub(super) fn api_host(&self) -> &str {
        if self.registry == HUB { HUB_API } else { &self.registry }
    }

    /// The repository's name.
    pub(super) fn repository(&self) -> &str {
        &self.repository
    }

    /// The digest, where the reference is pinned to one.
    pub(super) fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// What a manifest is asked for by: the digest, else the tag.
    pub(super) fn manifest(&self) -> String {
        match (self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.clone().unwrap_or_else(|| DEFAULT_TAG.to_owned()),
        }
    }

    /// A short name for people: the last part of the repository and the tag.
    pub fn short_name(&self) -> String {
        let last = self.repository.rsplit('/').next().unwrap_or_default();
        match &self.tag {
            Some(tag) => format!("{last}-{tag}"),
            None => last.to_owned(),
        }
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;
    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        if text.len() > MAX_REFERENCE_CHARS {
            return Err(InvalidReference);
        }
        let (registry, rest) = text.split_once('/').ok_or(InvalidReference)?;
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(|_| InvalidReference)?)),
            None => (rest, None),
        };
        let (repository, tag) = match rest.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag.to_owned())),
            None => (rest, None),
        };
        let valid = is_registry(registry) && is_repository(repository) && tag.as_deref().is_none_or(is_tag);
        if !valid {
            return Err(InvalidReference);
        }
        let registry = match registry.to_ascii_lowercase() {
            hub if hub == "index.docker.io" => HUB.to_owned(),
            other => other,
        };
        let in_folder = registry != HUB || repository.contains('/');
        let repository = if in_folder { repository.to_owned() } else { format!("{HUB_FOLDER}/{repository}") };
        let tag = tag.or_else(|| digest.is_none().then(|| DEFAULT_TAG.to_owned()));
        Ok(Self { registry, repository, tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

/// `host[:port]` of what can only be a registry: a name with a dot, an address, or anything with a port.
fn is_registry(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            if !matches!(address.parse(), Ok(IpAddr::V6(_))) {
                return false;
            }
            return port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.len() <= MAX_HOST_CHARS
        && host.split('.').all(label)
        && port.is_none_or(is_port)
        && (host.contains('.') || port.is_some() || host == "localhost")
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

/// Lowercase parts between slashes; within a part, letters and digits with `.`, `_`, `__` or dashes between them.
fn is_repository(text: &str) -> bool {
    let part = |part: &str| {
        let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let bytes = part.as_bytes();
        let plain = bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(b));
        let separators = part.split(|c: char| c.is_ascii_alphanumeric()).filter(|run| !run.is_empty());
        let known = |run: &str| matches!(run, "." | "_" | "__") || run.bytes().all(|b| b == b'-');
        edge(bytes.first()) && edge(bytes.last()) && plain && separators.into_iter().all(known)
    };
    (1..=MAX_REPOSITORY_CHARS).contains(&text.len()) && text.split('/').all(part)
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=MAX_TAG_CHARS).contains(&text.len())
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn every_form_is_read_and_written_in_full() {
        for (text, full) in [
            ("docker.io/debian", "docker.io/library/debian:latest"),
            ("index.docker.io/debian:12", "docker.io/library/debian:12"),
            ("docker.io/library/debian:12", "docker.io/library/debian:12"),
            ("GHCR.io/owner/name_x/y--z:v1.0-A", "ghcr.io/owner/name_x/y--z:v1.0-A"),
            ("localhost:5000/a", "localhost:5000/a:latest"),
            ("10.0.0.1:5000/a:b", "10.0.0.1:5000/a:b"),
            ("[fd00::1]:5000/a:b", "[fd00::1]:5000/a:b"),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), full, "{text}");
            assert_eq!(full.parse(), Ok(reference));
            assert!(Reference::has_registry(text), "{text}");
        }
        let pinned: Reference = format!("a.b/c:d@{DIGEST}").parse().unwrap();
        assert_eq!((pinned.manifest().as_str(), pinned.digest().is_some()), (DIGEST, true));
        assert_eq!("docker.io/debian".parse::<Reference>().unwrap().api_host(), HUB_API);
        assert_eq!("docker.io/debian:12".parse::<Reference>().unwrap().short_name(), "debian-12");
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        let long = format!("a.b/{}", "x".repeat(256));
        for text in [
            "",
            "debian",
            "debian:12",
            "debian/12",
            "a.b",
            "a.b/",
            "/a",
            "a.b//c",
            "a.b/C",
            "a.b/../c",
            "a.b/c:",
            "a.b/c:-x",
            "a.b/c@sha256:00",
            "a.b/c@sha512:00",
            "a.b:0/c",
            "a.b:65536/c",
            "a.b:+1/c",
            "-a.b/c",
            "a..b/c",
            "[::1/c",
            "[1.2.3.4]/c",
            "u@a.b/c",
            "a.b/c d",
            "a.b/c/",
            "a.b/c___d",
            "a.b/c.-d",
            "https://a.b/c",
            &long,
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
        for name in ["ubuntu/24.04", "debian:12", "debian-12", "ubuntu:24.04/minimal", "busybox"] {
            assert!(!Reference::has_registry(name), "{name}");
        }
    }
}
