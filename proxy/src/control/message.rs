//! The messages. The agent asks, the proxy answers each request in turn, and says on its own what changed and what it
//! needs.
//!
//! Fields may be added where they may be absent. New variants of [`Request`] need a new [`PROTOCOL`]: an agent sends
//! none that the proxy's [`Notice::Welcome`] does not cover, because the proxy is older than the agent after every
//! upgrade.

use super::{policy::Egress, status::Status};
use hoody_protocol::{bounded::Text, id::ContainerId};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

/// The version of the protocol.
pub const PROTOCOL: u16 = 1;
/// Bytes of the largest message. Larger packets are cut off by the kernel and refused.
pub const MAX_MESSAGE_BYTES: usize = 16 << 10;
/// Descriptors that one message carries at most.
pub const MAX_DESCRIPTORS: usize = 2;
/// Bytes of a refusal's reason.
pub const REASON_BYTES: usize = 240;

/// What the agent sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromAgent {
    /// Do something; answered with the same number.
    Request {
        /// The agent's number for it, rising.
        number: u64,
        /// What.
        request: Request,
    },
    /// The socket that [`Notice::ReplySocketWanted`] asked for, as the packet's descriptor; without one where it
    /// could not be opened.
    ReplySocket {
        /// Its port.
        port: u16,
    },
}

/// What the agent asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Make this so. Two descriptors with it are the listeners (TCP, then UDP); without any, those from before stay.
    Set(Box<Egress>),
    /// Close the container's listeners and connections. Done also where there is none.
    Remove(ContainerId),
    /// Tell of every container.
    List,
}

/// What the proxy sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromProxy {
    /// Belongs to a request.
    Answer {
        /// The request's number.
        number: u64,
        /// What.
        answer: Answer,
    },
    /// On its own.
    Notice(Notice),
}

/// An answer, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// One container of the list; more follow until `Done`.
    Listed(Box<Status>),
    /// The request is carried out.
    Done,
    /// It is not, and nothing changed.
    Refused(Text<REASON_BYTES>),
}

/// What the proxy says on its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// The first message of a connection.
    Welcome {
        /// The proxy's [`PROTOCOL`].
        protocol: u16,
        /// Version of the program.
        version: Text<64>,
    },
    /// A container's health changed.
    Changed(Box<Status>),
    /// Answers from this port need a socket that only the agent can open.
    ReplySocketWanted {
        /// The port.
        port: u16,
    },
}

/// The bytes are not a message of this kind.
#[derive(Debug, thiserror::Error)]
#[error("malformed message: {0}")]
pub struct Malformed(String);

/// Encodes a message; it may hold credentials, so the bytes are wiped when they are dropped.
pub fn encode<M: Serialize>(message: &M) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(minicbor_serde::to_vec(message).expect("plain data always encodes"))
}

/// Decodes a whole packet.
pub fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Result<M, Malformed> {
    let mut decoder = minicbor_serde::Deserializer::new(bytes);
    let message = M::deserialize(&mut decoder).map_err(|error| Malformed(error.to_string()))?;
    match decoder.decoder().position() {
        end if end == bytes.len() => Ok(message),
        end => Err(Malformed(format!("{} bytes after the message", bytes.len() - end))),
    }
}
