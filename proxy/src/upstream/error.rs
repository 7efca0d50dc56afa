//! Why there is no connection through an upstream.

use crate::control::Cause;
use hoody_protocol::address::NotPublic;
use std::{io, net::IpAddr};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The upstream failed a moment ago and is not tried yet.
    #[error("the upstream is failing")]
    Failing,
    /// Its name has no address.
    #[error("the upstream's name has no address")]
    Unresolvable(#[source] io::Error),
    /// All its addresses are such that may not be dialled; the last one.
    #[error("the upstream's address {address} is refused: it is {why}")]
    RefusedAddress {
        /// The address.
        address: IpAddr,
        /// What it is.
        why: NotPublic,
    },
    /// It cannot be connected to.
    #[error("the upstream cannot be connected to")]
    Unreachable(#[source] io::Error),
    /// It takes too long.
    #[error("the upstream did not answer in time")]
    TimedOut,
    /// TLS failed.
    #[error("TLS with the upstream failed")]
    Tls(#[source] io::Error),
    /// It wants other credentials.
    #[error("the upstream does not accept the credentials")]
    AuthFailed,
    /// It did not keep to its protocol.
    #[error("the upstream does not speak its protocol: {0}")]
    Protocol(&'static str),
    /// It works, and did not connect to the destination.
    #[error("the upstream did not connect to the destination ({0})")]
    Destination(u16),
    /// It works, and did not say in time whether it connected to the destination.
    #[error("the upstream did not connect to the destination in time")]
    DestinationTimedOut,
    /// It works, and hung up instead of connecting to the destination.
    #[error("the upstream ended the connection instead of connecting to the destination")]
    DestinationEnded(#[source] io::Error),
    /// It works, and has its UDP relay where nothing may be sent.
    #[error("the upstream's UDP relay {address} is refused: it is {why}")]
    RefusedRelay {
        /// The relay.
        address: IpAddr,
        /// What it is.
        why: NotPublic,
    },
    /// It closed the connection instead of answering.
    #[error("the upstream ended the connection")]
    Ended(#[source] io::Error),
}

impl DialError {
    /// What is wrong with the upstream itself; `None` where nothing is.
    pub(crate) fn cause(&self) -> Option<Cause> {
        Some(match self {
            Self::Failing
            | Self::Destination(_)
            | Self::DestinationTimedOut
            | Self::DestinationEnded(_)
            | Self::RefusedRelay { .. } => return None,
            Self::Unresolvable(_) => Cause::Unresolvable,
            Self::RefusedAddress { .. } => Cause::RefusedAddress,
            Self::Unreachable(_) => Cause::Unreachable,
            Self::TimedOut => Cause::TimedOut,
            Self::Tls(_) => Cause::CertificateInvalid,
            Self::AuthFailed => Cause::AuthFailed,
            Self::Protocol(_) | Self::Ended(_) => Cause::Protocol,
        })
    }

    /// With its cause, for people; there are no credentials in it.
    pub(crate) fn explanation(&self) -> String {
        match std::error::Error::source(self) {
            Some(source) => format!("{self}: {source}"),
            None => self.to_string(),
        }
    }
}
