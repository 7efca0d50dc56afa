//! Carries out the commands of a stream, inside the receiver process.

use super::{
    report::{Refusal, Stop, Tally},
    stream::{CloneSource, Command, Commands, Time, Uuid},
    tree::{Place, Tree, refused},
};
use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat, renameat},
    libc,
    sys::{
        stat::{FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, fstatat, mkdirat, mknodat, utimensat},
        time::TimeSpec,
    },
    unistd::{Gid, Uid, UnlinkatFlags, fchdir, fchownat, ftruncate, linkat, symlinkat, unlinkat},
};
use std::{
    ffi::OsStr,
    fs::File,
    io::Read,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::FileExt},
    },
};

/// Bytes after which the disk is asked to begin with the file that is being written.
const FLUSHED_BYTES: usize = 1 << 20;
const FILE_MODE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);
/// Extended attributes that a container can give its files; others are left out.
const KEPT_ATTRIBUTES: [&[u8]; 3] = [b"user.", b"system.posix_acl_", b"btrfs.compression"];
/// What file capabilities are kept in.
const CAPABILITIES: &[u8] = b"security.capability";

/// `struct file_clone_range`.
#[repr(C)]
struct CloneRange {
    source: i64,
    source_offset: u64,
    length: u64,
    offset: u64,
}

mod raw {
    nix::ioctl_write_ptr!(clone_range, 0x94, 13, super::CloneRange);
}

/// Carries out a whole stream in the folder `top`, which is empty, or, where the stream is the difference from the
/// subvolume `parent`, a writable snapshot of that.
pub(crate) fn apply(reader: impl Read, top: OwnedFd, parent: Option<Uuid>) -> Result<Tally, Stop> {
    let mut commands = Commands::open(reader)?;
    let (uuid, generation) = match (commands.next()?, parent) {
        (Command::Subvolume { uuid, generation }, None) => (uuid, generation),
        (Command::Snapshot { uuid, generation, parent: found }, Some(parent)) if found == parent => (uuid, generation),
        (Command::Subvolume { .. } | Command::Snapshot { .. }, _) => return Err(Refusal::Parent.into()),
        _ => return Err(Refusal::Beginning.into()),
    };
    let mut work = Work { tree: Tree::new(top), uuid, attributes_dropped: 0, unflushed: 0 };
    let mut done = 1;
    loop {
        match commands.next()? {
            Command::End => break,
            command => work.execute(command)?,
        }
        done += 1;
    }
    Ok(Tally { uuid, generation, commands: done, attributes_dropped: work.attributes_dropped })
}

struct Work {
    tree: Tree,
    /// The subvolume being received, the only one that data may be taken from.
    uuid: Uuid,
    attributes_dropped: u64,
    /// Bytes since the disk was last asked to begin.
    unflushed: usize,
}

impl Work {
    fn execute(&mut self, command: Command<'_>) -> Result<(), Stop> {
        if !matches!(command, Command::Write { .. } | Command::Clone { .. } | Command::Truncate { .. }) {
            self.tree.close_file();
        }
        match command {
            Command::Subvolume { .. } | Command::Snapshot { .. } => return Err(Refusal::Nested.into()),
            Command::MakeFile { path } => self.make_file(path)?,
            Command::MakeFolder { path } => {
                let place = self.tree.place(path)?;
                mkdirat(&*place.folder, place.name.as_os_str(), Mode::S_IRWXU)?;
            }
            Command::MakeNode { path, mode, device } => self.make_node(path, mode, device)?,
            Command::MakeFifo { path } => self.node(path, SFlag::S_IFIFO)?,
            Command::MakeSocket { path } => self.node(path, SFlag::S_IFSOCK)?,
            Command::Symlink { path, target } => {
                let place = self.tree.place(path)?;
                symlinkat(OsStr::from_bytes(target), &*place.folder, place.name.as_os_str())?;
            }
            Command::Rename { from, to } => {
                let (from, to) = (self.tree.place(from)?, self.tree.place(to)?);
                self.tree.forget();
                renameat(&*from.folder, from.name.as_os_str(), &*to.folder, to.name.as_os_str())?;
            }
            Command::Link { path, existing } => {
                let (place, existing) = (self.tree.place(path)?, self.tree.place(existing)?);
                let (from, to) = (existing.name.as_os_str(), place.name.as_os_str());
                linkat(&*existing.folder, from, &*place.folder, to, AtFlags::empty())?;
            }
            Command::Unlink { path } => self.remove(path, UnlinkatFlags::NoRemoveDir)?,
            Command::RemoveFolder { path } => self.remove(path, UnlinkatFlags::RemoveDir)?,
            Command::SetAttribute { path, name, value } => self.set_attribute(path, name, value)?,
            Command::RemoveAttribute { path, name } => {
                if self.keeps(name) {
                    let place = self.enter(path)?;
                    xattr::remove(&place.name, OsStr::from_bytes(name))?;
                }
            }
            Command::Write { path, offset, data } => self.write(path, offset, data)?,
            Command::Clone { path, offset, source, length } => self.clone(path, offset, source, length)?,
            Command::Truncate { path, size } => {
                let size = size.try_into().map_err(|_| Errno::EFBIG)?;
                ftruncate(self.tree.file(path)?, size)?;
            }
            Command::Mode { path, mode } => {
                let place = self.plain(path)?;
                let mode = Mode::from_bits_truncate(mode as libc::mode_t & 0o7777);
                fchmodat(&*place.folder, place.name.as_os_str(), mode, FchmodatFlags::FollowSymlink)?;
            }
            Command::Owner { path, user, group } => {
                let place = self.tree.place(path)?;
                let id = |id: u64| u32::try_from(id).map_err(|_| Errno::EINVAL);
                let (user, group) = (Uid::from_raw(id(user)?), Gid::from_raw(id(group)?));
                let name = place.name.as_os_str();
                fchownat(&*place.folder, name, Some(user), Some(group), AtFlags::AT_SYMLINK_NOFOLLOW)?;
            }
            Command::Times { path, accessed, modified } => {
                let place = self.tree.place(path)?;
                let time = |time: Time| TimeSpec::new(time.seconds, time.nanoseconds.into());
                let flags = UtimensatFlags::NoFollowSymlink;
                utimensat(&*place.folder, place.name.as_os_str(), &time(accessed), &time(modified), flags)?;
            }
            // Only in streams without data, which nobody asks for here.
            Command::Extent { .. } => return Err(Refusal::Malformed.into()),
            Command::End => {}
        }
        Ok(())
    }

