//! The journal: reports in order, kept until the control plane has acknowledged them.
//!
//! One append-only file, one line an entry or acknowledgement: a CRC-32 in hexadecimal, a space, JSON. They are synced
//! in groups by the journal's own task, off the path of the containers; an entry is handed out for
//! sending only when it is durable. A torn last line is what a crash leaves and is cut off. Damage before it,
//! which a power failure in the middle of a group or a bad disk leaves, costs the damaged lines alone: the file
//! is kept beside, and the next hello says how many lines were lost. What they said comes again: states with the
//! owners' first reports, outcomes from the records, deletions from their tombstones. When enough of the file is acknowledged or given up it begins anew, with the next
//! position in its first line, so that positions never repeat.
//!
//! The journal is bounded: over [`MAX_ENTRIES`], a container's older status reports give way to its
//! newest one. Outcomes of operations are never dropped.

mod lines;

use super::{DesiredError, file};
use crate::timing::step;
use hoody_protocol::{
    link::{MAX_REPORTS, Report, ReportEntry},
    operation::OperationOutcome,
};
use lines::{Loaded, encode, reopen, rewrite};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};
use tokio::sync::{Notify, mpsc, oneshot, watch};

/// Entries kept before older status reports are dropped.
const MAX_ENTRIES: usize = 16_384;
/// Appends that wait for the disk at most.
const QUEUE: usize = 1024;
/// How the process ends where the journal cannot be written: EX_IOERR of sysexits(3).
const EXIT_IO_ERROR: i32 = 74;
/// Lines that the file may hold beyond the entries that are kept, before it is written anew.
const DEAD_LINES: usize = 4096;

/// The journal. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Journal {
    appends: mpsc::Sender<Append>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    /// Lines that were damaged and of which the control plane does not know.
    lost: AtomicU32,
    entries: Mutex<VecDeque<ReportEntry>>,
    /// Positions that must not be sent yet, nor anything after them.
    held: Mutex<BTreeSet<u64>>,
    appended: Notify,
    acked: watch::Sender<u64>,
}

#[derive(Debug)]
enum Append {
    Report(Box<Report>, Option<oneshot::Sender<u64>>),
    Acked(u64),
}

/// One line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Entry(Box<ReportEntry>),
    Acked(u64),
}

struct Writer {
    path: PathBuf,
    file: File,
    next: u64,
    /// Lines written since the file began.
    lines: usize,
}

