//! Mail: over SMTP where a server is configured, else as `.eml` files in the data folder, for development.
//! Nobody waits for it: requests leave jobs in the database, and [`crate::tasks::mail`] works on them.

mod template;

pub use template::{Content, already_registered, linked, reset, verification};

use crate::config::{Config, Mail, Smtp, SmtpTls};
use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{Mailbox, MultiPart},
    transport::smtp::{
        authentication::Credentials,
        client::{Certificate, Tls, TlsParameters},
    },
};
use std::{
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::sync::Notify;

/// Longest wait for each step of the mail server.
const SMTP_TIMEOUT: Duration = Duration::from_secs(30);
/// Folder of mails that are written to files, below the data folder.
const FOLDER: &str = "mail";

/// Why a mail was not sent.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// An address is not one.
    #[error("mail address")]
    Address(#[from] lettre::address::AddressError),
    /// The mail cannot be put together.
    #[error("put the mail together")]
    Message(#[from] lettre::error::Error),
    /// The mail server refused, or could not be reached.
    #[error("mail server")]
    Smtp(#[from] lettre::transport::smtp::Error),
    /// A file.
    #[error("{}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Sends mail. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Mailer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Mail,
    folder: PathBuf,
    wake: Notify,
}

impl Mailer {
    /// Sends as the settings say.
    pub fn new(config: &Config) -> Self {
        let folder = config.data_dir.join(FOLDER);
        Self(Arc::new(Inner { settings: config.mail.clone(), folder, wake: Notify::new() }))
    }

    /// Pages that take the tokens of mails.
    pub fn web_url(&self) -> Option<&str> {
        self.0.settings.web_url.as_deref()
    }

    /// There is a mail to be written.
    pub fn wake(&self) {
        self.0.wake.notify_one();
    }

    /// Waits for [`Mailer::wake`].
    pub async fn woken(&self) {
        self.0.wake.notified().await;
    }

    /// Sends one mail.
    pub async fn send(&self, to: &str, content: Content) -> Result<(), MailError> {
        let from = sender(&self.0.settings.from)?;
        let id = format!("<{}@{}>", hex::encode(rand::random::<[u8; 16]>()), from.email.domain());
        let message = Message::builder()
            .from(from)
            .to(Mailbox::new(None, to.parse()?))
            .subject(content.subject)
            .message_id(Some(id))
            .multipart(MultiPart::alternative_plain_html(content.text, content.html))?;
        match &self.0.settings.smtp {
            Some(smtp) => {
                // Made anew each time, so that a renewed certificate counts; mails are rare.
                transport(smtp)?.send(message).await?;
                Ok(())
            }
            None => self.write(&message.formatted()),
        }
    }

    /// Written aside and renamed, so that whoever looks finds whole mails. They carry tokens: only the owner
    /// may read them.
    fn write(&self, message: &[u8]) -> Result<(), MailError> {
        let folder = &self.0.folder;
        let name = format!("{}-{}.eml", hoody_protocol::time::now_ms(), hex::encode(rand::random::<[u8; 4]>()));
        let (path, staged) = (folder.join(&name), folder.join(format!("{name}.new")));
        let failed = |source| MailError::File { path: path.clone(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staged);
        file.and_then(|mut file| file.write_all(message)).map_err(failed)?;
        std::fs::rename(&staged, &path).map_err(failed)
    }
}

/// The sender that the settings name.
pub fn sender(text: &str) -> Result<Mailbox, lettre::address::AddressError> {
    text.parse()
}

/// Whether mail can go to this address.
pub fn is_address(text: &str) -> bool {
    text.parse::<lettre::Address>().is_ok()
}

fn transport(smtp: &Smtp) -> Result<AsyncSmtpTransport<Tokio1Executor>, MailError> {
    let tls = match smtp.tls {
        SmtpTls::None => Tls::None,
        SmtpTls::Starttls => Tls::Required(tls_parameters(smtp)?),
        SmtpTls::Implicit => Tls::Wrapper(tls_parameters(smtp)?),
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&smtp.host)
        .port(smtp.port)
        .tls(tls)
        .timeout(Some(SMTP_TIMEOUT));
    if let Some((username, password)) = &smtp.credentials {
        builder = builder.credentials(Credentials::new(username.clone(), password.reveal().to_owned()));
    }
    Ok(builder.build())
}

fn tls_parameters(smtp: &Smtp) -> Result<TlsParameters, MailError> {
    let mut parameters = TlsParameters::builder(smtp.host.clone());
    if let Some(path) = &smtp.certificate {
        let pem = std::fs::read(path).map_err(|source| MailError::File { path: path.clone(), source })?;
        parameters = parameters.add_root_certificate(Certificate::from_pem(&pem)?);
    }
    Ok(parameters.build()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[tokio::test]
    async fn without_a_server_mails_are_files_for_their_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let mailer = Mailer::new(&Config::in_dir(folder.path().to_owned()));
        let token = "ab".repeat(32);
        mailer.send("ann@example.org", verification(None, &token, "192.0.2.1")).await.unwrap();
        let files: Vec<_> = std::fs::read_dir(folder.path().join("mail")).unwrap().map(|f| f.unwrap().path()).collect();
        assert_eq!(files.len(), 1);
        assert_eq!(std::fs::metadata(&files[0]).unwrap().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&files[0]).unwrap();
        assert!(text.contains("To: ann@example.org") && text.contains("multipart/alternative"), "{text}");
        assert_eq!(text.matches(&token).count(), 2, "in the text and in the HTML: {text}");
    }

    #[test]
    fn addresses_cannot_smuggle_headers_in() {
        for text in ["ann@example.org\r\nBcc: bob@example.org", "ann", "ann@", "@b", "a b@example.org", ""] {
            assert!(!is_address(text), "{text:?}");
        }
        assert!(is_address("ann.smith+x@mail.example.org"));
    }
}
