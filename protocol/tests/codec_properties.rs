//! What must hold for every message and for any bytes: a round trip changes nothing; hostile bytes are
//! refused without a panic, and cost no more memory than their own length allows.

#![allow(clippy::unwrap_used, reason = "a panic is the message of a test")]

use hoody_protocol::{
    blob::BlobRequest,
    bounded::Text,
    codec::{self, Frame, HEADER_BYTES, Header},
    container::{Cause, State, StatusReport},
    id::ContainerId,
    image::Digest,
    link::{InventoryEntry, Report, ReportBatch, ReportEntry},
    tag::{self, Message},
    version::SpecVersion,
};
use proptest::{collection::vec, option, prelude::*};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

/// Counts the bytes that the current thread holds, and the most it held.
struct Counting;

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed on unchanged to the system's allocator; counting touches only cells of the
// thread, which need no allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.get().wrapping_add(layout.size());
        LIVE.set(live);
        PEAK.set(PEAK.get().max(live));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.set(LIVE.get().saturating_sub(layout.size()));
        // SAFETY: the pointer came from `alloc` above, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that a decoded message may take for each byte of its body: an empty text is one byte on the wire
/// and three words in memory, and a growing list is copied once.
const AMPLIFICATION: usize = 256;
/// Bytes that errors and the like may take besides.
const ALLOWANCE: usize = 64 << 10;

/// The most memory that `act` held at once beyond what was there before.
fn peak(act: impl FnOnce()) -> usize {
    let before = LIVE.get();
    PEAK.set(before);
    act();
    PEAK.get().saturating_sub(before)
}

fn decode_is_safe(tag: u16, body: Vec<u8>) {
    let length = body.len();
    let frame = Frame { tag, body };
    let taken = peak(|| {
        let _ = tag::reencode(&frame);
    });
    assert!(taken <= length * AMPLIFICATION + ALLOWANCE, "{taken} bytes for {length} of tag {tag}");
}

fn known_tag() -> impl Strategy<Value = u16> {
    (0..tag::ALL.len()).prop_map(|index| tag::ALL[index].0)
}

