//! The pull of a new container's image. The container waits in status `creating`, unknown to its server; when the
//! layers are blobs, one transaction puts the image into its specification, and from then on it is like any other.
//! A pull that fails makes it `failed`; the next start tries again.

use super::{
    change::{renew, write},
    creation::RegistryCredentials,
};
use crate::{
    app::App,
    config::Config,
    error::{ServiceError, chain},
    event::{Actor, EventKind, container::Identity},
    keys::Keys,
    service::image::{
        import::Platform,
        registry::{self, Credentials, Holder, Progress, PullError, PullRequest, Pulled, Reference, Registry, Traces},
    },
    store::{
        StoreError,
        container::{self, ContainerRow, Status},
        event, image,
        image_pull::{self, NewPull, Noted, PullState},
        status_log::{self, Trigger},
    },
};
use hoody_protocol::{
    container::Cause,
    id::ContainerId,
    image::{ImageConfig, ImageSpec},
    time::now_ms,
};
use ipnet::IpNet;
use serde_json::json;
use sqlx::AnyConnection;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::sync::{Notify, OnceCell};
use zeroize::Zeroizing;

/// What credentials are sealed for.
const PURPOSE: &str = "registry-credentials";
/// How often progress is written down.
const NOTE_INTERVAL: Duration = Duration::from_secs(1);
/// Characters of a user name.
const MAX_USERNAME_CHARS: usize = 255;
/// Characters of a password.
const MAX_PASSWORD_CHARS: usize = 4096;

/// What pulls of this process share.
#[derive(Debug, Default)]
pub struct Pulls {
    registry: OnceCell<Registry>,
    work: Notify,
}

impl Pulls {
    /// There may be something to pull.
    pub fn wake(&self) {
        self.work.notify_one();
    }

    /// Waits until somebody says so. For one waiter.
    pub async fn woken(&self) {
        self.work.notified().await;
    }
}

/// The client of registries with the operator's settings.
pub async fn client(config: &Config) -> Result<Registry, PullError> {
    let public = config.node_public_addresses.iter().filter_map(|address| address.parse::<SocketAddr>().ok());
    let own = public.map(|address| address.ip()).filter(|address| !address.is_unspecified());
    Registry::new(&config.registries, own.map(IpNet::from).collect()).await
}

/// What is wrong with credentials, for people.
pub(super) fn check_credentials(given: RegistryCredentials, image: Option<&str>) -> Result<Credentials, String> {
    let RegistryCredentials { username, password } = given;
    let plain = |text: &str, max: usize| !text.is_empty() && text.len() <= max && !text.chars().any(char::is_control);
    if !image.is_some_and(Reference::has_registry) {
        return Err("are for an image of a registry: name one as container_image".to_owned());
    }
    if !plain(&username, MAX_USERNAME_CHARS) || username.contains(':') || !plain(password.reveal(), MAX_PASSWORD_CHARS)
    {
        return Err(format!(
            "must have a username of 1 to {MAX_USERNAME_CHARS} characters without a colon and a password of 1 to \
             {MAX_PASSWORD_CHARS}"
        ));
    }
    Ok(Credentials { username, password: password.0 })
}

/// The pull of a container's image, credentials sealed.
pub(super) fn new(keys: &Keys, row: &ContainerRow, architecture: &str, credentials: Option<&Credentials>) -> NewPull {
    let id = row.spec.id;
    let credentials = credentials.map(|given| {
        // A user name has no colon.
        let pair = Zeroizing::new(format!("{}:{}", given.username, &*given.password));
        keys.seal(PURPOSE, &id.to_string(), pair.as_bytes())
    });
    NewPull {
        container: id,
        reference: row.image_name.clone(),
        architecture: architecture.to_owned(),
        credentials: credentials.unwrap_or_default(),
    }
}

