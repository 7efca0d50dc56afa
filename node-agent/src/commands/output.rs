//! The output of one command: bounded, kept in memory for whoever follows it and in a file for the next agent.

use hoody_protocol::{
    bounded::Text,
    command::{CommandOutcome, MAX_CHUNK_BYTES, MAX_CHUNKS, MAX_OUTPUT_BYTES, OutputChunk, OutputStream},
};
use std::{
    fs::File,
    io::Write,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::Notify,
};

/// Bytes read at once: each becomes at most three where it is no UTF-8.
const READ_BYTES: usize = MAX_CHUNK_BYTES / 3;
/// Pause after a short read, so that a program that writes letter by letter fills pieces too.
const GATHER: Duration = Duration::from_millis(20);

/// How far a command is.
#[derive(Debug, Default)]
struct Progress {
    chunks: Vec<OutputChunk>,
    bytes: usize,
    truncated: bool,
    file: Option<File>,
    outcome: Option<CommandOutcome>,
}

/// Output and outcome of one command.
#[derive(Debug, Default)]
pub(super) struct Output {
    progress: Mutex<Progress>,
    changed: Notify,
}

impl Output {
    /// Output that goes to this file as well.
    pub(super) fn new(file: File) -> Self {
        Self { progress: Mutex::new(Progress { file: Some(file), ..Progress::default() }), changed: Notify::new() }
    }

    /// What an earlier agent left.
    pub(super) fn ended(chunks: Vec<OutputChunk>, outcome: CommandOutcome) -> Self {
        let progress = Progress { chunks, outcome: Some(outcome), ..Progress::default() };
        Self { progress: Mutex::new(progress), changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        // Every change is whole before anything can panic.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, stream: OutputStream, text: &str) {
        let mut progress = self.lock();
        let room = MAX_OUTPUT_BYTES.saturating_sub(progress.bytes);
        let index = progress.chunks.len() as u32;
        if text.is_empty() {
            return;
        }
        if room == 0 || index >= MAX_CHUNKS {
            progress.truncated = true;
            return;
        }
        let mut end = text.len().min(room);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        progress.truncated |= end < text.len();
        progress.bytes += end;
        let chunk = OutputChunk { index, stream, text: Text::truncated(&text[..end]) };
        if let Some(file) = &mut progress.file {
            let mut line = serde_json::to_vec(&chunk).expect("plain data always encodes");
            line.push(b'\n');
            // Only the next agent would read it: the command goes on without.
            if let Err(error) = file.write_all(&line) {
                tracing::warn!(%error, "a command's output is not kept on disk");
                progress.file = None;
            }
        }
        progress.chunks.push(chunk);
        drop(progress);
        self.changed.notify_waiters();
    }

    /// True where there was more than is kept.
    pub(super) fn is_truncated(&self) -> bool {
        self.lock().truncated
    }

    /// Tells those who follow how it ended; no output comes after it.
    pub(super) fn end(&self, outcome: CommandOutcome) {
        let mut progress = self.lock();
        progress.outcome = Some(outcome);
        progress.file = None;
        drop(progress);
        self.changed.notify_waiters();
    }

    /// Forgets the pieces: they are stored elsewhere.
    pub(super) fn forget(&self) {
        self.lock().chunks = Vec::new();
    }

    /// How it ended, where it has.
    pub(super) fn outcome(&self) -> Option<CommandOutcome> {
        self.lock().outcome.clone()
    }

    /// The pieces from `index` on, and the outcome; waits until there is one or the other.
    pub(super) async fn after(&self, index: u32) -> (Vec<OutputChunk>, Option<CommandOutcome>) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let progress = self.lock();
                let new = progress.chunks.get(index as usize..).unwrap_or_default();
                if !new.is_empty() || progress.outcome.is_some() {
                    return (new.to_vec(), progress.outcome.clone());
                }
            }
            changed.await;
        }
    }

    /// Takes what a program writes until it closes the stream. What exceeds the bound is read and dropped.
    pub(super) async fn take(&self, stream: OutputStream, mut source: impl AsyncRead + Unpin) {
        let mut buffer = vec![0; READ_BYTES];
        let mut kept = 0;
        loop {
            // An unreadable pipe has nothing more to say.
            let read = source.read(&mut buffer[kept..]).await.unwrap_or(0);
            let filled = kept + read;
            let (text, rest) = decode(&buffer[..filled], read == 0);
            self.append(stream, &text);
            if read == 0 {
                return;
            }
            buffer.copy_within(filled - rest..filled, 0);
            kept = rest;
            if filled < READ_BYTES && !self.is_truncated() {
                tokio::time::sleep(GATHER).await;
            }
        }
    }
}

/// Bytes as text, and how many at their end may be the beginning of a character. NUL is replaced too: databases
/// take none.
fn decode(bytes: &[u8], last: bool) -> (String, usize) {
    let mut rest = 0;
    if !last && let Err(error) = std::str::from_utf8(bytes) {
        let mut tail = &bytes[error.valid_up_to()..];
        // Only an end that is not complete yet waits for what comes; anything else is wrong for good.
        while let Err(error) = std::str::from_utf8(tail) {
            match error.error_len() {
                Some(wrong) => tail = &tail[error.valid_up_to() + wrong..],
                None => {
                    rest = tail.len() - error.valid_up_to();
                    break;
                }
            }
        }
    }
    let text = String::from_utf8_lossy(&bytes[..bytes.len() - rest]).replace('\0', "\u{fffd}");
    (text, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn taken(output: &Output, bytes: &[u8]) -> String {
        output.take(OutputStream::Stdout, bytes).await;
        output.lock().chunks.iter().map(|chunk| chunk.text.as_str()).collect()
    }

    #[tokio::test]
    async fn output_is_kept_up_to_its_bound_and_the_rest_is_read() {
        let output = Output::default();
        let text = taken(&output, "ä".repeat(MAX_OUTPUT_BYTES).as_bytes()).await;
        assert_eq!(text.len(), MAX_OUTPUT_BYTES);
        assert!(text.chars().all(|c| c == 'ä'), "a character was cut");
        assert!(output.is_truncated());
    }

    #[tokio::test]
    async fn pieces_have_bounds_even_where_every_byte_is_replaced() {
        let output = Output::default();
        let text = taken(&output, &vec![0xff; 100_000]).await;
        assert_eq!(text.chars().count(), 100_000);
        assert!(!output.is_truncated());
    }

    #[test]
    fn characters_are_cut_only_where_bytes_may_follow() {
        assert_eq!(decode("aä".as_bytes(), false), ("aä".to_owned(), 0));
        assert_eq!(decode(b"a\xc3", false), ("a".to_owned(), 1));
        assert_eq!(decode(b"a\xc3", true), ("a\u{fffd}".to_owned(), 0));
        assert_eq!(decode(b"\xff\0b\xf0\x9f", false), ("\u{fffd}\u{fffd}b".to_owned(), 2));
        assert_eq!(decode(b"", true), (String::new(), 0));
    }

    #[tokio::test]
    async fn followers_get_each_piece_once_and_then_the_end() {
        let output = Output::default();
        output.append(OutputStream::Stdout, "one");
        output.append(OutputStream::Stderr, "two");
        let (chunks, outcome) = output.after(1).await;
        assert_eq!((chunks.len(), &*chunks[0].text, outcome), (1, "two", None));
        assert!(output.after(9).now_or_never().is_none());
    }

    use futures::FutureExt as _;
}
