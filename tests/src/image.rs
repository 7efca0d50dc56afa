//! Images for the cluster, built by `scripts/images.sh` and cached below `/var/cache/hoody/images`.

use anyhow::{Context, Result, ensure};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The folder of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"))
}

/// The archive of an image, built where it is not in the cache; progress goes to standard error.
pub fn archive(name: &str) -> Result<PathBuf> {
    let output = Command::new(workspace().join("scripts/images.sh"))
        .arg(name)
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("run scripts/images.sh")?;
    ensure!(output.status.success(), "scripts/images.sh {name} failed");
    let path = String::from_utf8(output.stdout)?;
    Ok(PathBuf::from(path.trim()))
}
