//! Numbers of followers, out of a file that somebody else keeps: a job that asks the networks, or a person.

use crate::{app::App, error::ServiceError};
use serde::Deserialize;
use std::{io, path::Path, time::UNIX_EPOCH};

/// Bytes of the largest file.
const MAX_BYTES: u64 = 64 << 10;

/// The file's content; what is absent is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Numbers {
    /// Members.
    pub discord: Option<u64>,
    /// Members online.
    pub discord_online: Option<u64>,
    /// Stars.
    pub github: Option<u64>,
    /// Followers.
    pub linkedin: Option<u64>,
    /// Members.
    pub telegram: Option<u64>,
    /// Followers.
    pub x: Option<u64>,
}

/// The numbers, and when they were written (milliseconds).
pub async fn read(app: &App) -> Result<(Numbers, Option<i64>), ServiceError> {
    let Some(path) = app.config.social_stats_file.clone() else {
        let message = "this installation keeps no numbers of followers: its operator can set social_stats_file";
        return Err(ServiceError::Unavailable(message.to_owned()));
    };
    let read = tokio::task::spawn_blocking(move || read_file(&path)).await.map_err(ServiceError::internal)?;
    read.map_err(|error| {
        tracing::warn!(error = crate::error::chain(&error), "the numbers of followers cannot be read");
        ServiceError::Unavailable("the numbers of followers cannot be read at the moment".to_owned())
    })
}

fn read_file(path: &Path) -> io::Result<(Numbers, Option<i64>)> {
    let metadata = std::fs::metadata(path)?;
    if metadata.len() > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is too large"));
    }
    let numbers = serde_json::from_slice(&std::fs::read(path)?)?;
    let written = metadata.modified()?.duration_since(UNIX_EPOCH).ok();
    Ok((numbers, written.and_then(|age| i64::try_from(age.as_millis()).ok())))
}