/// Lets a failed pull begin anew; nothing for any other container. The row is about to be written.
pub(super) async fn begin_again(
    connection: &mut AnyConnection,
    row: &mut ContainerRow,
    trigger: Trigger,
) -> Result<(), ServiceError> {
    if let Some(pull) = row.pull.as_mut().filter(|pull| pull.state == PullState::Failed) {
        image_pull::retry(connection, row.spec.id).await?;
        (pull.state, pull.failure) = (PullState::Queued, None);
        (pull.bytes_done, pull.bytes_total) = (0, 0);
        status_log::transition(connection, row, Status::Creating, trigger, None, now_ms() as i64).await?;
    }
    Ok(())
}

/// Does a pull that this process has claimed, and writes down what became of it.
pub async fn run(app: &App, pull: NewPull) -> Result<(), ServiceError> {
    let id = pull.container;
    let (progress, traces) = (Progress::default(), Traces::new(&app.config.data_dir));
    let outcome = tokio::select! {
        outcome = fetch(app, &pull, &traces, &progress) => outcome,
        ended = watch(app, id, &progress) => {
            if ended == Ended::Gone {
                traces.forget();
            }
            return Ok(());
        }
    };
    match outcome {
        Ok(pulled) => {
            hoody_fault::point!("pull.fetched");
            let runtime = container::get(&app.store, id).await?.map(|row| row.runtime);
            let spec = for_runtime(&pulled.spec, runtime.as_deref().unwrap_or_default());
            let done = finish(app, id, spec).await;
            drop(pulled);
            match done {
                Err(ServiceError::Unprocessable { message, .. }) => {
                    fail(app, id, &Cause::new("image_invalid", message)).await
                }
                done => done,
            }
        }
        Err(error) => {
            tracing::info!(container = %id, image = %pull.reference, error = chain(&error), "an image was not pulled");
            fail(app, id, &error.cause()).await
        }
    }
}

async fn fetch(app: &App, pull: &NewPull, traces: &Arc<Traces>, progress: &Progress) -> Result<Pulled, PullError> {
    let request = request(app, pull).await?;
    let registry = app.pulls.registry.get_or_try_init(|| client(&app.config)).await?;
    registry::pull(registry, &request, traces, progress).await
}

async fn request(app: &App, pull: &NewPull) -> Result<PullRequest, PullError> {
    let damaged = PullError::Stored;
    let mut platform = Platform::here();
    if !pull.architecture.is_empty() {
        platform.architecture.clone_from(&pull.architecture);
    }
    let credentials = match pull.credentials.as_str() {
        "" => None,
        sealed => {
            let opened = app
                .keys
                .open_sealed(PURPOSE, &pull.container.to_string(), sealed)
                .map_err(|_| damaged("credentials"))?;
            let text = std::str::from_utf8(&opened).map_err(|_| damaged("credentials"))?;
            let (username, password) = text.split_once(':').ok_or_else(|| damaged("credentials"))?;
            Some(Credentials { username: username.to_owned(), password: Zeroizing::new(password.to_owned()) })
        }
    };
    let row = container::get(&app.store, pull.container).await.map_err(PullError::Store)?;
    let owner = row.ok_or(damaged("container"))?.spec.owner;
    let layers = image::blobs_of(&app.store, owner).await.map_err(PullError::Store)?;
    Ok(PullRequest {
        reference: pull.reference.parse().map_err(|_| damaged("reference"))?,
        platform,
        credentials,
        max_bytes: app.config.registries.max_image_bytes,
        holder: Holder::Account(owner, layers),
    })
}

/// Why a pull is not ours any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// Its container was deleted, or has its image by another replica: nobody goes on with what is there.
    Gone,
    /// Another replica took it over, and goes on with what is there.
    TakenOver,
}

