//! The image store against the real kernel. Needs root, mkfs.btrfs, tar and busybox-static.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/archive.rs"]
#[allow(unreachable_pub, reason = "a module of this test binary")]
mod archive;
#[path = "images/collect.rs"]
mod collect;
#[path = "images/sharing.rs"]
mod sharing;
mod support;

use archive::{Archive, Meta, PLAIN};
use async_trait::async_trait;
use hoody_agent::images::{BlobError, BlobSource, ImageConfig, ImageError, ImageStore, Images, chain, unpack::Refusal};
use hoody_protocol::{
    bounded::List,
    image::{Compression, Digest, ImageSpec, Layer},
};
use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt, symlink},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::{Duration, Instant},
};
use support::{ScratchPool, run};
use tokio::io::{AsyncRead, ReadBuf};

/// Blobs in memory; how each is served can be spoiled.
#[derive(Debug, Default)]
struct Source {
    blobs: Mutex<HashMap<Digest, Vec<u8>>>,
    opened: Mutex<Vec<u64>>,
    fault: Mutex<Option<Fault>>,
    gate: Mutex<Option<tokio::sync::watch::Receiver<bool>>>,
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    /// Ends at this byte as if it were the end.
    EndAt(usize),
    /// Breaks at this byte.
    BreakAt(usize),
    /// Stands still at this byte.
    StallAt(usize),
    Unreachable,
}

#[async_trait]
impl BlobSource for Source {
    async fn open(&self, digest: Digest, offset: u64) -> Result<Box<dyn AsyncRead + Send + Unpin>, BlobError> {
        self.opened.lock().unwrap().push(offset);
        let gate = self.gate.lock().unwrap().clone();
        if let Some(mut gate) = gate {
            gate.wait_for(|open| *open).await.unwrap();
        }
        let data = self.blobs.lock().unwrap()[&digest].clone();
        let fault = *self.fault.lock().unwrap();
        if matches!(fault, Some(Fault::Unreachable)) {
            return Err(BlobError::Unreachable);
        }
        Ok(Box::new(Served { data, at: offset as usize, fault }))
    }
}

struct Served {
    data: Vec<u8>,
    at: usize,
    fault: Option<Fault>,
}

impl AsyncRead for Served {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let end = match self.fault {
            Some(Fault::EndAt(at) | Fault::BreakAt(at) | Fault::StallAt(at)) => at.min(self.data.len()),
            _ => self.data.len(),
        };
        let bytes = end.saturating_sub(self.at).min(buffer.remaining());
        if bytes == 0 {
            match self.fault {
                Some(Fault::BreakAt(_)) => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                // Nobody wakes the reader: its deadline has to.
                Some(Fault::StallAt(_)) => return Poll::Pending,
                _ => {}
            }
        }
        let at = self.at;
        buffer.put_slice(&self.data[at..at + bytes]);
        self.at += bytes;
        Poll::Ready(Ok(()))
    }
}

struct Fixture {
    scratch: ScratchPool,
    source: Arc<Source>,
    store: ImageStore,
}

impl Fixture {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut ImageConfig)) -> Self {
        let scratch = ScratchPool::new();
        let source = Arc::new(Source::default());
        let mut config = config(&scratch);
        change(&mut config);
        let store = ImageStore::open(config, source.clone()).await.unwrap();
        Self { scratch, source, store }
    }

    fn layer(&self, blob: Vec<u8>, compression: Compression) -> Layer {
        let layer = Layer { digest: Digest::of(&blob), size: blob.len() as u64, compression, archive_bytes: None };
        self.source.blobs.lock().unwrap().insert(layer.digest, blob);
        layer
    }

    fn image(&self, layers: impl IntoIterator<Item = Archive>) -> ImageSpec {
        image(layers.into_iter().map(|archive| self.layer(archive.end(), Compression::None)).collect())
    }

    async fn unpacked(&self, layers: impl IntoIterator<Item = Archive>) -> PathBuf {
        self.store.ensure(&self.image(layers)).await.unwrap()
    }

    async fn refused(&self, archive: Archive) -> Refusal {
        let error = self.store.ensure(&self.image([archive])).await.unwrap_err();
        self.nothing_left();
        match error.root() {
            ImageError::LayerRefused { refusal, .. } => *refusal,
            other => panic!("{other:?}"),
        }
    }

    /// No image, nothing staged.
    fn nothing_left(&self) {
        assert_eq!(entries(&self.scratch.pool().join("staging")), [""; 0]);
        assert_eq!(entries(&self.scratch.pool().join("images")), [""; 0]);
    }

    fn blobs(&self) -> Vec<String> {
        entries(&self.scratch.path("blobs"))
    }

    fn opened(&self) -> Vec<u64> {
        self.source.opened.lock().unwrap().clone()
    }

    fn fault(&self, fault: Option<Fault>) {
        *self.source.fault.lock().unwrap() = fault;
    }
}

