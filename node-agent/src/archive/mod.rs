//! Archives of containers: a file system written as `hoody_protocol::export` describes it, on a thread of its own, and
//! handed on in pieces. The file system is a read-only snapshot that nobody changes meanwhile.

mod pack;
mod sparse;
mod tar;

pub use pack::PackError;

use hoody_protocol::{
    export::{MAX_ARCHIVE_BYTES, Manifest},
    transfer::PIECE_BYTES,
};
use std::{
    io::{self, Write},
    path::PathBuf,
};
use tokio::sync::{mpsc, oneshot};

/// Pieces that wait for whoever takes them.
const PIECES: usize = 4;
/// zstd's own default: more takes the server's processors for little.
const COMPRESSION_LEVEL: i32 = 3;

/// An archive at work. Dropping `pieces` ends it.
#[derive(Debug)]
pub struct Packing {
    /// The archive's bytes, in order.
    pub pieces: mpsc::Receiver<Vec<u8>>,
    /// How it ended: the archive is whole only where this is `Ok`.
    pub ended: oneshot::Receiver<Result<Manifest, PackError>>,
}

/// Starts packing the tree at `root`, whose first member is `document`.
pub fn start(root: PathBuf, document: Vec<u8>) -> io::Result<Packing> {
    let (sender, pieces) = mpsc::channel(PIECES);
    let (end, ended) = oneshot::channel();
    std::thread::Builder::new().name("export".into()).spawn(move || {
        crate::background::yield_to_others();
        let packed = run(&root, &document, PieceWriter { sender: sender.clone(), piece: Vec::new() });
        // The end of the pieces comes after how it ended, so that whoever reads it there knows.
        let _ = end.send(packed);
        drop(sender);
    })?;
    Ok(Packing { pieces, ended })
}

fn run(root: &std::path::Path, document: &[u8], output: PieceWriter) -> Result<Manifest, PackError> {
    let encoder = zstd::Encoder::new(output, COMPRESSION_LEVEL).and_then(|mut encoder| {
        encoder.include_checksum(true)?;
        Ok(encoder)
    });
    let (manifest, encoder) = pack::pack(root, document, encoder.map_err(PackError::Output)?, MAX_ARCHIVE_BYTES)?;
    encoder.finish().and_then(|mut output| output.flush()).map_err(PackError::Output)?;
    Ok(manifest)
}

/// Hands on what is written in pieces of one size.
struct PieceWriter {
    sender: mpsc::Sender<Vec<u8>>,
    piece: Vec<u8>,
}

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE_BYTES - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == PIECE_BYTES {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.piece);
        self.sender.blocking_send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests;
