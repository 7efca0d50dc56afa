//! A new container from an archive: upload, look at all of it, then a creation like any other, whose image is the archive.
//! Nothing of an upload that is refused, or whose client went away, stays. What reads it has the user's place until it has
//! ended, whoever still waits: however often a request is given up, a user keeps two threads busy at most.

use super::super::{
    change::{Progress, settle},
    create,
    image::Source,
};
use super::{
    document::{Document, Over},
    inspect::{self, Problem},
    spool::{self, Spooled},
};
use crate::{
    app::App,
    caller::Caller,
    error::{ServiceError, chain},
    service::{
        exec::{Conversation, Kind},
        image::blobs::{BlobError, BlobFolder, LOCK_DEADLINE},
    },
    store::{container::ContainerRow, image, reservation},
};
use axum::body::Body;
use hoody_protocol::{
    id::ProjectId,
    image::{Compression, Digest, ImageSpec, Layer},
};
use std::{
    collections::BTreeMap,
    fs::File,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// Time for a whole import.
pub const LONGEST: Duration = Duration::from_secs(6 * 3600);
const MIB: u64 = 1 << 20;

/// What whoever imports says over what the archive says.
#[derive(Debug, Clone, Default)]
pub struct ImportInput {
    /// The project of the new container.
    pub project: Option<ProjectId>,
    /// Its name.
    pub name: Option<String>,
    /// Its server; absent: the scheduler chooses one.
    pub server_id: Option<String>,
    /// Whether it is started at once, and whenever its server boots.
    pub autostart: Option<bool>,
    /// Processor cores.
    pub cpu_cores: Option<f64>,
    /// Memory in MiB.
    pub memory_mb: Option<u64>,
    /// Root file system in MiB.
    pub storage_mb: Option<u64>,
}

/// Makes a container of the archive in `body` and waits for its node.
pub async fn import(
    app: &App,
    caller: &Caller,
    input: ImportInput,
    body: Body,
) -> Result<(ContainerRow, Progress), ServiceError> {
    let project_id =
        input.project.ok_or_else(|| ServiceError::invalid("project_id", "is needed: whose the container is to be"))?;
    let project = reservation::project(&app.store, project_id).await?.ok_or(ServiceError::NotFound("project"))?;
    create::may_use(app.store.reader(), caller, project_id, &project).await?;
    let place = app.conversations.begin(caller.user, Kind::Import)?;
    let data_dir = &app.config.data_dir;
    let spooled = spool::spool(data_dir, body).await?;
    hoody_fault::point!("import.spooled");
    let (place, spooled, document) = look(place, spooled, inspect::document).await?;
    let document = Document::parse(&document)?;
    let architecture = document.architecture.clone();
    let over = Over {
        name: input.name,
        server_id: input.server_id,
        autostart: input.autostart,
        cpu_cores: input.cpu_cores,
        memory_mb: input.memory_mb,
        storage_mb: input.storage_mb,
    };
    let (wanted, restored) = document.wanted(app.config.default_limits, over)?;
    let servers = reservation::servers_of(app.store.reader(), project.owner, project_id).await?;
    let ranked = create::choose(&servers, &wanted, Some(&architecture))?;
    // The disk is one that a server has: no archive is read further than that, whatever its document asks for.
    let most = wanted.limits.disk_bytes;
    let (place, spooled, inspected) =
        look(place, spooled, move |file, stopped| inspect::inspect(file, most, stopped)).await?;
    let (digest, size) = (spooled.digest, spooled.bytes);
    let layer = Layer { digest, size, compression: Compression::Zstd, archive_bytes: Some(inspected.bytes) };
    let layers = vec![layer].try_into().map_err(ServiceError::internal)?;
    let spec = ImageSpec::new(layers, restored.image_config());
    let source = Source::Archive { spec: Box::new(spec), architecture, restored: Box::new(restored) };
    // Until the database names the blob, the lock keeps it.
    let (_place, folder) = adopt(place, data_dir, spooled).await?;
    hoody_fault::point!("import.adopted");
    let row = match create::place(app, caller, project_id, wanted, source, &servers, &ranked).await {
        Ok(row) => row,
        Err(error) => {
            forget(app, folder, digest).await;
            return Err(error);
        }
    };
    drop(folder);
    hoody_fault::point!("import.committed");
    app.nodes.wake(row.server);
    settle(app, row).await
}

/// Sets its flag when it is dropped.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does `work` on a thread that keeps the place until it has ended. The flag is set once nobody waits for it.
async fn on_thread<T: Send + 'static>(
    place: Conversation,
    work: impl FnOnce(&AtomicBool) -> T + Send + 'static,
) -> Result<(Conversation, T), ServiceError> {
    let stopped = Arc::<AtomicBool>::default();
    let _stop = Stop(Arc::clone(&stopped));
    let working = tokio::task::spawn_blocking(move || {
        let done = work(&stopped);
        (place, done)
    });
    working.await.map_err(ServiceError::internal)
}

