//! Pipes through which bytes go from socket to socket without passing through this process.
//!
//! A direction takes a pipe when there is something to read, and gives it back when it is empty: connections that are
//! silent hold none. Empty pipes are kept for the next taker, up to a limit. Above the kernel's limit for one user
//! (`fs.pipe-user-pages-soft`, 64 MiB) a new pipe gets two pages, which is slower and still right.

use nix::{
    fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice},
    unistd::pipe2,
};
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, PoisonError},
};

/// Bytes that a pipe holds.
const CAPACITY: usize = 256 << 10;
/// Empty pipes that are kept.
const KEPT: usize = 128;

#[derive(Debug, Default)]
pub(crate) struct PipePool(Mutex<Vec<Pipe>>);

#[derive(Debug)]
struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
}

/// A pipe that goes back when it is dropped, where it is empty.
#[derive(Debug)]
pub(crate) struct Lent<'a> {
    pool: &'a PipePool,
    pipe: Option<Pipe>,
    /// Bytes within.
    held: usize,
}

impl PipePool {
    /// An empty pipe.
    pub(crate) fn take(&self) -> io::Result<Lent<'_>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let pipe = match kept {
            Some(pipe) => pipe,
            None => {
                let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
                // Refused where the user has too many already; it then stays as it is.
                let _ = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(CAPACITY as i32));
                Pipe { reader, writer }
            }
        };
        Ok(Lent { pool: self, pipe: Some(pipe), held: 0 })
    }
}

impl Lent<'_> {
    fn pipe(&self) -> io::Result<&Pipe> {
        self.pipe.as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Moves what there is from a socket into the empty pipe. 0 is the end; `WouldBlock` where there is nothing yet.
    pub(crate) fn fill(&mut self, from: &impl AsFd) -> io::Result<usize> {
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
        self.held = splice(from, None, &self.pipe()?.writer, None, CAPACITY, flags)?;
        Ok(self.held)
    }

    /// Moves what the socket takes out of the pipe.
    pub(crate) fn drain(&mut self, to: &impl AsFd) -> io::Result<()> {
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
        let moved = splice(&self.pipe()?.reader, None, to, None, self.held, flags)?;
        if moved == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.held -= moved;
        Ok(())
    }

    /// Bytes within.
    pub(crate) fn held(&self) -> usize {
        self.held
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        // One that holds a connection's bytes must never get to another one.
        if self.held == 0
            && let Some(pipe) = self.pipe.take()
        {
            let mut kept = self.pool.0.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() < KEPT {
                kept.push(pipe);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Write, os::unix::net::UnixStream};

    #[test]
    fn empty_pipes_are_used_again_and_others_are_not() {
        let pool = PipePool::default();
        let (mut near, far) = UnixStream::pair().unwrap();
        near.write_all(b"somebody's").unwrap();
        let mut lent = pool.take().unwrap();
        assert_eq!(lent.fill(&far).unwrap(), 10);
        drop(lent);
        assert_eq!(pool.0.lock().unwrap().len(), 0, "a pipe with bytes in it is closed");
        drop(pool.take().unwrap());
        assert_eq!(pool.0.lock().unwrap().len(), 1);
        drop(pool.take().unwrap());
        assert_eq!(pool.0.lock().unwrap().len(), 1, "the same one");
    }
}
