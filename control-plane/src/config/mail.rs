//! How mail leaves.

use super::Secret;
use std::path::PathBuf;

/// Whether the connection to the mail server is encrypted. Falling back to plain text is never an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SmtpTls {
    /// STARTTLS, usually port 587; a server that does not offer it gets no mail.
    #[default]
    Starttls,
    /// TLS from the first byte, usually port 465.
    Implicit,
    /// None; only to this machine itself.
    None,
}

impl SmtpTls {
    /// The port where the settings name none.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Starttls => 587,
            Self::Implicit => 465,
            Self::None => 25,
        }
    }
}

/// The mail server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Smtp {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Encryption.
    pub tls: SmtpTls,
    /// User and password, where it asks for them.
    pub credentials: Option<(String, Secret)>,
    /// A certificate to trust beside the system's, PEM.
    pub certificate: Option<PathBuf>,
}

/// Mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// The mail server; `None`: mails are written to files in the data folder.
    pub smtp: Option<Smtp>,
    /// The sender, `Name <address>`.
    pub from: String,
    /// Pages that take the tokens of mails: `<web_url>/verify-email?token=…`; `None`: mails carry the token alone.
    pub web_url: Option<String>,
}

impl Default for Mail {
    fn default() -> Self {
        Self { smtp: None, from: "Hoody <no-reply@localhost>".to_owned(), web_url: None }
    }
}
