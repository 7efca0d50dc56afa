//! Asking for the IPv4 addresses of a name, and reading what is answered: what the agent does for rules that name hosts.

use super::message::{HEAD, Query, count, name_end};
use std::{net::Ipv4Addr, time::Duration};

/// Records of an answer that are read.
const MAX_RECORDS: usize = 512;
const TYPE_A: u16 = 1;
const CLASS_IN: u16 = 1;
const RCODE: u8 = 0x0f;
const NO_ERROR: u8 = 0;
const NO_SUCH_NAME: u8 = 3;
const TRUNCATED: u8 = 0x02;

/// What a name leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Addresses {
    /// These addresses; none where there is no such name, or none of them.
    Known {
        /// IPv4 addresses.
        addresses: Vec<Ipv4Addr>,
        /// How long the answer holds: the shortest time of its records, none where it has no records.
        ttl: Option<Duration>,
    },
    /// The answer did not fit: ask over TCP.
    Truncated,
}

impl Query {
    /// The query for a name's IPv4 addresses; `None` where it is no name. `name` has no dot at its end.
    pub fn for_addresses(name: &str, id: u16) -> Option<Self> {
        let mut bytes = id.to_be_bytes().to_vec();
        // Recursion desired, one question.
        bytes.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        for label in name.split('.') {
            if label.is_empty() {
                return None;
            }
            bytes.push(u8::try_from(label.len()).ok()?);
            bytes.extend_from_slice(label.as_bytes());
        }
        bytes.push(0);
        bytes.extend_from_slice(&TYPE_A.to_be_bytes());
        bytes.extend_from_slice(&CLASS_IN.to_be_bytes());
        Self::parse(&bytes)
    }

    /// Whether these bytes are an answer to this very query, its id included.
    pub fn is_answered_by(&self, answer: &[u8]) -> bool {
        answer.get(..2) == self.bytes().get(..2) && self.accept(answer.to_vec()).is_some()
    }

    /// What the answer says; `None` where it does not belong to the query, is a failure, or malformed. Every address
    /// record counts, whatever name it is for: aliases lead from one to the next, and the server that is asked is
    /// believed as a whole.
    pub fn addresses(&self, answer: &[u8]) -> Option<Addresses> {
        let answer = self.accept(answer.to_vec())?;
        let head = answer.first_chunk::<HEAD>()?;
        if !matches!(head[3] & RCODE, NO_ERROR | NO_SUCH_NAME) {
            return None;
        }
        if head[2] & TRUNCATED != 0 {
            return Some(Addresses::Truncated);
        }
        let mut at = name_end(&answer, HEAD, false)? + 4;
        let (mut addresses, mut ttl) = (Vec::new(), None::<u32>);
        for _ in 0..count(head, 6).min(MAX_RECORDS) {
            at = name_end(&answer, at, true)?;
            let [kind, kind_low, class, class_low, a, b, c, d, length, length_low] =
                *answer.get(at..)?.first_chunk()?;
            let record = at + 10;
            let length = usize::from(u16::from_be_bytes([length, length_low]));
            let data = answer.get(record..record + length)?;
            let seconds = u32::from_be_bytes([a, b, c, d]);
            ttl = Some(ttl.map_or(seconds, |shortest| shortest.min(seconds)));
            let of = (u16::from_be_bytes([kind, kind_low]), u16::from_be_bytes([class, class_low]));
            if let ((TYPE_A, CLASS_IN), Ok(octets)) = (of, <[u8; 4]>::try_from(data)) {
                addresses.push(Ipv4Addr::from(octets));
            }
            at = record + length;
        }
        // What sets the first bit is not a time (RFC 2181).
        let seconds = |ttl: u32| if ttl > i32::MAX as u32 { 0 } else { ttl };
        Some(Addresses::Known { addresses, ttl: ttl.map(|ttl| Duration::from_secs(seconds(ttl).into())) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn asked() -> Query {
        Query::for_addresses("api.example.com", 7).unwrap()
    }

    /// An answer with these records: type, seconds, data. Names are pointers to the question's.
    fn answer(flags: [u8; 2], records: &[(u16, u32, &[u8])]) -> Vec<u8> {
        let mut bytes = asked().bytes().to_vec();
        bytes[2..4].copy_from_slice(&flags);
        bytes[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
        for (kind, seconds, data) in records {
            bytes.extend_from_slice(&[0xc0, HEAD as u8]);
            bytes.extend_from_slice(&kind.to_be_bytes());
            bytes.extend_from_slice(&CLASS_IN.to_be_bytes());
            bytes.extend_from_slice(&seconds.to_be_bytes());
            bytes.extend_from_slice(&(data.len() as u16).to_be_bytes());
            bytes.extend_from_slice(data);
        }
        bytes
    }

    fn known(addresses: &[[u8; 4]], seconds: Option<u64>) -> Option<Addresses> {
        let addresses = addresses.iter().copied().map(Ipv4Addr::from).collect();
        Some(Addresses::Known { addresses, ttl: seconds.map(Duration::from_secs) })
    }

    #[test]
    fn addresses_and_the_shortest_time_are_read() {
        let records: [(u16, u32, &[u8]); 4] =
            [(5, 20, b"\x01x\xc0\x0c"), (1, 60, &[192, 0, 2, 1]), (28, 90, &[0; 16]), (1, 30, &[192, 0, 2, 2])];
        assert_eq!(
            asked().addresses(&answer([0x81, 0x80], &records)),
            known(&[[192, 0, 2, 1], [192, 0, 2, 2]], Some(20))
        );
        let odd = answer([0x81, 0x80], &[(1, 1 << 31, &[192, 0, 2, 1])]);
        assert_eq!(asked().addresses(&odd), known(&[[192, 0, 2, 1]], Some(0)));
    }

    #[test]
    fn no_such_name_is_an_answer_and_a_failure_is_none() {
        assert_eq!(asked().addresses(&answer([0x81, 0x83], &[])), known(&[], None));
        assert_eq!(asked().addresses(&answer([0x81, 0x80], &[])), known(&[], None));
        for code in [1, 2, 4, 5] {
            assert_eq!(asked().addresses(&answer([0x81, 0x80 | code], &[])), None, "code {code}");
        }
        assert_eq!(asked().addresses(&answer([0x83, 0x80], &[])), Some(Addresses::Truncated));
        let cut = answer([0x81, 0x80], &[(1, 9, &[192, 0, 2, 1])]);
        assert_eq!(asked().addresses(&cut[..cut.len() - 1]), None);
        assert!(Query::for_addresses("a..b", 1).is_none() && Query::for_addresses("", 1).is_none());
        let other = Query::for_addresses("other.example.com", 7).unwrap();
        assert_eq!(other.addresses(&cut), None, "the answer to another question");
    }

    proptest! {
        #[test]
        fn any_answer_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), near in any::<bool>()) {
            let bytes = if near { [answer([0x81, 0x80], &[]), bytes].concat() } else { bytes };
            let _ = asked().addresses(&bytes);
        }
    }
}