    /// The disk begins as the bytes come. Left to the kernel they all go there at once, at the end of the stream or when
    /// memory is short, and whoever flushes something else meanwhile waits for all of it.
    fn write(&mut self, path: &[u8], offset: u64, data: &[u8]) -> Result<(), Stop> {
        let file = self.tree.file(path)?;
        file.write_all_at(data, offset)?;
        self.unflushed += data.len();
        if self.unflushed >= FLUSHED_BYTES {
            self.unflushed = 0;
            // SAFETY: a system call on an open file, without pointers. No length means up to its end; it does not wait.
            let begun = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
            Errno::result(begun)?;
        }
        Ok(())
    }

    fn make_file(&mut self, path: &[u8]) -> Result<(), Stop> {
        let place = self.tree.place(path)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        drop(File::from(openat(&*place.folder, place.name.as_os_str(), flags, FILE_MODE)?));
        Ok(())
    }

    /// Of devices only the one that stands for a deleted file of an overlay, which is none.
    fn make_node(&mut self, path: &[u8], mode: u64, device: u64) -> Result<(), Stop> {
        let kind = SFlag::from_bits_truncate(mode as libc::mode_t & libc::S_IFMT);
        if kind != SFlag::S_IFCHR || device != 0 {
            return Err(Stop::Refused(Refusal::Device, String::from_utf8_lossy(path).into_owned()));
        }
        self.node(path, kind)
    }

    fn node(&mut self, path: &[u8], kind: SFlag) -> Result<(), Stop> {
        let place = self.tree.place(path)?;
        mknodat(&*place.folder, place.name.as_os_str(), kind, FILE_MODE, 0)?;
        Ok(())
    }

    fn remove(&mut self, path: &[u8], how: UnlinkatFlags) -> Result<(), Stop> {
        let place = self.tree.place(path)?;
        self.tree.forget();
        unlinkat(&*place.folder, place.name.as_os_str(), how)?;
        Ok(())
    }

    /// The place of something that is no link: what is done there goes through links.
    fn plain(&mut self, path: &[u8]) -> Result<Place, Stop> {
        let place = self.tree.place(path)?;
        let found = fstatat(&*place.folder, place.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if found.st_mode & libc::S_IFMT == libc::S_IFLNK { Err(refused(path)) } else { Ok(place) }
    }

    /// The place, with its folder as the current one: extended attributes of links are reached by name only.
    fn enter(&mut self, path: &[u8]) -> Result<Place, Stop> {
        let place = self.tree.place(path)?;
        fchdir(&*place.folder)?;
        Ok(place)
    }

    fn keeps(&mut self, name: &[u8]) -> bool {
        let kept = name == CAPABILITIES || KEPT_ATTRIBUTES.iter().any(|prefix| name.starts_with(prefix));
        self.attributes_dropped += u64::from(!kept);
        kept
    }

    fn set_attribute(&mut self, path: &[u8], name: &[u8], value: &[u8]) -> Result<(), Stop> {
        if !self.keeps(name) {
            return Ok(());
        }
        let place = self.enter(path)?;
        Ok(xattr::set(&place.name, OsStr::from_bytes(name), value)?)
    }

    fn clone(&mut self, path: &[u8], offset: u64, source: CloneSource<'_>, length: u64) -> Result<(), Stop> {
        if source.subvolume != self.uuid {
            return Err(Refusal::Clone.into());
        }
        let from = self.tree.open(source.path, OFlag::O_RDONLY)?;
        let into = self.tree.file(path)?;
        let range = CloneRange { source: from.as_raw_fd().into(), source_offset: source.offset, length, offset };
        // SAFETY: `range` is a whole struct file_clone_range; the kernel only reads it.
        unsafe { raw::clone_range(into.as_raw_fd(), &range) }?;
        Ok(())
    }
}
