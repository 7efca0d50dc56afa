//! Carries out what an operator decided about containers that only the node knows. The specification is asked
//! of the node, which may lie about it: it is checked like anybody's input, and what it says about project and
//! owner does not count.
//!
//! The decision stays in the store until it is done, so that a link or a process that ends in between changes
//! nothing: asked again, the node gives what it holds by then.

use super::link::Link;
use crate::{
    service::network,
    store::{
        StoreError,
        container::{self, Attributes, ContainerRow, ServerInfo, Status},
        image, reservation, settings,
        status_log::{self, Trigger},
        unknown::{self, Decision, Unknown},
    },
};
use hoody_protocol::{
    container::{ContainerSpec, Desired},
    id::{ContainerId, ProjectId},
    link::{CommandReply, SpecQuery, SpecReply},
    stream::{self, AskError},
    tag::Message,
    time::now_ms,
    version::SpecVersion,
};
use serde_json::json;
use sqlx::AnyConnection;
use std::time::Duration;

/// Time for the node to answer.
const DEADLINE: Duration = Duration::from_secs(20);
/// Pause after a node that did not answer.
const RETRY: Duration = Duration::from_secs(5);
/// Catalogue name of an adopted container whose image is no longer in the catalogue.
const UNLISTED_IMAGE: &str = "unlisted";
/// JSON is longer than the CBOR of the message, but for the heads of a few long collections.
const SIZE_SLACK: usize = 4 << 10;

