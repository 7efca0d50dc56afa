//! Keeps a session alive: dials, runs it, and dials again after a pause that grows from 0.2 s to 30 s,
//! half of it random. A session that came up resets the pause. A refusal that only an operator can lift
//! is tried again at the longest pause.

use super::{
    DialError, dial,
    identity::{IdentityError, IdentityStore},
    renewal,
    session::{self, SessionEnd, SessionWork},
};
use crate::error::chain;
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

/// The link.
#[derive(Debug)]
pub struct Link {
    identity: IdentityStore,
    work: Arc<SessionWork>,
    state: watch::Sender<LinkState>,
}

impl Link {
    /// A link that is down; [`Link::run`] brings it up.
    pub fn new(identity: IdentityStore, work: SessionWork) -> Self {
        let state = LinkState::Down { since: now_ms(), reason: "not tried yet".into() };
        Self { identity, work: Arc::new(work), state: watch::Sender::new(state) }
    }

    /// Watches the state.
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    /// Keeps the link up; never returns.
    pub async fn run(self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let ended = self.session().await;
            let was_up = matches!(*self.state.borrow(), LinkState::Up { .. });
            if was_up {
                pause = FIRST_PAUSE;
            }
            if matches!(ended, LinkEnd::Refused { retry: false, .. }) {
                pause = LONGEST_PAUSE;
            }
            let reason = ended.to_string();
            tracing::warn!(%reason, pause_ms = pause.as_millis() as u64, "the link is down");
            self.state.send_replace(LinkState::Down { since: now_ms(), reason });
            tokio::time::sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
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
                Err(SessionEnd::Renewed | SessionEnd::Restarting) => LinkEnd::Restarting,
            };
        }
        let config = match transport::client_config(Some(&identity.identity), &identity.authorities, transport::NODE) {
            Ok(config) => config,
            Err(error) => return LinkEnd::Configuration(error.to_string()),
        };
        let connection = match dial(&identity.addresses, &config).await {
            Ok(connection) => connection,
            Err(error) => return LinkEnd::Dial(error),
        };
        let up = || {
            tracing::info!(server = %identity.server, remote = %connection.remote_address(), "the link is up");
            self.state.send_replace(LinkState::Up { since: now_ms() });
        };
        match session::run(&connection, &self.work, &self.identity, &identity, up).await {
            SessionEnd::Refused { cause, retry } => LinkEnd::Refused { cause, retry },
            SessionEnd::Broken(error) => LinkEnd::Broken(error),
            SessionEnd::Renewed => LinkEnd::Renewed,
            SessionEnd::Restarting => LinkEnd::Restarting,
        }
    }
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
    #[error("connecting again with the renewed certificate")]
    Renewed,
    #[error("the control plane is restarting")]
    Restarting,
    #[error("{}", chain(.0.as_ref()))]
    Broken(Box<dyn std::error::Error + Send + Sync>),
}
