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
use std::collections::BTreeMap;

/// What the container asks of a server; the present one's architecture is `architecture`, empty where it is not known.
fn demand<'a>(row: &'a ContainerRow, architecture: &'a str) -> Demand<'a> {
    let architecture = Some(architecture).filter(|architecture| !architecture.is_empty());
    Demand { limits: &row.spec.limits, architecture, kvm: row.spec.kvm }
}

/// Why the target, on which room is reserved, may not have the container as it is now; `None`: it may. Of a `drain` who rents
/// the source reads why, whose business the names of the owner's servers are not.
pub(super) async fn objection(
    connection: &mut AnyConnection,
    row: &ContainerRow,
    target: ServerId,
    drain: bool,
) -> Result<Option<Cause>, ServiceError> {
    let servers = reservation::servers_of(&mut *connection, row.spec.owner, row.spec.project).await?;
    let architecture = node::architecture(&mut *connection, row.server).await?;
    let Some(server) = servers.iter().find(|server| server.id == target) else {
        let message = "the container's owner does not have the use of the server that it moves to any more";
        return Ok(Some(Cause::new("target_not_usable", message)));
    };
    let reason = scheduler::suits(server, demand(row, &architecture)).err();
    Ok(reason.map(|reason| {
        let which = if drain { "the other server".to_owned() } else { format!("server {}", server.name) };
        let message = format!("{which} cannot take the container as it is now: {reason}");
        Cause::new("target_not_suited", message)
    }))
}

/// The servers that can take the container, best first: those that its owner may use, as for a new one. Why none can is said
/// without names where it is for a `drain`, as [`objection`] is.
pub(super) async fn candidates(
    app: &App,
    row: &ContainerRow,
    target: Option<ServerId>,
    drain: bool,
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
    let ranked =
        scheduler::rank(&servers, demand(row, &architecture)).map_err(|rejections| none_fits(rejections, drain))?;
    let mut apart = None;
    let mut reachable = Vec::new();
    for server in ranked {
        match transfers::check_reachable(app, row.server, server).await {
            Ok(()) => reachable.push(server),
            Err(error) => apart = Some(error),
        }
    }
    match apart {
        Some(ServiceError::Unavailable(_)) if reachable.is_empty() && drain => {
            let message = "the server and those that could take the container are connected to different replicas of the \
                control plane, which do not reach each other";
            Err(ServiceError::Unavailable(message.to_owned()).into())
        }
        Some(error) if reachable.is_empty() => Err(error.into()),
        _ => Ok(reachable),
    }
}

/// No server can take it: that passes where one would, were it connected.
fn none_fits(rejections: Vec<Rejection>, drain: bool) -> NotBegun {
    let passes = rejections.iter().any(|rejection| rejection.reason == Reason::Offline);
    if rejections.is_empty() {
        let message = "the container's owner has the use of no other server".to_owned();
        return NotBegun { error: ServiceError::Unprocessable { message, details: BTreeMap::new() }, passes };
    }
    let mut why: Vec<_> = match drain {
        true => rejections.iter().map(|one| one.reason.to_string()).collect(),
        false => rejections.iter().map(|one| format!("{}: {}", one.server, one.reason)).collect(),
    };
    if drain {
        why.sort();
        why.dedup();
    }
    let message = format!("no other server can take the container: {}", why.join("; "));
    let named = rejections.into_iter().filter(|_| !drain);
    let details = named.map(|one| (one.server, one.reason.to_string())).collect();
    NotBegun { error: ServiceError::Unprocessable { message, details }, passes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_empties_a_server_reads_no_names_of_others() {
        let rejections = || {
            ["secret-one", "secret-two"]
                .map(|server| Rejection { server: server.to_owned(), reason: Reason::Offline })
                .to_vec()
        };
        let said = |drain| match none_fits(rejections(), drain) {
            NotBegun { error: ServiceError::Unprocessable { message, details }, passes: true } => {
                (message, details.len())
            }
            other => panic!("{other:?}"),
        };
        let (message, details) = said(false);
        assert!(message.contains("secret-one: it is offline; secret-two") && details == 2, "{message}");
        assert_eq!(said(true), ("no other server can take the container: it is offline".to_owned(), 0));
    }
}
