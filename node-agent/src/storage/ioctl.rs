//! The btrfs ioctls that the pool needs, as safe functions over file descriptors. Layouts and numbers are
//! those of the kernel's `include/uapi/linux/btrfs.h` and `btrfs_tree.h`; nothing here has state.

use nix::libc;
use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

const MAGIC: u8 = 0x94;
const NAME_BYTES: usize = 4040;
const LOOKUP_NAME_BYTES: usize = 4080;
/// Longest name of one path component, `BTRFS_VOL_NAME_MAX`.
const NAME_MAX: usize = 255;

/// The subvolume is read-only.
const SUBVOL_RDONLY: u64 = 1 << 1;
const SUBVOL_QGROUP_INHERIT: u64 = 1 << 2;
const SUBVOL_SPEC_BY_ID: u64 = 1 << 4;
const QGROUP_INHERIT_SET_LIMITS: u64 = 1 << 0;
const QGROUP_LIMIT_MAX_EXCL: u64 = 1 << 1;

/// Inode number of every subvolume's top folder.
pub(crate) const TOP_INODE: u64 = 256;
/// The tree of tree roots.
pub(crate) const ROOT_TREE: u64 = 1;
/// The tree of quota groups.
pub(crate) const QUOTA_TREE: u64 = 8;
/// Longest buffer of one tree search.
const SEARCH_BYTES: usize = 64 << 10;

