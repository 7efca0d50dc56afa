use super::*;

/// Byte of a zstd frame's header that says how large a window decoders need (RFC 8878, 3.1.1.1.2).
const WINDOW_DESCRIPTOR: usize = 5;

fn header(name: &str, kind: tar::EntryType, size: u64) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn member(name: &str, content: &[u8]) -> Vec<u8> {
    let mut bytes = header(name, tar::EntryType::Regular, content.len() as u64);
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn extended(records: &str, rest: Vec<u8>) -> Vec<u8> {
    let mut bytes = header("PaxHeaders", tar::EntryType::XHeader, records.len() as u64);
    bytes.extend_from_slice(records.as_bytes());
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    [bytes, rest].concat()
}

/// Ends what is before with a manifest.
fn end(mut before: Vec<u8>, version: u32, extra_bytes: u64) -> Vec<u8> {
    let (bytes, digest) = (before.len() as u64 + extra_bytes, Digest::of(&before));
    let manifest = Manifest { version, bytes, digest, entries: 1, left_out: 0 };
    before.extend(member(MANIFEST, &serde_json::to_vec(&manifest).unwrap()));
    before.extend([0; 1024]);
    before
}

fn look(tar: &[u8]) -> Result<Inspected, Problem> {
    whole(&zstd::encode_all(tar, 1).unwrap())
}

fn whole(archive: &[u8]) -> Result<Inspected, Problem> {
    inspect(archive, u64::MAX, &AtomicBool::new(false))
}

/// Zeros without an end, behind these bytes; sets the flag with the second piece. It cannot be read for long.
struct Bomb<'a> {
    frames: [Vec<u8>; 2],
    pieces: usize,
    stopped: &'a AtomicBool,
}

impl<'a> Bomb<'a> {
    fn new(start: &[u8], stopped: &'a AtomicBool) -> Self {
        let frames = [start.to_vec(), vec![0; 8 << 20]].map(|bytes| zstd::encode_all(&bytes[..], 1).unwrap());
        Self { frames, pieces: 0, stopped }
    }
}

impl Read for Bomb<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let frame = &self.frames[self.pieces.min(1)];
        assert!(self.pieces < 20, "it is read on and on");
        self.pieces += 1;
        self.stopped.store(self.pieces > 2, Ordering::Relaxed);
        buffer[..frame.len()].copy_from_slice(frame);
        Ok(frame.len())
    }
}

fn document() -> Vec<u8> {
    member(DOCUMENT, b"{}")
}

#[test]
fn a_whole_archive_is_taken_and_measured() {
    let root = header("rootfs/", tar::EntryType::Directory, 0);
    let tar = end([document(), root, member("rootfs/a", &[7; 700])].concat(), VERSION, 0);
    let found = look(&tar).unwrap();
    assert_eq!((found.document, found.bytes, found.file_bytes), (b"{}".to_vec(), tar.len() as u64, 700));
    let long = extended("30 path=rootfs/a/long/name/xx\n", member("x", b"y"));
    assert!(look(&end([document(), long].concat(), VERSION, 0)).is_ok());
}

#[test]
fn every_cut_and_every_flipped_bit_is_noticed() {
    let tar = end([document(), member("rootfs/a", &[7; 3000])].concat(), VERSION, 0);
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.include_checksum(true).unwrap();
    io::copy(&mut &tar[..], &mut encoder).unwrap();
    let archive = encoder.finish().unwrap();
    assert!(whole(&archive).is_ok());
    for length in 0..archive.len() {
        let refused = whole(&archive[..length]).unwrap_err();
        assert!(matches!(refused, Problem::Truncated | Problem::Damaged(_)), "{length}: {refused}");
    }
    for at in 0..archive.len() {
        let mut damaged = archive.clone();
        damaged[at] ^= 1;
        // The window's size may be another one: the content is the same then, which the manifest says.
        assert!(at == WINDOW_DESCRIPTOR || whole(&damaged).is_err(), "byte {at}");
    }
    for length in (0..tar.len() - 512).step_by(512) {
        assert!(look(&tar[..length]).is_err(), "{length} bytes of the tar");
    }
}

