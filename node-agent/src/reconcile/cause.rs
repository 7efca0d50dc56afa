//! What an owner is told of a failure: the step's own words, or a better known reason behind them.

use crate::{
    images::{BlobError, ImageError},
    ramdisk::RamdiskError,
    runtime::RuntimeError,
    storage::StorageError,
    transfer::TransferError,
};
use hoody_protocol::container::Cause;
use std::{error::Error, io::ErrorKind};

/// The reason behind `error` where it is one that its reader can do something about.
pub(super) fn known(error: &(dyn Error + 'static)) -> Option<Cause> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(cause) = of(error) {
            return Some(cause);
        }
        next = match error.downcast_ref::<ImageError>() {
            // Another caller's failure shows its source, but not itself.
            Some(ImageError::Shared(inner)) => Some(inner.root()),
            _ => error.source(),
        };
    }
    None
}

fn of(error: &(dyn Error + 'static)) -> Option<Cause> {
    let full =
        || Some(Cause::new("no_space", "a disk of the server is full: free space, then start the container again"));
    if let Some(error) = error.downcast_ref::<TransferError>() {
        return Some(error.cause());
    }
    if let Some(error) = error.downcast_ref::<std::io::Error>() {
        return match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => full(),
            _ => None,
        };
    }
    if let Some(error) = error.downcast_ref::<ImageError>() {
        return match error {
            ImageError::NoSpace { .. } => full(),
            ImageError::DigestMismatch { .. } | ImageError::Overlong { .. } | ImageError::Inconsistent { .. } => {
                Some(Cause::new("image_corrupt", "the image that arrived is not what its digest says"))
            }
            ImageError::LayerRefused { refusal, entry, .. } => {
                let message = format!("the image holds what this server does not accept: {refusal}, at {entry:?}");
                Some(Cause::new("image_refused", message))
            }
            ImageError::TooLarge { .. } => {
                Some(Cause::new("image_refused", "the image is larger than this server accepts"))
            }
            ImageError::Blob { source: BlobError::Unreachable, .. } => {
                Some(Cause::new("image_unreachable", "the image is fetched when the control plane is reachable again"))
            }
            _ => None,
        };
    }
    match error.downcast_ref::<RamdiskError>() {
        Some(RamdiskError::PoolFull { wanted_bytes, free_bytes }) => {
            let (wanted, free) = (wanted_bytes.div_ceil(1 << 20), free_bytes >> 20);
            let message = format!("the RAM disk takes {wanted} MiB, the server has {free} MiB for RAM disks left");
            return Some(Cause::new("ramdisk_pool_full", message));
        }
        Some(RamdiskError::Unsupported) => {
            let message = "the server's kernel cannot share a RAM disk in a project: set ramdisk_scope to container";
            return Some(Cause::new("ramdisk_unsupported", message));
        }
        _ => {}
    }
    if let Some(error) = error.downcast_ref::<StorageError>() {
        return match error {
            StorageError::NoSnapshot { .. } => {
                Some(Cause::new("snapshot_missing", "the server does not hold the snapshot"))
            }
            StorageError::NoTransfer { .. } => {
                Some(Cause::new("transfer_missing", "what was to be put in place is no longer on the server"))
            }
            StorageError::TooManySnapshots { most, .. } => Some(Cause::new(
                "too_many_snapshots",
                format!("the server keeps at most {most} snapshots of a container: delete one first"),
            )),
            StorageError::CopyTooLarge { needed, .. } => Some(Cause::new(
                "copy_too_large",
                format!("the container begins with {} MiB: give it more storage", needed.div_ceil(1 << 20)),
            )),
            _ => None,
        };
    }
    match error.downcast_ref::<RuntimeError>()? {
        RuntimeError::Program { program, source } if source.kind() == ErrorKind::NotFound => {
            let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy();
            Some(Cause::new("program_missing", format!("the server lacks the program {name}, which containers need")))
        }
        RuntimeError::NoKvm { .. } => Some(Cause::new(
            "kvm_unavailable",
            "the server has no KVM: take it from the container, or start it on another server",
        )),
        // The reason is ours, and about what the image or its user says.
        RuntimeError::Bundle { reason, .. } => Some(Cause::new(
            "container_configuration",
            format!("the container cannot be run as its image and settings say: {reason}"),
        )),
        // Its message is what a program wrote.
        RuntimeError::Failed { message, .. } if message.contains("no space left on device") => full(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::DesiredError;
    use std::{io, sync::Arc};

    fn code(error: impl Error + 'static) -> Option<String> {
        known(&error).map(|cause| cause.code.to_string())
    }

    #[test]
    fn reasons_are_found_behind_whatever_wraps_them() {
        let full = || io::Error::from(ErrorKind::StorageFull);
        let persisted = DesiredError::Io { action: "write", path: "/state".into(), source: full() };
        assert_eq!(code(persisted).as_deref(), Some("no_space"));
        let digest = hoody_protocol::image::Digest::of(b"");
        let mismatch = || ImageError::DigestMismatch { digest, found: digest };
        assert_eq!(code(mismatch()).as_deref(), Some("image_corrupt"));
        assert_eq!(code(ImageError::Shared(Arc::new(mismatch()))).as_deref(), Some("image_corrupt"));
        let missing = RuntimeError::Program { program: "/usr/sbin/runc".into(), source: ErrorKind::NotFound.into() };
        assert!(known(&missing).is_some_and(|cause| cause.message.contains("runc")));
        assert_eq!(code(RuntimeError::Config { reason: "no".into() }), None);
    }
}
