//! What can go wrong here.

use hoody_protocol::id::ContainerId;
use std::{fmt, io, time::Duration};

/// What was asked of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// To make it, or let it stand.
    Add,
    /// To remove it.
    Delete,
    /// To remove what is in it.
    Flush,
    /// To tell about it.
    Read,
    /// To put a transaction in force.
    Commit,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Add => "add",
            Self::Delete => "delete",
            Self::Flush => "flush",
            Self::Read => "read",
            Self::Commit => "commit",
        })
    }
}

/// A thing in the kernel that a message is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// A table, or a transaction on it.
    Table(String),
    /// A chain.
    Chain(String),
    /// A rule.
    Rule {
        /// The chain that it is in.
        chain: String,
        /// Its comment, which holds the rule's id.
        comment: String,
    },
    /// A set or map.
    Set(String),
    /// An element of a set or map.
    Element {
        /// The set.
        set: String,
        /// The element's key in hexadecimal.
        key: String,
    },
    /// A named counter.
    Counter(String),
    /// A connection that the kernel tracks, or all of an address.
    Connection(String),
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(name) => write!(f, "table {name}"),
            Self::Chain(name) => write!(f, "chain {name}"),
            Self::Rule { chain, comment } => write!(f, "\"{comment}\" in chain {chain}"),
            Self::Set(name) => write!(f, "set {name}"),
            Self::Element { set, key } => write!(f, "element 0x{key} of {set}"),
            Self::Counter(name) => write!(f, "counter {name}"),
            Self::Connection(what) => write!(f, "connection {what}"),
        }
    }
}

/// Why a call failed. What was in force before the call still is, except where it says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// A socket operation failed.
    #[error("{action} netlink socket")]
    Socket {
        /// What was tried, for example "open".
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel refused; a refused transaction changes nothing.
    #[error("{operation} {object}{}", detail.as_deref().map(|text| format!(" ({text})")).unwrap_or_default())]
    Refused {
        /// What was asked.
        operation: Operation,
        /// About which object.
        object: Object,
        /// The kernel's remark, where it made one.
        detail: Option<String>,
        /// The kernel's error.
        source: io::Error,
    },
    /// The kernel did not answer in time; whether a change is in force is unknown until it is read.
    #[error("no answer about {object} within {limit:?}")]
    Timeout {
        /// What the question was about.
        object: Object,
        /// How long was waited.
        limit: Duration,
    },
    /// The kernel's answer has not the form that its interface promises.
    #[error("malformed answer about {object}")]
    Malformed {
        /// What the question was about.
        object: Object,
    },
    /// The tables changed faster than they could be read.
    #[error("{object} kept changing while it was read")]
    Unsettled {
        /// What was read.
        object: Object,
    },
    /// The base of the table is missing: `prepare` must run first.
    #[error("table {table} is not prepared")]
    Unprepared {
        /// The table.
        table: String,
    },
    /// The configuration cannot work.
    #[error("firewall configuration: {reason}")]
    Configuration {
        /// Why.
        reason: String,
    },
    /// The policy cannot be enforced on this node.
    #[error("policy of container {id}: {reason}")]
    Policy {
        /// The container.
        id: ContainerId,
        /// Why.
        reason: String,
    },
    /// The call's worker ended before its answer.
    #[error("firewall worker")]
    Worker {
        /// How it ended.
        source: tokio::task::JoinError,
    },
}

impl FirewallError {
    /// The kernel's error number, where it refused.
    pub(super) fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}
