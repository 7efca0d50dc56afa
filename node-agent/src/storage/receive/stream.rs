//! The format of a btrfs send stream, version 1: a header, then commands of attributes. Numbers are those of the
//! kernel's `fs/btrfs/send.h`.
//!
//! The CRC of each command is not looked at. It protects against accidents, for which the whole stream has its
//! SHA-256, and not against a sender, who computes it too.

use std::{
    io::{self, Read},
    ops::RangeInclusive,
};

const MAGIC: &[u8; 13] = b"btrfs-stream\0";
const VERSION: u32 = 1;
/// Bytes of a command's length, number and CRC.
const COMMAND_HEADER_BYTES: usize = 10;
/// Bytes of the attributes of one command: the kernel's buffer for a whole command (`BTRFS_SEND_BUF_SIZE_V1`).
const MAX_COMMAND_BYTES: usize = 64 << 10;
/// Bytes of an attribute's number and length.
const ATTRIBUTE_HEADER_BYTES: usize = 4;

/// Identity of a subvolume.
pub(crate) type Uuid = [u8; 16];

/// The stream is not one that the kernel makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    /// It does not begin as a stream of version 1.
    #[error("it does not begin as a send stream of version 1")]
    Header,
    /// A command is longer than the kernel's buffer.
    #[error("a command has {0} bytes")]
    TooLong(usize),
    /// A command that version 1 does not have.
    #[error("command {0} is unknown")]
    Command(u16),
    /// The attributes of a command do not fit it.
    #[error("command {0} does not have the attributes it needs")]
    Attributes(u16),
    /// It ends before its end.
    #[error("it ends early")]
    Truncated,
}

/// Why the next command cannot be had.
#[derive(Debug)]
pub(crate) enum ReadError {
    Malformed(Malformed),
    Io(io::Error),
}

impl From<Malformed> for ReadError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// One command. Paths are as they came: relative to the subvolume, not checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command<'a> {
    /// The stream makes a subvolume from nothing.
    Subvolume {
        uuid: Uuid,
        generation: u64,
    },
    /// The stream makes a subvolume from the one with the uuid `parent`.
    Snapshot {
        uuid: Uuid,
        generation: u64,
        parent: Uuid,
    },
    MakeFile {
        path: &'a [u8],
    },
    MakeFolder {
        path: &'a [u8],
    },
    MakeNode {
        path: &'a [u8],
        mode: u64,
        device: u64,
    },
    MakeFifo {
        path: &'a [u8],
    },
    MakeSocket {
        path: &'a [u8],
    },
    Symlink {
        path: &'a [u8],
        target: &'a [u8],
    },
    Rename {
        from: &'a [u8],
        to: &'a [u8],
    },
    Link {
        path: &'a [u8],
        existing: &'a [u8],
    },
    Unlink {
        path: &'a [u8],
    },
    RemoveFolder {
        path: &'a [u8],
    },
    SetAttribute {
        path: &'a [u8],
        name: &'a [u8],
        value: &'a [u8],
    },
    RemoveAttribute {
        path: &'a [u8],
        name: &'a [u8],
    },
    Write {
        path: &'a [u8],
        offset: u64,
        data: &'a [u8],
    },
    Clone {
        path: &'a [u8],
        offset: u64,
        source: CloneSource<'a>,
        length: u64,
    },
    Truncate {
        path: &'a [u8],
        size: u64,
    },
    Mode {
        path: &'a [u8],
        mode: u64,
    },
    Owner {
        path: &'a [u8],
        user: u64,
        group: u64,
    },
    Times {
        path: &'a [u8],
        accessed: Time,
        modified: Time,
    },
    /// Data that was left out on request.
    Extent {
        path: &'a [u8],
        size: u64,
    },
    End,
}

/// What a clone is a part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CloneSource<'a> {
    pub(crate) subvolume: Uuid,
    pub(crate) path: &'a [u8],
    pub(crate) offset: u64,
}

/// Seconds and nanoseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
}

/// Reads a stream command by command.
#[derive(Debug)]
pub(crate) struct Commands<R> {
    reader: R,
    buffer: Vec<u8>,
}

impl<R: Read> Commands<R> {
    /// Reads the header.
    pub(crate) fn open(mut reader: R) -> Result<Self, ReadError> {
        let mut header = [0; MAGIC.len() + 4];
        fill(&mut reader, &mut header)?;
        let (magic, version) = header.split_at(MAGIC.len());
        if magic != MAGIC || version != VERSION.to_le_bytes() {
            return Err(Malformed::Header.into());
        }
        Ok(Self { reader, buffer: Vec::with_capacity(MAX_COMMAND_BYTES) })
    }

    /// The next command; [`Command::End`] is the last, whatever is behind it.
    pub(crate) fn next(&mut self) -> Result<Command<'_>, ReadError> {
        let mut header = [0; COMMAND_HEADER_BYTES];
        fill(&mut self.reader, &mut header)?;
        let [l0, l1, l2, l3, n0, n1, ..] = header;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if length > MAX_COMMAND_BYTES {
            return Err(Malformed::TooLong(length).into());
        }
        self.buffer.resize(length, 0);
        fill(&mut self.reader, &mut self.buffer)?;
        Ok(parse(u16::from_le_bytes([n0, n1]), &self.buffer)?)
    }
}

fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> Result<(), ReadError> {
    reader.read_exact(buffer).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Malformed::Truncated.into(),
        _ => ReadError::Io(error),
    })
}