#[test]
fn a_manifest_must_tell_the_truth() {
    let before = || [document(), member("rootfs/a", b"one")].concat();
    assert!(matches!(look(&end(before(), VERSION, 1)), Err(Problem::Digest)));
    assert!(matches!(look(&end(before(), VERSION + 1, 0)), Err(Problem::Version(2))));
    let mut other = end(before(), VERSION, 0);
    let at = other.windows(3).position(|three| three == b"one").unwrap();
    other[at] = b'O';
    assert!(matches!(look(&other), Err(Problem::Digest)));
    let mut more = end(before(), VERSION, 0);
    more.extend(member("rootfs/b", b""));
    assert!(matches!(look(&more), Err(Problem::Damaged(_))));
    let mut none = before();
    none.extend([0; 1024]);
    assert!(matches!(look(&none), Err(Problem::Damaged(_))));
}

#[test]
fn what_no_export_holds_is_refused() {
    let refused =
        |members: Vec<Vec<u8>>| look(&end([vec![document()], members].concat().concat(), VERSION, 0)).unwrap_err();
    let hostile = |members: Vec<Vec<u8>>| matches!(refused(members), Problem::Hostile(_));
    assert!(hostile(vec![member("etc/passwd", b"")]));
    assert!(hostile(vec![member("rootfs/../etc/passwd", b"")]));
    assert!(hostile(vec![member("/rootfs/a", b"")]));
    assert!(hostile(vec![extended("30 path=rootfs/../../../etc/x\n", member("rootfs/a", b""))]));
    assert!(hostile(vec![
        extended("29 path=rootfs/a/long/name/x\n", member("rootfs/a", b"")),
        extended("10 size=1\n", member("rootfs/a", b"x"))
    ]));
    assert!(hostile(vec![extended("13 uid=70000\n", member("rootfs/a", b""))]));
    let mut foreign = tar::Header::new_ustar();
    foreign.as_old_mut().name[..8].copy_from_slice(b"rootfs/a");
    for (owner, group) in [(65_536, 0), (0, 65_536)] {
        foreign.set_mode(0o4755);
        foreign.set_uid(owner);
        foreign.set_gid(group);
        foreign.set_mtime(0);
        foreign.set_size(0);
        foreign.set_cksum();
        assert!(hostile(vec![foreign.as_bytes().to_vec()]), "{owner}:{group}");
    }
    assert!(hostile(vec![header("x", tar::EntryType::XHeader, 1 << 40)]));
    assert!(matches!(refused(vec![header("rootfs/a", tar::EntryType::Regular, 1 << 50)]), Problem::TooLarge(_)));
    assert!(matches!(refused(vec![header("rootfs/a", tar::EntryType::Regular, u64::MAX)]), Problem::TooLarge(_)));
    assert!(matches!(look(&end(member("rootfs/a", b""), VERSION, 0)), Err(Problem::Damaged(_))), "no document");
    assert!(look(b"not a tar at all").is_err());
    assert!(matches!(whole(b"not compressed"), Err(Problem::Damaged(_))));
}

#[test]
fn more_than_the_disk_is_refused_as_soon_as_it_is_known() {
    let running = AtomicBool::new(false);
    let most = 4 << 20;
    let fits = end([document(), member("rootfs/a", &[7; 700])].concat(), VERSION, 0);
    assert_eq!(inspect(&zstd::encode_all(&fits[..], 1).unwrap()[..], 700, &running).unwrap().file_bytes, 700);
    // Nothing of the file that is too many is there to be read.
    let files = [member("rootfs/a", &[7; 700]), header("rootfs/b", tar::EntryType::Regular, most - 699)].concat();
    let archive = zstd::encode_all(&[document(), files].concat()[..], 1).unwrap();
    assert!(matches!(inspect(&archive[..], most, &running), Err(Problem::Disk(_))));
    // Nor can extension headers take the place of files.
    let comment = extended(&format!("{} comment={}\n", 1_000_000, "x".repeat(1_000_000 - 17)), Vec::new());
    let archive = zstd::encode_all(&[document(), comment.repeat(12)].concat()[..], 1).unwrap();
    assert!(matches!(inspect(&archive[..], most, &running), Err(Problem::TooLarge(_))));
}

#[test]
fn what_nobody_waits_for_is_not_read_to_its_end() {
    let stopped = AtomicBool::new(false);
    let start = [document(), header("rootfs/a", tar::EntryType::Regular, 200 << 30)].concat();
    let found = inspect(Bomb::new(&start, &stopped), u64::MAX, &stopped);
    assert!(matches!(found, Err(Problem::Stopped)), "{found:?}");
    // Its document is still there to be read.
    stopped.store(false, Ordering::Relaxed);
    assert_eq!(super::document(Bomb::new(&start, &stopped), &stopped).unwrap(), b"{}");
}
