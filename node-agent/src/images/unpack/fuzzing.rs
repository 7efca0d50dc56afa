//! Entry points for fuzzing: any bytes as an archive, read only or unpacked.

use super::{
    archive::Archive,
    layer::{self, Limits},
    path::EntryPath,
};
use nix::sched::{CloneFlags, unshare};
use std::{
    fs,
    io::Read,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

/// What one input may unpack to.
const LIMITS: Limits = Limits { entries: 64, bytes: 64 << 10, file_bytes: 64 << 10 };
const MAX_ID: u32 = 65_535;

/// Reads an archive to its end or to the first refusal.
pub fn archive(bytes: &[u8]) {
    let mut archive = Archive::new(bytes);
    while let Ok(Some(entry)) = archive.next_entry() {
        assert!(entry.owner <= MAX_ID && entry.group <= MAX_ID && entry.mode <= 0o7777);
        assert!((0..1_000_000_000).contains(&entry.modified.1));
        if let Ok(path) = EntryPath::parse(&entry.path) {
            assert!(path.below(Path::new("/root")).starts_with("/root"));
        }
        let mut data = Vec::new();
        match archive.by_ref().read_to_end(&mut data) {
            Ok(read) => assert_eq!(read as u64, entry.size),
            Err(_) => return,
        }
    }
}

/// A folder into which inputs are unpacked, by a thread for which it is `/`: links lead nowhere else.
#[derive(Debug)]
pub struct LayerRoot(Mutex<Thread>);

#[derive(Debug)]
struct Thread {
    inputs: SyncSender<Vec<u8>>,
    done: Receiver<bool>,
}

impl LayerRoot {
    /// `folder` is empty and stays the caller's to remove. Needs root.
    ///
    /// # Panics
    /// Where the thread cannot be confined.
    pub fn new(folder: &Path) -> Self {
        let (inputs, queue) = sync_channel::<Vec<u8>>(0);
        let (answer, done) = sync_channel(0);
        let folder = folder.to_owned();
        std::thread::spawn(move || {
            // Of this thread alone: its root, its folder, its umask.
            unshare(CloneFlags::CLONE_FS).expect("a root of the thread's own");
            nix::unistd::chroot(&folder).expect("change the root");
            nix::unistd::chdir("/").expect("enter the root");
            nix::sys::stat::umask(nix::sys::stat::Mode::empty());
            for input in queue {
                let held = std::panic::catch_unwind(|| apply(&input)).is_ok();
                if answer.send(held).is_err() {
                    return;
                }
            }
        });
        Self(Mutex::new(Thread { inputs, done }))
    }

    /// Unpacks the bytes and clears away what came of them.
    ///
    /// # Panics
    /// Where what must hold does not.
    pub fn apply(&self, bytes: &[u8]) {
        let thread = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        thread.inputs.send(bytes.to_vec()).expect("the thread lives");
        assert!(thread.done.recv().expect("the thread lives"), "unpacking went wrong");
    }
}

fn apply(bytes: &[u8]) {
    let root = Path::new("/");
    for form in [layer::Form::Layer, layer::Form::Container] {
        if let Ok(tally) = layer::apply(bytes, root, LIMITS, form) {
            assert!(tally.entries <= LIMITS.entries && tally.bytes <= LIMITS.bytes);
        }
        clear(root);
    }
}

/// Checks and removes everything below `folder`.
fn clear(folder: &Path) {
    for entry in fs::read_dir(folder).expect("a folder of ours") {
        let path = entry.expect("an entry").path();
        let found = fs::symlink_metadata(&path).expect("it is there");
        assert!(!found.file_type().is_char_device() && !found.file_type().is_block_device(), "a device");
        assert!(found.uid() <= MAX_ID && found.gid() <= MAX_ID, "an owner outside the range");
        assert!(!found.is_file() || found.len() <= LIMITS.bytes, "a file over the limit");
        if found.is_dir() {
            clear(&path);
            fs::remove_dir(&path).expect("an empty folder");
        } else {
            fs::remove_file(&path).expect("a file");
        }
    }
}

/// Puts right what random bytes never have: the checksum of each header, found as a reader finds them.
pub fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut at = 0_usize;
    while let Some(block) = at.checked_add(512).and_then(|end| bytes.get_mut(at..end)) {
        let mut header = tar::Header::new_old();
        header.as_mut_bytes().copy_from_slice(block);
        header.set_cksum();
        block.copy_from_slice(header.as_bytes());
        let size = header.entry_size().unwrap_or(0).min(bytes.len() as u64) as usize;
        at += 512 + size.next_multiple_of(512);
    }
    bytes
}
