//! An app whose mails are files, and the tokens in them.

use crate::{
    app::{
        App,
        testing::{config, with_config},
    },
    config::Config,
    store::Store,
    tasks::mail,
};
use std::{path::PathBuf, time::Duration};

/// The app and its folder of mails, which goes with it.
pub(super) struct Mailbox {
    pub(super) app: App,
    folder: tempfile::TempDir,
}

/// A mail.
pub(super) struct Received {
    pub(super) to: String,
    pub(super) subject: String,
    pub(super) token: Option<String>,
    /// The whole mail.
    pub(super) text: String,
}

impl Mailbox {
    pub(super) async fn new(store: &Store) -> Self {
        Self::with(store, |_| {}).await
    }

    pub(super) async fn with(store: &Store, change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config();
        config.data_dir = folder.path().to_owned();
        config.desired_state_deadline = Duration::from_millis(50);
        change(&mut config);
        Self { app: with_config(store, config).await, folder }
    }

    /// Sends what is due and takes every mail that came, oldest first.
    pub(super) async fn receive(&self) -> Vec<Received> {
        mail::send_due(&self.app).await.unwrap();
        let mut paths: Vec<PathBuf> = match std::fs::read_dir(self.folder.path().join("mail")) {
            Ok(entries) => entries.map(|entry| entry.unwrap().path()).collect(),
            Err(_) => return Vec::new(),
        };
        paths.sort();
        let read = |path: &PathBuf| {
            let text = std::fs::read_to_string(path).unwrap();
            std::fs::remove_file(path).unwrap();
            let header = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
            let is_token = |line: &&str| line.len() == 64 && line.bytes().all(|byte| byte.is_ascii_hexdigit());
            let token = text.lines().map(str::trim).find(is_token).map(str::to_owned);
            Received { to: header("To:"), subject: header("Subject:"), token, text: text.clone() }
        };
        paths.iter().map(read).collect()
    }

    /// The token of the one mail that came.
    pub(super) async fn token(&self) -> String {
        let mut mails = self.receive().await;
        assert_eq!(mails.len(), 1, "one mail is expected");
        mails.remove(0).token.expect("the mail has a token")
    }
}