fn config(scratch: &ScratchPool) -> ImageConfig {
    let unpacker = PathBuf::from(env!("CARGO_BIN_EXE_hoody-agent"));
    let mut config = ImageConfig::new(scratch.pool(), scratch.path("blobs"), unpacker);
    config.reserve_bytes = 64 << 20;
    config
}

fn image(layers: Vec<Layer>) -> ImageSpec {
    ImageSpec::new(List::try_from(layers).unwrap(), Default::default())
}

/// The name of the image's subvolume.
fn tree(image: &ImageSpec) -> String {
    chain::id(&image.layers).hex()
}

fn entries(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A v2 capability set: CAP_DAC_OVERRIDE and CAP_FOWNER, whose mask is a newline byte, effective.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[tokio::test(flavor = "multi_thread")]
async fn everything_a_layer_says_is_on_disk() {
    let f = Fixture::new().await;
    let layer = Archive::default()
        .entry(tar::EntryType::Directory, "./", "", Meta { mode: 0o750, modified: 77, ..PLAIN }, b"")
        .entry(tar::EntryType::Directory, "dir/", "", Meta { mode: 0o1777, owner: 5, group: 6, modified: 99 }, b"")
        .entry(
            tar::EntryType::Regular,
            "dir/suid",
            "",
            Meta { mode: 0o6755, owner: 65_535, group: 7, ..PLAIN },
            b"body",
        )
        .pax(&[
            ("SCHILY.xattr.security.capability", &CAPABILITY),
            ("SCHILY.xattr.user.note", b"a\nb"),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.security.selinux", b"label"),
            ("mtime", b"1234567890.5"),
        ])
        .file("caps", b"x")
        .pax(&[("path", "deep/ü/name".as_bytes()), ("uid", b"12")])
        .file("short", b"deep")
        .entry(tar::EntryType::Symlink, "link", "/dir/suid", Meta { owner: 8, group: 9, ..PLAIN }, b"")
        .hard_link("hard", "./dir/suid")
        .entry(tar::EntryType::Fifo, "fifo", "", Meta { mode: 0o600, owner: 3, ..PLAIN }, b"")
        .entry(tar::EntryType::Char, "null", "", PLAIN, b"")
        .entry(tar::EntryType::Block, "disk", "", PLAIN, b"");
    let root = f.unpacked([layer]).await;
    let at = |path: &str| fs::symlink_metadata(root.join(path)).unwrap();
    assert_eq!((at("").mode() & 0o7777, at("").mtime()), (0o750, 77));
    assert_eq!((at("dir").mode() & 0o7777, at("dir").uid(), at("dir").gid(), at("dir").mtime()), (0o1777, 5, 6, 99));
    let suid = at("dir/suid");
    assert_eq!((suid.mode() & 0o7777, suid.uid(), suid.gid(), suid.mtime()), (0o6755, 65_535, 7, 1_000_000_000));
    assert_eq!(fs::read(root.join("dir/suid")).unwrap(), b"body");
    assert_eq!((at("hard").ino(), at("hard").nlink()), (suid.ino(), 2));
    assert_eq!(fs::read_link(root.join("link")).unwrap(), Path::new("/dir/suid"));
    assert_eq!((at("link").uid(), at("link").gid(), at("link").mtime()), (8, 9, 1_000_000_000));
    assert!(at("fifo").file_type().is_fifo());
    assert_eq!((at("fifo").mode() & 0o7777, at("fifo").uid()), (0o600, 3));
    assert_eq!((at("caps").mtime(), at("caps").mtime_nsec()), (1_234_567_890, 500_000_000));
    let mut names: Vec<_> = xattr::list(root.join("caps")).unwrap().collect();
    names.sort();
    assert_eq!(names, ["security.capability", "user.note"]);
    assert_eq!(xattr::get(root.join("caps"), "security.capability").unwrap().unwrap(), CAPABILITY);
    assert_eq!(xattr::get(root.join("caps"), "user.note").unwrap().unwrap(), b"a\nb");
    assert_eq!((at("deep/ü/name").uid(), at("deep/ü").mode() & 0o7777, at("deep").uid()), (12, 0o755, 0));
    assert!(!root.join("null").exists() && !root.join("disk").exists());
    assert!(fs::write(root.join("x"), "").is_err(), "the image is writable");
    assert_eq!(f.blobs(), [""; 0], "blobs stay after unpacking");
}

#[tokio::test(flavor = "multi_thread")]
async fn upper_layers_replace_hide_and_empty() {
    let f = Fixture::new().await;
    let lower = Archive::default()
        .file("gone", b"")
        .file("dir/gone/x", b"")
        .file("dir/stays", b"low")
        .file("opaque/low", b"")
        .file("opaque/sub/low", b"")
        .file("becomes-dir", b"")
        .file("becomes-file/x", b"")
        .symlink("lib", "usr/lib")
        .symlink("evil", "/etc")
        .file("usr/lib/a", b"");
    let upper = Archive::default()
        .file(".wh.gone", b"")
        .file("dir/.wh.gone", b"")
        .file("dir/.wh.not-there", b"")
        .file("none/.wh.not-there", b"")
        // Made by this layer before the marks that would remove it.
        .file("opaque/new", b"")
        .file("opaque/sub/new", b"")
        .file("opaque/.wh..wh..opq", b"")
        .file(".wh..wh.plnk", b"")
        .file("again", b"")
        .file(".wh.again", b"")
        .folder("becomes-dir")
        .file("becomes-file", b"now")
        .file("lib/b", b"");
    let root = f.unpacked([lower, upper]).await;
    for path in ["gone", "dir/gone", "opaque/low", "opaque/sub/low", ".wh.gone", "opaque/.wh..wh..opq", "none"] {
        assert!(!root.join(path).exists(), "{path}");
    }
    for path in ["dir/stays", "opaque/new", "opaque/sub/new", "again", "becomes-dir", "usr/lib/a", "usr/lib/b"] {
        assert!(root.join(path).exists(), "{path}");
    }
    assert_eq!(fs::read(root.join("becomes-file")).unwrap(), b"now");
    assert!(fs::symlink_metadata(root.join("lib")).unwrap().is_symlink());
}

/// Folders that a layer changes without listing them keep their times, so that every server has the same.
#[tokio::test(flavor = "multi_thread")]
async fn folders_around_what_a_layer_changes_keep_their_times() {
    let f = Fixture::new().await;
    let old = Meta { mode: 0o755, modified: 77, ..PLAIN };
    let folder = |archive: Archive, path: &str| archive.entry(tar::EntryType::Directory, path, "", old, b"");
    let lower = ["./", "usr/", "usr/lib/", "opaque/", "opaque/sub/", "less/", "listed/"];
    let lower = lower.into_iter().fold(Archive::default(), folder);
    let lower = lower.symlink("lib", "usr/lib").file("opaque/sub/x", b"").file("less/x", b"");
    let new = Meta { mode: 0o755, modified: 99, ..PLAIN };
    let upper = Archive::default()
        .file("lib/through-link", b"")
        .file("usr/lib/direct", b"")
        .file("opaque/sub/.wh..wh..opq", b"")
        .file("less/.wh.x", b"")
        .file("top", b"")
        .entry(tar::EntryType::Directory, "listed/", "", new, b"")
        .file("listed/x", b"")
        .entry(tar::EntryType::Regular, "implied/too/file", "", Meta { modified: 55, ..PLAIN }, b"");
    let root = f.unpacked([lower, upper]).await;
    let time = |path: &str| fs::symlink_metadata(root.join(path)).unwrap().mtime();
    for path in ["", "usr", "usr/lib", "opaque", "opaque/sub", "less"] {
        assert_eq!(time(path), 77, "{path}");
    }
    assert_eq!((time("listed"), time("implied"), time("implied/too")), (99, 55, 55));
    assert_eq!(time("lib"), 1_000_000_000, "the link is as old as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_way_leads_out_of_the_root() {
    let f = Fixture::new().await;
    let outside = f.scratch.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    let out = outside.to_str().unwrap();
    // Through links the names resolve inside, where there is no such folder.
    let through = |archive: Archive| archive.symlink("way", out);
    for archive in [
        through(Archive::default()).file("way/file", b"x"),
        through(Archive::default()).folder("way/folder"),
        through(Archive::default()).hard_link("copy", "way/secret"),
        Archive::default().symlink("way", "../../../../../../..").hard_link("copy", &format!("way{out}/secret")),
        Archive::default().hard_link("copy", &format!("{out}/secret")),
    ] {
        let refusal = f.refused(archive).await;
        assert!(matches!(refusal, Refusal::ParentNotFolder | Refusal::LinkTarget), "{refusal:?}");
    }
    for path in ["../x", "a/../../x", "/../x", "a/..", ".."] {
        assert_eq!(f.refused(Archive::default().file(path, b"x")).await, Refusal::Path, "{path}");
    }
    assert_eq!(f.refused(Archive::default().hard_link("a", "../x")).await, Refusal::Path);
    assert_eq!(f.refused(Archive::default().file(".wh...", b"")).await, Refusal::Path);
    let root = f
        .unpacked([
            through(Archive::default()).file("/absolute", b"in").symlink("up", "../../../../.."),
            // Whiteouts, opaque marks and files through links of the layer below.
            Archive::default().file("way/.wh.secret", b"").file("way/.wh..wh..opq", b"").file("up/top", b"in"),
        ])
        .await;
    assert_eq!(fs::read(root.join("absolute")).unwrap(), b"in");
    assert_eq!(fs::read(root.join("top")).unwrap(), b"in");
    assert_eq!(entries(&outside), ["secret"]);
    assert_eq!(fs::metadata(outside.join("secret")).unwrap().nlink(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_archives_are_refused_by_name() {
    let f = Fixture::with(|c| (c.max_entries, c.max_unpacked_bytes) = (100, 1 << 20)).await;
    let plain = Archive::default;
    assert_eq!(
        f.refused(plain().entry(tar::EntryType::Regular, "x", "", Meta { owner: 65_536, ..PLAIN }, b"")).await,
        Refusal::Owner
    );
    assert_eq!(f.refused(plain().pax(&[("gid", b"4294967296")]).file("x", b"")).await, Refusal::Owner);
    assert_eq!(
        f.refused(plain().file(&"d/".repeat(40), b"").pax(&[("path", "d/".repeat(300).as_bytes())]).file("x", b""))
            .await,
        Refusal::PathTooLong
    );
    assert_eq!(f.refused(plain().announce(tar::EntryType::Regular, "huge", 8 << 40)).await, Refusal::TooManyBytes);
    assert_eq!(f.refused(plain().announce(tar::EntryType::GNUSparse, "sparse", 8 << 40)).await, Refusal::Kind);
    assert_eq!(f.refused(plain().announce(tar::EntryType::GNULongName, "long", 8 << 40)).await, Refusal::PathTooLong);
    assert_eq!(f.refused(plain().announce(tar::EntryType::Regular, "cut", 5000)).await, Refusal::Malformed);
    assert_eq!(f.refused(plain().file("a", b"").file("a/b", b"")).await, Refusal::ParentNotFolder);
    assert_eq!(f.refused(plain().hard_link("a", "a")).await, Refusal::LinkTarget);
    assert_eq!(f.refused(plain().symlink("a", "b").symlink("b", "a").file("a/x", b"")).await, Refusal::ParentNotFolder);
    assert_eq!(f.refused(plain().pax(&[("SCHILY.xattr.user.big", &[7; 20_000])]).file("x", b"")).await, Refusal::Xattr);
    let many = (0..101).fold(plain(), |archive, n| archive.file(&format!("f{n}"), b""));
    assert_eq!(f.refused(many).await, Refusal::TooManyEntries);
    assert_eq!(f.refused(plain().file("a", &[7; 600 << 10]).file("b", &[7; 600 << 10])).await, Refusal::TooManyBytes);
    // A bomb: a few kilobytes that become gigabytes of zeros.
    let zeros = zstd::encode_all(io::Read::take(io::repeat(0), 4 << 30), 1).unwrap();
    let bomb = image(vec![f.layer(zeros, Compression::Zstd)]);
    let error = f.store.ensure(&bomb).await.unwrap_err();
    assert!(matches!(error.root(), ImageError::LayerRefused { refusal: Refusal::TooManyBytes, .. }), "{error:?}");
    let noise = image(vec![f.layer(b"no gzip at all".to_vec(), Compression::Gzip)]);
    let error = f.store.ensure(&noise).await.unwrap_err();
    assert!(matches!(error.root(), ImageError::LayerRefused { refusal: Refusal::Malformed, .. }), "{error:?}");
    assert!(!error.is_retryable());
    f.nothing_left();
    assert_eq!(f.blobs(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_used_only_when_it_is_what_it_says() {
    let f = Fixture::new().await;
    let spec = f.image([Archive::default().file("x", b"good")]);
    let digest = spec.layers[0].digest;
    let spoil = |data: Vec<u8>| f.source.blobs.lock().unwrap().insert(digest, data).unwrap();
    let good = spoil(Archive::default().file("x", b"evil").end());
    let error = f.store.ensure(&spec).await.unwrap_err();
    assert!(matches!(error.root(), ImageError::DigestMismatch { .. }), "{error:?}");
    assert_eq!(f.blobs(), [""; 0]);
    spoil([good.clone(), vec![0]].concat());
    let error = f.store.ensure(&spec).await.unwrap_err();
    assert!(matches!(error.root(), ImageError::Overlong { .. }), "{error:?}");
    assert_eq!(f.blobs(), [""; 0]);
    spoil(good[..100].to_vec());
    let error = f.store.ensure(&spec).await.unwrap_err();
    assert!(matches!(error.root(), ImageError::Truncated { got: 100, .. }), "{error:?}");
    // A partial blob of a crash with another content: thrown away, not trusted.
    spoil(good.clone());
    fs::write(f.scratch.path("blobs").join(digest.hex() + ".partial"), vec![1; 200]).unwrap();
    let error = f.store.ensure(&spec).await.unwrap_err();
    assert!(matches!(error.root(), ImageError::DigestMismatch { .. }), "{error:?}");
    // A complete one that rotted, too.
    fs::write(f.scratch.path("blobs").join(digest.hex()), vec![1; good.len()]).unwrap();
    let error = f.store.ensure(&spec).await.unwrap_err();
    assert!(matches!(error.root(), ImageError::DigestMismatch { .. }), "{error:?}");
    f.nothing_left();
    let root = f.store.ensure(&spec).await.unwrap();
    assert_eq!(fs::read(root.join("x")).unwrap(), b"good");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_transfer_goes_on_where_it_stopped() {
    let f = Fixture::with(|c| c.stall_deadline = Duration::from_millis(300)).await;
    let data: Vec<u8> = (0..700_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let spec = f.image([Archive::default().file("x", &data)]);
    f.fault(Some(Fault::Unreachable));
    let error = f.store.ensure(&spec).await.unwrap_err();
    assert!(matches!(error.root(), ImageError::Blob { source: BlobError::Unreachable, .. }), "{error:?}");
    f.fault(Some(Fault::BreakAt(300_000)));
    let error = f.store.ensure(&spec).await.unwrap_err();
    assert!(matches!(error.root(), ImageError::Blob { source: BlobError::Transfer { .. }, .. }), "{error:?}");
    assert!(error.is_retryable());
    f.fault(Some(Fault::EndAt(400_000)));
    let error = f.store.ensure(&spec).await.unwrap_err();
    assert!(matches!(error.root(), ImageError::Truncated { got: 400_000, .. }), "{error:?}");
    f.fault(Some(Fault::StallAt(500_000)));
    let error = f.store.ensure(&spec).await.unwrap_err();
    assert!(matches!(error.root(), ImageError::Stalled { offset: 500_000, .. }), "{error:?}");
    f.fault(None);
    let root = f.store.ensure(&spec).await.unwrap();
    assert_eq!(fs::read(root.join("x")).unwrap(), data);
    assert_eq!(f.opened(), [0, 0, 300_000, 400_000, 500_000]);
    assert_eq!(f.blobs(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_at_once_share_one_fetch() {
    let f = Fixture::new().await;
    let shared = f.layer(Archive::default().file("base", b"").zstd(), Compression::Zstd);
    let own = f.layer(Archive::default().file("own", b"").gzip(), Compression::Gzip);
    let (one, two) = (image(vec![shared.clone()]), image(vec![shared, own]));
    let (open, gate) = tokio::sync::watch::channel(false);
    *f.source.gate.lock().unwrap() = Some(gate);
    let calls = futures::future::join_all((0..20).map(|n| f.store.ensure(if n % 2 == 0 { &one } else { &two })));
    let (roots, ()) = tokio::join!(calls, async {
        while f.opened().is_empty() {
            tokio::task::yield_now().await;
        }
        open.send(true).unwrap();
    });
    let mut roots: Vec<_> = roots.into_iter().map(Result::unwrap).collect();
    roots.sort();
    roots.dedup();
    assert_eq!(roots.len(), 2);
    // Two blobs; the one of both images is fetched for both by one of them, unless the other came after it
    // was used up.
    assert!((2..=3).contains(&f.opened().len()), "{:?}", f.opened());
    f.store.ensure(&one).await.unwrap();
    assert_eq!(f.blobs(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_share_a_failure_and_the_next_call_tries_anew() {
    let f = Fixture::new().await;
    let spec = f.image([Archive::default().file("x", b"")]);
    let (open, gate) = tokio::sync::watch::channel(false);
    *f.source.gate.lock().unwrap() = Some(gate);
    f.fault(Some(Fault::Unreachable));
    let calls = futures::future::join_all((0..5).map(|_| f.store.ensure(&spec)));
    let (outcomes, ()) = tokio::join!(calls, async {
        while f.opened().is_empty() {
            tokio::task::yield_now().await;
        }
        open.send(true).unwrap();
    });
    for outcome in outcomes {
        assert!(matches!(outcome.unwrap_err().root(), ImageError::Blob { .. }));
    }
    assert_eq!(f.opened().len(), 1);
    f.fault(None);
    f.store.ensure(&spec).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_crashes_leave_is_never_taken_for_an_image() {
    let f = Fixture::new().await;
    let spec = f.image([Archive::default().file("x", b"good")]);
    let pool = f.scratch.pool();
    let subvolume = |path: PathBuf| {
        run("btrfs", ["subvolume".as_ref(), "create".as_ref(), path.as_os_str()]);
        fs::write(path.join("half"), "x").unwrap();
    };
    // Renamed, but not read-only yet.
    subvolume(pool.join("images").join(tree(&spec)));
    let root = f.store.ensure(&spec).await.unwrap();
    assert_eq!(entries(&root), ["x"]);
    subvolume(pool.join("staging").join(format!("{}-0", tree(&spec))));
    subvolume(pool.join("images").join("0".repeat(64)));
    fs::write(pool.join("images/file"), "x").unwrap();
    let old = f.scratch.path("blobs").join("1".repeat(64) + ".partial");
    fs::write(&old, "x").unwrap();
    run("touch", ["-d", "2 days ago", old.to_str().unwrap()]);
    let again = ImageStore::open(config(&f.scratch), f.source.clone()).await.unwrap();
    assert_eq!(entries(&pool.join("staging")), [""; 0]);
    assert_eq!(entries(&pool.join("images")), [tree(&spec)]);
    assert_eq!(f.blobs(), [""; 0]);
    assert_eq!(again.ensure(&spec).await.unwrap(), root);
    again.remove(&spec).await.unwrap();
    again.remove(&spec).await.unwrap();
    assert!(!root.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn images_that_cannot_fit_are_refused_before_a_byte_is_fetched() {
    let f = Fixture::with(|c| c.max_compressed_bytes = 4 << 40).await;
    let mut spec = f.image([Archive::default().file("x", b"")]);
    let layer = |size| Layer { digest: Digest::of(b"?"), size, compression: Compression::None, archive_bytes: None };
    let error = f.store.ensure(&image(vec![layer(1 << 30)])).await.unwrap_err();
    assert!(matches!(error.root(), ImageError::NoSpace { .. }), "{error:?}");
    let error = f.store.ensure(&image(vec![layer(65 << 30)])).await.unwrap_err();
    assert!(matches!(error.root(), ImageError::TooLarge { .. }), "{error:?}");
    let error = f.store.ensure(&image(vec![layer(60 << 30); 100])).await.unwrap_err();
    assert!(matches!(error.root(), ImageError::TooLarge { .. }), "{error:?}");
    spec.digest = Digest::of(b"another");
    let error = f.store.ensure(&spec).await.unwrap_err();
    assert!(matches!(error, ImageError::Inconsistent { .. }), "{error:?}");
    assert_eq!(f.opened(), [0; 0]);
    f.nothing_left();
}

/// Kilobytes that become more than there is room for leave the reserve, and are not unpacked again before there is more.
#[tokio::test(flavor = "multi_thread")]
async fn what_outgrows_the_room_while_it_is_unpacked_leaves_the_reserve() {
    const BOMB: usize = 300 << 20;
    const FILLER: u64 = 3 << 29;
    let f = Fixture::with(|c| {
        // Counts how often it is started.
        let (program, count) = (c.unpacker.display().to_string(), c.blobs.with_extension("count"));
        let script = format!("#!/bin/sh\necho x >> {}\nexec {program} \"$@\"\n", count.display());
        c.unpacker = c.blobs.with_extension("sh");
        fs::write(&c.unpacker, script).unwrap();
        run("chmod", ["755", c.unpacker.to_str().unwrap()]);
    })
    .await;
    let filler = f.scratch.pool().join("filler");
    run("fallocate", ["-l", &FILLER.to_string(), filler.to_str().unwrap()]);
    let bomb = zstd::encode_all(Archive::default().file("zeros", &vec![0; BOMB]).end().as_slice(), 1).unwrap();
    assert!(bomb.len() < 1 << 20);
    let bomb = image(vec![f.layer(bomb, Compression::Zstd)]);
    let started =
        || fs::read_to_string(f.scratch.path("blobs").with_extension("count")).map_or(0, |text| text.lines().count());
    for _ in 0..3 {
        let error = f.store.ensure(&bomb).await.unwrap_err();
        assert!(matches!(error.root(), ImageError::NoSpace { .. }) && error.is_retryable(), "{error:?}");
        assert_eq!(started(), 1);
        tokio::time::timeout(Duration::from_secs(10), f.store.short_of_room()).await.unwrap();
    }
    assert_eq!(entries(&f.scratch.pool().join("staging")), [""; 0]);
    // Others have theirs meanwhile.
    f.store.ensure(&f.image([Archive::default().file("x", b"small")])).await.unwrap();
    fs::remove_file(filler).unwrap();
    run("btrfs", ["filesystem", "sync", f.scratch.pool().to_str().unwrap()]);
    let root = f.store.ensure(&bomb).await.unwrap();
    assert_eq!(fs::metadata(root.join("zeros")).unwrap().len(), BOMB as u64);
    assert_eq!(started(), 3);
    assert_eq!(entries(&f.scratch.pool().join("staging")), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unpacker_that_hangs_or_dies_is_ended_and_named() {
    let scratch_script = |f: &Fixture, body: &str| {
        let path = f.scratch.path("unpacker");
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        run("chmod", ["755", path.to_str().unwrap()]);
    };
    let f = Fixture::with(|c| {
        c.unpacker = c.blobs.with_file_name("unpacker");
        c.unpack_deadline = Duration::from_millis(200);
    })
    .await;
    let spec = f.image([Archive::default().file("x", b"")]);
    scratch_script(&f, "exec sleep 1000");
    let error = f.store.ensure(&spec).await.unwrap_err();
    assert!(matches!(error.root(), ImageError::UnpackDeadline { .. }), "{error:?}");
    scratch_script(&f, "echo why >&2; kill -9 $$");
    let error = f.store.ensure(&spec).await.unwrap_err();
    assert!(matches!(error.root(), ImageError::UnpackerDied { diagnosis, .. } if diagnosis == "why\n"), "{error:?}");
    scratch_script(&f, "echo '{\"done\":{}}'");
    let error = f.store.ensure(&spec).await.unwrap_err();
    assert!(matches!(error.root(), ImageError::UnpackerDied { .. }), "{error:?}");
    scratch_script(&f, "echo '{\"failed\":{\"errno\":28,\"message\":\"\",\"entry\":\"x\"}}'");
    let error = f.store.ensure(&spec).await.unwrap_err();
    assert!(
        matches!(error.root(), ImageError::Unpack { source, .. } if source.raw_os_error() == Some(28)),
        "{error:?}"
    );
    f.nothing_left();
    assert_eq!(f.opened().len(), 1, "the verified blob was not kept for the next try");
}

#[test]
fn the_unpacker_dies_with_whoever_started_it() {
    let folder = tempfile::tempdir().unwrap();
    let layer = folder.path().join("layer");
    nix::unistd::mkfifo(&layer, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Held open, so that the unpacker waits for the layer and nothing else ends it.
    let _held = fs::File::options().read(true).write(true).open(&layer).unwrap();
    let root = folder.path().join("root");
    fs::create_dir(&root).unwrap();
    let mut starter = std::process::Command::new("sh")
        .args(["-c", "\"$0\" unpack-layer none 10 10 10 layer $$ < ../layer & echo $!; wait"])
        .arg(env!("CARGO_BIN_EXE_hoody-agent"))
        .current_dir(&root)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut pid = String::new();
    io::BufRead::read_line(&mut io::BufReader::new(starter.stdout.as_mut().unwrap()), &mut pid).unwrap();
    let status = || fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap_or_default();
    support::wait_for("the sandbox", || status().contains("Seccomp:\t2"));
    starter.kill().unwrap();
    starter.wait().unwrap();
    // Whoever inherits it may be slow to reap it.
    support::wait_for("the unpacker's end", || status().is_empty() || status().contains("State:\tZ"));
}

/// A root file system made by hand, packed by GNU tar, unpacked here, and compared entry by entry.
#[tokio::test(flavor = "multi_thread")]
async fn a_real_root_file_system_arrives_as_it_was() {
    let f = Fixture::new().await;
    let source = f.scratch.path("source");
    fs::create_dir(&source).unwrap();
    support::busybox_root(&source);
    for n in 0..2000 {
        let folder = source.join(format!("usr/share/{}", n % 50));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("file-{n}")), vec![n as u8; n * 20]).unwrap();
        std::os::unix::fs::chown(folder.join(format!("file-{n}")), Some(n as u32 % 300), Some(n as u32 % 70)).unwrap();
    }
    symlink("share/1", source.join("usr/link")).unwrap();
    fs::hard_link(source.join("bin/busybox"), source.join("usr/busybox")).unwrap();
    xattr::set(source.join("etc/motd"), "user.origin", b"test").unwrap();
    run("chmod", ["4755", source.join("bin/busybox").to_str().unwrap()]);
    run("touch", ["-d", "2001-02-03 04:05:06.789", source.join("usr").to_str().unwrap()]);
    let tar = f.scratch.path("root.tar");
    let arguments = ["--format=posix", "--xattrs", "--xattrs-include=user.*", "-C"];
    run(
        "tar",
        arguments.map(Into::into).into_iter().chain([
            source.clone().into_os_string(),
            "-cf".into(),
            tar.clone().into_os_string(),
            ".".into(),
        ]),
    );
    let plain = fs::read(&tar).unwrap();
    let compressed = zstd::encode_all(&plain[..], 3).unwrap();
    let spec = image(vec![f.layer(compressed, Compression::Zstd)]);
    let start = Instant::now();
    let root = f.store.ensure(&spec).await.unwrap();
    let took = start.elapsed();
    println!("unpacked {} MB, 2,100 entries, in {took:?}", plain.len() / 1_000_000);
    assert_eq!(listing(&root), listing(&source));
    run("diff", ["-r", "--no-dereference", source.to_str().unwrap(), root.to_str().unwrap()]);
    assert_eq!(xattr::get(root.join("etc/motd"), "user.origin").unwrap().unwrap(), b"test");
    let mut times = Vec::new();
    for _ in 0..200 {
        let start = Instant::now();
        f.store.ensure(&spec).await.unwrap();
        times.push(start.elapsed());
    }
    times.sort();
    println!("already there, p50: {:?}", times[100]);
}

/// Kind, mode, links, owner, time and size (of what is no folder) of everything below.
fn listing(root: &Path) -> Vec<String> {
    let format = "%P %y %m %n %U:%G %T@ %l";
    let all = run("find", [root.as_os_str(), "-printf".as_ref(), format!("{format}\n").as_ref()]);
    let mut lines: Vec<String> = all
        .lines()
        // The number of links of a folder is the file system's own affair.
        .map(|line| {
            if line.contains(" d ") {
                line.split(' ').enumerate().filter(|(n, _)| *n != 3).map(|(_, w)| w).collect::<Vec<_>>().join(" ")
            } else {
                line.to_owned()
            }
        })
        .collect();
    lines.sort();
    lines
}