/// The numbers of attributes.
mod attribute {
    pub(super) const UUID: u16 = 1;
    pub(super) const GENERATION: u16 = 2;
    pub(super) const SIZE: u16 = 4;
    pub(super) const MODE: u16 = 5;
    pub(super) const USER: u16 = 6;
    pub(super) const GROUP: u16 = 7;
    pub(super) const DEVICE: u16 = 8;
    pub(super) const MODIFIED: u16 = 10;
    pub(super) const ACCESSED: u16 = 11;
    pub(super) const XATTR_NAME: u16 = 13;
    pub(super) const XATTR_DATA: u16 = 14;
    pub(super) const PATH: u16 = 15;
    pub(super) const PATH_TO: u16 = 16;
    pub(super) const PATH_LINK: u16 = 17;
    pub(super) const OFFSET: u16 = 18;
    pub(super) const DATA: u16 = 19;
    pub(super) const CLONE_UUID: u16 = 20;
    pub(super) const CLONE_PATH: u16 = 22;
    pub(super) const CLONE_OFFSET: u16 = 23;
    pub(super) const CLONE_LENGTH: u16 = 24;
}

/// Attributes that version 1 has.
const KNOWN: RangeInclusive<u16> = 1..=24;

/// The attributes of one command, each at most once.
struct Attributes<'a> {
    command: u16,
    values: [Option<&'a [u8]>; *KNOWN.end() as usize + 1],
}

impl<'a> Attributes<'a> {
    fn parse(command: u16, mut rest: &'a [u8]) -> Result<Self, Malformed> {
        let wrong = Malformed::Attributes(command);
        let mut values = [None; *KNOWN.end() as usize + 1];
        while !rest.is_empty() {
            let (header, behind) = rest.split_at_checked(ATTRIBUTE_HEADER_BYTES).ok_or(wrong)?;
            let kind = u16::from_le_bytes([header[0], header[1]]);
            let length = u16::from_le_bytes([header[2], header[3]]);
            let (value, behind) = behind.split_at_checked(length.into()).ok_or(wrong)?;
            if !KNOWN.contains(&kind) || values[usize::from(kind)].replace(value).is_some() {
                return Err(wrong);
            }
            rest = behind;
        }
        Ok(Self { command, values })
    }

    fn bytes(&self, kind: u16) -> Result<&'a [u8], Malformed> {
        self.values[usize::from(kind)].ok_or(Malformed::Attributes(self.command))
    }

    fn array<const N: usize>(&self, kind: u16) -> Result<[u8; N], Malformed> {
        self.bytes(kind)?.try_into().map_err(|_| Malformed::Attributes(self.command))
    }

    fn number(&self, kind: u16) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array(kind)?))
    }

    fn path(&self) -> Result<&'a [u8], Malformed> {
        self.bytes(attribute::PATH)
    }

    fn time(&self, kind: u16) -> Result<Time, Malformed> {
        let [s0, s1, s2, s3, s4, s5, s6, s7, n @ ..]: [u8; 12] = self.array(kind)?;
        let nanoseconds = u32::from_le_bytes(n);
        if nanoseconds >= 1_000_000_000 {
            return Err(Malformed::Attributes(self.command));
        }
        Ok(Time { seconds: i64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]), nanoseconds })
    }
}

fn parse(number: u16, body: &[u8]) -> Result<Command<'_>, Malformed> {
    use attribute::*;
    let a = Attributes::parse(number, body)?;
    Ok(match number {
        1 => Command::Subvolume { uuid: a.array(UUID)?, generation: a.number(GENERATION)? },
        2 => {
            Command::Snapshot { uuid: a.array(UUID)?, generation: a.number(GENERATION)?, parent: a.array(CLONE_UUID)? }
        }
        3 => Command::MakeFile { path: a.path()? },
        4 => Command::MakeFolder { path: a.path()? },
        5 => Command::MakeNode { path: a.path()?, mode: a.number(MODE)?, device: a.number(DEVICE)? },
        6 => Command::MakeFifo { path: a.path()? },
        7 => Command::MakeSocket { path: a.path()? },
        8 => Command::Symlink { path: a.path()?, target: a.bytes(PATH_LINK)? },
        9 => Command::Rename { from: a.path()?, to: a.bytes(PATH_TO)? },
        10 => Command::Link { path: a.path()?, existing: a.bytes(PATH_LINK)? },
        11 => Command::Unlink { path: a.path()? },
        12 => Command::RemoveFolder { path: a.path()? },
        13 => Command::SetAttribute { path: a.path()?, name: a.bytes(XATTR_NAME)?, value: a.bytes(XATTR_DATA)? },
        14 => Command::RemoveAttribute { path: a.path()?, name: a.bytes(XATTR_NAME)? },
        15 => Command::Write { path: a.path()?, offset: a.number(OFFSET)?, data: a.bytes(DATA)? },
        16 => Command::Clone {
            path: a.path()?,
            offset: a.number(OFFSET)?,
            source: CloneSource {
                subvolume: a.array(CLONE_UUID)?,
                path: a.bytes(CLONE_PATH)?,
                offset: a.number(CLONE_OFFSET)?,
            },
            length: a.number(CLONE_LENGTH)?,
        },
        17 => Command::Truncate { path: a.path()?, size: a.number(SIZE)? },
        18 => Command::Mode { path: a.path()?, mode: a.number(MODE)? },
        19 => Command::Owner { path: a.path()?, user: a.number(USER)?, group: a.number(GROUP)? },
        20 => Command::Times { path: a.path()?, accessed: a.time(ACCESSED)?, modified: a.time(MODIFIED)? },
        21 => Command::End,
        22 => Command::Extent { path: a.path()?, size: a.number(SIZE)? },
        unknown => return Err(Malformed::Command(unknown)),
    })
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
