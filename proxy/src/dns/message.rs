//! As much of DNS messages (RFC 1035, 6891) as it takes to pass them on: who asks for what, whether an answer belongs
//! to it, how much room the asker has. Names are compared, not understood.

use std::ops::Range;

/// Bytes of a message's head.
pub(super) const HEAD: usize = 12;
/// Bytes of the longest name.
const MAX_NAME: usize = 255;
/// Bytes of an answer over UDP where the asker does not say more.
const PLAIN_UDP: usize = 512;
/// Bytes of an answer over UDP at most: what passes nearly every path in one piece.
const MAX_UDP: usize = 4096;
/// Records of a query that are looked through for the one that tells the asker's room.
const MAX_RECORDS: usize = 8;
const TYPE_OPT: u16 = 41;
/// Bits of the head's third and fourth byte.
const QR: u8 = 0x80;
const TC: u8 = 0x02;
const RD: u8 = 0x01;
const OPCODE: u8 = 0x78;
const RCODE: u8 = 0x0f;
const SERVFAIL: u8 = 2;

/// A query with exactly one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    bytes: Vec<u8>,
    question: Range<usize>,
    /// Bytes of an answer that its asker takes over UDP.
    pub(crate) room: usize,
}

impl Query {
    /// Parses a query; `None` where it is none.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let head = bytes.first_chunk::<HEAD>()?;
        if head[2] & QR != 0 || count(head, 4) != 1 {
            return None;
        }
        let question = question(bytes)?;
        let room = room(bytes, question.end).unwrap_or(PLAIN_UDP).clamp(PLAIN_UDP, MAX_UDP);
        Some(Self { bytes: bytes.to_vec(), question, room })
    }

    /// The query as it is sent.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What is asked, whoever asks: name in lower case, type and class.
    pub(crate) fn asked(&self) -> Vec<u8> {
        self.bytes[self.question.clone()].to_ascii_lowercase()
    }

    /// An accepted answer with the question in the asker's own letters, which some compare.
    pub(crate) fn in_its_letters(&self, mut answer: Vec<u8>) -> Vec<u8> {
        if let Some(place) = answer.get_mut(self.question.clone()) {
            place.copy_from_slice(&self.bytes[self.question.clone()]);
        }
        answer
    }

    /// The query with another id.
    pub(crate) fn with_id(&self, id: u16) -> Vec<u8> {
        with_id(self.bytes.clone(), id)
    }

    /// The answer with the asker's id; `None` where it does not belong to this query.
    pub(crate) fn accept(&self, answer: Vec<u8>) -> Option<Vec<u8>> {
        let head = answer.first_chunk::<HEAD>()?;
        if head[2] & QR == 0 || (head[2] ^ self.bytes[2]) & OPCODE != 0 {
            return None;
        }
        let same = match count(head, 4) {
            // Servers that did not understand the query repeat nothing of it.
            0 => head[3] & RCODE != 0,
            1 => answer[question(&answer)?].eq_ignore_ascii_case(&self.bytes[self.question.clone()]),
            _ => false,
        };
        same.then(|| with_id(answer, u16::from_be_bytes([self.bytes[0], self.bytes[1]])))
    }

    /// The answer that there is none.
    pub(crate) fn failure(&self) -> Vec<u8> {
        self.head_only([QR | self.bytes[2] & (OPCODE | RD), SERVFAIL])
    }

    /// The answer as the asker takes it over UDP: where it has no room, only that it is to ask over TCP.
    pub(crate) fn for_udp(&self, answer: Vec<u8>) -> Vec<u8> {
        if answer.len() <= self.room { answer } else { self.head_only([answer[2] | TC, answer[3]]) }
    }

    fn head_only(&self, flags: [u8; 2]) -> Vec<u8> {
        let mut answer = self.bytes[..self.question.end].to_vec();
        answer[2..4].copy_from_slice(&flags);
        // One question and nothing else.
        answer[4..HEAD].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        answer
    }
}

/// The id of a message.
pub(crate) fn id(message: &[u8]) -> Option<u16> {
    message.first_chunk::<2>().map(|id| u16::from_be_bytes(*id))
}

fn with_id(mut message: Vec<u8>, id: u16) -> Vec<u8> {
    message[..2].copy_from_slice(&id.to_be_bytes());
    message
}

pub(super) fn count(head: &[u8; HEAD], at: usize) -> usize {
    usize::from(u16::from_be_bytes([head[at], head[at + 1]]))
}

/// Where the first question is: a name, type and class.
fn question(message: &[u8]) -> Option<Range<usize>> {
    let end = name_end(message, HEAD, false)? + 4;
    (end <= message.len()).then_some(HEAD..end)
}

