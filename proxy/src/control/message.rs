//! The messages. The agent asks, the proxy answers each request in turn, and says on its own what changed and what it
//! needs.
//!
//! Fields may be added where they may be absent. New variants of [`Request`] need a new [`PROTOCOL`]: an agent sends
//! none that the proxy's [`Notice::Welcome`] does not cover, because the proxy is older than the agent after every
//! upgrade.

use super::{policy::Egress, status::Status};
use hoody_protocol::{
    bounded::{Bytes, Text},
    id::ContainerId,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::net::IpAddr;
use zeroize::Zeroizing;

/// The version of the protocol. 2: [`FromAgent::Query`].
pub const PROTOCOL: u16 = 2;
/// The oldest version of a proxy that the agent speaks to.
pub const OLDEST: u16 = 1;
/// The version from which on a proxy asks for names.
pub const QUERIES: u16 = 2;
/// Bytes of the largest message. Larger packets are cut off by the kernel and refused.
pub const MAX_MESSAGE_BYTES: usize = 16 << 10;
/// Descriptors that one message carries at most.
pub const MAX_DESCRIPTORS: usize = 2;
/// Bytes of a query.
pub const MAX_QUERY_BYTES: usize = 512;
/// Bytes of an answer to it. Longer ones count as none.
pub const MAX_ANSWER_BYTES: usize = 8 << 10;
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
    /// Ask for this in the container's place, through its upstream; answered with the same number, in any order. What
    /// is answered the container is told too, where it asks the same. From [`PROTOCOL`] 2 on.
    Query {
        /// The agent's number for it, rising.
        number: u64,
        /// The container.
        container: ContainerId,
        /// The server that is asked where the container's policy names none.
        server: IpAddr,
        /// The query (RFC 1035).
        query: Bytes<MAX_QUERY_BYTES>,
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
    /// Belongs to a query.
    Queried {
        /// The query's number.
        number: u64,
        /// The answer; none where no server gave one.
        answer: Option<Bytes<MAX_ANSWER_BYTES>>,
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
