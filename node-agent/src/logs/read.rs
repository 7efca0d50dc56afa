//! Reads a log from a place on, one batch at a time, through all its parts. Where it follows, it looks for more in
//! pauses: nothing of it is kept in memory between two batches but the place.

use super::{
    LogError, failed,
    files::{Files, Part},
    record::{self, Record},
};
use hoody_protocol::{
    logs::{LogBatch, LogPosition, LogRecord, LogRequest, RECORD_BYTES},
    time::now_ms,
};
use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read, Seek, SeekFrom},
    time::Duration,
};

/// Pause between two looks for more.
const FOLLOW_PAUSE: Duration = Duration::from_millis(150);
/// Records of one batch.
const BATCH_RECORDS: usize = 1024;
/// Bytes of one batch's text at most, whatever is asked for.
const BATCH_BYTES: usize = 128 << 10;
/// Records of the end of the log that can be asked for.
const MAX_TAIL: u32 = 10_000;
/// Longest line that is read; conmon's are about 8 KiB.
const MAX_LINE_BYTES: u64 = 64 << 10;

/// A log that is being read.
#[derive(Debug)]
pub struct Reader {
    files: Files,
    request: LogRequest,
    /// The next record begins here; `None`: it was not begun.
    place: Option<LogPosition>,
    lost: bool,
}

/// What one look found.
struct Found {
    records: Vec<LogRecord>,
    /// All that there is was read.
    complete: bool,
    /// There are no files: the container is gone, or has never written.
    absent: bool,
}

impl Reader {
    pub(super) fn new(files: Files, request: LogRequest) -> Self {
        Self { files, request, place: None, lost: false }
    }

    /// The next records: up to `bytes` of text, but at least one. Where the log is followed and there is none, waits;
    /// otherwise the last batch says that it is the end.
    pub async fn next(mut self, bytes: usize) -> (Self, Result<LogBatch, LogError>) {
        loop {
            let most = bytes.min(BATCH_BYTES);
            let looked = tokio::task::spawn_blocking(move || {
                let found = self.look(most);
                (self, found)
            });
            let (reader, found) = match looked.await {
                Ok(looked) => looked,
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            };
            self = reader;
            let found = match found {
                Ok(found) => found,
                Err(error) => return (self, Err(error)),
            };
            let past = self.request.until.is_some_and(|until| until / 1_000_000 < now_ms());
            let end = found.complete && (!self.request.follow || past || (found.absent && self.place.is_some()));
            if found.records.is_empty() && !end {
                tokio::time::sleep(FOLLOW_PAUSE).await;
                continue;
            }
            let lost = std::mem::take(&mut self.lost);
            // Never more than a batch's records: `look` counts them.
            let records = found.records.try_into().unwrap_or_default();
            return (self, Ok(LogBatch { records, lost, end }));
        }
    }

    fn look(&mut self, bytes: usize) -> Result<Found, LogError> {
        let mut parts = self.files.open()?;
        if parts.is_empty() {
            return Ok(Found { records: Vec::new(), complete: true, absent: true });
        }
        let place = match self.place {
            Some(place) => place,
            None => self.begin(&mut parts)?,
        };
        let index = parts.iter().position(|part| part.id == place.part);
        let (index, mut offset) = match index {
            Some(index) => (index, place.offset),
            // What was being read is no longer kept.
            None => {
                self.lost = true;
                (0, 0)
            }
        };
        let mut records = Vec::new();
        let mut size = 0;
        let last = parts.len() - 1;
        for (index, part) in parts.iter_mut().enumerate().skip(index) {
            let mut full = false;
            offset = walk(&self.files, part, offset, |record, position| {
                if self.wanted(&record) {
                    size += record.text.len();
                    records.push(own(record, position));
                }
                full = records.len() >= BATCH_RECORDS || size >= bytes;
                !full
            })?;
            self.place = Some(LogPosition { part: part.id, offset });
            if full || index == last {
                return Ok(Found { records, complete: !full, absent: false });
            }
            offset = 0;
        }
        Ok(Found { records, complete: true, absent: false })
    }