impl Journal {
    /// Opens or creates the journal and starts its task.
    pub fn open(path: &Path) -> Result<Self, DesiredError> {
        let loaded = lines::load(path)?;
        let acked = loaded.acked();
        let Loaded { entries, next, damaged, torn: _ } = loaded;
        if damaged > 0 {
            tracing::error!(path = %path.display(), damaged, kept = entries.len(),
                "lines of the journal are damaged; the others and a copy of the file are kept");
            lines::keep_damaged(path)?;
        }
        let file = match rewrite(path, next, &entries) {
            Ok(file) => {
                file::sync_parent(path)?;
                file
            }
            Err(error) if path.exists() => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the journal was not shortened");
                reopen(path)?
            }
            Err(error) => return Err(error),
        };
        let lines = entries.len();
        let shared = Arc::new(Shared {
            lost: AtomicU32::new(lines::unreported(path)?),
            path: path.to_owned(),
            acked: watch::Sender::new(acked),
            entries: Mutex::new(entries),
            held: Mutex::default(),
            appended: Notify::new(),
        });
        let (appends, queue) = mpsc::channel(QUEUE);
        let writer = Writer { path: path.to_owned(), file, next, lines };
        tokio::spawn(write_groups(writer, queue, shared.clone()));
        Ok(Self { appends, shared })
    }

    /// Adds a report; it becomes durable and sendable soon. Waits only where the disk cannot keep up.
    pub async fn append(&self, report: Report) {
        if self.appends.send(Append::Report(Box::new(report), None)).await.is_err() {
            tracing::error!("the journal's task has ended; a report is lost");
        }
    }

    /// Adds a report and waits until it is durable; gives its position. It is not sent before
    /// [`Journal::release`]: the caller first writes down elsewhere what the report says was done, so that
    /// an acknowledgement cannot remove the only trace of it.
    pub async fn append_held(&self, report: Report) -> Option<u64> {
        let (done, position) = oneshot::channel();
        self.appends.send(Append::Report(Box::new(report), Some(done))).await.ok()?;
        position.await.ok()
    }

    /// Lets an entry of [`Journal::append_held`] be sent.
    pub fn release(&self, position: u64) {
        self.shared.held.lock().unwrap_or_else(PoisonError::into_inner).remove(&position);
        self.shared.appended.notify_waiters();
    }

    /// The oldest durable entries after `position`, at most one batch; waits for one.
    pub async fn next_after(&self, position: u64) -> Vec<ReportEntry> {
        loop {
            let appended = self.shared.appended.notified();
            tokio::pin!(appended);
            appended.as_mut().enable();
            let batch: Vec<ReportEntry> = {
                // The lock stays until the entries are read: an entry is marked as held before it is added.
                let held = self.shared.held.lock().unwrap_or_else(PoisonError::into_inner);
                let sendable = position.saturating_add(1)..held.first().copied().unwrap_or(u64::MAX);
                let entries = self.shared.entries.lock().unwrap_or_else(PoisonError::into_inner);
                entries.iter().filter(|entry| sendable.contains(&entry.position)).take(MAX_REPORTS).cloned().collect()
            };
            if !batch.is_empty() {
                return batch;
            }
            appended.await;
        }
    }

    /// The control plane stored everything up to `position`: forget it.
    pub async fn acknowledge(&self, position: u64) {
        {
            let mut entries = self.shared.entries.lock().unwrap_or_else(PoisonError::into_inner);
            while entries.front().is_some_and(|entry| entry.position <= position) {
                entries.pop_front();
            }
        }
        self.shared.acked.send_if_modified(|acked| {
            let grows = position > *acked;
            *acked = (*acked).max(position);
            grows
        });
        if self.appends.send(Append::Acked(position)).await.is_err() {
            tracing::error!("the journal's task has ended; an acknowledgement is not written down");
        }
    }

    /// Returns when the control plane has acknowledged `position`.
    pub async fn acknowledged(&self, position: u64) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.shared.acked.subscribe().wait_for(|acked| *acked >= position).await;
    }

    /// Entries not acknowledged yet.
    pub fn unacknowledged(&self) -> usize {
        self.shared.entries.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Lines that were lost to damage, of which the control plane does not know.
    pub fn lost(&self) -> u32 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// The control plane knows of [`Journal::lost`].
    pub fn loss_reported(&self) {
        if self.shared.lost.swap(0, Ordering::Relaxed) > 0
            && let Err(error) = lines::reported(&self.shared.path)
        {
            // It is reported once more after the next start.
            tracing::warn!(%error, "the copy of a damaged journal was not renamed");
        }
    }

    /// Outcomes in the journal: operations that were done though their record may not say so yet.
    pub fn outcomes(&self) -> Vec<OperationOutcome> {
        let entries = self.shared.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries
            .iter()
            .filter_map(|entry| match &entry.report {
                Report::Outcome(outcome) => Some(outcome.clone()),
                Report::Status(_) => None,
            })
            .collect()
    }
}

