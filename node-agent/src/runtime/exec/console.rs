//! The controlling side of a terminal. The runtime makes the terminal in the container's own devpts and hands this
//! side over through a socket (`--console-socket`).

use super::super::{RuntimeError, error::io};
use nix::{
    cmsg_space,
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::socket::{ControlMessageOwned, MsgFlags, recvmsg},
};
use std::{
    io::{IoSliceMut, Read, Write},
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{io::unix::AsyncFd, net::UnixListener};

/// How long the runtime has, after it began, to hand over the terminal.
const LIMIT: Duration = Duration::from_secs(15);

/// A socket for one terminal; the file goes with it.
#[derive(Debug)]
pub(super) struct Handover {
    listener: UnixListener,
    path: PathBuf,
}

impl Handover {
    pub(super) fn listen(path: PathBuf) -> Result<Self, RuntimeError> {
        let listener = UnixListener::bind(&path).map_err(io("listen on", &path))?;
        Ok(Self { listener, path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for the terminal.
    pub(super) async fn receive(&self) -> Result<Console, RuntimeError> {
        let failed = |source| io("take the terminal from", &self.path)(source);
        let timed_out = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
        let accepted = tokio::time::timeout(LIMIT, self.listener.accept()).await.map_err(timed_out);
        let (stream, _) = accepted.map_err(failed)?.map_err(failed)?;
        loop {
            tokio::time::timeout(LIMIT, stream.readable()).await.map_err(timed_out).map_err(failed)?.map_err(failed)?;
            match stream.try_io(tokio::io::Interest::READABLE, || descriptor(stream.as_raw_fd())) {
                Ok(fd) => return Console::new(fd).map_err(failed),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        // The bundle's removal takes along what stays.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The one descriptor of a message (`unix(7)`, SCM_RIGHTS).
fn descriptor(socket: RawFd) -> std::io::Result<OwnedFd> {
    let mut name = [0u8; 4096];
    let mut space = cmsg_space!([RawFd; 4]);
    let mut parts = [IoSliceMut::new(&mut name)];
    let message = recvmsg::<()>(socket, &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut found = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control {
            // SAFETY: the kernel has just made these for this process, and nobody else knows them.
            found.extend(descriptors.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    found.pop().ok_or_else(|| std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "no terminal was sent"))
}

/// The controlling side of a terminal.
#[derive(Debug)]
pub struct Console(AsyncFd<std::fs::File>);

impl Console {
    /// Takes over a descriptor.
    pub fn new(fd: OwnedFd) -> std::io::Result<Self> {
        let flags = OFlag::from_bits_truncate(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        // SAFETY: a file is open and names the same descriptor until it is dropped, which only the `AsyncFd` does.
        let registered = unsafe { AsyncFd::register(std::fs::File::from(fd)) };
        Ok(Self(registered.map_err(|error| error.into_parts().1)?))
    }

    /// Reads what was shown; 0 once nobody holds the other side.
    pub async fn read(&self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|file| file.get_ref().read(buffer)) {
                // What a terminal whose other side is closed answers.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Ok(0),
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }

    /// Types all of it.
    pub async fn write_all(&self, mut bytes: &[u8]) -> std::io::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.0.writable().await?;
            match ready.try_io(|file| file.get_ref().write(bytes)) {
                Ok(written) => bytes = &bytes[written?..],
                Err(_would_block) => {}
            }
        }
        Ok(())
    }

    /// Tells the programs at it what it looks like (`ioctl_tty(2)`).
    pub fn resize(&self, columns: u16, rows: u16) -> std::io::Result<()> {
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the descriptor is open, and the kernel only reads the structure, which outlives the call.
        match unsafe { libc::ioctl(self.0.get_ref().as_raw_fd(), libc::TIOCSWINSZ, &size) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    }
}