#[repr(C)]
struct VolArgsV2 {
    fd: i64,
    transid: u64,
    flags: u64,
    inherit_size: u64,
    inherit: u64,
    unused: [u64; 2],
    name: [u8; NAME_BYTES],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct QgroupLimit {
    flags: u64,
    max_referenced: u64,
    max_exclusive: u64,
    reserved_referenced: u64,
    reserved_exclusive: u64,
}

#[repr(C)]
struct QgroupInherit {
    flags: u64,
    qgroups: u64,
    referenced_copies: u64,
    exclusive_copies: u64,
    limit: QgroupLimit,
}

/// With the one group that the new subvolume is put into.
#[repr(C)]
struct QgroupInheritOne {
    head: QgroupInherit,
    group: u64,
}

#[repr(C)]
struct QgroupAssign {
    assign: u64,
    member: u64,
    group: u64,
}

#[repr(C)]
struct QgroupLimitArgs {
    qgroup: u64,
    limit: QgroupLimit,
}

#[repr(C)]
struct QuotaControl {
    command: u64,
    status: u64,
}

#[repr(C)]
struct QgroupCreate {
    create: u64,
    qgroup: u64,
}

#[repr(C)]
#[derive(Default)]
struct QuotaRescan {
    flags: u64,
    progress: u64,
    reserved: [u64; 6],
}

/// The beginning of `struct btrfs_ioctl_fs_info_args`.
#[repr(C)]
struct FsInfo {
    max_id: u64,
    num_devices: u64,
    id: [u8; 16],
    rest: [u64; 124],
}

#[repr(C)]
struct InodeLookup {
    tree: u64,
    object: u64,
    name: [u8; LOOKUP_NAME_BYTES],
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct SearchKey {
    tree: u64,
    min_object: u64,
    max_object: u64,
    min_offset: u64,
    max_offset: u64,
    min_transid: u64,
    max_transid: u64,
    min_kind: u32,
    max_kind: u32,
    items: u32,
    unused: u32,
    reserved: [u64; 4],
}

#[repr(C)]
struct SearchHead {
    key: SearchKey,
    bytes: u64,
}

#[repr(C)]
struct SearchArgs {
    head: SearchHead,
    buffer: [u8; SEARCH_BYTES],
}

/// Bytes of `struct btrfs_ioctl_search_header`.
const ITEM_HEADER_BYTES: usize = 32;

mod raw {
    use super::*;
    nix::ioctl_readwrite!(tree_search_v2, MAGIC, 17, SearchHead);
    nix::ioctl_readwrite!(inode_lookup, MAGIC, 18, InodeLookup);
    nix::ioctl_write_ptr!(snapshot_create_v2, MAGIC, 23, VolArgsV2);
    nix::ioctl_write_ptr!(subvolume_create_v2, MAGIC, 24, VolArgsV2);
    nix::ioctl_read!(subvolume_flags, MAGIC, 25, u64);
    nix::ioctl_write_ptr!(set_subvolume_flags, MAGIC, 26, u64);
    nix::ioctl_read!(fs_info, MAGIC, 31, FsInfo);
    nix::ioctl_readwrite!(quota_control, MAGIC, 40, QuotaControl);
    nix::ioctl_write_ptr!(qgroup_assign, MAGIC, 41, QgroupAssign);
    nix::ioctl_write_ptr!(qgroup_create, MAGIC, 42, QgroupCreate);
    // The kernel's header says "read" although the argument is only written.
    nix::ioctl_read!(qgroup_limit, MAGIC, 43, QgroupLimitArgs);
    nix::ioctl_write_ptr!(quota_rescan, MAGIC, 44, QuotaRescan);
    nix::ioctl_read!(inode_flags, b'f', 1, libc::c_long);
    nix::ioctl_write_ptr!(set_inode_flags, b'f', 2, libc::c_long);
}

/// The file system's UUID as text, as sysfs names it.
pub(crate) fn file_system_id(pool: BorrowedFd<'_>) -> io::Result<String> {
    let mut info = FsInfo { max_id: 0, num_devices: 0, id: [0; 16], rest: [0; 124] };
    // SAFETY: `info` has the size of btrfs_ioctl_fs_info_args, 1024 bytes, which the kernel fills.
    unsafe { raw::fs_info(pool.as_raw_fd(), &mut info) }?;
    let text = hex::encode(info.id);
    Ok([&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]].join("-"))
}

impl VolArgsV2 {
    fn new(name: &str) -> io::Result<Self> {
        if name.is_empty() || name.len() > NAME_MAX || name.contains(['/', '\0']) || name == "." || name == ".." {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let mut args = Self::blank();
        args.name[..name.len()].copy_from_slice(name.as_bytes());
        Ok(args)
    }

    fn blank() -> Self {
        Self { fd: 0, transid: 0, flags: 0, inherit_size: 0, inherit: 0, unused: [0; 2], name: [0; NAME_BYTES] }
    }
}

impl QgroupLimit {
    fn new(bytes: Option<u64>) -> Self {
        Self {
            flags: QGROUP_LIMIT_MAX_EXCL,
            max_referenced: 0,
            // All bits set clears the limit.
            max_exclusive: bytes.unwrap_or(u64::MAX),
            reserved_referenced: 0,
            reserved_exclusive: 0,
        }
    }
}

/// Makes the empty subvolume `name` in the folder `parent`.
pub(crate) fn create_subvolume(parent: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let args = VolArgsV2::new(name)?;
    // SAFETY: `args` is a whole btrfs_ioctl_vol_args_v2 with a terminated name; the kernel only reads it.
    unsafe { raw::subvolume_create_v2(parent.as_raw_fd(), &args) }?;
    Ok(())
}

/// What a writable snapshot may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Charge {
    /// So many exclusive bytes. With simple accounting that is in force from the first instant; with full accounting
    /// the kernel (6.18, `btrfs_qgroup_inherit`) puts the source's limits in its place.
    Bytes(u64),
    /// What this quota group of a higher level, which exists, leaves. With full accounting this makes all counts
    /// inconsistent.
    Group(u64),
}

/// Makes `name` in the folder `parent` as a writable snapshot of the subvolume `source`. Returns after the file
/// system's transaction is committed.
pub(crate) fn snapshot(source: BorrowedFd<'_>, parent: BorrowedFd<'_>, name: &str, charge: Charge) -> io::Result<()> {
    let (flags, qgroups, limit, group) = match charge {
        Charge::Bytes(bytes) => (QGROUP_INHERIT_SET_LIMITS, 0, QgroupLimit::new(Some(bytes)), 0),
        Charge::Group(group) => (0, 1, QgroupLimit { flags: 0, ..QgroupLimit::new(None) }, group),
    };
    let head = QgroupInherit { flags, qgroups, referenced_copies: 0, exclusive_copies: 0, limit };
    let inherit = QgroupInheritOne { head, group };
    let mut args = VolArgsV2::new(name)?;
    args.fd = source.as_raw_fd().into();
    args.flags = SUBVOL_QGROUP_INHERIT;
    // The kernel wants exactly as many groups as are named.
    args.inherit_size = size_of::<QgroupInherit>() as u64 + qgroups * size_of::<u64>() as u64;
    args.inherit = (&raw const inherit) as u64;
    // SAFETY: `args` is a whole btrfs_ioctl_vol_args_v2 whose `inherit` points at a structure of at least the
    // stated size that lives until the call returns; the kernel only reads both.
    unsafe { raw::snapshot_create_v2(parent.as_raw_fd(), &args) }?;
    Ok(())
}

/// Makes `name` in the folder `parent` as a read-only snapshot of the subvolume `source`, whole or not at all. Returns
/// after the file system's transaction is committed.
pub(crate) fn read_only_snapshot(source: BorrowedFd<'_>, parent: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    unlimited_snapshot(source, parent, name, SUBVOL_RDONLY)
}

/// Makes `name` in the folder `parent` as a writable snapshot of the subvolume `source` that nobody is charged for.
/// Returns after the file system's transaction is committed.
pub(crate) fn writable_snapshot(source: BorrowedFd<'_>, parent: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    unlimited_snapshot(source, parent, name, 0)
}

fn unlimited_snapshot(source: BorrowedFd<'_>, parent: BorrowedFd<'_>, name: &str, flags: u64) -> io::Result<()> {
    let mut args = VolArgsV2::new(name)?;
    args.fd = source.as_raw_fd().into();
    args.flags = flags;
    // SAFETY: `args` is a whole btrfs_ioctl_vol_args_v2 with a terminated name; the kernel only reads it.
    unsafe { raw::snapshot_create_v2(parent.as_raw_fd(), &args) }?;
    Ok(())
}

/// Destroys the subvolume `id`, wherever in the file system it is linked. Its space comes back later.
pub(crate) fn destroy(pool: BorrowedFd<'_>, id: u64) -> io::Result<()> {
    nix::ioctl_write_ptr!(snapshot_destroy_v2, MAGIC, 63, VolArgsV2);
    let mut args = VolArgsV2::blank();
    args.flags = SUBVOL_SPEC_BY_ID;
    args.name[..8].copy_from_slice(&id.to_ne_bytes());
    // SAFETY: `args` is a whole btrfs_ioctl_vol_args_v2 with the id in the place of the name, as the flag
    // says; the kernel only reads it.
    unsafe { snapshot_destroy_v2(pool.as_raw_fd(), &args) }?;
    Ok(())
}

/// True where the subvolume of `top` is read-only.
pub(crate) fn is_read_only(top: BorrowedFd<'_>) -> io::Result<bool> {
    let mut flags = 0;
    // SAFETY: the kernel writes one u64.
    unsafe { raw::subvolume_flags(top.as_raw_fd(), &mut flags) }?;
    Ok(flags & SUBVOL_RDONLY != 0)
}

/// Makes the subvolume of `top` read-only or writable, committed on return.
pub(crate) fn set_read_only(top: BorrowedFd<'_>, read_only: bool) -> io::Result<()> {
    let mut flags = 0;
    // SAFETY: the kernel writes one u64.
    unsafe { raw::subvolume_flags(top.as_raw_fd(), &mut flags) }?;
    let wanted = if read_only { flags | SUBVOL_RDONLY } else { flags & !SUBVOL_RDONLY };
    if wanted != flags {
        // SAFETY: the kernel reads one u64.
        unsafe { raw::set_subvolume_flags(top.as_raw_fd(), &wanted) }?;
    }
    Ok(())
}

/// Takes the immutable and append-only marks off a file or folder.
pub(crate) fn clear_immutable(file: BorrowedFd<'_>) -> io::Result<()> {
    const MARKS: libc::c_long = 0x10 | 0x20; // FS_IMMUTABLE_FL | FS_APPEND_FL
    let mut flags: libc::c_long = 0;
    // SAFETY: the kernel writes one int into the larger long.
    unsafe { raw::inode_flags(file.as_raw_fd(), &mut flags) }?;
    if flags & MARKS != 0 {
        flags &= !MARKS;
        // SAFETY: the kernel reads one int from the larger long (little endian on both supported machines).
        unsafe { raw::set_inode_flags(file.as_raw_fd(), &flags) }?;
    }
    Ok(())
}

/// Id of the subvolume that `file` is in.
pub(crate) fn subvolume_id(file: BorrowedFd<'_>) -> io::Result<u64> {
    let mut args = InodeLookup { tree: 0, object: TOP_INODE, name: [0; LOOKUP_NAME_BYTES] };
    // SAFETY: `args` is a whole btrfs_ioctl_ino_lookup_args.
    unsafe { raw::inode_lookup(file.as_raw_fd(), &mut args) }?;
    Ok(args.tree)
}

/// Opens an inode of a subvolume by number, without walking any path that a tenant could have made.
pub(crate) fn open_inode(pool: BorrowedFd<'_>, subvolume: u64, inode: u64) -> io::Result<OwnedFd> {
    /// `FILEID_BTRFS_WITHOUT_PARENT`.
    const HANDLE_KIND: i32 = 0x4d;
    /// `struct file_handle` with the body that btrfs expects: inode, subvolume, generation (0: any).
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        inode: [u8; 8],
        subvolume: [u8; 8],
        generation: u32,
    }
    let mut handle = Handle {
        bytes: 20,
        kind: HANDLE_KIND,
        inode: inode.to_ne_bytes(),
        subvolume: subvolume.to_ne_bytes(),
        generation: 0,
    };
    let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    // SAFETY: `handle` has the layout of struct file_handle followed by `bytes` bytes.
    let fd = unsafe { libc::open_by_handle_at(pool.as_raw_fd(), (&raw mut handle).cast(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call just returned this descriptor to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Turns quota accounting on: simple (extents are charged to the subvolume that wrote them) or full
/// (shared and exclusive bytes by walking references).
pub(crate) fn enable_quota(pool: BorrowedFd<'_>, simple: bool) -> io::Result<()> {
    const ENABLE: u64 = 1;
    const ENABLE_SIMPLE: u64 = 4;
    let mut args = QuotaControl { command: if simple { ENABLE_SIMPLE } else { ENABLE }, status: 0 };
    // SAFETY: `args` is a whole btrfs_ioctl_quota_ctl_args.
    unsafe { raw::quota_control(pool.as_raw_fd(), &mut args) }?;
    Ok(())
}

/// Starts counting everything anew (full accounting only); it goes on in the background.
pub(crate) fn rescan_quota(pool: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the kernel reads a whole btrfs_ioctl_quota_rescan_args.
    unsafe { raw::quota_rescan(pool.as_raw_fd(), &QuotaRescan::default()) }?;
    Ok(())
}

/// Sets the limit on the exclusive bytes of a quota group; `None` takes it off.
pub(crate) fn limit_quota(pool: BorrowedFd<'_>, qgroup: u64, bytes: Option<u64>) -> io::Result<()> {
    let mut args = QgroupLimitArgs { qgroup, limit: QgroupLimit::new(bytes) };
    // SAFETY: `args` is a whole btrfs_ioctl_qgroup_limit_args.
    unsafe { raw::qgroup_limit(pool.as_raw_fd(), &mut args) }?;
    Ok(())
}

/// Makes a quota group of a higher level; success where it is there.
pub(crate) fn create_qgroup(pool: BorrowedFd<'_>, qgroup: u64) -> io::Result<()> {
    // SAFETY: the kernel reads a whole btrfs_ioctl_qgroup_create_args.
    let made = unsafe { raw::qgroup_create(pool.as_raw_fd(), &QgroupCreate { create: 1, qgroup }) };
    match made {
        Ok(_) | Err(nix::errno::Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Puts a quota group into one of a higher level; false where it was in it.
pub(crate) fn assign_qgroup(pool: BorrowedFd<'_>, member: u64, group: u64) -> io::Result<bool> {
    // SAFETY: the kernel reads a whole btrfs_ioctl_qgroup_assign_args.
    match unsafe { raw::qgroup_assign(pool.as_raw_fd(), &QgroupAssign { assign: 1, member, group }) } {
        Ok(_) => Ok(true),
        Err(nix::errno::Errno::EEXIST) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Removes a quota group whose subvolume, or whose members, are gone.
pub(crate) fn remove_qgroup(pool: BorrowedFd<'_>, qgroup: u64) -> io::Result<()> {
    // SAFETY: the kernel reads a whole btrfs_ioctl_qgroup_create_args.
    unsafe { raw::qgroup_create(pool.as_raw_fd(), &QgroupCreate { create: 0, qgroup }) }?;
    Ok(())
}

/// An item of a btrfs tree.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) offset: u64,
    pub(crate) data: Vec<u8>,
}

impl Item {
    /// The little-endian number at byte `at` of the item; 0 past its end.
    pub(crate) fn u64_at(&self, at: usize) -> u64 {
        self.data.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
    }
}

/// The items of one object and kind in a tree, with offsets in the range given. (The object is fixed so
/// that the kernel's key order, object before kind before offset, is that of the range.)
pub(crate) fn search(
    pool: BorrowedFd<'_>,
    tree: u64,
    object: u64,
    kind: u32,
    offsets: std::ops::RangeInclusive<u64>,
) -> io::Result<Vec<Item>> {
    let (mut from, to) = (*offsets.start(), *offsets.end());
    let mut found = Vec::new();
    loop {
        let batch = search_once(pool, tree, object, kind, (from, to))?;
        let Some(last) = batch.last().map(|i| i.offset) else { return Ok(found) };
        found.extend(batch);
        if last >= to {
            return Ok(found);
        }
        from = last + 1;
    }
}

fn search_once(pool: BorrowedFd<'_>, tree: u64, object: u64, kind: u32, offsets: (u64, u64)) -> io::Result<Vec<Item>> {
    let key = SearchKey {
        tree,
        min_object: object,
        max_object: object,
        min_offset: offsets.0,
        max_offset: offsets.1,
        max_transid: u64::MAX,
        min_kind: kind,
        max_kind: kind,
        items: u32::MAX,
        ..SearchKey::default()
    };
    let mut args =
        Box::new(SearchArgs { head: SearchHead { key, bytes: SEARCH_BYTES as u64 }, buffer: [0; SEARCH_BYTES] });
    let head = (&raw mut *args).cast::<SearchHead>();
    // SAFETY: `head` heads a SearchArgs whose buffer has the stated number of bytes.
    unsafe { raw::tree_search_v2(pool.as_raw_fd(), head) }?;
    let mut items = Vec::new();
    let mut rest = &args.buffer[..];
    for _ in 0..args.head.key.items {
        let short = || io::Error::new(io::ErrorKind::InvalidData, "tree search returned half an item");
        let header = rest.get(..ITEM_HEADER_BYTES).ok_or_else(short)?;
        let number = |at: usize| u64::from_ne_bytes(header[at..at + 8].try_into().expect("8 bytes"));
        let small = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().expect("4 bytes"));
        let end = ITEM_HEADER_BYTES + small(28) as usize;
        let data = rest.get(ITEM_HEADER_BYTES..end).ok_or_else(short)?.to_vec();
        items.push(Item { offset: number(16), data });
        rest = &rest[end..];
    }
    Ok(items)
}