/// The journal's task: takes what has queued up, writes and syncs it once, then hands it out.
async fn write_groups(mut writer: Writer, mut queue: mpsc::Receiver<Append>, shared: Arc<Shared>) {
    let mut group = Vec::new();
    while queue.recv_many(&mut group, QUEUE).await > 0 {
        let mut lines = Vec::new();
        let mut entries = Vec::new();
        let mut waiting = Vec::new();
        writer.lines += group.len();
        for append in group.drain(..) {
            match append {
                Append::Report(report, done) => {
                    let entry = ReportEntry { position: writer.next, report: *report };
                    writer.next += 1;
                    lines.extend_from_slice(&encode(&Line::Entry(Box::new(entry.clone()))));
                    if let Some(done) = done {
                        shared.held.lock().unwrap_or_else(PoisonError::into_inner).insert(entry.position);
                        waiting.push((done, entry.position));
                    }
                    entries.push(entry);
                }
                Append::Acked(position) => {
                    lines.extend_from_slice(&encode(&Line::Acked(position)));
                }
            }
        }
        if !lines.is_empty() {
            hoody_fault::point!("journal.writing");
            writer = step("agent: journal", append_or_halt(writer, lines)).await;
            hoody_fault::point!("journal.synced");
            let mut kept = shared.entries.lock().unwrap_or_else(PoisonError::into_inner);
            kept.extend(entries);
            bound(&mut kept);
            drop(kept);
            shared.appended.notify_waiters();
            for (done, position) in waiting {
                // Whoever stopped waiting needs no answer.
                let _ = done.send(position);
            }
        }
        let kept = shared.entries.lock().unwrap_or_else(PoisonError::into_inner).len();
        if writer.lines.saturating_sub(kept) > DEAD_LINES {
            let entries = shared.entries.lock().unwrap_or_else(PoisonError::into_inner).clone();
            writer = shorten(writer, entries).await;
        }
    }
}

/// Writes the file anew with the entries that are kept. Where that fails the old file goes on: it holds
/// all of them, and acknowledgements too.
async fn shorten(mut writer: Writer, entries: VecDeque<ReportEntry>) -> Writer {
    let rewritten = tokio::task::spawn_blocking(move || {
        match rewrite(&writer.path, writer.next, &entries) {
            Ok(file) => {
                writer.file = file;
                // After a crash the old file could be back, without what is written from now on.
                if let Err(error) = file::sync_parent(&writer.path) {
                    halt(&writer.path, &error);
                }
            }
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "the journal was not shortened"),
        }
        // Also after a failure, so that the next try is not at once.
        writer.lines = entries.len();
        writer
    });
    match rewritten.await {
        Ok(writer) => writer,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// A journal that cannot be written ends the process: going on would mean losing outcomes silently; systemd
/// starts the agent again, and its containers go on meanwhile.
fn halt(path: &Path, error: &(dyn std::error::Error + 'static)) -> ! {
    tracing::error!(error, path = %path.display(), "the journal cannot be written; stopping");
    std::process::exit(EXIT_IO_ERROR)
}

/// Writes and syncs.
async fn append_or_halt(mut writer: Writer, lines: Vec<u8>) -> Writer {
    let written = tokio::task::spawn_blocking(move || {
        let result = writer.file.write_all(&lines).and_then(|()| {
            hoody_fault::point!("journal.written");
            writer.file.sync_data()
        });
        (writer, result)
    });
    match written.await {
        Ok((writer, Ok(()))) => writer,
        Ok((writer, Err(error))) => halt(&writer.path, &error),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

fn bound(entries: &mut VecDeque<ReportEntry>) {
    if entries.len() <= MAX_ENTRIES {
        return;
    }
    let mut newest = HashSet::new();
    let mut kept: VecDeque<ReportEntry> = VecDeque::new();
    for entry in entries.drain(..).rev() {
        let keep = match &entry.report {
            Report::Status(status) => newest.insert(status.container),
            Report::Outcome(_) => true,
        };
        if keep {
            kept.push_front(entry);
        }
    }
    *entries = kept;
}

/// Any bytes as a journal: nothing that is read is lost when it is written and read again.
#[doc(hidden)]
pub(crate) fn fuzzing(bytes: &[u8]) {
    for bytes in [bytes.to_vec(), lines::with_checksums(bytes)] {
        let loaded = lines::read(&bytes);
        assert!(loaded.acked() < loaded.next);
        assert!(loaded.entries.iter().all(|entry| entry.position < loaded.next && entry.position > loaded.acked()));
        let again = lines::read(&lines::content(loaded.next, &loaded.entries));
        assert_eq!((again.damaged, again.torn, again.next), (0, false, loaded.next));
        assert_eq!(again.entries, loaded.entries);
    }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