    /// Where the first record is that was asked for.
    fn begin(&mut self, parts: &mut [Part]) -> Result<LogPosition, LogError> {
        let oldest = LogPosition { part: parts[0].id, offset: 0 };
        if let Some(after) = self.request.after {
            return Ok(after);
        }
        let Some(tail) = self.request.tail.map(|tail| tail.min(MAX_TAIL) as usize) else { return Ok(oldest) };
        let mut starts: VecDeque<LogPosition> = VecDeque::new();
        let mut end = oldest;
        for part in parts.iter_mut() {
            let mut begins = LogPosition { part: part.id, offset: 0 };
            walk(&self.files, part, 0, |record, position| {
                if tail > 0 && self.wanted(&record) {
                    if starts.len() == tail {
                        starts.pop_front();
                    }
                    starts.push_back(begins);
                }
                begins = position;
                true
            })?;
            end = begins;
        }
        Ok(starts.front().copied().unwrap_or(end))
    }

    fn wanted(&self, record: &Record<'_>) -> bool {
        let LogRequest { since, until, output, error, .. } = self.request;
        (if record.error { error } else { output })
            && since.is_none_or(|since| record.at >= since)
            && until.is_none_or(|until| record.at <= until)
    }
}

/// Gives every whole record from `offset` on to `each`, with the place behind it, while that says to go on. Returns
/// the place behind the last one given.
fn walk(
    files: &Files,
    part: &mut Part,
    mut offset: u64,
    mut each: impl FnMut(Record<'_>, LogPosition) -> bool,
) -> Result<u64, LogError> {
    let unreadable = || failed("read", files.all()[2].clone());
    part.file.seek(SeekFrom::Start(offset)).map_err(unreadable())?;
    let mut reader = BufReader::with_capacity(64 << 10, &part.file);
    let mut line = Vec::new();
    loop {
        line.clear();
        let count = reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line).map_err(unreadable())?;
        let whole = line.pop_if(|last| *last == b'\n').is_some();
        // What conmon is just writing is read when it is whole.
        if count == 0 || (!whole && (count as u64) < MAX_LINE_BYTES) {
            return Ok(offset);
        }
        offset += count as u64;
        if let Some(record) = record::parse(&line)
            && !each(record, LogPosition { part: part.id, offset })
        {
            return Ok(offset);
        }
    }
}

