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
    service::event::{may_read, visible},
    store::event::{self, Bounds, Filter},
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
    /// Events may be missing for good: it resumed where the record does not reach.
    Gap(Gap),
    /// The connection ends.
    End(Ended),
}

/// What a listener is told first whose place to resume at is outside of the record.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Gap {
    /// `retention`: what was older than events are kept is removed. `unknown`: no such event was delivered yet, as
    /// after a backup was restored; it goes on from now.
    pub(super) reason: &'static str,
    /// Where the client resumed.
    pub(super) resumed_after: i64,
    /// Up to here events are missing.
    pub(super) lost_until: i64,
}

impl Gap {
    fn of(resume: i64, bounds: Bounds) -> Option<Self> {
        let gap = |reason, lost_until| Some(Self { reason, resumed_after: resume, lost_until });
        if resume > bounds.last {
            gap("unknown", bounds.last)
        } else if resume < bounds.removed_until {
            gap("retention", bounds.removed_until)
        } else {
            None
        }
    }
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
    /// Not told yet.
    gap: Option<Gap>,
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
        let gap = match resume {
            Some(resume) => Gap::of(resume, event::bounds(&app.store).await?),
            None => None,
        };
        let resume = resume.filter(|_| gap.is_none_or(|gap| gap.reason != "unknown"));
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
        Ok(Self { app, credential, asked, narrowed, subscription, gap, pending: None, resume_after, checked })
    }

    /// What comes next. May be dropped while it waits without losing an event.
    pub(super) async fn next(&mut self) -> Step {
        if let Some(gap) = self.gap.take() {
            return Step::Gap(gap);
        }
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
        // Sharing may have ended since the event was handed out.
        let readable = match &self.pending {
            Some((_, event)) => Box::pin(may_read(&self.app.store, &self.narrowed, event)).await,
            None => Ok(false),
        };
        match (readable, self.pending.take()) {
            (Ok(true), Some((sequence, event))) => {
                self.resume_after = sequence;
                Step::Event(sequence, event)
            }
            (Ok(_), Some((sequence, _))) => {
                self.resume_after = sequence;
                Step::Idle
            }
            (Ok(_), None) => Step::Idle,
            (Err(error), _) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "look at a listener's permission");
                self.end("failed")
            }
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
