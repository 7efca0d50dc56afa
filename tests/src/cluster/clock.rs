//! A wrong clock for one process: libfaketime shifts what it reads as the time of day, not the monotonic clock.

use anyhow::{Context, Result};
use std::{path::PathBuf, process::Command};

/// Where Debian keeps the library, per architecture.
const FOLDER: &str = "/usr/lib";
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// Lets `command` run with a clock that is off by `offset`, for example `-8m` or `+40d`.
pub(super) fn shift(command: &mut Command, offset: Option<&str>) -> Result<()> {
    let Some(offset) = offset else { return Ok(()) };
    command
        .env("LD_PRELOAD", library()?)
        .env("FAKETIME", offset)
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .env("DONT_FAKE_MONOTONIC", "1");
    Ok(())
}

fn library() -> Result<PathBuf> {
    let folders = std::fs::read_dir(FOLDER)?.filter_map(|entry| Some(entry.ok()?.path()));
    let found = folders.map(|folder| folder.join(LIBRARY)).find(|path| path.is_file());
    found.with_context(|| format!("no {FOLDER}/*/{LIBRARY}: install the package faketime"))
}
