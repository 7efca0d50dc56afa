//! `hoody-proxy`: see [`hoody_proxy`].

use std::process::ExitCode;

fn main() -> ExitCode {
    hoody_proxy::program::main()
}
