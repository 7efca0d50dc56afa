//! Which servers may take a container that moves: those that its owner may use, as for a new one.

use super::NotBegun;
use crate::{
    app::App,
    error::ServiceError,
    scheduler::{self, Demand, Reason, Rejection},
    service::container::transfers,
    store::{container::ContainerRow, node, reservation},
};
use hoody_protocol::{container::Cause, id::ServerId};
use sqlx::AnyConnection;

/// What the container asks of a server; the present one's architecture is `architecture`, empty where it is not known.
fn demand<'a>(row: &'a ContainerRow, architecture: &'a str) -> Demand<'a> {
    let architecture = Some(architecture).filter(|architecture| !architecture.is_empty());
    Demand { limits: &row.spec.limits, architecture, kvm: row.spec.kvm }
}

/// Why the target, on which room is reserved, may not have the container as it is now; `None`: it may.
pub(super) async fn objection(
    connection: &mut AnyConnection,
    row: &ContainerRow,
    target: ServerId,
) -> Result<Option<Cause>, ServiceError> {
    let servers = reservation::servers_of(&mut *connection, row.spec.owner, row.spec.project).await?;
    let architecture = node::architecture(&mut *connection, row.server).await?;
    let Some(server) = servers.iter().find(|server| server.id == target) else {
        let message = "the container's owner does not have the use of the server that it moves to any more";
        return Ok(Some(Cause::new("target_not_usable", message)));
    };
    let reason = scheduler::suits(server, demand(row, &architecture)).err();
    Ok(reason.map(|reason| {
        let message = format!("server {} cannot take the container as it is now: {reason}", server.name);
        Cause::new("target_not_suited", message)
    }))
}

/// The servers that can take the container, best first: those that its owner may use, as for a new one.
pub(super) async fn candidates(
    app: &App,
    row: &ContainerRow,
    target: Option<ServerId>,
) -> Result<Vec<ServerId>, NotBegun> {
    let mut servers = reservation::servers_of(app.store.reader(), row.spec.owner, row.spec.project).await?;
    servers.retain(|server| server.id != row.server && target.is_none_or(|target| server.id == target));
    if target == Some(row.server) {
        return Err(ServiceError::Conflict("the container is on that server".to_owned()).into());
    }
    if target.is_some() && servers.is_empty() {
        return Err(ServiceError::NotFound("server").into());
    }
    let architecture = node::architecture(app.store.reader(), row.server).await?;
    let ranked = scheduler::rank(&servers, demand(row, &architecture)).map_err(none_fits)?;
    let mut apart = None;
    let mut reachable = Vec::new();
    for server in ranked {
        match transfers::check_reachable(app, row.server, server).await {
            Ok(()) => reachable.push(server),
            Err(error) => apart = Some(error),
        }
    }
    match apart {
        Some(error) if reachable.is_empty() => Err(error.into()),
        _ => Ok(reachable),
    }
}

/// No server can take it: that passes where one would, were it connected.
fn none_fits(rejections: Vec<Rejection>) -> NotBegun {
    let passes = rejections.iter().any(|rejection| rejection.reason == Reason::Offline);
    let message = match rejections.is_empty() {
        true => "the container's owner has the use of no other server".to_owned(),
        false => {
            let why = rejections.iter().map(|rejection| format!("{}: {}", rejection.server, rejection.reason));
            format!("no other server can take the container: {}", why.collect::<Vec<_>>().join("; "))
        }
    };
    let details = rejections.into_iter().map(|one| (one.server, one.reason.to_string())).collect();
    NotBegun { error: ServiceError::Unprocessable { message, details }, passes }
}
