//! The btrfs ioctls of sending and receiving. Layouts and numbers are those of the kernel's
//! `include/uapi/linux/btrfs.h`; nothing here has state.

use super::receive::stream::Uuid;
use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

const MAGIC: u8 = 0x94;
const NAME_BYTES: usize = 256;
/// Data is replaced by its length.
const SEND_NO_FILE_DATA: u64 = 1 << 0;

#[repr(C)]
struct SendArgs {
    output: i64,
    clone_sources: u64,
    clone_source_ids: u64,
    parent: u64,
    flags: u64,
    version: u32,
    reserved: [u8; 28],
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Timespec {
    seconds: u64,
    nanoseconds: u32,
}

#[repr(C)]
#[derive(Default)]
struct ReceivedArgs {
    uuid: Uuid,
    sent_generation: u64,
    received_generation: u64,
    sent_at: Timespec,
    received_at: Timespec,
    flags: u64,
    reserved: [u64; 16],
}

#[repr(C)]
struct SubvolumeInfo {
    id: u64,
    name: [u8; NAME_BYTES],
    parent_id: u64,
    folder: u64,
    generation: u64,
    flags: u64,
    uuid: Uuid,
    parent_uuid: Uuid,
    received_uuid: Uuid,
    generations: [u64; 4],
    times: [Timespec; 4],
    reserved: [u64; 8],
}

mod raw {
    use super::*;
    nix::ioctl_readwrite!(set_received, MAGIC, 37, ReceivedArgs);
    nix::ioctl_write_ptr!(send, MAGIC, 38, SendArgs);
    nix::ioctl_read!(subvolume_info, MAGIC, 60, SubvolumeInfo);
}

/// What a stream has of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    Whole,
    WithoutData,
}

/// Writes the stream of the read-only subvolume of `top` to `output`, whole or as the difference from the read-only
/// subvolume `parent`. Blocks until all is written. Shared data is named only within the subvolume itself: nothing in
/// the stream refers to another one but what it is the difference from.
pub(crate) fn send(
    top: BorrowedFd<'_>,
    parent: Option<u64>,
    content: Content,
    output: BorrowedFd<'_>,
) -> io::Result<()> {
    let args = SendArgs {
        output: output.as_raw_fd().into(),
        clone_sources: 0,
        clone_source_ids: 0,
        parent: parent.unwrap_or(0),
        flags: if content == Content::WithoutData { SEND_NO_FILE_DATA } else { 0 },
        version: 0,
        reserved: [0; 28],
    };
    // SAFETY: `args` is a whole btrfs_ioctl_send_args without clone sources; the kernel only reads it.
    unsafe { raw::send(top.as_raw_fd(), &args) }?;
    Ok(())
}

/// Writes down what the writable subvolume of `top` was received from: identity and generation of the sent one.
pub(crate) fn set_received(top: BorrowedFd<'_>, uuid: Uuid, generation: u64) -> io::Result<()> {
    let mut args = ReceivedArgs { uuid, sent_generation: generation, ..ReceivedArgs::default() };
    // SAFETY: `args` is a whole btrfs_ioctl_received_subvol_args.
    unsafe { raw::set_received(top.as_raw_fd(), &mut args) }?;
    Ok(())
}

/// What the subvolume of `top` was received from; `None` where it was made here.
pub(crate) fn received_from(top: BorrowedFd<'_>) -> io::Result<Option<Uuid>> {
    // SAFETY: all zeroes is a valid SubvolumeInfo: it has only numbers.
    let mut info: SubvolumeInfo = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is a whole btrfs_ioctl_get_subvol_info_args.
    unsafe { raw::subvolume_info(top.as_raw_fd(), &mut info) }?;
    Ok(Some(info.received_uuid).filter(|uuid| *uuid != Uuid::default()))
}

/// Bytes of the structures as the kernel has them.
const _: () =
    assert!(size_of::<SendArgs>() == 72 && size_of::<ReceivedArgs>() == 200 && size_of::<SubvolumeInfo>() == 504);
