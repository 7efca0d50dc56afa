//! Application close codes of connections. A code is never used again for another meaning.

use quinn::{Connection, ConnectionError, Endpoint, VarInt};
use std::time::Duration;

/// The longest time over which nodes spread their dials, whatever the control plane says.
const LONGEST_SPREAD: Duration = Duration::from_secs(60);

/// Why a side closed a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// The connection has done its work.
    Done,
    /// The control plane goes down in order: it or a replica will answer, see [`Close::spread`].
    Restarting,
    /// A newer link of the same node took over.
    Replaced,
    /// The node was revoked or disabled: the next hello will say so.
    Revoked,
    /// The node's certificate expired during the connection.
    Expired,
    /// The protocol of the connection needs a client certificate.
    CertificateRequired,
    /// The peer broke the protocol so that the connection cannot go on.
    Protocol,
    /// Too many connections, or a queue is full: try again later.
    Overloaded,
    /// The answer to the hello was a refusal.
    Refused,
}

impl Close {
    const ALL: [(Self, u32, &'static str); 9] = [
        (Self::Done, 0, "done"),
        (Self::Restarting, 1, "restarting"),
        (Self::Replaced, 2, "replaced by a newer link"),
        (Self::Revoked, 3, "revoked or disabled"),
        (Self::Expired, 4, "certificate expired"),
        (Self::CertificateRequired, 5, "client certificate required"),
        (Self::Protocol, 6, "protocol violation"),
        (Self::Overloaded, 7, "overloaded"),
        (Self::Refused, 8, "refused"),
    ];

    fn row(self) -> (Self, u32, &'static str) {
        // Every variant has its row, see the test.
        Self::ALL.into_iter().find(|(close, ..)| *close == self).unwrap_or(Self::ALL[0])
    }

    /// The code on the wire.
    pub fn code(self) -> VarInt {
        VarInt::from_u32(self.row().1)
    }

    /// Closes `connection` for this reason.
    pub fn close(self, connection: &Connection) {
        connection.close(self.code(), self.row().2.as_bytes());
    }

    /// Closes all connections of the control plane's `endpoint`, which goes down in order. Each node dials again after
    /// a random part of `spread`: more of them at once than there is time for would only wait, and ask again in step.
    pub fn restart(endpoint: &Endpoint, spread: Duration) {
        let reason = format!("{} {}", Self::Restarting.row().2, spread.as_millis());
        endpoint.close(Self::Restarting.code(), reason.as_bytes());
    }

    /// The time over which nodes are to spread their dials after [`Close::Restarting`]; zero where none was told.
    pub fn spread(error: &ConnectionError) -> Duration {
        let ConnectionError::ApplicationClosed(frame) = error else { return Duration::ZERO };
        let told = std::str::from_utf8(&frame.reason).ok().and_then(|reason| reason.strip_prefix("restarting "));
        told.and_then(|told| told.parse().ok()).map_or(Duration::ZERO, Duration::from_millis).min(LONGEST_SPREAD)
    }

    /// Why the peer closed the connection; `None` where it broke in another way, or the code is newer
    /// than this build.
    pub fn of(error: &ConnectionError) -> Option<Self> {
        let ConnectionError::ApplicationClosed(frame) = error else { return None };
        Self::ALL.into_iter().find(|(close, ..)| close.code() == frame.error_code).map(|(close, ..)| close)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_restart_has_a_spread_and_it_is_bounded() {
        let closed = |reason: &'static str| {
            Close::spread(&ConnectionError::ApplicationClosed(quinn::ApplicationClose {
                error_code: Close::Restarting.code(),
                reason: reason.into(),
            }))
        };
        assert_eq!(closed("restarting 40000"), Duration::from_secs(40));
        assert_eq!(closed("restarting 99999999999"), LONGEST_SPREAD);
        assert_eq!(closed("restarting -1"), Duration::ZERO);
        assert_eq!(closed("restarting"), Duration::ZERO);
        assert_eq!(Close::spread(&ConnectionError::TimedOut), Duration::ZERO);
    }

    #[test]
    fn codes_are_unique_and_every_variant_has_its_own() {
        for (index, (close, code, _)) in Close::ALL.into_iter().enumerate() {
            assert_eq!(close as usize, index, "rows stand in the order of the variants");
            assert_eq!(close.code(), VarInt::from_u32(code));
            assert_eq!(Close::ALL.into_iter().filter(|(_, other, _)| *other == code).count(), 1);
        }
        assert_eq!(Close::ALL.len(), Close::Refused as usize + 1);
    }
}
