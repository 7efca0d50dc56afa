//! What every part of the running control plane shares.

use crate::{
    config::Config,
    keys::Keys,
    live::Live,
    mail::Mailer,
    nodes::Nodes,
    rate_limit::Limiters,
    service::{
        activity::Recorder, auth_token::Uses, container::Pulls, exec::Conversations, password::Passwords,
        sign_in::Providers, vault::Places,
    },
    store::Store,
};
use hoody_protocol::id::RequestId;
use std::{ops::Deref, sync::Arc};

/// The shared state. Cheap to clone: every layer of a request does.
#[derive(Debug, Clone)]
pub struct App(Arc<Parts>);

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// The parts of [`App`].
#[derive(Debug)]
pub struct Parts {
    /// This process, among those that share the database.
    pub replica: Arc<str>,
    /// The settings the process was started with.
    pub config: Arc<Config>,
    /// The database.
    pub store: Store,
    /// Signing and sealing keys, opened with the master key.
    pub keys: Arc<Keys>,
    /// The links to the nodes.
    pub nodes: Nodes,
    /// Those who listen to events.
    pub live: Live,
    /// Counts requests.
    pub limiters: Arc<Limiters>,
    /// Processes, terminals and logs that clients of this process follow.
    pub conversations: Conversations,
    /// Takes lines of the activity log.
    pub activity: Recorder,
    /// Uses of auth tokens that are not written down yet.
    pub token_uses: Uses,
    /// Hashes passwords.
    pub passwords: Passwords,
    /// Sends mail.
    pub mailer: Mailer,
    /// Bounds the large values of vaults that are worked on at the same time.
    pub vault_places: Places,
    /// Speaks with GitHub and Google.
    pub providers: Providers,
    /// Pulls images from registries.
    pub pulls: Pulls,
}

impl App {
    /// An app without links to nodes.
    pub fn new(config: Config, store: Store, keys: Keys) -> Self {
        Self(Arc::new(Parts {
            replica: RequestId::generate().to_string().into(),
            limiters: Arc::new(Limiters::new(config.rate_limits)),
            store,
            keys: Arc::new(keys),
            nodes: Nodes::default(),
            live: Live::default(),
            conversations: Conversations::default(),
            activity: Recorder::default(),
            token_uses: Uses::default(),
            passwords: Passwords::new(config.password_cost),
            mailer: Mailer::new(&config),
            vault_places: Places::default(),
            providers: Providers::default(),
            pulls: Pulls::default(),
            config: Arc::new(config),
        }))
    }
}

#[cfg(test)]
pub mod testing {
    //! A whole app for tests: a real store, real keys, and limits that tests do not run into.

    use super::App;
    use crate::{
        config::{Config, PasswordCost, RateLimits},
        keys::{Keys, MasterKey},
        store::Store,
    };

    /// The settings of [`app`]; its data folder does not exist.
    pub fn config() -> Config {
        let mut config = Config::in_dir("/nonexistent".into());
        let many = 1_000_000;
        config.rate_limits = RateLimits { authenticated: many, anonymous: many, login: many, signup: many };
        // Hashing is not what most tests are about.
        config.password_cost = PasswordCost { memory_kib: 64, passes: 1, lanes: 1 };
        config
    }

    /// An app on `store`.
    pub async fn app(store: &Store) -> App {
        with_config(store, config()).await
    }

    /// An app on `store` with these settings.
    pub async fn with_config(store: &Store, config: Config) -> App {
        let master = MasterKey::from_hex(&"42".repeat(32)).expect("a master key");
        let keys = Keys::open(store, master).await.expect("open the keys");
        App::new(config, store.clone(), keys)
    }
}