fn own(record: Record<'_>, position: LogPosition) -> LogRecord {
    let cut = record.text.len() > RECORD_BYTES;
    LogRecord {
        at: record.at,
        error: record.error,
        partial: record.partial || cut,
        text: record.text[..record.text.len().min(RECORD_BYTES)].to_vec().try_into().unwrap_or_default(),
        position,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hoody_protocol::id::ContainerId;
    use std::io::Write;

    struct World {
        folder: tempfile::TempDir,
        files: Files,
    }

    impl World {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let files = Files::new(folder.path(), ContainerId::from_bytes([1; 12]));
            Self { folder, files }
        }

        /// Lines `from..to`, odd ones on standard error, a second apart.
        fn write(&self, numbers: std::ops::Range<u32>) {
            let mut file = std::fs::File::options().create(true).append(true).open(&self.files.all()[2]).unwrap();
            for number in numbers {
                let stream = if number % 2 == 1 { "stderr" } else { "stdout" };
                writeln!(file, "1970-01-01T00:{:02}:{:02}.0+00:00 {stream} F {number}", number / 60, number % 60)
                    .unwrap();
            }
            self.files.keep().unwrap();
        }

        fn replace(&self) {
            let new = self.folder.path().join("new");
            std::fs::write(&new, "").unwrap();
            std::fs::rename(new, &self.files.all()[2]).unwrap();
            self.files.keep().unwrap();
        }

        fn reader(&self, change: impl FnOnce(&mut LogRequest)) -> Reader {
            let mut request = LogRequest {
                container: ContainerId::from_bytes([1; 12]),
                tail: None,
                since: None,
                until: None,
                output: true,
                error: true,
                after: None,
                follow: false,
            };
            change(&mut request);
            Reader::new(self.files.clone(), request)
        }
    }

    fn numbers(batch: &LogBatch) -> Vec<u32> {
        batch.records.iter().map(|record| std::str::from_utf8(&record.text).unwrap().parse().unwrap()).collect()
    }

    async fn all(reader: Reader) -> Vec<u32> {
        let (_, batch) = reader.next(1 << 20).await;
        let batch = batch.unwrap();
        assert!(batch.end);
        numbers(&batch)
    }

    #[tokio::test]
    async fn every_filter_lets_through_what_it_says_across_parts() {
        let world = World::new();
        assert_eq!(all(world.reader(|_| {})).await, Vec::<u32>::new());
        world.write(0..10);
        world.replace();
        world.write(10..20);
        assert_eq!(all(world.reader(|_| {})).await, (0..20).collect::<Vec<_>>());
        assert_eq!(all(world.reader(|it| it.tail = Some(12))).await, (8..20).collect::<Vec<_>>());
        assert_eq!(all(world.reader(|it| it.tail = Some(0))).await, Vec::<u32>::new());
        assert_eq!(all(world.reader(|it| (it.tail, it.output) = (Some(2), false))).await, [17, 19]);
        let second = 1_000_000_000;
        let between = world.reader(|it| (it.since, it.until) = (Some(9 * second), Some(11 * second)));
        assert_eq!(all(between).await, [9, 10, 11]);
    }

    #[tokio::test]
    async fn reading_goes_on_behind_a_place_also_when_the_log_started_over() {
        let world = World::new();
        world.write(0..6);
        let (reader, batch) = world.reader(|_| {}).next(1).await;
        let batch = batch.unwrap();
        assert_eq!((numbers(&batch), batch.end), (vec![0], false), "at least one, and no more than asked for");
        let after = batch.records[0].position;
        world.replace();
        world.write(6..8);
        let (_, batch) = reader.next(1 << 20).await;
        assert_eq!(numbers(&batch.unwrap()), [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(all(world.reader(|it| it.after = Some(after))).await, [1, 2, 3, 4, 5, 6, 7]);
        world.replace();
        world.write(8..9);
        let (_, batch) = world.reader(|it| it.after = Some(after)).next(1 << 20).await;
        let batch = batch.unwrap();
        assert!(batch.lost, "the part of that place is no longer kept");
        assert_eq!(numbers(&batch), [6, 7, 8]);
    }

    #[tokio::test]
    async fn following_waits_for_more_and_ends_with_the_files() {
        let world = World::new();
        world.write(0..2);
        let reader = world.reader(|it| (it.tail, it.follow) = (Some(1), true));
        let (reader, batch) = reader.next(1 << 20).await;
        assert_eq!(numbers(&batch.unwrap()), [1]);
        let waiting = tokio::spawn(reader.next(1 << 20));
        world.replace();
        world.write(2..4);
        let (reader, batch) = waiting.await.unwrap();
        let batch = batch.unwrap();
        let mut seen = numbers(&batch);
        let mut reader = reader;
        while seen.len() < 2 {
            let (next, batch) = reader.next(1 << 20).await;
            seen.extend(numbers(&batch.unwrap()));
            reader = next;
        }
        assert_eq!(seen, [2, 3]);
        for path in world.files.all() {
            std::fs::remove_file(path).unwrap();
        }
        let (_, batch) = reader.next(1 << 20).await;
        assert!(batch.unwrap().end);
    }

    #[tokio::test]
    async fn half_a_line_is_read_when_it_is_whole() {
        let world = World::new();
        std::fs::write(&world.files.all()[2], "1970-01-01T00:00:00Z stdout F 1\n1970-01-01T00:00:01Z std").unwrap();
        assert_eq!(all(world.reader(|_| {})).await, [1]);
        let mut file = std::fs::File::options().append(true).open(&world.files.all()[2]).unwrap();
        file.write_all(b"out F 2\nnonsense\n").unwrap();
        assert_eq!(all(world.reader(|_| {})).await, [1, 2]);
    }
}
