//! Receiving of send streams. They are hostile input: a node or tenant who makes one by hand chooses every path, link
//! and length in it. So a confined process of its own carries them out, one subvolume being all that it sees, and
//! the program `btrfs receive` is not used: that needs CAP_SYS_ADMIN, finds what a difference is based on by an
//! identity that the stream names, in the whole pool, and goes through links.
//!
//! The agent's side is [`run`]; the process's side is [`child_main`], which the agent's program calls where its first
//! argument is [`SUBCOMMAND`].

mod apply;
mod child;
mod report;
mod room;
pub(crate) mod run;
pub(crate) mod stream;
mod tree;

pub use child::{SUBCOMMAND, child_main};
pub use report::Refusal;
pub use room::Room;
pub use run::ReceiveError;

/// What must hold of any bytes.
pub(crate) fn fuzzing(bytes: &[u8]) {
    let Ok(mut commands) = stream::Commands::open(bytes) else { return };
    while let Ok(command) = commands.next() {
        match command {
            stream::Command::End => return,
            stream::Command::Write { path, data, .. } => assert!(path.len() + data.len() <= bytes.len()),
            stream::Command::Times { accessed, modified, .. } => {
                assert!(accessed.nanoseconds < 1_000_000_000 && modified.nanoseconds < 1_000_000_000);
            }
            _ => {}
        }
    }
}
