//! What operators do with servers. Join tokens and revocation are in [`crate::service::enrolment`].

use super::SERVER;
use crate::{
    app::App,
    error::ServiceError,
    page::Page,
    store::{
        StoreError,
        server::{self as store, Change, Server},
        user,
    },
};
use hoody_protocol::{
    id::{ServerId, UserId},
    time::now_ms,
};
use std::collections::BTreeMap;

/// Characters of the longest name, and of each part of a place.
const MAX_TEXT_CHARS: usize = 64;
/// The most containers that a server can be allowed.
const MAX_CONTAINERS: i64 = 10_000;

/// Checks what does not need the database.
fn check(change: &Change) -> Result<(), ServiceError> {
    let mut problems = BTreeMap::new();
    let mut problem = |field: &str, text: String| {
        problems.insert(field.to_owned(), text);
    };
    if change.name.as_ref().is_some_and(|name| !is_name(name)) {
        problem("name", format!("must be 1 to {MAX_TEXT_CHARS} letters, digits, -, _ or ., and not an id"));
    }
    let texts = [
        ("country", &change.country),
        ("region", &change.region),
        ("city", &change.city),
        ("datacenter", &change.datacenter),
    ];
    for (field, text) in texts {
        if text.as_ref().is_some_and(|t| t.chars().count() > MAX_TEXT_CHARS || t.chars().any(char::is_control)) {
            problem(field, format!("must be at most {MAX_TEXT_CHARS} printable characters"));
        }
    }
    let amounts =
        [("cpu_millis", change.cpu_millis), ("memory_bytes", change.memory_bytes), ("disk_bytes", change.disk_bytes)];
    for (field, amount) in amounts {
        if amount.is_some_and(|amount| amount < 0) {
            problem(field, "must not be negative".to_owned());
        }
    }
    if change.max_containers.is_some_and(|max| !(0..=MAX_CONTAINERS).contains(&max)) {
        problem("max_containers", format!("must be from 0 to {MAX_CONTAINERS}"));
    }
    if let (Some(Some(start)), Some(Some(end))) = (change.rental_start, change.rental_end)
        && end <= start
    {
        problem("rental_end", "must be after rental_start".to_owned());
    }
    if problems.is_empty() { Ok(()) } else { Err(ServiceError::Invalid(problems)) }
}

/// Whether a server can have this name. Operators name servers by id or name: 24 hexadecimal characters would
/// be taken for an id.
fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=MAX_TEXT_CHARS).contains(&name.len()) && name.bytes().all(plain) && name.parse::<ServerId>().is_err()
}

/// The account that an operator names by id, user name or e-mail address.
pub async fn account(app: &App, named: &str) -> Result<UserId, ServiceError> {
    let found = match named.parse() {
        Ok(id) => user::by_id(&app.store, id).await?,
        Err(_) => user::by_login(&app.store, &named.trim().to_lowercase()).await?.map(|(user, _)| user),
    };
    found
        .map(|user| user.id)
        .ok_or_else(|| ServiceError::invalid("owner", "is not an account: name an id, user name or e-mail address"))
}

/// A server with a new owner is rented from now on, unless the change says since when.
fn with_rental(mut change: Change) -> Change {
    match change.owner {
        Some(Some(_)) => {
            change.rental_start.get_or_insert(Some(now_ms() as i64));
        }
        Some(None) => {
            change.rental_start = Some(None);
            change.rental_end = Some(None);
        }
        None => {}
    }
    change
}

/// Makes a server; its agent joins with a token.
pub async fn create(app: &App, change: Change) -> Result<Server, ServiceError> {
    check(&change)?;
    let name = change.name.clone().ok_or_else(|| ServiceError::invalid("name", "is required"))?;
    let id = ServerId::generate();
    let mut tx = app.store.begin().await?;
    store::insert(&mut tx, id, &name).await?;
    let server = store::update(&mut tx, id, &with_rental(change)).await?.ok_or(ServiceError::NotFound(SERVER))?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(server)
}

/// One page of all servers, and how many there are.
pub async fn list(app: &App, page: Page) -> Result<(Vec<Server>, u64), ServiceError> {
    Ok(store::list(&app.store, page).await?)
}

/// The server, whoever rents it.
pub async fn get(app: &App, id: ServerId) -> Result<Server, ServiceError> {
    store::by_id(&app.store, id).await?.ok_or(ServiceError::NotFound(SERVER))
}

/// Changes what the operator names.
pub async fn update(app: &App, id: ServerId, change: Change) -> Result<Server, ServiceError> {
    check(&change)?;
    let mut tx = app.store.begin().await?;
    let server = store::update(&mut tx, id, &with_rental(change)).await?.ok_or(ServiceError::NotFound(SERVER))?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(server)
}

/// Keeps the server's agent out and places nothing on it, until it is enabled. Its containers run on.
pub async fn disable(app: &App, id: ServerId) -> Result<Server, ServiceError> {
    let mut tx = app.store.begin().await?;
    let done = store::disable(&mut tx, id).await?;
    tx.commit().await.map_err(StoreError::from)?;
    let server = settled(app, id, done).await?;
    app.nodes.close(id);
    Ok(server)
}

/// Lets a disabled server's agent in again.
pub async fn enable(app: &App, id: ServerId) -> Result<Server, ServiceError> {
    let mut tx = app.store.begin().await?;
    let done = store::enable(&mut tx, id).await?;
    tx.commit().await.map_err(StoreError::from)?;
    settled(app, id, done).await
}

async fn settled(app: &App, id: ServerId, done: bool) -> Result<Server, ServiceError> {
    let server = get(app, id).await?;
    if done {
        Ok(server)
    } else {
        Err(ServiceError::Conflict("the server was revoked for good: create a new one".to_owned()))
    }
}

/// Deletes a server without containers, to which and from which none is being moved.
pub async fn delete(app: &App, id: ServerId) -> Result<(), ServiceError> {
    let mut tx = app.store.begin().await?;
    match store::delete(&mut tx, id).await {
        Ok(true) => {}
        Ok(false) => return Err(ServiceError::NotFound(SERVER)),
        Err(StoreError::MissingReference) => {
            drop(tx);
            let message = match store::has_containers(&app.store, id).await? {
                true => "the server still has containers: delete them first",
                false => "a container is just being moved to the server, or away from it: wait until that is over",
            };
            return Err(ServiceError::Conflict(message.to_owned()));
        }
        Err(error) => return Err(error.into()),
    }
    tx.commit().await.map_err(StoreError::from)?;
    app.nodes.close(id);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_words_and_never_ids() {
        for name in ["a", "Node-1", "node_1.rack.example", "0123"] {
            assert!(is_name(name), "{name}");
        }
        let long = "a".repeat(MAX_TEXT_CHARS + 1);
        for name in ["", "a b", "a/b", "ä", &long, "0123456789abcdef01234567"] {
            assert!(!is_name(name), "{name}");
        }
    }
}
