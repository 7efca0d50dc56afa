//! The program for libFuzzer; `HOODY_FUZZ_TARGET` names the decoder. `scripts/fuzz.sh` runs it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("HOODY_FUZZ_TARGET").expect("HOODY_FUZZ_TARGET is set");
    hoody_fuzz::target(&name).expect("HOODY_FUZZ_TARGET is one of hoody_fuzz::TARGETS")
});

fuzz_target!(|bytes: &[u8]| TARGET(bytes));
