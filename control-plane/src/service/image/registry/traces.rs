//! What a pull has on the disk before its layers are blobs. It stays where a pull is broken off, for whoever goes on with it;
//! what nobody will go on with is forgotten, but not before the last thread that writes it has ended.

use super::{holder::Holder, partial::Partial};
use crate::service::image::blobs::pulled_path;
use hoody_protocol::image::{Digest, Layer};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// The files of one pull. Whoever writes one holds it, so that it goes when nobody does.
#[derive(Debug)]
pub struct Traces {
    data_dir: PathBuf,
    forgotten: AtomicBool,
    layers: Mutex<Vec<(String, Digest)>>,
}

impl Traces {
    /// Of a pull into the blobs of `data_dir`.
    pub fn new(data_dir: &Path) -> Arc<Self> {
        Arc::new(Self { data_dir: data_dir.to_owned(), forgotten: AtomicBool::default(), layers: Mutex::default() })
    }

    /// The folder with the blobs' folder in it.
    pub(super) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// These layers are about to be fetched.
    pub(super) fn begin(&self, holder: &Holder, layers: &[Layer]) {
        let mut begun = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        *begun = layers.iter().map(|layer| (holder.prefix(), layer.digest)).collect();
    }

    /// Nobody will go on with it: nothing of it stays once nobody holds it.
    pub fn forget(&self) {
        self.forgotten.store(true, Ordering::Relaxed);
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        if !*self.forgotten.get_mut() {
            return;
        }
        for (holder, digest) in self.layers.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // But for what another pull is writing.
            Partial::remove_unused(&self.data_dir, &holder, digest);
            // A pull that shares it finds out, and fetches it again.
            let _ = std::fs::remove_file(pulled_path(&self.data_dir, &holder, digest));
        }
    }
}
