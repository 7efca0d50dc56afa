//! Names of the catalogue, and what clients write instead of them.
//!
//! A name is `os/release[/variant…]`, for example `debian/12`. Clients also write `debian:12`,
//! `debian-12` and just `debian`: `:` and `-` count as `/`, and a name that is cut short means its
//! newest release.

use std::cmp::Ordering;

/// Characters of a catalogue name.
pub const MAX_NAME_CHARS: usize = 128;

/// True for 1 to [`MAX_NAME_CHARS`] characters of `a-z 0-9 . _ -` in segments separated by `/`, each of
/// which begins and ends with a letter or digit.
pub fn is_valid_name(name: &str) -> bool {
    name.len() <= MAX_NAME_CHARS
        && name.split('/').all(|segment| {
            let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
            let bytes = segment.as_bytes();
            edge(bytes.first())
                && edge(bytes.last())
                && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(b))
        })
}

/// The catalogue's name for what a client wrote; `None` where no name fits.
///
/// In this order: the name itself; the one name that is equal when `:` and `-` count as `/` and case does
/// not; of the names that continue it at a separator, the one with the fewest segments and then the
/// highest version.
pub fn resolve_name<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let names: Vec<&str> = names.into_iter().collect();
    if let Some(exact) = names.iter().find(|name| **name == wanted) {
        return Some(exact);
    }
    let wanted = segments(wanted)?;
    let candidates = names.into_iter().filter_map(|name| {
        let found = segments(name)?;
        found.starts_with(&wanted).then_some((name, found))
    });
    candidates.max_by(|(_, a), (_, b)| b.len().cmp(&a.len()).then_with(|| compare(a, b))).map(|(name, _)| name)
}

/// The lowercase segments between separators; `None` where one is empty or there are too many characters.
fn segments(name: &str) -> Option<Vec<String>> {
    if name.len() > MAX_NAME_CHARS {
        return None;
    }
    let segments: Vec<String> = name.split(['/', ':', '-']).map(str::to_ascii_lowercase).collect();
    segments.iter().all(|segment| !segment.is_empty()).then_some(segments)
}

/// Orders versions segment by segment: numbers by value and after words.
fn compare(a: &[String], b: &[String]) -> Ordering {
    let part = |text: &str| -> Vec<(Option<u64>, String)> {
        text.split('.').map(|part| (part.parse().ok(), part.to_owned())).collect()
    };
    for (a, b) in a.iter().zip(b) {
        match part(a).cmp(&part(b)) {
            Ordering::Equal => {}
            unequal => return unequal,
        }
    }
    a.len().cmp(&b.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 8] = [
        "busybox",
        "debian/9",
        "debian/11",
        "debian/12",
        "debian/13/slim",
        "debian/sid",
        "ubuntu/22.04",
        "ubuntu/24.04",
    ];

    fn resolve(wanted: &str) -> Option<&'static str> {
        resolve_name(wanted, NAMES)
    }

    #[test]
    fn every_separator_names_the_release() {
        for wanted in ["debian/12", "debian:12", "debian-12", "Debian/12"] {
            assert_eq!(resolve(wanted), Some("debian/12"), "{wanted}");
        }
        assert_eq!(resolve("ubuntu:22.04"), Some("ubuntu/22.04"));
        assert_eq!(resolve("debian-13-slim"), Some("debian/13/slim"));
    }

    #[test]
    fn a_bare_name_means_the_newest_release_by_number() {
        assert_eq!(resolve("debian"), Some("debian/12"));
        assert_eq!(resolve("ubuntu"), Some("ubuntu/24.04"));
        assert_eq!(resolve("busybox"), Some("busybox"));
        assert_eq!(resolve("debian/13"), Some("debian/13/slim"));
    }

    #[test]
    fn what_is_not_there_is_not_guessed() {
        for wanted in ["", "/", "deb", "debian/", "debian//12", "debian/1", "alpine", "ubuntu/22", "../debian"] {
            assert_eq!(resolve(wanted), None, "{wanted}");
        }
        assert_eq!(resolve(&"a".repeat(MAX_NAME_CHARS + 1)), None);
    }

    #[test]
    fn the_exact_name_wins_over_an_equivalent_one() {
        let names = ["a/b", "a-b"];
        assert_eq!(resolve_name("a-b", names), Some("a-b"));
        assert_eq!(resolve_name("a/b", names), Some("a/b"));
    }

    #[test]
    fn names_are_lowercase_segments() {
        for name in ["busybox", "debian/12", "ubuntu/24.04", "a/b-c/d_e"] {
            assert!(is_valid_name(name), "{name}");
        }
        let long = "a".repeat(MAX_NAME_CHARS + 1);
        for name in ["", "/", "a/", "/a", "a//b", "A", "..", "a/../b", "a b", "a\n", "-a", "ä", &long] {
            assert!(!is_valid_name(name), "{name:?}");
        }
    }
}
