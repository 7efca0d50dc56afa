//! The receiver process: the agent's own program, started again with `receive-stream`.
//!
//! It reads the stream from standard input, carries it out in the folder that it was started in, and writes one line
//! of JSON, the [`Report`], to standard output.

use super::{
    apply::apply,
    report::{Report, Stop, Tally},
    stream::Uuid,
};
use crate::sandbox::{self, Confinement};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use std::{
    ffi::OsString,
    fs::File,
    io::{self, BufReader, Write},
    os::fd::AsFd,
    process::ExitCode,
};

/// The first argument by which the agent's program becomes the receiver.
pub const SUBCOMMAND: &str = "receive-stream";
/// Stands for a stream that is not the difference from anything.
const WHOLE: &str = "whole";
/// Bytes read at once.
const BUFFER_BYTES: usize = 256 << 10;

/// What the agent asks of the receiver, as arguments behind [`SUBCOMMAND`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Order {
    /// What the stream is the difference from; `None`: from nothing.
    pub(crate) parent: Option<Uuid>,
    /// Process id of the agent.
    pub(crate) agent: u32,
}

impl Order {
    pub(crate) fn to_arguments(self) -> [String; 2] {
        [self.parent.map_or_else(|| WHOLE.to_owned(), hex::encode), self.agent.to_string()]
    }

    fn parse(arguments: impl Iterator<Item = OsString>) -> Option<Self> {
        let arguments: Vec<String> = arguments.map(|a| a.into_string().ok()).collect::<Option<_>>()?;
        let [parent, agent] = arguments.as_slice() else { return None };
        let mut uuid = Uuid::default();
        let parent = match parent.as_str() {
            WHOLE => None,
            text => hex::decode_to_slice(text, &mut uuid).ok().map(|()| Some(uuid))?,
        };
        Some(Self { parent, agent: agent.parse().ok()? })
    }
}

/// What `main` calls, before any thread is started, where the program's first argument is [`SUBCOMMAND`];
/// `arguments` are those behind it. The exit code is 0 where a report was written, whatever it says.
pub fn child_main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(order) = Order::parse(arguments) else {
        eprintln!("{SUBCOMMAND} is for the agent's own use");
        return ExitCode::from(2);
    };
    crate::background::yield_to_others();
    if let Err(error) = sandbox::enter(order.agent, &Confinement::receiver()) {
        eprintln!("enter the sandbox: {error}");
        return ExitCode::FAILURE;
    }
    let report = receive(order).map_or_else(Stop::report, Report::Done);
    let written = serde_json::to_vec(&report).map_err(io::Error::other).and_then(|json| io::stdout().write_all(&json));
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn receive(order: Order) -> Result<Tally, Stop> {
    let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let top = open("/", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    apply(BufReader::with_capacity(BUFFER_BYTES, input), top, order.parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_survives_the_command_line() {
        for parent in [None, Some([7; 16])] {
            let order = Order { parent, agent: 7 };
            assert_eq!(Order::parse(order.to_arguments().into_iter().map(Into::into)), Some(order));
        }
        for wrong in [vec!["whole"], vec!["whole", "x"], vec!["07", "1"], vec!["whole", "1", "2"]] {
            assert_eq!(Order::parse(wrong.into_iter().map(Into::into)), None);
        }
    }
}
