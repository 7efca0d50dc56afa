//! Platforms in OCI terms.

use super::ImportError;
use std::{fmt, str::FromStr};

/// Characters of each part.
const MAX_PART_CHARS: usize = 32;

/// An operating system, a machine architecture and maybe its variant, for example `linux/arm64/v8`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// For example `amd64`.
    pub architecture: String,
    /// For example `v8`; `None` asks for any.
    pub variant: Option<String>,
}

impl Platform {
    /// This machine's.
    pub fn here() -> Self {
        Self {
            os: "linux".to_owned(),
            architecture: oci_architecture(std::env::consts::ARCH).to_owned(),
            variant: None,
        }
    }

    /// True where something of this description does for `wanted`: an absent part fits anything.
    pub(in crate::service::image) fn fits(&self, wanted: &Self) -> bool {
        let variants = [&self.variant, &wanted.variant].map(|v| v.as_deref().filter(|v| !v.is_empty()));
        self.os == wanted.os
            && self.architecture == wanted.architecture
            && !matches!(variants, [Some(has), Some(wants)] if has != wants)
    }
}

/// The OCI word for an architecture that may be named as the kernel or the Rust compiler names it.
pub fn oci_architecture(name: &str) -> &str {
    match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" | "i386" | "i686" => "386",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}

impl FromStr for Platform {
    type Err = ImportError;
    fn from_str(text: &str) -> Result<Self, ImportError> {
        let parts: Vec<&str> = text.split('/').collect();
        let valid = parts.iter().all(|part| {
            (1..=MAX_PART_CHARS).contains(&part.len())
                && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        });
        match (valid, parts.as_slice()) {
            (true, [os @ "linux", architecture]) => Ok(Self {
                os: (*os).to_owned(),
                architecture: oci_architecture(architecture).to_owned(),
                variant: None,
            }),
            (true, [os @ "linux", architecture, variant]) => Ok(Self {
                os: (*os).to_owned(),
                architecture: oci_architecture(architecture).to_owned(),
                variant: Some((*variant).to_owned()),
            }),
            _ => Err(ImportError::Platform(text.to_owned())),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_parse_and_print() {
        for text in ["linux/amd64", "linux/arm64/v8"] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), text);
        }
        assert_eq!("linux/x86_64".parse::<Platform>().unwrap().to_string(), "linux/amd64");
        for text in ["", "amd64", "windows/amd64", "linux/", "linux/amd64/v1/x", "linux/AMD64", "linux/../x"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_absent_variant_fits_any() {
        let parse = |text: &str| text.parse::<Platform>().unwrap();
        assert!(parse("linux/arm64/v8").fits(&parse("linux/arm64")));
        assert!(parse("linux/arm64").fits(&parse("linux/arm64/v8")));
        assert!(!parse("linux/arm/v6").fits(&parse("linux/arm/v7")));
        assert!(!parse("linux/amd64").fits(&parse("linux/arm64")));
    }
}
