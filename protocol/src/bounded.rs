//! Collections whose length is checked while they are decoded, so that a peer cannot make us hold
//! more than the type allows.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{collections::BTreeMap, fmt, marker::PhantomData, ops::Deref};

/// The collection has more items, or the text more bytes, than its type allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("longer than {max}")]
pub struct TooLong {
    /// The limit that was passed.
    pub max: usize,
}

/// A list of at most `MAX` items.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct List<T, const MAX: usize>(Vec<T>);

/// A UTF-8 text of at most `MAX` bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
#[serde(transparent)]
pub struct Text<const MAX: usize>(String);

/// A map from text to text with at most `MAX` entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Map<K: Ord, V, const MAX: usize>(BTreeMap<K, V>);

/// Bytes (a CBOR byte string) of at most `MAX` bytes.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Bytes<const MAX: usize>(Vec<u8>);

impl<T, const MAX: usize> List<T, MAX> {
    /// Takes the items out.
    pub fn into_inner(self) -> Vec<T> {
        self.0
    }
}

impl<T, const MAX: usize> Default for List<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T, const MAX: usize> TryFrom<Vec<T>> for List<T, MAX> {
    type Error = TooLong;
    fn try_from(items: Vec<T>) -> Result<Self, TooLong> {
        if items.len() > MAX { Err(TooLong { max: MAX }) } else { Ok(Self(items)) }
    }
}

impl<T, const MAX: usize> Deref for List<T, MAX> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for List<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T, const MAX: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MAX: usize> de::Visitor<'de> for Visitor<T, MAX> {
            type Value = List<T, MAX>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MAX} items")
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    if items.len() == MAX {
                        return Err(de::Error::custom(TooLong { max: MAX }));
                    }
                    items.push(item);
                }
                Ok(List(items))
            }
        }
        deserializer.deserialize_seq(Visitor(PhantomData))
    }
}

impl<const MAX: usize> Text<MAX> {
    /// Keeps at most `MAX` bytes, cut at a character boundary: for messages, where the beginning is
    /// worth more than nothing.
    pub fn truncated(text: impl Into<String>) -> Self {
        let mut text = text.into();
        if text.len() > MAX {
            let mut end = MAX;
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
        }
        Self(text)
    }

    /// The beginning of a text that a stranger chose, for people to read: what would move a terminal's cursor
    /// or turn the direction of writing is replaced.
    pub fn printable(text: &str) -> Self {
        Self::truncated(
            text.chars().map(|c| if is_steering(c) { char::REPLACEMENT_CHARACTER } else { c }).collect::<String>(),
        )
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Control characters, line and paragraph separators, and marks that turn the direction (UAX #9).
fn is_steering(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

impl<const MAX: usize> TryFrom<String> for Text<MAX> {
    type Error = TooLong;
    fn try_from(text: String) -> Result<Self, TooLong> {
        if text.len() > MAX { Err(TooLong { max: MAX }) } else { Ok(Self(text)) }
    }
}

impl<const MAX: usize> TryFrom<&str> for Text<MAX> {
    type Error = TooLong;
    fn try_from(text: &str) -> Result<Self, TooLong> {
        Self::try_from(text.to_owned())
    }
}

impl<const MAX: usize> Deref for Text<MAX> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> fmt::Display for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Text<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<const MAX: usize>;
        impl<const MAX: usize> de::Visitor<'_> for Visitor<MAX> {
            type Value = Text<MAX>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a text of at most {MAX} bytes")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Text::try_from(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

impl<K: Ord, V, const MAX: usize> Map<K, V, MAX> {
    /// Takes the entries out.
    pub fn into_inner(self) -> BTreeMap<K, V> {
        self.0
    }
}

impl<K: Ord, V, const MAX: usize> Default for Map<K, V, MAX> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord, V, const MAX: usize> TryFrom<BTreeMap<K, V>> for Map<K, V, MAX> {
    type Error = TooLong;
    fn try_from(entries: BTreeMap<K, V>) -> Result<Self, TooLong> {
        if entries.len() > MAX { Err(TooLong { max: MAX }) } else { Ok(Self(entries)) }
    }
}

impl<K: Ord, V, const MAX: usize> Deref for Map<K, V, MAX> {
    type Target = BTreeMap<K, V>;
    fn deref(&self) -> &BTreeMap<K, V> {
        &self.0
    }
}

impl<'de, K: Ord + Deserialize<'de>, V: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Map<K, V, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<K, V, const MAX: usize>(PhantomData<(K, V)>);
        impl<'de, K: Ord + Deserialize<'de>, V: Deserialize<'de>, const MAX: usize> de::Visitor<'de> for Visitor<K, V, MAX> {
            type Value = Map<K, V, MAX>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a map of at most {MAX} entries")
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some((key, value)) = map.next_entry()? {
                    if entries.len() == MAX {
                        return Err(de::Error::custom(TooLong { max: MAX }));
                    }
                    entries.insert(key, value);
                }
                Ok(Map(entries))
            }
        }
        deserializer.deserialize_map(Visitor(PhantomData))
    }
}

impl<const MAX: usize> Bytes<MAX> {
    /// Takes the bytes out.
    pub fn into_inner(self) -> Vec<u8> {
        self.0
    }
}

impl<const MAX: usize> TryFrom<Vec<u8>> for Bytes<MAX> {
    type Error = TooLong;
    fn try_from(bytes: Vec<u8>) -> Result<Self, TooLong> {
        if bytes.len() > MAX { Err(TooLong { max: MAX }) } else { Ok(Self(bytes)) }
    }
}

impl<const MAX: usize> Deref for Bytes<MAX> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl<const MAX: usize> fmt::Debug for Bytes<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({} bytes)", self.0.len())
    }
}