/// Writes down how far the pull is; ends where it is not ours any more. Where the database does not answer the transfer goes
/// on: whose it is shows when it answers again.
async fn watch(app: &App, id: ContainerId, progress: &Progress) -> Ended {
    let mut ticks = tokio::time::interval(NOTE_INTERVAL);
    let (mut last, mut quarter, mut silent) = (None, 0, false);
    loop {
        ticks.tick().await;
        let now = progress.bytes();
        // Also without news: it says whether the pull is still wanted.
        let noted = image_pull::note(&app.store, id, &app.replica, now).await;
        match &noted {
            Ok(Noted::Ours) => {}
            Ok(Noted::Theirs) => return Ended::TakenOver,
            Ok(Noted::Gone) => return Ended::Gone,
            // Once, not every second.
            Err(error) if !silent => {
                tracing::warn!(container = %id, error = chain(error), "write down how far a pull is: it goes on");
            }
            Err(_) => {}
        }
        silent = noted.is_err();
        if silent {
            continue;
        }
        if last != Some(now) {
            app.nodes.changes.announce(id);
        }
        last = Some(now);
        let reached = (now.0 * 4).checked_div(now.1).unwrap_or(0);
        if reached > quarter {
            quarter = reached;
            if let Err(error) = tell(app, id, now).await {
                tracing::warn!(container = %id, error = chain(&error), "write an event of how far a pull is");
            }
        }
    }
}

/// An event with the progress.
async fn tell(app: &App, id: ContainerId, (done, total): (u64, u64)) -> Result<(), ServiceError> {
    let Some(row) = container::get(&app.store, id).await? else { return Ok(()) };
    let identity = Identity::of(&row).event(EventKind::ContainerResourceUpdated, Actor::System);
    let progress = json!({"image": row.image_name, "bytes_done": done, "bytes_total": total});
    let mut tx = app.store.begin().await?;
    event::insert(&mut tx, &identity.with("image_pull", progress)).await?;
    Ok(tx.commit().await.map_err(StoreError::from)?)
}

/// `docker` runs what the image names; `lxc` runs the image's own init as root, whatever else the image names.
fn for_runtime(spec: &ImageSpec, runtime: &str) -> ImageSpec {
    match runtime {
        "docker" => spec.clone(),
        _ => {
            let config = ImageConfig { env: spec.config.env.clone(), ..ImageConfig::default() };
            ImageSpec::new(spec.layers.clone(), config)
        }
    }
}

/// The image is there: the container's specification gets it, and the server is told of the container.
async fn finish(app: &App, id: ContainerId, spec: ImageSpec) -> Result<(), ServiceError> {
    let mut tx = app.store.begin().await?;
    let Some(mut row) = container::lock(&mut tx, id).await? else { return Ok(()) };
    if !image_pull::finish(&mut tx, id, &app.replica).await? {
        return Ok(());
    }
    let read = row.spec.version;
    row.spec.image = spec;
    renew(&mut tx, &mut row).await?;
    write(&mut tx, &mut row, read).await?;
    let event = Identity::of(&row).event(EventKind::ContainerResourceUpdated, Actor::System);
    event::insert(&mut tx, &event.with("changed", vec!["image"])).await?;
    hoody_fault::point!("pull.writing");
    tx.commit().await.map_err(StoreError::from)?;
    hoody_fault::point!("pull.committed");
    app.nodes.changes.announce(id);
    app.nodes.wake(row.server);
    Ok(())
}

/// The image cannot be had: the container says why.
pub async fn fail(app: &App, id: ContainerId, cause: &Cause) -> Result<(), ServiceError> {
    let mut tx = app.store.begin().await?;
    let Some(mut row) = container::lock(&mut tx, id).await? else { return Ok(()) };
    if !image_pull::fail(&mut tx, id, &app.replica, cause).await? {
        return Ok(());
    }
    let read = row.spec.version;
    let metadata = Some(json!({"code": &*cause.code, "message": &*cause.message}));
    status_log::transition(&mut tx, &mut row, Status::Failed, Trigger::System, metadata, now_ms() as i64).await?;
    write(&mut tx, &mut row, read).await?;
    tx.commit().await.map_err(StoreError::from)?;
    app.nodes.changes.announce(id);
    Ok(())
}

#[cfg(test)]
#[path = "pull_tests.rs"]
mod tests;
