//! Send streams of read-only subvolumes, made by the kernel on a thread of its own.

use super::{
    receive::{
        run::PIPE_BYTES,
        stream::{Command, Commands, ReadError},
    },
    transfer_ioctl::{self, Content},
};
use crate::background::yield_to_others;
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    unistd::pipe2,
};
use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, OwnedFd},
};
use tokio::{net::unix::pipe::Receiver, sync::oneshot};

/// A stream at work. Dropping `output` ends it: the kernel then finds nobody to write to.
#[derive(Debug)]
pub struct SendStream {
    /// The stream's bytes, up to its end.
    pub output: Receiver,
    /// How it ended: the stream is whole only where this is `Ok`.
    pub ended: oneshot::Receiver<io::Result<()>>,
}

/// Starts sending the read-only subvolume of `top`, whole or as the difference from the read-only subvolume `parent`.
pub(crate) fn start(top: OwnedFd, parent: Option<u64>) -> io::Result<SendStream> {
    let (read, ended) = send(top, parent, Content::Whole)?;
    Ok(SendStream { output: Receiver::from_owned_fd(read)?, ended })
}

/// Bytes that [`start`] will come to, about: the kernel goes through the file system once, without its data.
pub(crate) fn measure(top: OwnedFd, parent: Option<u64>) -> io::Result<u64> {
    let (read, ended) = send(top, parent, Content::WithoutData)?;
    let mut bytes = 0;
    {
        let counted = Counted { reader: File::from(read), bytes: &mut bytes };
        let mut data = 0u64;
        let mut commands = Commands::open(io::BufReader::with_capacity(256 << 10, counted)).map_err(unreadable)?;
        loop {
            match commands.next().map_err(unreadable)? {
                Command::End => break,
                Command::Extent { size, .. } => data = data.saturating_add(size),
                _ => {}
            }
        }
        drop(commands);
        bytes += data;
    }
    ended.blocking_recv().map_err(io::Error::other)??;
    Ok(bytes)
}

/// True where the read-only subvolume of `top` is made from the read-only subvolume `parent` by a command of
/// which `is_meant` says so.
pub(crate) fn differs(top: OwnedFd, parent: u64, is_meant: impl Fn(&Command<'_>) -> bool) -> io::Result<bool> {
    let (read, ended) = send(top, Some(parent), Content::WithoutData)?;
    let found = finds(File::from(read), is_meant);
    // A subvolume that is being sent cannot be deleted. Without a reader it ends at the next command.
    let sent = ended.blocking_recv().map_err(io::Error::other)?;
    if !found? {
        sent?;
        return Ok(false);
    }
    Ok(true)
}

/// True where one of the stream's commands is meant; the rest is not read then.
fn finds(stream: File, is_meant: impl Fn(&Command<'_>) -> bool) -> io::Result<bool> {
    let buffered = io::BufReader::with_capacity(256 << 10, stream);
    let mut commands = Commands::open(buffered).map_err(unreadable)?;
    loop {
        match commands.next().map_err(unreadable)? {
            Command::End => return Ok(false),
            command if is_meant(&command) => return Ok(true),
            _ => {}
        }
    }
}

fn unreadable(error: ReadError) -> io::Error {
    match error {
        ReadError::Io(error) => error,
        ReadError::Malformed(malformed) => io::Error::other(malformed),
    }
}

struct Counted<'a> {
    reader: File,
    bytes: &'a mut u64,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.reader.read(buffer)?;
        *self.bytes += got as u64;
        Ok(got)
    }
}

fn send(
    top: OwnedFd,
    parent: Option<u64>,
    content: Content,
) -> io::Result<(OwnedFd, oneshot::Receiver<io::Result<()>>)> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&write, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES))?;
    let (end, ended) = oneshot::channel();
    std::thread::Builder::new().name("send".into()).spawn(move || {
        yield_to_others();
        let sent = transfer_ioctl::send(top.as_fd(), parent, content, write.as_fd());
        // The end of the stream comes after how it ended, so that whoever reads it there knows.
        let _ = end.send(sent);
        drop(write);
    })?;
    Ok((read, ended))
}
