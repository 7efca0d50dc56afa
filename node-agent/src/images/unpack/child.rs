//! The unpacker process: the agent's own program, started again with `unpack-layer`.
//!
//! It reads the layer from standard input, unpacks it into the folder that it was started in, and writes one
//! line of JSON, the [`Report`], to standard output.

use super::{
    layer::{self, Form, Limits},
    report::{Report, Stop},
};
use crate::sandbox::{self, Confinement};
use hoody_protocol::image::Compression;
use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    process::ExitCode,
};

/// The first argument by which the agent's program becomes the unpacker.
pub const SUBCOMMAND: &str = "unpack-layer";
/// Stands for the length of what is no archive of a container.
const LAYER: &str = "layer";
/// Bytes of an archive that one entry may take beside its data: headers, PAX records, padding.
const OVERHEAD_BYTES: u64 = 4096;
/// Largest zstd window, log2: the most that its format asks decoders to support is far below.
const ZSTD_WINDOW_LOG: u32 = 27;

/// What the agent asks of the unpacker, as arguments behind [`SUBCOMMAND`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) compression: Compression,
    pub(crate) limits: Limits,
    /// Length of a container's archive without its compression; `None`: it is a layer of an image.
    pub(crate) archive_bytes: Option<u64>,
    /// Process id of the agent.
    pub(crate) parent: u32,
}

impl Order {
    pub(crate) fn to_arguments(self) -> [String; 6] {
        let compression = match self.compression {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        };
        [
            compression.to_owned(),
            self.limits.entries.to_string(),
            self.limits.bytes.to_string(),
            self.limits.file_bytes.to_string(),
            self.archive_bytes.map_or_else(|| LAYER.to_owned(), |bytes| bytes.to_string()),
            self.parent.to_string(),
        ]
    }

    fn parse(arguments: impl Iterator<Item = OsString>) -> Option<Self> {
        let arguments: Vec<String> = arguments.map(|a| a.into_string().ok()).collect::<Option<_>>()?;
        let [compression, entries, bytes, file_bytes, archive, parent] = arguments.as_slice() else { return None };
        let compression = match compression.as_str() {
            "none" => Compression::None,
            "gzip" => Compression::Gzip,
            "zstd" => Compression::Zstd,
            _ => return None,
        };
        let number = |text: &str| text.parse::<u64>().ok();
        let limits = Limits { entries: number(entries)?, bytes: number(bytes)?, file_bytes: number(file_bytes)? };
        let archive_bytes = if archive == LAYER { None } else { Some(archive.parse().ok()?) };
        Some(Self { compression, limits, archive_bytes, parent: parent.parse().ok()? })
    }
}

/// What `main` calls, before any thread is started, where the program's first argument is [`SUBCOMMAND`];
/// `arguments` are those behind it. The exit code is 0 where a report was written, whatever it says.
pub fn child_main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(order) = Order::parse(arguments) else {
        eprintln!("{SUBCOMMAND} is for the agent's own use");
        return ExitCode::from(2);
    };
    if let Err(error) = sandbox::enter(order.parent, &Confinement::unpacker(order.limits.file_bytes)) {
        eprintln!("enter the sandbox: {error}");
        return ExitCode::FAILURE;
    }
    let report = match unpack(order) {
        Ok(tally) => Report::Done(tally),
        Err((stop, entry)) => stop.report(&entry),
    };
    let written = serde_json::to_vec(&report).map_err(io::Error::other).and_then(|json| io::stdout().write_all(&json));
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn unpack(order: Order) -> Result<super::report::Tally, (Stop, Vec<u8>)> {
    let io = |error: io::Error| (Stop::from(error), Vec::new());
    let input: OwnedFd = io::stdin().as_fd().try_clone_to_owned().map_err(io)?;
    let input = File::from(input);
    let reader: Box<dyn Read> = match order.compression {
        Compression::None => Box::new(io::BufReader::with_capacity(1 << 20, input)),
        // Layers may be several gzip members one after the other.
        Compression::Gzip => {
            Box::new(flate2::bufread::MultiGzDecoder::new(io::BufReader::with_capacity(1 << 18, input)))
        }
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(input).map_err(io)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(io)?;
            Box::new(decoder)
        }
    };
    let limit = order.limits.bytes.saturating_add(order.limits.entries.saturating_mul(OVERHEAD_BYTES));
    let (limit, form) = match order.archive_bytes {
        None => (limit, Form::Layer),
        Some(bytes) => (limit.min(bytes), Form::Container),
    };
    let mut reader = Bounded { reader, left: limit };
    let tally = layer::apply(&mut reader, Path::new("/"), order.limits, form)?;
    // The rest belongs to the blob whose digest was checked, but damage in it is still damage.
    io::copy(&mut reader, &mut io::sink()).map_err(|error| (super::archive::damaged(error), Vec::new()))?;
    Ok(tally)
}

/// Ends a stream that decompresses without end.
struct Bounded<R> {
    reader: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.reader.read(buffer)?;
        self.left = self.left.checked_sub(got as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::report::Refusal, *};

    #[test]
    fn an_order_survives_the_command_line() {
        for archive_bytes in [None, Some(8)] {
            let limits = Limits { entries: 5, bytes: 6, file_bytes: 9 };
            let order = Order { compression: Compression::Zstd, limits, archive_bytes, parent: 7 };
            assert_eq!(Order::parse(order.to_arguments().into_iter().map(Into::into)), Some(order));
        }
        assert_eq!(Order::parse(["zstd", "1", "2"].into_iter().map(Into::into)), None);
        assert_eq!(Order::parse(["lzma", "1", "2", "3", "layer", "4"].into_iter().map(Into::into)), None);
    }

    #[test]
    fn an_endless_stream_is_refused() {
        let mut reader = Bounded { reader: io::repeat(0), left: 10_000 };
        let error = io::copy(&mut reader, &mut io::sink()).unwrap_err();
        assert!(matches!(super::super::archive::damaged(error), Stop::Refused(Refusal::TooManyBytes)));
    }
}
