//! Emptying a server: nothing is placed on it, and its containers are moved to other servers of those who own them, a few
//! at a time. What cannot be moved stays, with the reason.

use super::SERVER;
use crate::{
    access::{Role, object},
    app::App,
    caller::Caller,
    error::{ServiceError, chain},
    service::container::moving::{self, NotBegun, Seen, Wanted},
    store::{
        StoreError,
        drain::{self as store, Drain, Waiting},
        moves, server,
    },
};
use hoody_protocol::{
    id::{ContainerId, ServerId},
    time::now_ms,
};

/// Containers that move away from one server at once.
const AT_ONCE: usize = 2;

/// How far a server is being emptied.
#[derive(Debug)]
pub struct Draining {
    /// Since when, and whether it goes on.
    pub drain: Option<Drain>,
    /// The moves since, and those that went on then.
    pub moves: Vec<Seen>,
    /// Containers that are on the server.
    pub remaining: i64,
    /// Containers that moved away and of which it still holds something: of some of them the only copy that was seen to run.
    pub held: i64,
}

/// 404 for who may not use the server, 403 for who does not own it.
pub async fn authorise_owner(app: &App, caller: &Caller, id: ServerId) -> Result<(), ServiceError> {
    object::on_server(app.store.reader(), caller, id, Role::Owner).await.map(drop)
}

/// Begins to empty the server; once more for what could not be moved.
pub async fn start(app: &App, caller: &Caller, id: ServerId) -> Result<Draining, ServiceError> {
    let mut tx = app.store.begin().await?;
    if !store::start(&mut tx, id, caller.user, now_ms() as i64).await? {
        return Err(ServiceError::NotFound(SERVER));
    }
    tx.commit().await.map_err(StoreError::from)?;
    read(app, id).await
}

/// Begins no move any more; those that were begun go on.
pub async fn stop(app: &App, caller: &Caller, id: ServerId) -> Result<Draining, ServiceError> {
    let mut tx = app.store.begin().await?;
    let stopped = store::stop(&mut tx, id, caller.user, now_ms() as i64).await?;
    tx.commit().await.map_err(StoreError::from)?;
    let drain = read(app, id).await?;
    if !stopped {
        return Err(ServiceError::Conflict("the server is not being emptied".to_owned()));
    }
    Ok(drain)
}

/// How far it is.
pub async fn read(app: &App, id: ServerId) -> Result<Draining, ServiceError> {
    server::by_id(&app.store, id).await?.ok_or(ServiceError::NotFound(SERVER))?;
    let drain = store::of(&app.store, id).await?;
    let moves = match &drain {
        Some(drain) => moves::away_since(&app.store, id, drain.started_at).await?,
        None => Vec::new(),
    };
    let mut seen = Vec::with_capacity(moves.len());
    for row in moves {
        seen.push(moving::seen(app, row).await);
    }
    let (remaining, held) = (store::remaining(&app.store, id).await?, store::held(&app.store, id).await?);
    Ok(Draining { drain, moves: seen, remaining, held })
}

/// Begins the next moves, of the servers whose links this process has.
pub(crate) async fn go_on(app: &App) -> Result<(), ServiceError> {
    for drain in store::going_on(&app.store).await? {
        if app.nodes.is_linked(drain.server)
            && let Err(error) = begin_next(app, &drain).await
        {
            tracing::warn!(server = %drain.server, error = chain(&error), "a server cannot be emptied just now");
        }
    }
    Ok(())
}

/// Begins as many moves away from the server as may go on at once. What passes by itself is tried again in the next round;
/// what does not is written down as refused.
pub(crate) async fn begin_next(app: &App, drain: &Drain) -> Result<(), ServiceError> {
    // Once the container is its target's, it takes nothing of this server, however long it is not seen there.
    let leaving = usize::try_from(moves::leaving(&app.store, drain.server).await?).unwrap_or(usize::MAX);
    let wanted = Wanted { user: drain.user, drain: true };
    let mut free = AT_ONCE.saturating_sub(leaving);
    if free == 0 {
        return Ok(());
    }
    let mut waiting = Waiting::new();
    for container in store::untried(&app.store, drain.server, drain.started_at).await? {
        if free == 0 {
            break;
        }
        match moving::begin(app, container, None, wanted).await {
            Ok(_) => free -= 1,
            Err(NotBegun { error: ServiceError::NotFound(_), .. }) => {}
            Err(NotBegun { error, passes: true }) => {
                tracing::debug!(%container, server = %drain.server, error = chain(&error), "cannot be moved away yet");
                waiting.insert(container, error.to_string());
            }
            Err(NotBegun {
                error: error @ (ServiceError::Conflict(_) | ServiceError::Unprocessable { .. }), ..
            }) => {
                tracing::info!(%container, server = %drain.server, error = chain(&error), "cannot be moved away");
                if let Err(error) = moving::refuse(app, container, wanted, &error).await {
                    waiting.insert(container, unexpected(drain, container, &error));
                }
            }
            // It holds up no other container.
            Err(NotBegun { error, .. }) => _ = waiting.insert(container, unexpected(drain, container, &error)),
        }
    }
    if waiting != drain.waiting {
        store::set_waiting(&app.store, drain, &waiting).await?;
    }
    Ok(())
}

/// What is written down of a container that could not be looked at, whatever is wrong with it; logged when it is new.
fn unexpected(drain: &Drain, container: ContainerId, error: &ServiceError) -> String {
    let why = match error {
        ServiceError::Internal(_) => {
            "something is wrong with what is stored of the container: an operator finds what in the control plane's log"
                .to_owned()
        }
        other => other.to_string(),
    };
    if drain.waiting.get(&container) != Some(&why) {
        tracing::error!(%container, server = %drain.server, error = chain(error), "a container cannot be moved away");
    }
    why
}