/// The end of the name at `at`. A pointer, where allowed, ends a name.
pub(super) fn name_end(message: &[u8], mut at: usize, pointers: bool) -> Option<usize> {
    let begin = at;
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length @ 1..64 => at += 1 + usize::from(length),
            0xc0.. if pointers => return message.get(at + 1).map(|_| at + 2),
            _ => return None,
        }
        if at - begin > MAX_NAME {
            return None;
        }
    }
}

/// What the query's OPT record says, where it has one.
fn room(query: &[u8], mut at: usize) -> Option<usize> {
    let head = query.first_chunk::<HEAD>()?;
    let records = count(head, 6) + count(head, 8) + count(head, 10);
    for _ in 0..records.min(MAX_RECORDS) {
        at = name_end(query, at, true)?;
        let [kind_high, kind_low, size_high, size_low, _, _, _, _, length_high, length_low] =
            *query.get(at..)?.first_chunk::<10>()?;
        if u16::from_be_bytes([kind_high, kind_low]) == TYPE_OPT {
            return Some(usize::from(u16::from_be_bytes([size_high, size_low])));
        }
        at += 10 + usize::from(u16::from_be_bytes([length_high, length_low]));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ASKED: &[u8] = b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0\x07eXample\x03org\0\0\x01\0\x01";

    fn with_opt(size: u16) -> Vec<u8> {
        let mut query = ASKED.to_vec();
        query[11] = 1;
        query.extend_from_slice(&[0, 0, 41]);
        query.extend_from_slice(&size.to_be_bytes());
        query.extend_from_slice(&[0; 6]);
        query
    }

    fn answer(id: u16, name: &[u8], padding: usize) -> Vec<u8> {
        let mut answer = id.to_be_bytes().to_vec();
        answer.extend_from_slice(b"\x81\x80\0\x01\0\0\0\0\0\0");
        answer.extend_from_slice(name);
        answer.extend_from_slice(&vec![0; padding]);
        answer
    }

    #[test]
    fn the_room_is_what_the_query_says_within_bounds() {
        assert_eq!(Query::parse(ASKED).unwrap().room, 512);
        for (said, room) in [(1232, 1232), (100, 512), (65_535, MAX_UDP)] {
            assert_eq!(Query::parse(&with_opt(said)).unwrap().room, room);
        }
    }

    #[test]
    fn only_answers_to_the_question_are_accepted_and_get_the_askers_id() {
        let query = Query::parse(ASKED).unwrap();
        let accepted = query.accept(answer(7, b"\x07example\x03ORG\0\0\x01\0\x01", 0)).unwrap();
        assert_eq!(id(&accepted), Some(0x1234));
        assert!(query.accept(answer(7, b"\x07examplf\x03org\0\0\x01\0\x01", 0)).is_none(), "another name");
        assert!(query.accept(answer(7, b"\x07example\x03org\0\0\x1c\0\x01", 0)).is_none(), "another type");
        assert!(query.accept(ASKED.to_vec()).is_none(), "not an answer");
        assert!(query.accept(b"\0\x07\x81\x81\0\0\0\0\0\0\0\0".to_vec()).is_some(), "not understood");
        assert!(query.accept(b"\0\x07\x81\x80\0\0\0\0\0\0\0\0".to_vec()).is_none(), "nothing, as if it were an answer");
    }

    #[test]
    fn answers_without_room_become_truncated_ones() {
        let query = Query::parse(ASKED).unwrap();
        let name = &ASKED[HEAD..];
        let fits = answer(0x1234, name, 512 - HEAD - name.len());
        assert_eq!(query.for_udp(fits.clone()), fits);
        let cut = query.for_udp(answer(0x1234, name, 513 - HEAD - name.len()));
        assert_eq!(cut, b"\x12\x34\x83\x80\0\x01\0\0\0\0\0\0\x07eXample\x03org\0\0\x01\0\x01");
    }

    #[test]
    fn a_failure_repeats_the_question() {
        let failure = Query::parse(&with_opt(1232)).unwrap().failure();
        assert_eq!(failure, b"\x12\x34\x81\x02\0\x01\0\0\0\0\0\0\x07eXample\x03org\0\0\x01\0\x01");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_query_that_can_be_answered_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..600),
                                                              near in any::<bool>()) {
            let bytes = if near { [ASKED, &bytes].concat() } else { bytes };
            if let Some(query) = Query::parse(&bytes) {
                let failure = query.failure();
                prop_assert!(failure.len() <= bytes.len());
                prop_assert!(query.accept(failure.clone()).is_some());
                prop_assert!(query.for_udp(failure).len() <= query.room);
            }
            if let Some(query) = Query::parse(ASKED) {
                let _ = query.accept(bytes);
            }
        }
    }
}
