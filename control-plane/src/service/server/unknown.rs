//! What operators decide about containers that only a node knows. The node's link carries it out.

use super::SERVER;
use crate::{
    app::App,
    error::ServiceError,
    page::Page,
    service::container::{MIN_NEW_NAME_CHARS, check_name},
    store::{
        StoreError, reservation, server as servers,
        unknown::{self, Decision, Unknown},
    },
};
use hoody_protocol::id::{ContainerId, ProjectId, ServerId};

/// What a decision is about, in the words of a refusal.
const CONTAINER: &str = "unknown container";

/// A page of what the server's node holds and nobody here knows, and how many there are.
pub async fn list(app: &App, server: ServerId, page: Page) -> Result<(Vec<Unknown>, u64), ServiceError> {
    servers::by_id(&app.store, server).await?.ok_or(ServiceError::NotFound(SERVER))?;
    let all = unknown::list(&app.store, server).await?;
    let total = all.len() as u64;
    let offset = usize::try_from(page.offset()).unwrap_or(usize::MAX);
    Ok((all.into_iter().skip(offset).take(page.limit as usize).collect(), total))
}

/// The container becomes one of the project, under a name that defaults to its id.
pub async fn adopt(
    app: &App,
    server: ServerId,
    container: ContainerId,
    project: ProjectId,
    name: Option<String>,
) -> Result<(), ServiceError> {
    let name = name.unwrap_or_else(|| container.to_string());
    check_name(&name, MIN_NEW_NAME_CHARS).map_err(|problem| ServiceError::invalid("name", problem))?;
    let target = reservation::project(&app.store, project).await?.ok_or(ServiceError::NotFound("project"))?;
    let row = servers::by_id(&app.store, server).await?.ok_or(ServiceError::NotFound(SERVER))?;
    if row.owner != Some(target.owner) {
        return Err(ServiceError::Conflict(
            "the server is not rented by the owner of the project: choose one of its tenant's projects".to_owned(),
        ));
    }
    decide(app, server, container, Decision::Adopt { project, name }).await
}

/// The container is deleted from its node.
pub async fn remove(app: &App, server: ServerId, container: ContainerId) -> Result<(), ServiceError> {
    decide(app, server, container, Decision::Remove).await
}

async fn decide(app: &App, server: ServerId, container: ContainerId, decision: Decision) -> Result<(), ServiceError> {
    let mut tx = app.store.begin().await?;
    let found = unknown::decide(&mut tx, server, container, &decision).await?;
    tx.commit().await.map_err(StoreError::from)?;
    hoody_fault::point!("decision.committed");
    if !found {
        return Err(ServiceError::NotFound(CONTAINER));
    }
    tracing::info!(%server, %container, ?decision, "an operator decided about an unknown container");
    app.nodes.wake_for_decisions(server);
    Ok(())
}
