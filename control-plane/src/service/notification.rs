//! Notifications: operators write them, users read them.

use crate::{
    app::App,
    caller::Caller,
    error::ServiceError,
    page::Page,
    store::{
        StoreError,
        notification::{self as store, Notification},
    },
};
use hoody_protocol::{
    id::{NotificationId, UserId},
    time::now_ms,
};
use std::collections::BTreeMap;

/// The contract's types.
const KINDS: [&str; 3] = ["MAINTENANCE", "ANNOUNCEMENT", "STATUS_UPDATE"];
/// The contract's severities.
const SEVERITIES: [&str; 4] = ["INFO", "WARNING", "ERROR", "SUCCESS"];
const MAX_TITLE_CHARS: usize = 200;
const MAX_MESSAGE_CHARS: usize = 10_000;
/// Users of one notification; for more there are global ones.
const MAX_TARGETS: usize = 1_000;
const NOTIFICATION: &str = "notification";

/// A notification as an operator writes it.
#[derive(Debug, Clone, Default)]
pub struct Input {
    /// One line.
    pub title: String,
    /// The text.
    pub message: String,
    /// One of the contract's types; absent: `ANNOUNCEMENT`.
    pub kind: Option<String>,
    /// One of the contract's severities; absent: `INFO`.
    pub severity: Option<String>,
    /// Shown to everybody, also without an account.
    pub is_public: bool,
    /// Shown to every user.
    pub is_global: bool,
    /// Shown to these users.
    pub target_user_ids: Vec<String>,
    /// Not shown from then on, milliseconds.
    pub expires_at: Option<i64>,
}

/// What the caller is shown.
pub async fn list(app: &App, caller: &Caller) -> Result<Vec<Notification>, ServiceError> {
    Ok(store::of_user(&app.store, caller.user, now_ms() as i64).await?)
}

/// What everybody is shown.
pub async fn list_public(app: &App) -> Result<Vec<Notification>, ServiceError> {
    Ok(store::public(&app.store, now_ms() as i64).await?)
}

/// Notes that the caller has read it; since when.
pub async fn mark_read(app: &App, caller: &Caller, id: NotificationId) -> Result<i64, ServiceError> {
    let mut tx = app.store.begin().await?;
    let read = store::mark_read(&mut tx, caller.user, id, now_ms() as i64).await?;
    tx.commit().await.map_err(StoreError::from)?;
    read.ok_or(ServiceError::NotFound(NOTIFICATION))
}

/// Notes that the caller has read all; how many were new.
pub async fn mark_all_read(app: &App, caller: &Caller) -> Result<u64, ServiceError> {
    let mut tx = app.store.begin().await?;
    let count = store::mark_all_read(&mut tx, caller.user, now_ms() as i64).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(count)
}

/// Operators: a page of all, with the users that each is for.
pub async fn list_all(app: &App, page: Page) -> Result<(Vec<(Notification, Vec<String>)>, u64), ServiceError> {
    let (found, total) = store::all(&app.store, page.limit, page.offset()).await?;
    let mut listed = Vec::with_capacity(found.len());
    for notification in found {
        let targets = store::targets(&app.store, notification.id).await?;
        listed.push((notification, targets));
    }
    Ok((listed, total))
}

/// Operators: writes a notification; gives it with the users that it is for.
pub async fn create(app: &App, input: Input) -> Result<(Notification, Vec<String>), ServiceError> {
    let (notification, users) = check(input)?;
    let mut tx = app.store.begin().await?;
    match store::insert(&mut tx, &notification, &users).await {
        Ok(()) => {}
        Err(StoreError::MissingReference) => {
            return Err(ServiceError::invalid("target_user_ids", "names a user that there is not"));
        }
        Err(error) => return Err(error.into()),
    }
    tx.commit().await.map_err(StoreError::from)?;
    Ok((notification, users.iter().map(ToString::to_string).collect()))
}

fn check(input: Input) -> Result<(Notification, Vec<UserId>), ServiceError> {
    let mut problems = BTreeMap::new();
    let mut problem = |field: &str, text: String| {
        problems.insert(field.to_owned(), text);
    };
    for (field, text, max) in [("title", &input.title, MAX_TITLE_CHARS), ("message", &input.message, MAX_MESSAGE_CHARS)]
    {
        if !(1..=max).contains(&text.trim().chars().count()) {
            problem(field, format!("must be 1 to {max} characters"));
        }
    }
    let kind = input.kind.unwrap_or_else(|| "ANNOUNCEMENT".to_owned());
    if !KINDS.contains(&kind.as_str()) {
        problem("type", format!("must be one of {}", KINDS.join(", ")));
    }
    let severity = input.severity.unwrap_or_else(|| "INFO".to_owned());
    if !SEVERITIES.contains(&severity.as_str()) {
        problem("severity", format!("must be one of {}", SEVERITIES.join(", ")));
    }
    let now = now_ms() as i64;
    if input.expires_at.is_some_and(|at| at <= now) {
        problem("expires_at", "must be in the future".to_owned());
    }
    let everybody = input.is_public || input.is_global;
    let mut users = Vec::new();
    if input.target_user_ids.len() > MAX_TARGETS {
        problem("target_user_ids", format!("must be at most {MAX_TARGETS} ids: use is_global for more"));
    } else if everybody == input.target_user_ids.is_empty() {
        for text in &input.target_user_ids {
            match text.parse() {
                Ok(id) => users.push(id),
                Err(error) => problem("target_user_ids", format!("must be a list of ids: {error}")),
            }
        }
    } else {
        problem("target_user_ids", "must name users, unless is_public or is_global is set".to_owned());
    }
    if !problems.is_empty() {
        return Err(ServiceError::Invalid(problems));
    }
    users.sort_unstable();
    users.dedup();
    let notification = Notification {
        id: NotificationId::generate(),
        title: input.title.trim().to_owned(),
        message: input.message.trim().to_owned(),
        kind,
        severity,
        is_public: input.is_public,
        is_global: input.is_global,
        expires_at: input.expires_at,
        created_at: now,
        updated_at: now,
        read_at: None,
    };
    Ok((notification, users))
}

/// Operators: removes a notification.
pub async fn delete(app: &App, id: NotificationId) -> Result<(), ServiceError> {
    let mut tx = app.store.begin().await?;
    let found = store::delete(&mut tx, id).await?;
    tx.commit().await.map_err(StoreError::from)?;
    if found { Ok(()) } else { Err(ServiceError::NotFound(NOTIFICATION)) }
}
