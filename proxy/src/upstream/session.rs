//! One upstream of one container, as long as the container's policy names it.

use super::{
    DialError, dial,
    health::{Condition, Pauses, Tracker},
    resolve::Resolver,
};
use crate::{
    control::{Cause, Health, Upstream, UpstreamKind},
    route::Route,
};
use hoody_protocol::{address::DialRules, bounded::Text, time::now_ms};
use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Addresses that are remembered as dialled.
const DIALLED: usize = 64;
/// How long an upstream that refused UDP is not asked again.
const UDP_PAUSE: Duration = Duration::from_secs(60);

/// How long a trial by somebody else is waited for before looking again.
const TRIAL_PAUSE: Duration = Duration::from_millis(250);

/// The upstream, and what is known of it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) upstream: Upstream,
    pub(crate) resolver: Resolver,
    /// Cancelled where the policy names another upstream: its connections end.
    pub(crate) ended: CancellationToken,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    tracker: Tracker,
    dialled: BTreeSet<IpAddr>,
    udp_refused: Option<Instant>,
}

/// A try of the upstream: what comes of it is noted, or that nothing did.
#[derive(Debug)]
pub(crate) struct Attempt<'a> {
    route: &'a Route,
    done: bool,
}

impl Session {
    pub(crate) fn new(upstream: Upstream, pauses: Pauses, ended: CancellationToken) -> Self {
        let state = State { tracker: Tracker::new(pauses), dialled: BTreeSet::new(), udp_refused: None };
        Self { upstream, resolver: Resolver::default(), ended, state: Mutex::new(state), changed: Notify::new() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it is, for the agent.
    pub(crate) fn health(&self) -> Health {
        match self.state().tracker.condition() {
            Condition::Untried => Health::Untried,
            Condition::Ok => Health::Ok,
            Condition::Failing(failing) => {
                let pause = failing.retry_at.saturating_duration_since(Instant::now());
                Health::Failing {
                    cause: failing.cause,
                    message: Text::truncated(failing.message.clone()),
                    since_ms: failing.since_ms,
                    retry_at_ms: now_ms().saturating_add(pause.as_millis() as u64),
                }
            }
        }
    }

    /// Notes an address before it is dialled.
    pub(crate) fn dialling(&self, address: IpAddr) {
        let mut state = self.state();
        if state.dialled.len() == DIALLED {
            state.dialled.pop_first();
        }
        state.dialled.insert(address);
    }

    /// Whether everything that was dialled may be dialled under `rules` too.
    pub(crate) fn keeps_to(&self, rules: &DialRules) -> bool {
        self.state().dialled.iter().all(|address| rules.check(*address).is_ok())
    }

    /// Whether it may have UDP to offer.
    pub(crate) fn may_associate(&self) -> bool {
        self.upstream.kind == UpstreamKind::Socks5 && self.state().udp_refused.is_none_or(|at| at.elapsed() > UDP_PAUSE)
    }

    /// It refused UDP.
    pub(crate) fn no_association(&self) {
        self.state().udp_refused = Some(Instant::now());
    }

    /// Whether an attempt without a destination shows that `cause` is gone. An HTTP proxy looks at credentials, and
    /// speaks at all, only when it is asked to connect somewhere.
    fn is_probed(&self, cause: Cause) -> bool {
        self.upstream.kind == UpstreamKind::Socks5 || !matches!(cause, Cause::AuthFailed | Cause::Protocol)
    }
}

impl<'a> Attempt<'a> {
    /// Begins one, where the upstream is not failing or its pause is over.
    pub(crate) fn begin(route: &'a Route) -> Result<Self, DialError> {
        if route.session.state().tracker.admit(Instant::now()) {
            Ok(Self { route, done: false })
        } else {
            Err(DialError::Failing)
        }
    }

    /// Notes what came of it.
    pub(crate) fn end<T>(mut self, result: Result<T, DialError>) -> Result<T, DialError> {
        let session = &self.route.session;
        let news = match &result {
            Err(error) => match error.cause() {
                Some(cause) => {
                    let mut state = session.state();
                    state.tracker.failed(cause, error.explanation(), Instant::now(), now_ms(), rand::random())
                }
                None => session.state().tracker.succeeded(),
            },
            Ok(_) => session.state().tracker.succeeded(),
        };
        self.done = true;
        if news {
            session.changed.notify_one();
            self.route.announce();
        }
        result
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.route.session.state().tracker.abandoned();
        }
    }
}

/// Tries the upstream at once, and again after each pause while it fails, so that its state is known without traffic.
pub(crate) async fn probe(route: Arc<Route>) {
    let session = route.session.clone();
    let work = async {
        let _ = dial::probe(&route).await;
        loop {
            let wait_until = match session.state().tracker.condition() {
                Condition::Failing(failing) if session.is_probed(failing.cause) => Some(failing.retry_at),
                _ => None,
            };
            match wait_until {
                Some(at) if at > Instant::now() => tokio::time::sleep_until(at.into()).await,
                Some(_) => {
                    if let Err(DialError::Failing) = dial::probe(&route).await {
                        // A connection is the trial. It may also be given up without a result.
                        tokio::time::sleep(TRIAL_PAUSE).await;
                    }
                }
                None => session.changed.notified().await,
            }
        }
    };
    session.ended.run_until_cancelled(work).await;
}
