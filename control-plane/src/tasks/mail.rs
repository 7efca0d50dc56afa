//! Writes and sends the mails that requests asked for. Whether an address has an account is only looked at
//! here, where no client waits. A mail that cannot be sent is tried again, later and later, for a day; a
//! crash in between sends it twice rather than never. Replicas share the work by leases.

use crate::{
    app::App,
    error::{ServiceError, chain},
    mail::{self as writing, MailError},
    service::{
        account::{attempts, reset, sign_up as signing_up},
        one_time,
    },
    store::{
        StoreError,
        mail::{self as store, Job, JobKind, TokenFor},
        sign_up, user,
    },
};
use chrono::DateTime;
use hoody_protocol::time::now_ms;
use std::time::Duration;

/// How often the database is asked, where nobody says that there is something.
const POLL: Duration = Duration::from_secs(5);
/// How long a mail is one replica's alone.
const LEASE: Duration = Duration::from_secs(180);
/// First pause after a failure; doubled with each.
const PAUSE: Duration = Duration::from_secs(5);
/// Longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(15 * 60);
/// When a mail is given up: its reader has long asked again.
const GIVE_UP: Duration = Duration::from_secs(24 * 60 * 60);

/// Why a mail was not sent.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("mail")]
    Mail(#[from] MailError),
    #[error("database")]
    Store(#[from] StoreError),
    #[error("count mails")]
    Count(#[from] ServiceError),
}

/// Sends for ever.
pub async fn run(app: App) {
    loop {
        if let Err(error) = send_due(&app).await {
            tracing::warn!(error = chain(&error), "mails to be sent could not be read");
        }
        // Whichever comes first.
        let _ = tokio::time::timeout(POLL, app.mailer.woken()).await;
    }
}

/// Sends every mail that is due.
pub async fn send_due(app: &App) -> Result<(), StoreError> {
    while let Some(job) = store::lease(&app.store, LEASE.as_millis() as i64).await? {
        match send(app, &job).await {
            Ok(()) => store::done(&app.store, &job.id).await?,
            Err(error) => {
                let age = now_ms() as i64 - job.created_at;
                tracing::warn!(job = job.id, attempts = job.attempts, error = chain(&error), "a mail was not sent");
                if age > GIVE_UP.as_millis() as i64 {
                    store::done(&app.store, &job.id).await?;
                } else {
                    store::postpone(&app.store, &job.id, now_ms() as i64 + pause(job.attempts).as_millis() as i64)
                        .await?;
                }
            }
        }
    }
    Ok(())
}

fn pause(attempts: i64) -> Duration {
    let doublings = u32::try_from(attempts - 1).unwrap_or(0).min(16);
    (PAUSE * 2_u32.pow(doublings)).min(MAX_PAUSE)
}

async fn send(app: &App, job: &Job) -> Result<(), SendError> {
    let provider = match job.kind {
        JobKind::LinkedGithub => Some("GitHub"),
        JobKind::LinkedGoogle => Some("Google"),
        JobKind::SignUp | JobKind::Resend | JobKind::Reset => None,
    };
    // An address that somebody floods gets no more for a while, but for what its owner must know.
    if provider.is_none() && job.attempts == 1 && !attempts::mail(app, &job.email).await? {
        return Ok(());
    }
    let account = user::by_login(&app.store, &job.email).await?.map(|(user, _)| user);
    let sign_up = match job.kind {
        JobKind::SignUp => job.sign_up.clone(),
        JobKind::Resend => sign_up::newest(&app.store, &job.email).await?,
        JobKind::Reset | JobKind::LinkedGithub | JobKind::LinkedGoogle => None,
    };
    let content = match (job.kind, account, sign_up) {
        (JobKind::SignUp, Some(_), _) => writing::already_registered(),
        (JobKind::SignUp | JobKind::Resend, None, Some(id)) => {
            let token = token(app, job, TokenFor::SignUp(&id), signing_up::LIFETIME).await?;
            let source = sign_up::source(&app.store, &id).await?;
            let (address, at) = source.unwrap_or_else(|| (String::new(), job.created_at));
            writing::verification(app.mailer.web_url(), &token, &told_source(&address, at))
        }
        (JobKind::LinkedGithub | JobKind::LinkedGoogle, Some(_), _) => {
            writing::linked(provider.unwrap_or_default(), &told_time(job.created_at))
        }
        (JobKind::Reset, Some(user), _) if !user.is_banned => {
            let token = token(app, job, TokenFor::Account(user.id), reset::LIFETIME).await?;
            writing::reset(app.mailer.web_url(), &token)
        }
        // Nobody is there to get one.
        _ => return Ok(()),
    };
    Ok(app.mailer.send(&job.email, content).await?)
}

/// `192.0.2.1 at 2026-05-01 12:00 UTC`.
fn told_source(address: &str, at_ms: i64) -> String {
    let address = if address.is_empty() { "an address that was not kept" } else { address };
    format!("{address}\nat {}", told_time(at_ms))
}

fn told_time(at_ms: i64) -> String {
    DateTime::from_timestamp_millis(at_ms).unwrap_or_default().format("%Y-%m-%d %H:%M UTC").to_string()
}

async fn token(
    app: &App,
    job: &Job,
    owner: TokenFor<'_>,
    lifetime: Duration,
) -> Result<zeroize::Zeroizing<String>, StoreError> {
    let token = one_time::token();
    let expires_at = now_ms() as i64 + lifetime.as_millis() as i64;
    store::insert_token(&app.store, &one_time::hash(&token), &job.email, owner, expires_at).await?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit() {
        assert_eq!([1, 2, 3].map(pause), [PAUSE, PAUSE * 2, PAUSE * 4]);
        assert_eq!(pause(1_000), MAX_PAUSE);
    }
}
