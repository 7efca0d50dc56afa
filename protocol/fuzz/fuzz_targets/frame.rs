//! Any bytes as a sequence of frames: no panic, and what decodes has one encoding.
//!
//! Run with `cargo +nightly fuzz run frame` in `protocol/`.

#![no_main]

use hoody_protocol::{codec, tag};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Ok(Some((frame, after))) = codec::split_frame(rest) {
        rest = after;
        let Ok(encoded) = tag::reencode(&frame) else { continue };
        let (again, left) = codec::split_frame(&encoded).expect("our own frame").expect("a whole frame");
        assert!(left.is_empty());
        assert_eq!(tag::reencode(&again).expect("our own message"), encoded);
    }
});