/// What `read` finds in the upload.
async fn look<T: Send + 'static>(
    place: Conversation,
    spooled: Spooled,
    read: impl FnOnce(File, &AtomicBool) -> Result<T, Problem> + Send + 'static,
) -> Result<(Conversation, Spooled, T), ServiceError> {
    let (place, looked) = on_thread(place, move |stopped| {
        let file = File::open(spooled.upload.path()).map_err(Problem::Io)?;
        Ok((spooled, read(file, stopped)?))
    })
    .await?;
    let (spooled, found) = looked.map_err(problem)?;
    Ok((place, spooled, found))
}

fn problem(problem: Problem) -> ServiceError {
    let unprocessable = |message, field: &str, detail| ServiceError::Unprocessable {
        message,
        details: BTreeMap::from([(field.to_owned(), detail)]),
    };
    match problem {
        Problem::Io(error) => ServiceError::internal(error),
        Problem::TooLarge(_) => unprocessable(format!("the archive {problem}"), "archive", problem.to_string()),
        // The files must fit what the container may take: they count as used. How many they are is not looked at.
        Problem::Disk(most) => unprocessable(
            format!(
                "the archive's files are more than the container's disk of {} MiB: give it more storage",
                most / MIB
            ),
            "storage_mb",
            format!("must be more than {}", most / MIB),
        ),
        _ => ServiceError::invalid("archive", problem.to_string()),
    }
}

/// Makes a blob of the upload, under the folder's lock.
async fn adopt(
    place: Conversation,
    data_dir: &Path,
    spooled: Spooled,
) -> Result<(Conversation, BlobFolder), ServiceError> {
    let data_dir = data_dir.to_owned();
    let (place, adopted) = on_thread(place, move |_| {
        let Spooled { upload, digest, bytes } = spooled;
        let folder = BlobFolder::lock(&data_dir, LOCK_DEADLINE)?;
        folder.take(upload, digest, bytes)?;
        Ok::<_, BlobError>(folder)
    })
    .await?;
    let folder = adopted.map_err(|error| match error {
        BlobError::Busy(_) => ServiceError::Unavailable("images are being imported: try again shortly".to_owned()),
        error => ServiceError::internal(error),
    })?;
    Ok((place, folder))
}

/// Removes the blob of a container that was not made, unless somebody else names it.
async fn forget(app: &App, folder: BlobFolder, digest: Digest) {
    let forgotten = async {
        let referenced = image::referenced_blobs(&app.store).await?;
        tokio::task::spawn_blocking(move || folder.collect(&referenced))
            .await
            .map_err(ServiceError::internal)?
            .map_err(ServiceError::internal)
    };
    if let Err(error) = forgotten.await {
        tracing::warn!(blob = %digest, error = chain(&error), "the blob of an import goes with the next collection");
    }
}

#[cfg(test)]
#[path = "import_tests.rs"]
mod tests;
