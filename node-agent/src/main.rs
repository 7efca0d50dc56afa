//! `hoody-agent`: see [`hoody_agent`].

use std::process::ExitCode;

fn main() -> ExitCode {
    hoody_agent::cli::main()
}
