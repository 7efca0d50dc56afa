//! A live connection, whatever carries it: who listens, to what, and whether they still may. The credential
//! is looked at again before an event is given out, unless that was done within [`TRUSTED`], and every
//! [`RECHECK`] while nothing takes place; where the caller's session has ended or their rights have
//! changed, the connection ends.

use super::{filter::Parameters, view::EventData};
use crate::{
    api::credential::Credential,
    app::App,
    error::ServiceError,
    event::{Event, EventKind, ResourceKind},
    live::{End, Next, Refused, Subscription},
    service::event::visible,
    store::event::Filter,
};
use http::request::Parts;
use serde::Serialize;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, timeout_at};

/// What a listener must be allowed, whatever carries the events.
const OPERATION: &str = "events.stream";
/// How long a look at the credential counts while events come quickly.
const TRUSTED: Duration = Duration::from_secs(1);
/// Pause between two looks while nothing takes place.
const RECHECK: Duration = Duration::from_secs(30);

/// What a listener is given.
#[derive(Debug)]
pub(super) enum Step {
    /// An event, and the id to resume behind.
    Event(i64, Arc<Event>),
    /// Nothing took place for a while; the credential still holds.
    Idle,
    /// The connection ends.
    End(Ended),
}

/// The last that a listener is told.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Ended {
    /// `lagged`, `stopping`, `unauthorized` or `failed`.
    pub(super) reason: &'static str,
    /// The `last_event_id` with which to connect again.
    pub(super) resume_after: i64,
}

/// An event as it is delivered.
#[derive(Debug, Serialize)]
pub(super) struct Delivered<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    sequence: i64,
    event: &'a EventData,
}

impl<'a> Delivered<'a> {
    pub(super) fn new(sequence: i64, event: &'a EventData) -> Self {
        Self { kind: "event", sequence, event }
    }
}

/// A live connection.
pub(super) struct Listener {
    app: App,
    /// What proves the caller, to be looked at again.
    credential: Credential,
    /// As asked for; narrowed by what the caller may see.
    asked: Filter,
    narrowed: Filter,
    subscription: Subscription,
    /// An event that is given out once the credential has been looked at.
    pending: Option<(i64, Arc<Event>)>,
    /// What was given out, or is not for this listener, up to here.
    resume_after: i64,
    checked: Instant,
}

impl Listener {
    /// Checks the credential in `parts` and listens to what the parameters ask for.
    pub(super) async fn new(app: App, parts: &Parts, mut parameters: Parameters) -> Result<Self, ServiceError> {
        let credential = Credential::of(parts);
        let caller = credential.caller(&app, OPERATION).await?;
        let (asked, resume) = (parameters.filter(), parameters.resume());
        parameters.check()?;
        let narrowed = visible(&caller, asked.clone());
        let subscription = app.live.subscribe(narrowed.clone(), resume).map_err(|refused| match refused {
            Refused::NotRunning => {
                ServiceError::Unavailable("events are not delivered at the moment: connect again shortly".to_owned())
            }
            Refused::TooMany(max) => ServiceError::Conflict(format!(
                "you have {max} live connections, as many as an account may have: close one first"
            )),
        })?;
        let resume_after = subscription.position();
        let checked = Instant::now();
        Ok(Self { app, credential, asked, narrowed, subscription, pending: None, resume_after, checked })
    }

    /// What comes next. May be dropped while it waits without losing an event.
    pub(super) async fn next(&mut self) -> Step {
        if self.pending.is_none() {
            let waiting = self.subscription.next(&self.app.store);
            match timeout_at(self.checked + RECHECK, waiting).await {
                // Boxed, like what is seldom done below: its room would be taken for as long as somebody listens.
                Err(_) if Box::pin(self.still_may()).await => return Step::Idle,
                Err(_) => return self.end("unauthorized"),
                Ok(Ok(Next::Event(sequence, event))) => self.pending = Some((sequence, event)),
                Ok(Ok(Next::End(End::Lagged))) => return self.end("lagged"),
                Ok(Ok(Next::End(End::Stopping))) => return self.end("stopping"),
                Ok(Err(error)) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "read events for a listener");
                    return self.end("failed");
                }
            }
        }
        let critical = self.pending.as_ref().is_some_and(|(_, event)| about_credentials(event));
        if (critical || self.checked.elapsed() >= TRUSTED) && !Box::pin(self.still_may()).await {
            return self.end("unauthorized");
        }
        match self.pending.take() {
            Some((sequence, event)) => {
                self.resume_after = sequence;
                Step::Event(sequence, event)
            }
            None => Step::Idle,
        }
    }

    fn end(&self, reason: &'static str) -> Step {
        Step::End(Ended { reason, resume_after: self.resume_after })
    }

    /// True where the caller sees the same as at the begin. Who sees something else connects again.
    async fn still_may(&mut self) -> bool {
        let found = self.credential.caller(&self.app, OPERATION).await;
        self.checked = Instant::now();
        found.is_ok_and(|caller| visible(&caller, self.asked.clone()) == self.narrowed)
    }
}

/// Events that may mean that the listener's credential has ended.
fn about_credentials(event: &Event) -> bool {
    event.kind == EventKind::ActivityLogged
        || matches!(event.kind.resource(), ResourceKind::User | ResourceKind::AuthToken)
}