/// Why a decision is not carried out.
#[derive(Debug, thiserror::Error)]
enum Undone {
    /// For good: the operator is told and decides again.
    #[error("{0}")]
    Problem(String),
    /// For now.
    #[error("ask the node")]
    Ask(#[from] AskError),
    /// For now.
    #[error("database")]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for Undone {
    fn from(error: sqlx::Error) -> Self {
        StoreError::from(error).into()
    }
}

/// Carries out decisions until the link drops this.
pub(super) async fn carry_out(link: &Link) {
    loop {
        // Boxed: there is hardly ever anything to do, and its room would be taken for as long as the link lives.
        match Box::pin(pass(link)).await {
            Ok(()) => link.wakes.decisions.notified().await,
            Err(error) => {
                tracing::warn!(server = %link.server(), error = &error as &dyn std::error::Error,
                    "a decision on an unknown container is not carried out yet");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn pass(link: &Link) -> Result<(), Undone> {
    let store = &link.context.app.store;
    for row in unknown::list(store, link.server()).await? {
        let Some(decision) = row.decision.clone() else { continue };
        let outcome = match decision {
            Decision::Remove => remove(link, &row).await,
            Decision::Adopt { project, name } => adopt(link, &row, project, name).await,
        };
        if let Err(Undone::Problem(problem)) = outcome {
            tracing::warn!(server = %link.server(), container = %row.container, problem,
                "a decision on an unknown container cannot be carried out");
            let mut tx = store.begin().await?;
            unknown::fail(&mut tx, link.server(), row.container, &problem).await?;
            tx.commit().await?;
        } else {
            outcome?;
        }
    }
    Ok(())
}

/// What the node holds of the container, checked; `None` where it holds it no more.
async fn held(link: &Link, container: ContainerId) -> Result<Option<ContainerSpec>, Undone> {
    let question = SpecQuery { container };
    let answer = stream::ask::<_, SpecReply>(&link.connection, &question, DEADLINE).await;
    let Some(spec) = (match answer {
        Ok(answer) => answer.spec,
        Err(AskError::Refused(cause)) => {
            return Err(Undone::Problem(format!("the node does not say what it holds: {}", cause.message)));
        }
        Err(error) => return Err(error.into()),
    }) else {
        return Ok(None);
    };
    if spec.id != container {
        return Err(Undone::Problem("the node answered about another container".to_owned()));
    }
    spec.check().map_err(|problem| Undone::Problem(format!("the node's specification is not valid: {problem}")))?;
    Ok(Some(spec))
}

/// The version after the one held, in the present epoch.
async fn next_version(connection: &mut AnyConnection, held: SpecVersion) -> Result<SpecVersion, Undone> {
    let epoch = settings::epoch(connection).await?;
    let bounded = i64::MAX as u64 - 1;
    if held.epoch > epoch || held.generation >= bounded {
        return Err(Undone::Problem(format!(
            "the node holds version {held}, which is ahead of this database: was it restored without a new epoch?"
        )));
    }
    Ok(SpecVersion { epoch, generation: held.generation + 1 })
}

async fn remove(link: &Link, row: &Unknown) -> Result<(), Undone> {
    let (server, store) = (link.server(), &link.context.app.store);
    if let Some(mut tombstone) = held(link, row.container).await?
        && tombstone.desired != Desired::Deleted
    {
        let mut tx = store.begin().await?;
        // Known by now, as somebody's: then it is not removed behind that somebody's back.
        if container::lock(&mut tx, row.container).await?.is_some_and(|known| known.server == server) {
            unknown::forget(&mut tx, server, row.container).await?;
            tx.commit().await?;
            return Ok(());
        }
        tombstone.version = next_version(&mut tx, tombstone.version).await?;
        tx.rollback().await?;
        tombstone.sequence = tombstone.sequence.saturating_add(1);
        tombstone.desired = Desired::Deleted;
        hoody_fault::point!("removal.sending");
        match stream::ask::<_, CommandReply>(&link.connection, &tombstone, DEADLINE).await? {
            CommandReply::Accepted => {}
            CommandReply::Refused(cause) => {
                return Err(Undone::Problem(format!("the node refused the deletion: {}", cause.message)));
            }
            other => return Err(Undone::Problem(format!("the node refused the deletion: {other:?}"))),
        }
        hoody_fault::point!("removal.accepted");
        tracing::info!(%server, container = %row.container, "an unknown container is removed from its node");
    }
    let mut tx = store.begin().await?;
    unknown::forget(&mut tx, server, row.container).await?;
    tx.commit().await?;
    hoody_fault::point!("removal.forgotten");
    Ok(())
}

async fn adopt(link: &Link, row: &Unknown, project: ProjectId, name: String) -> Result<(), Undone> {
    let (server, app) = (link.server(), &link.context.app);
    let Some(spec) = held(link, row.container).await? else {
        let mut tx = app.store.begin().await?;
        unknown::forget(&mut tx, server, row.container).await?;
        return Ok(tx.commit().await?);
    };
    if spec.desired == Desired::Deleted {
        return Err(Undone::Problem("the node is deleting it".to_owned()));
    }
    let image_name = image::name_of(&app.store, spec.image.digest).await?;
    let mut tx = app.store.begin().await?;
    let Some((target, _)) = reservation::lock_project(&mut tx, project).await? else {
        return Err(Undone::Problem("the project was deleted".to_owned()));
    };
    if !reservation::reserve(&mut tx, server, target.owner, &spec.limits).await? {
        return Err(Undone::Problem(
            "the server has no room for it, or is not rented by the owner of the project".to_owned(),
        ));
    }
    let now = now_ms() as i64;
    let runs = match spec.desired {
        Desired::Running { run } | Desired::Paused { run } => run.min(i64::MAX as u64),
        Desired::Stopped { .. } | Desired::Deleted => 0,
    };
    let moved = (spec.project, spec.owner) != (project, target.owner);
    let version = next_version(&mut tx, spec.version).await?;
    if moved && version.epoch == spec.version.epoch {
        return Err(Undone::Problem(
            "a node changes the project of a container only after a restore: adopt it into its own project".to_owned(),
        ));
    }
    let sequence = spec.sequence.min(i64::MAX as u64 - 1) + 1;
    // Neither is the node's to give.
    let (ssh_public_key, kvm) = (None, false);
    // Nobody of the new project has shared or accepted anything.
    let shares = Default::default();
    let spec = ContainerSpec { project, owner: target.owner, version, sequence, ssh_public_key, kvm, shares, ..spec };
    if serde_json::to_vec(&spec).map_or(usize::MAX, |json| json.len()) + SIZE_SLACK > ContainerSpec::MAX_BYTES {
        return Err(Undone::Problem("its specification is too large".to_owned()));
    }
    let (network, egress_credentials) = network::adopted(&app.keys, &spec, now);
    let row = ContainerRow {
        server,
        name,
        image_name: image_name.unwrap_or_else(|| UNLISTED_IMAGE.to_owned()),
        runtime: "lxc".to_owned(),
        realm_ids: target.realm_ids,
        attributes: Attributes { runs, network, ..Attributes::default() },
        egress_credentials,
        sequence,
        status: Status::Creating,
        status_changed_at: now,
        report: None,
        deleted_at: None,
        snapshot_count: 0,
        last_used_snapshot: None,
        created_at: now,
        updated_at: now,
        project_alias: target.alias,
        project_is_default: target.is_default,
        pull: None,
        server_info: ServerInfo::default(),
        spec,
    };
    container::insert(&mut tx, &row).await.map_err(|error| match error {
        StoreError::Duplicate { what } => Undone::Problem(format!("{what} is already in use")),
        other => other.into(),
    })?;
    status_log::begin(&mut tx, &row, Trigger::System, Some(json!({ "adopted": true }))).await?;
    unknown::forget(&mut tx, server, row.spec.id).await?;
    hoody_fault::point!("adoption.writing");
    tx.commit().await?;
    hoody_fault::point!("adoption.committed");
    tracing::info!(%server, container = %row.spec.id, %project, "an unknown container was adopted");
    app.nodes.wake(server);
    Ok(())
}
