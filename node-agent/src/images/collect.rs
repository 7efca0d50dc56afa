//! Collection of trees that no image which a container names is made of: after a while, and at once where room is
//! short. A tree that others were made from is one as any other: they hold their files themselves.
//!
//! When a tree was last used is the time of the empty file `<pool>/used/<chain>`. It outlives the agent, and
//! where it is missing the tree counts as used now. A deletion is one step of the file system; nothing needs
//! to be put right after a crash in between.

use super::{ImageError, InUse, store::Store};
use crate::storage::is_charged;
use hoody_protocol::image::Digest;
use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

/// Pause between two collections where room is not short.
const INTERVAL: Duration = Duration::from_secs(600);

/// Collects for as long as the agent runs.
pub async fn run(images: Arc<dyn super::Images>, in_use: impl Fn() -> HashSet<Digest> + Send + Sync) {
    loop {
        match images.collect(&in_use).await {
            Ok(deleted) => {
                for tree in deleted {
                    tracing::info!(%tree, "a tree of images that no container names was deleted");
                }
            }
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "images were not collected"),
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = images.short_of_room() => {}
        }
    }
}

impl Store {
    /// Deletes what is unused for long enough or was one container's own, or everything unused where an image did not fit.
    pub(super) async fn collect(&self, in_use: InUse<'_>) -> Result<Vec<Digest>, ImageError> {
        let short = self.short.swap(false, Ordering::Relaxed);
        let mut deleted = Vec::new();
        for (tree, age) in self.ages().await? {
            // Nobody finds the tree from here on who was not seen to name it: containers are written down
            // before their image is looked for.
            let _alone = self.finding.write().await;
            if in_use().contains(&tree) {
                self.used(tree).await?;
            } else if short || age >= self.config.keep || self.is_private(tree).await? {
                self.delete(self.trees.join(tree.hex())).await?;
                let mark = self.marks.join(tree.hex());
                self.quick("forget use of", &mark.clone(), move || remove(&mark)).await?;
                deleted.push(tree);
            }
        }
        Ok(deleted)
    }

    /// True where it was made from a container's archive: no other container will ask for it.
    async fn is_private(&self, tree: Digest) -> Result<bool, ImageError> {
        let path = self.trees.join(tree.hex());
        self.quick("inspect", &path.clone(), move || is_charged(&path)).await
    }

    /// Writes down that the tree is used now. Where the pool is too full for that, it counts as used at the next
    /// collection.
    pub(super) async fn used(&self, tree: Digest) -> Result<(), ImageError> {
        let mark = self.marks.join(tree.hex());
        let touch = {
            let mark = mark.clone();
            move || {
                let file = File::options().write(true).create(true).truncate(false).open(mark)?;
                file.set_modified(SystemTime::now())
            }
        };
        match self.quick("note use of", &mark, touch).await {
            Err(ImageError::Io { source, .. }) if source.kind() == io::ErrorKind::StorageFull => Ok(()),
            other => other,
        }
    }

    /// Every complete tree and the time since its last use; one without a mark gets one now.
    async fn ages(&self) -> Result<Vec<(Digest, Duration)>, ImageError> {
        let folder = self.trees.clone();
        let names = self.quick("list", &self.trees, move || {
            fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<Vec<_>>>()
        });
        let mut ages = Vec::new();
        for tree in names.await?.iter().filter_map(|name| format!("sha256:{}", name.to_str()?).parse().ok()) {
            if self.find(tree).await?.is_none() {
                continue;
            }
            let mark = self.marks.join(tree.hex());
            let age = self.quick("read use of", &mark.clone(), move || age(&mark)).await?;
            if age.is_none() {
                self.used(tree).await?;
            }
            ages.push((tree, age.unwrap_or_default()));
        }
        Ok(ages)
    }
}

/// Time since the mark was touched; `None` where there is none. A clock that was set back makes it young.
fn age(mark: &Path) -> io::Result<Option<Duration>> {
    match fs::metadata(mark) {
        Ok(found) => Ok(Some(SystemTime::now().duration_since(found.modified()?).unwrap_or_default())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
