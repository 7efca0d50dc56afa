//! Keeps a session alive: dials, runs it, and dials again after a pause that grows from 0.2 s to 30 s,
//! half of it random. A session that came up resets the pause; a control plane that restarts in order says over
//! how long its nodes are to spread their dials. A refusal that only an operator can lift
//! is tried again at the longest pause.

use super::{
    DialError, dial,
    identity::{IdentityError, IdentityStore},
    renewal,
    session::{self, SessionEnd, SessionWork},
};
use crate::{error::chain, firewall::Firewall};
use hoody_protocol::{
    container::Cause,
    time::{UnixMs, now_ms},
    transport,
};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How the link is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum LinkState {
    /// The control plane accepted the hello.
    Up {
        /// Since when.
        since: UnixMs,
    },
    /// No session.
    Down {
        /// Since when.
        since: UnixMs,
        /// Why, for people.
        reason: String,
    },
}

/// The time in which the control plane learns that the link ends.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// Ends the link in order: the control plane then knows at once, and need not wait for silence.
#[derive(Debug)]
pub struct LinkCloser(watch::Sender<bool>);

impl LinkCloser {
    /// Closes the link and waits until that is said.
    pub async fn close(self) {
        self.0.send_replace(true);
        if tokio::time::timeout(CLOSE_DEADLINE, self.0.closed()).await.is_err() {
            tracing::warn!("the control plane was not told that the link ends");
        }
    }
}

/// The link.
#[derive(Debug)]
pub struct Link {
    stop: watch::Receiver<bool>,
    identity: IdentityStore,
    work: Arc<SessionWork>,
    firewall: Arc<dyn Firewall>,
    state: watch::Sender<LinkState>,
}

impl Link {
    /// A link that is down; [`Link::run`] brings it up.
    pub fn new(identity: IdentityStore, work: SessionWork, firewall: Arc<dyn Firewall>) -> (Self, LinkCloser) {
        let state = LinkState::Down { since: now_ms(), reason: "not tried yet".into() };
        let (stopping, stop) = watch::channel(false);
        (
            Self { stop, identity, work: Arc::new(work), firewall, state: watch::Sender::new(state) },
            LinkCloser(stopping),
        )
    }

    /// Watches the state.
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    /// Keeps the link up until it is closed.
    pub async fn run(self) {
        let mut stop = self.stop.clone();
        let mut pause = FIRST_PAUSE;
        loop {
            let ended = self.session().await;
            if matches!(ended, LinkEnd::Stopped) {
                return;
            }
            let was_up = matches!(*self.state.borrow(), LinkState::Up { .. });
            if was_up {
                pause = FIRST_PAUSE;
            }
            if matches!(ended, LinkEnd::Refused { retry: false, .. }) {
                pause = LONGEST_PAUSE;
            }
            let spread = match ended {
                LinkEnd::Restarting { spread } => spread.mul_f64(rand::random()),
                _ => Duration::ZERO,
            };
            let reason = ended.to_string();
            tracing::warn!(%reason, pause_ms = pause.as_millis() as u64, "the link is down");
            self.state.send_replace(LinkState::Down { since: now_ms(), reason });
            tokio::select! {
                () = tokio::time::sleep(spread + pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)) => {}
                () = stopped(&mut stop) => return,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Keeps containers from where the control plane awaits nodes, as its names resolve now: when the agent started
    /// there may have been no name server, or another answer.
    async fn close_to_containers(&self) {
        let endpoints = self.identity.control_planes().await;
        if let Err(error) = self.firewall.close_endpoints(endpoints).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "containers are not kept from the control plane's port for nodes");
        }
    }

    async fn session(&self) -> LinkEnd {
        let identity = match self.identity.load() {
            Ok(Some(identity)) => identity,
            Ok(None) => return LinkEnd::NotJoined,
            Err(error) => return LinkEnd::Identity(error),
        };
        if renewal::is_expired(&identity) {
            return match renewal::renew_expired(&self.identity, &identity).await {
                Ok(()) => LinkEnd::Renewed,
                Err(SessionEnd::Refused { cause, retry }) => LinkEnd::Refused { cause, retry },
                Err(SessionEnd::Broken(error)) => LinkEnd::Broken(error),
                Err(SessionEnd::Renewed) => LinkEnd::Renewed,
                Err(SessionEnd::Restarting { spread }) => LinkEnd::Restarting { spread },
            };
        }
        let config = match transport::client_config(Some(&identity.identity), &identity.authorities, transport::NODE) {
            Ok(config) => config,
            Err(error) => return LinkEnd::Configuration(error.to_string()),
        };
        let mut stop = self.stop.clone();
        let dialled = tokio::select! {
            dialled = async {
                self.close_to_containers().await;
                dial(&identity.addresses, &config, transport::NODE).await
            } => dialled,
            () = stopped(&mut stop) => return LinkEnd::Stopped,
        };
        let (endpoint, connection) = match dialled {
            Ok(dialled) => dialled,
            Err(error) => return LinkEnd::Dial(error),
        };
        let up = || {
            tracing::info!(server = %identity.server, remote = %connection.remote_address(), "the link is up");
            self.state.send_replace(LinkState::Up { since: now_ms() });
        };
        let ended = tokio::select! {
            ended = session::run(&connection, &self.work, &self.identity, &identity, up) => ended,
            () = stopped(&mut stop) => {
                transport::Close::Done.close(&connection);
                endpoint.wait_idle().await;
                return LinkEnd::Stopped;
            }
        };
        match ended {
            SessionEnd::Refused { cause, retry } => LinkEnd::Refused { cause, retry },
            SessionEnd::Broken(error) => LinkEnd::Broken(error),
            SessionEnd::Renewed => LinkEnd::Renewed,
            SessionEnd::Restarting { spread } => LinkEnd::Restarting { spread },
        }
    }
}

/// Returns when the link is to be closed.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An agent that drops its closer has ended as well.
    let _ = stop.wait_for(|stop| *stop).await;
}

#[derive(Debug, thiserror::Error)]
enum LinkEnd {
    #[error("this server has not joined a control plane: run `hoody-agent join <token>`")]
    NotJoined,
    #[error("{}", chain(.0))]
    Identity(IdentityError),
    #[error("the identity cannot be used: {0}")]
    Configuration(String),
    #[error("{}", chain(.0))]
    Dial(DialError),
    #[error("the control plane refused the link: {}", .cause.message)]
    Refused { cause: Cause, retry: bool },
    #[error("the agent ends")]
    Stopped,
    #[error("connecting again with the renewed certificate")]
    Renewed,
    #[error("the control plane is restarting")]
    Restarting { spread: Duration },
    #[error("{}", chain(.0.as_ref()))]
    Broken(Box<dyn std::error::Error + Send + Sync>),
}