impl<const MAX: usize> Serialize for Bytes<MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Bytes<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<const MAX: usize>;
        impl<const MAX: usize> de::Visitor<'_> for Visitor<MAX> {
            type Value = Bytes<MAX>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX} bytes")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                Bytes::try_from(bytes.to_vec()).map_err(E::custom)
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode<T: Serialize>(value: &T) -> Vec<u8> {
        minicbor_serde::to_vec(value).unwrap()
    }

    #[test]
    fn a_printable_text_steers_nothing() {
        let hostile = "a\u{1b}[2Jb\nc\u{202e}d\u{85}e\u{2067}";
        let text: Text<64> = Text::printable(hostile);
        assert_eq!(text.as_str().matches('\u{fffd}').count(), 5, "{text:?}");
        assert!(text.starts_with('a') && text.contains("[2Jb"));
        assert_eq!(Text::<4>::printable("äöüß").as_str(), "äö");
    }

    #[test]
    fn a_list_at_its_limit_passes_and_one_more_is_refused() {
        let decode = |items: &[u8]| minicbor_serde::from_slice::<List<u8, 3>>(&encode(&items)).is_ok();
        assert!(decode(&[1, 2, 3]));
        assert!(!decode(&[1, 2, 3, 4]));
    }

    #[test]
    fn text_bytes_and_maps_are_bounded() {
        assert!(minicbor_serde::from_slice::<Text<3>>(&encode(&"abc")).is_ok());
        assert!(minicbor_serde::from_slice::<Text<3>>(&encode(&"abcd")).is_err());
        let bytes = Bytes::<9>::try_from(vec![0; 9]).unwrap();
        assert!(minicbor_serde::from_slice::<Bytes<9>>(&encode(&bytes)).is_ok());
        assert!(minicbor_serde::from_slice::<Bytes<8>>(&encode(&bytes)).is_err());
        let map = BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 2)]);
        assert!(minicbor_serde::from_slice::<Map<String, u8, 2>>(&encode(&map)).is_ok());
        assert!(minicbor_serde::from_slice::<Map<String, u8, 1>>(&encode(&map)).is_err());
    }

    #[test]
    fn truncation_keeps_whole_characters() {
        assert_eq!(Text::<4>::truncated("aßßß").as_str(), "aß");
    }
}
