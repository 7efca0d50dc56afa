//! Netlink attributes: a length and a type of 16 bits each, the value, padding to 4 bytes.
//!
//! Reading trusts nothing: a length that does not fit ends the walk with an error.

use super::wire::{NLA_F_NESTED, NLA_TYPE_MASK};

/// Bytes of an attribute's header.
const HEADER_BYTES: usize = 4;
/// Attributes and messages begin at multiples of this many bytes.
const ALIGNMENT_BYTES: usize = 4;

/// Appends zeros up to the next multiple of 4 bytes.
pub(crate) fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT_BYTES), 0);
}

/// Writing of attributes at the end of a message. Integers of nf_tables are big endian.
pub(crate) trait PutAttribute {
    /// An attribute with this value.
    fn put(&mut self, kind: u16, value: &[u8]);
    /// An attribute whose value is the attributes that `content` writes.
    fn nest(&mut self, kind: u16, content: impl FnOnce(&mut Self));
    /// A big-endian integer.
    fn put_u32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }
    /// A text, ended by NUL.
    fn put_text(&mut self, kind: u16, text: &str) {
        let mut value = Vec::with_capacity(text.len() + 1);
        value.extend_from_slice(text.as_bytes());
        value.push(0);
        self.put(kind, &value);
    }
}

impl PutAttribute for Vec<u8> {
    fn put(&mut self, kind: u16, value: &[u8]) {
        self.extend_from_slice(&length(HEADER_BYTES + value.len()).to_ne_bytes());
        self.extend_from_slice(&kind.to_ne_bytes());
        self.extend_from_slice(value);
        pad(self);
    }

    fn nest(&mut self, kind: u16, content: impl FnOnce(&mut Self)) {
        let start = self.len();
        self.extend_from_slice(&[0; 2]);
        self.extend_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        content(self);
        let total = length(self.len() - start);
        self[start..start + 2].copy_from_slice(&total.to_ne_bytes());
    }
}

fn length(bytes: usize) -> u16 {
    // The longest attribute is a rule's expressions or the elements of one port list: a few KiB.
    u16::try_from(bytes).expect("an attribute's length is bounded by the lists of one rule")
}

/// The bytes are not a row of attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed netlink attributes")]
pub(crate) struct MalformedAttributes;

/// The attributes of a message, one after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Attributes<'a> {
    /// Each attribute's type and value.
    pub(crate) fn iter(self) -> impl Iterator<Item = Result<(u16, &'a [u8]), MalformedAttributes>> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let Some((kind, value, after)) = split(rest) else {
                rest = &[];
                return Some(Err(MalformedAttributes));
            };
            rest = after;
            Some(Ok((kind, value)))
        })
    }

    /// The value of the first attribute of this type.
    pub(crate) fn find(self, kind: u16) -> Option<&'a [u8]> {
        self.iter().map_while(Result::ok).find(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    /// The attributes within the first attribute of this type.
    pub(crate) fn nested(self, kind: u16) -> Option<Attributes<'a>> {
        self.find(kind).map(Attributes)
    }

    /// A text; `None` where it is absent or not UTF-8.
    pub(crate) fn text(self, kind: u16) -> Option<&'a str> {
        let value = self.find(kind)?;
        std::str::from_utf8(value.split(|byte| *byte == 0).next()?).ok()
    }

    /// A big-endian integer of 32 bits.
    pub(crate) fn u32(self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.find(kind)?.try_into().ok()?))
    }

    /// A big-endian integer of 64 bits.
    pub(crate) fn u64(self, kind: u16) -> Option<u64> {
        Some(u64::from_be_bytes(self.find(kind)?.try_into().ok()?))
    }
}

fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
    let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & NLA_TYPE_MASK;
    let value = bytes.get(HEADER_BYTES..length)?;
    let after = bytes.get(length.next_multiple_of(ALIGNMENT_BYTES)..).unwrap_or_default();
    Some((kind, value, after))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let mut bytes = Vec::new();
        bytes.put_text(1, "chain");
        bytes.nest(2, |inner| {
            inner.put_u32(7, 80);
            inner.put(8, &9_u64.to_be_bytes());
        });
        let read = Attributes(&bytes);
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(read.text(1), Some("chain"));
        let inner = read.nested(2).unwrap();
        assert_eq!((inner.u32(7), inner.u64(8), inner.u32(8)), (Some(80), Some(9), None));
    }

    #[test]
    fn a_length_beyond_the_end_is_an_error_and_ends_the_walk() {
        for bytes in [&[9, 0, 1, 0, 5][..], &[3, 0, 1, 0], &[0, 0, 0, 0], &[1], &[4, 0, 1]] {
            let items: Vec<_> = Attributes(bytes).iter().collect();
            assert_eq!(items, [Err(MalformedAttributes)], "{bytes:?}");
            assert_eq!(Attributes(bytes).find(1), None);
        }
    }
}
