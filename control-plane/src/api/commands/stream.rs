//! An execution as server-sent events: each piece of output, then how it ended. The id of a piece is its place: a
//! client that connects again with `Last-Event-ID` misses nothing.

use super::data::ExecutionData;
use crate::{
    api::{
        credential::{Credential, Watched},
        envelope::Failure,
        path::Ids,
    },
    app::App,
    caller::Caller,
    error::ServiceError,
    service::command as service,
    store::command::{execution::Execution, output::Piece},
};
use axum::{
    extract::{FromRequestParts, Request, State},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::{StreamExt, stream};
use hoody_protocol::id::{ExecutionId, ServerId};
use http::HeaderValue;
use serde::Serialize;
use std::{collections::VecDeque, convert::Infallible, time::Duration};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};

/// What a caller must be allowed.
const OPERATION: &str = "serverCommands.streamExecution";
/// Pause between two comments that keep proxies from closing a silent connection.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How a browser says where it resumes.
const LAST_EVENT_ID: &str = "last-event-id";
/// Longest wait for the next piece before the store is read again.
const REREAD: Duration = Duration::from_secs(30);
/// Clients of this process that follow executions at once.
const MAX_FOLLOWERS: usize = 256;

static FOLLOWERS: Semaphore = Semaphore::const_new(MAX_FOLLOWERS);

#[derive(Debug, Serialize)]
struct OutputData {
    /// `stdout` or `stderr`.
    stream: String,
    content: String,
}

struct Follower {
    app: App,
    rights: Watched,
    caller: Caller,
    server: ServerId,
    id: ExecutionId,
    next: i64,
    ready: VecDeque<Piece>,
    ended: Option<Execution>,
    _permit: SemaphorePermit<'static>,
}

/// Follow an execution
///
/// Server-sent events: `output` with `stream` and `content`, the `id` being its place, then `end` with the execution.
/// `Last-Event-ID` says where to resume.
#[utoipa::path(get, path = "/api/v1/servers/{id}/command-executions/{execution}/stream",
    operation_id = "serverCommands.streamExecution", tag = "serverCommands",
    params(("id" = String, Path), ("execution" = String, Path), ("Last-Event-ID" = Option<i64>, Header)),
    responses((status = 200, content_type = "text/event-stream", body = String), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 403, body = Failure), (status = 404, body = Failure),
        (status = 503, body = Failure)))]
pub(super) async fn follow(State(app): State<App>, request: Request) -> Result<Response, ServiceError> {
    let (mut parts, _) = request.into_parts();
    let Ids(server, id) = Ids::<ServerId, ExecutionId>::from_request_parts(&mut parts, &app).await?;
    let credential = Credential::of(&parts);
    let caller = credential.caller(&app, OPERATION).await?;
    service::get(&app, &caller, server, id).await?;
    let last = parts.headers.get(LAST_EVENT_ID).map(|value| value.to_str().unwrap_or_default().parse::<i64>());
    let next = match last {
        None => 0,
        Some(Ok(last)) if (0..i64::MAX).contains(&last) => last + 1,
        Some(_) => return Err(ServiceError::invalid("Last-Event-ID", "must be the id of an event")),
    };
    let busy = |_| ServiceError::Unavailable("too many clients follow executions: try again soon".to_owned());
    let permit = FOLLOWERS.try_acquire().map_err(busy)?;
    let rights = Watched::new(&app, credential, OPERATION, caller.user, caller.user);
    let follower =
        Follower { app, rights, caller, server, id, next, ready: VecDeque::new(), ended: None, _permit: permit };
    let events = stream::unfold(Some(follower), |follower| async move {
        let mut follower = follower?;
        let (event, last) = follower.event().await?;
        Some((event, (!last).then_some(follower)))
    });
    let mut response =
        Sse::new(events.map(Ok::<_, Infallible>)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    // Proxies like nginx would otherwise collect what should be delivered at once.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

impl Follower {
    /// The next event, and whether it is the last; `None` where the stream breaks off.
    async fn event(&mut self) -> Option<(Event, bool)> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                self.next = piece.position + 1;
                let event = Event::default().event("output").id(piece.position.to_string());
                let event = event.json_data(OutputData { stream: piece.stream, content: piece.content });
                return Some((event.ok()?, false));
            }
            if let Some(execution) = self.ended.take() {
                let event = Event::default().event("end").json_data(ExecutionData::new(execution, None));
                return Some((event.ok()?, true));
            }
            self.read().await.ok()?;
        }
    }

    /// Waits for more, and looks at the caller's rights meanwhile.
    async fn read(&mut self) -> Result<(), ServiceError> {
        let (app, caller, server, id, next) = (&self.app, &self.caller, self.server, self.id, self.next);
        let wait = app.nodes.executions.wait_for(id, Instant::now() + REREAD, || async {
            // In this order: all that was written is stored before the end is.
            let execution = service::get(app, caller, server, id).await?;
            let pieces = service::pieces(app, id, next).await?;
            let news = !pieces.is_empty() || execution.is_over();
            Ok::<_, ServiceError>(news.then_some((execution, pieces)))
        });
        let found = tokio::select! {
            biased;
            () = self.rights.due() => None,
            found = wait => Some(found?),
        };
        match found {
            Some(Some((execution, pieces))) => {
                self.ended = execution.is_over().then_some(execution);
                self.ready = pieces.into();
            }
            Some(None) => {}
            None => self.caller = self.rights.caller(&self.app).await?,
        }
        Ok(())
    }
}
