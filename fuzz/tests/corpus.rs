//! The corpus through its decoders, as it is and changed at random. As root, because layers are unpacked.

#![allow(clippy::unwrap_used, reason = "a panic is the message of a test")]

use hoody_fuzz::TARGETS;
use hoody_protocol::{
    codec::Frame,
    tag::{self, reencode},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    collections::BTreeSet,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

/// Changed inputs for each decoder.
const CHANGED: usize = 3000;
/// Changes to one input.
const MOST_CHANGES: usize = 6;
/// What decoders look at: sizes, separators, lengths that CBOR announces.
const TELLING: [u8; 16] = [0, 1, 0x20, b'"', b'-', b'.', b'/', b'0', b'9', b'\n', 0x1b, 0x7f, 0x80, 0x9f, 0xbf, 0xff];

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn change(bytes: &mut Vec<u8>, other: &[u8], random: &mut StdRng) {
    let at = random.random_range(0..=bytes.len());
    let end = random.random_range(at..=bytes.len().min(at + 32));
    match random.random_range(0..6) {
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(at..end)),
        2 => bytes.insert(at, TELLING[random.random_range(0..TELLING.len())]),
        3 => {
            let from = random.random_range(0..=other.len());
            bytes.splice(at..end, other[from..other.len().min(from + 64)].iter().copied());
        }
        4 => bytes[at..end].fill(TELLING[random.random_range(0..TELLING.len())]),
        _ => bytes[at..end].iter_mut().take(1).for_each(|byte| *byte = random.random()),
    }
}

#[test]
fn the_corpus_and_what_is_near_it_breaks_no_decoder() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for (name, target) in TARGETS {
        let corpus = corpus(name);
        assert!(!corpus.is_empty(), "{name} has a corpus");
        for (path, bytes) in &corpus {
            let held = catch_unwind(AssertUnwindSafe(|| target(bytes))).is_ok();
            assert!(held, "{} breaks its decoder", path.display());
        }
        for _ in 0..CHANGED {
            let (_, bytes) = &corpus[random.random_range(0..corpus.len())];
            let (_, other) = &corpus[random.random_range(0..corpus.len())];
            let mut bytes = bytes.clone();
            for _ in 0..random.random_range(1..=MOST_CHANGES) {
                change(&mut bytes, other, &mut random);
            }
            let held = catch_unwind(AssertUnwindSafe(|| target(&bytes))).is_ok();
            assert!(held, "these bytes break {name} (seed {seed}): {:?}", String::from_utf8_lossy(&bytes));
        }
    }
}

/// A corpus that no decoder accepts would test nothing but refusals.
#[test]
fn every_message_has_an_input_that_decodes() {
    let mut decoded = BTreeSet::new();
    for (path, bytes) in corpus("message") {
        let (choice, body) = bytes.split_first().unwrap();
        let tag = u16::from(*choice);
        if reencode(&Frame { tag, body: body.to_vec() }).is_ok() {
            decoded.insert(tag);
        } else {
            println!("{} does not decode", path.display());
        }
    }
    assert_eq!(decoded, tag::ALL.iter().map(|(tag, _)| *tag).collect());
}

#[test]
fn every_folder_of_the_corpus_has_its_decoder() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let folders: BTreeSet<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(folders, TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect());
}
