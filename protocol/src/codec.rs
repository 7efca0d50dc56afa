//! The frame codec: `length: u32 BE | tag: u16 BE | body: CBOR`, where the length counts the body
//! only. Pure: bytes in, values out.

use crate::tag::{self, Message};

/// Bytes before the body.
pub const HEADER_BYTES: usize = 6;

/// The largest body of any message, for readers that accept every tag.
pub const MAX_BODY_BYTES: usize = 4 << 20;

/// Why bytes are not the expected message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The tag is not in [`tag::ALL`].
    #[error("unknown message tag {0}")]
    UnknownTag(u16),
    /// The tag is known, but not expected here.
    #[error("message tag {got} where {expected} was expected")]
    UnexpectedTag {
        /// The tag received.
        got: u16,
        /// The name of the message expected.
        expected: &'static str,
    },
    /// The announced length is over the tag's limit.
    #[error("message tag {tag} announces {length} bytes, {max} are allowed")]
    TooLarge {
        /// The tag.
        tag: u16,
        /// Bytes announced.
        length: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The body is not a valid message.
    #[error("malformed {name}: {reason}")]
    Malformed {
        /// The message's name.
        name: &'static str,
        /// What the decoder says.
        reason: String,
    },
}

/// A frame's header, checked: the tag is known and the length within its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The message's tag.
    pub tag: u16,
    /// Bytes of the body.
    pub length: usize,
}

impl Header {
    /// Parses and checks a header.
    pub fn parse(bytes: [u8; HEADER_BYTES]) -> Result<Self, DecodeError> {
        let [l0, l1, l2, l3, t0, t1] = bytes;
        let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        let tag = u16::from_be_bytes([t0, t1]);
        let max = tag::max_bytes(tag).ok_or(DecodeError::UnknownTag(tag))?;
        if length > max {
            return Err(DecodeError::TooLarge { tag, length, max });
        }
        Ok(Self { tag, length })
    }
}

/// A whole frame as received: the tag and the undecoded body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The message's tag; known.
    pub tag: u16,
    /// The body's bytes.
    pub body: Vec<u8>,
}

impl Frame {
    /// True where the frame holds a message of type `M`.
    pub fn is<M: Message>(&self) -> bool {
        self.tag == M::TAG
    }

    /// Decodes the body as a message of type `M`.
    pub fn decode<M: Message>(&self) -> Result<M, DecodeError> {
        if !self.is::<M>() {
            return Err(DecodeError::UnexpectedTag { got: self.tag, expected: M::NAME });
        }
        let malformed = |reason: String| DecodeError::Malformed { name: M::NAME, reason };
        let mut decoder = minicbor_serde::Deserializer::new(&self.body);
        let message = M::deserialize(&mut decoder).map_err(|error| malformed(error.to_string()))?;
        match decoder.decoder().position() {
            end if end == self.body.len() => Ok(message),
            end => Err(malformed(format!("{} bytes after the message", self.body.len() - end))),
        }
    }
}

/// Encodes a message as a frame.
///
/// # Panics
/// Where the message is larger than its own limit: a defect of the caller, which must bound what it
/// puts in.
pub fn encode<M: Message>(message: &M) -> Vec<u8> {
    // The length is known when the body is there.
    let mut frame = vec![0; HEADER_BYTES];
    message.serialize(&mut minicbor_serde::Serializer::new(&mut frame)).expect("plain data always encodes");
    let length = frame.len() - HEADER_BYTES;
    assert!(length <= M::MAX_BYTES, "{} of {length} bytes is over its limit", M::NAME);
    let (announced, tag) = frame[..HEADER_BYTES].split_at_mut(size_of::<u32>());
    announced.copy_from_slice(&(length as u32).to_be_bytes());
    tag.copy_from_slice(&M::TAG.to_be_bytes());
    frame
}

/// Splits the first frame off `bytes`; `None` where it is not complete yet. For tests and fuzzing; on
/// a stream, see [`crate::stream`].
pub fn split_frame(bytes: &[u8]) -> Result<Option<(Frame, &[u8])>, DecodeError> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let header = Header::parse(*header)?;
    let Some((body, rest)) = rest.split_at_checked(header.length) else { return Ok(None) };
    Ok(Some((Frame { tag: header.tag, body: body.to_vec() }, rest)))
}