/// CBOR that announces more than it has: maps, lists, texts and bytes of absurd length, nested.
fn hostile_cbor() -> impl Strategy<Value = Vec<u8>> {
    let head = prop_oneof![
        Just(vec![0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        Just(vec![0x9a, 0x7f, 0xff, 0xff, 0xff]),
        Just(vec![0xbb, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]),
        Just(vec![0x7a, 0x40, 0, 0, 0]),
        Just(vec![0x5b, 0, 0, 1, 0, 0, 0, 0, 0]),
        Just(vec![0x9f]),
        Just(vec![0xbf]),
        Just(vec![0xd9, 0xd9, 0xf7]),
        Just(b"\x67entries".to_vec()),
        Just(b"\x69inventory".to_vec()),
        Just(b"\x65image".to_vec()),
        Just(b"\x63csr".to_vec()),
        any::<u8>().prop_map(|byte| vec![byte]),
    ];
    vec(head, 0..200).prop_map(|pieces| pieces.concat())
}

fn id() -> impl Strategy<Value = ContainerId> {
    any::<[u8; 12]>().prop_map(ContainerId::from_bytes)
}

fn version() -> impl Strategy<Value = SpecVersion> {
    any::<(u64, u64)>().prop_map(|(epoch, generation)| SpecVersion { epoch, generation })
}

fn state() -> impl Strategy<Value = State> {
    prop_oneof![
        Just(State::Creating),
        Just(State::Stopped),
        Just(State::Starting),
        Just(State::Running),
        Just(State::Paused),
        Just(State::Stopping),
        Just(State::Failed),
        Just(State::Deleting),
        Just(State::Deleted),
    ]
}

fn cause() -> impl Strategy<Value = Cause> {
    (".{0,80}", ".{0,600}").prop_map(|(code, message)| Cause::new(&code, message))
}

prop_compose! {
    fn report()(
        container in id(), version in version(), state in state(), converged in any::<bool>(),
        cause in option::of(cause()), exit_code in any::<Option<i32>>(), address in any::<Option<[u8; 4]>>(),
        started_at in any::<Option<u64>>(), firewall_error in option::of(cause()),
        limits_error in option::of(cause()), ssh_key_error in option::of(cause()), oom_kills in any::<u64>(), at in any::<u64>(),
    ) -> StatusReport {
        let address = address.map(Into::into);
        StatusReport {
            container, version, state, converged, cause, exit_code, address, started_at, firewall_error, limits_error,
            ssh_key_error, share_failures: Default::default(),
            oom_kills, egress: None, at,
        }
    }
}

fn round_trip<M: Message + PartialEq + std::fmt::Debug>(message: &M) {
    let bytes = codec::encode(message);
    let (frame, rest) = codec::split_frame(&bytes).unwrap().unwrap();
    assert!(rest.is_empty());
    assert_eq!(&frame.decode::<M>().unwrap(), message);
    assert_eq!(tag::reencode(&frame).unwrap(), bytes);
    for end in 0..bytes.len().min(64) {
        assert_eq!(codec::split_frame(&bytes[..end]), Ok(None), "a part is not taken for the whole");
    }
}

proptest! {
    #[test]
    fn reports_survive_a_round_trip(reports in vec((any::<u64>(), report()), 0..20)) {
        let entries: Vec<_> = reports
            .into_iter()
            .map(|(position, report)| ReportEntry { position, report: Report::Status(report) })
            .collect();
        round_trip(&ReportBatch { entries: entries.try_into().unwrap() });
    }

    #[test]
    fn blob_requests_survive_a_round_trip(digest in any::<[u8; 32]>(), offset in any::<u64>()) {
        round_trip(&BlobRequest { digest: Digest::from_bytes(digest), offset });
    }

    #[test]
    fn any_header_is_refused_or_within_its_limit(bytes in any::<[u8; HEADER_BYTES]>(), tag in known_tag()) {
        let mut known = bytes;
        known[4..].copy_from_slice(&tag.to_be_bytes());
        for header in [bytes, known] {
            if let Ok(header) = Header::parse(header) {
                assert!(header.length <= tag::max_bytes(header.tag).unwrap());
            }
        }
    }

    #[test]
    fn any_bytes_are_split_without_a_panic(bytes in vec(any::<u8>(), 0..400)) {
        if let Ok(Some((frame, _))) = codec::split_frame(&bytes) {
            decode_is_safe(frame.tag, frame.body);
        }
    }

    #[test]
    fn any_body_is_decoded_without_a_panic(tag in known_tag(), body in vec(any::<u8>(), 0..2000)) {
        decode_is_safe(tag, body);
    }

    #[test]
    fn announced_lengths_cost_nothing(tag in known_tag(), body in hostile_cbor()) {
        decode_is_safe(tag, body);
    }

    #[test]
    fn a_damaged_message_is_decoded_without_a_panic(
        report in report(), flips in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let entries = vec![ReportEntry { position: 1, report: Report::Status(report) }].try_into().unwrap();
        let mut body = codec::encode(&ReportBatch { entries }).split_off(HEADER_BYTES);
        for (index, byte) in flips {
            let at = index.index(body.len());
            body[at] = byte;
        }
        decode_is_safe(ReportBatch::TAG, body);
    }
}

#[test]
fn a_list_longer_than_its_type_allows_is_refused_before_it_is_held() {
    // 8,000 entries where at most 4,096 are allowed.
    let entry = InventoryEntry {
        container: ContainerId::from_bytes([1; 12]),
        version: SpecVersion::default(),
        state: State::Running,
        sequence: 0,
    };
    let one = minicbor_serde::to_vec(entry).unwrap();
    let mut body = b"\xa1\x69inventory\x9f".to_vec();
    for _ in 0..8000 {
        body.extend_from_slice(&one);
    }
    body.push(0xff);
    let frame = Frame { tag: hoody_protocol::link::Hello::TAG, body };
    let error = tag::reencode(&frame).unwrap_err().to_string();
    assert!(error.contains("4096"), "{error}");
    assert!(Text::<3>::try_from("four").is_err());
}

#[test]
fn nesting_does_not_exhaust_the_stack() {
    for tag in tag::ALL.iter().map(|(tag, _)| *tag) {
        for byte in [0x81, 0xa1, 0x9f, 0xbf, 0xc6] {
            // An unknown field's value, as deep as the body may be long.
            let mut body = b"\xa1\x67unknown".to_vec();
            body.resize(tag::max_bytes(tag).unwrap(), byte);
            decode_is_safe(tag, body);
        }
    }
}
