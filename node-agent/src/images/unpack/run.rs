//! Starts the unpacker for one layer and takes its report.

use super::{
    child::{Order, SUBCOMMAND},
    layer::Limits,
    report::{MAX_REPORT_BYTES, Report, Tally},
};
use crate::{
    images::ImageError,
    sandbox::child::{read_up_to, wait},
};
use hoody_protocol::image::Layer;
use std::{
    fs::File,
    io,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// Bytes of standard error that are kept.
const MAX_DIAGNOSIS_BYTES: u64 = 1024;

/// Unpacks `layer` from `blob` into the folder `target`. Blocks until the process has ended, and must run on
/// a thread that lives as long: the kernel kills the process when the thread that started it ends.
pub(crate) fn unpack(
    program: &Path,
    layer: &Layer,
    blob: File,
    target: &Path,
    limits: Limits,
    deadline: Duration,
) -> Result<Tally, ImageError> {
    let (compression, archive_bytes) = (layer.compression, layer.archive_bytes);
    let order = Order { compression, limits, archive_bytes, parent: std::process::id() };
    let mut child = Command::new(program)
        .arg(SUBCOMMAND)
        .args(order.to_arguments())
        .env_clear()
        .current_dir(target)
        .stdin(blob)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(ImageError::io("start unpacker", program))?;
    let ended = wait(&child, deadline);
    if !matches!(ended, Ok(true)) {
        // Already dead is as good.
        let _ = child.kill();
    }
    let status = child.wait().map_err(ImageError::io("wait for unpacker", program))?;
    if !ended.map_err(ImageError::io("wait for unpacker", program))? {
        return Err(ImageError::UnpackDeadline { layer: layer.digest, seconds: deadline.as_secs() });
    }
    let report = read_up_to(child.stdout.take(), MAX_REPORT_BYTES as u64);
    let died = |child: &mut Child| ImageError::UnpackerDied {
        layer: layer.digest,
        status,
        diagnosis: String::from_utf8_lossy(&read_up_to(child.stderr.take(), MAX_DIAGNOSIS_BYTES)).into_owned(),
    };
    if !status.success() {
        return Err(died(&mut child));
    }
    match serde_json::from_slice(&report) {
        Ok(Report::Done(tally)) => Ok(tally),
        Ok(Report::Refused { refusal, entry }) => Err(ImageError::LayerRefused { layer: layer.digest, refusal, entry }),
        Ok(Report::Failed { errno, message, entry }) => {
            let source = if errno > 0 { io::Error::from_raw_os_error(errno) } else { io::Error::other(message) };
            Err(ImageError::Unpack { layer: layer.digest, entry, source })
        }
        Err(_) => Err(died(&mut child)),
    }
}
