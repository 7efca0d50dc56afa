//! The vault: a user's secrets by realm and key. Values and metadata are sealed by a data key of the user,
//! which the master key seals; user, realm and key are authenticated with them. Nothing here is logged.

mod places;

pub use places::{Place, Places, SMALL_BYTES};

use crate::{
    app::App,
    caller::Caller,
    error::ServiceError,
    keys::SealingKey,
    store::{
        StoreError,
        vault::{self as store, Entry, Full, Limits},
    },
};
use hoody_protocol::{id::RealmId, time::now_ms};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

/// Bytes of values and metadata in one realm's vault.
pub const MAX_BYTES: i64 = 10 << 20;
/// Bytes of one entry's metadata as JSON.
pub const MAX_METADATA_BYTES: usize = 256 << 10;
/// Characters of the longest key.
pub const MAX_KEY_CHARS: usize = 255;
const LIMITS: Limits = Limits { bytes: MAX_BYTES, entries: 10_000, realms: 64 };
/// What data keys, values and metadata are sealed for.
pub const DATA_KEY: &str = "vault-data-key";
const VALUE: &str = "vault-value";
const METADATA: &str = "vault-metadata";
const NAME: &str = "vault key";

/// An entry, opened. `Debug` shows neither value nor metadata.
pub struct Opened {
    /// The realm; empty: outside of realms.
    pub realm: String,
    /// The name.
    pub key: String,
    /// The value; `None` in lists.
    pub value: Option<Zeroizing<String>>,
    /// What the owner noted about it.
    pub metadata: Option<Map<String, Value>>,
    /// Bytes of value and metadata.
    pub size_bytes: i64,
    /// Milliseconds since the epoch.
    pub created_at: i64,
    /// Milliseconds since the epoch.
    pub updated_at: i64,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("size_bytes", &self.size_bytes).finish_non_exhaustive()
    }
}

/// What is to be written; `metadata: None` leaves it as it is, `Some(None)` removes it.
pub struct Input {
    /// The value.
    pub value: Zeroizing<String>,
    /// What the owner notes about it.
    pub metadata: Option<Option<Map<String, Value>>>,
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Input")
    }
}

/// The realm whose vault is meant: the request's own, or the one that it names.
fn realm_of(caller: &Caller, named: Option<RealmId>) -> Result<String, ServiceError> {
    let realm = caller.realm.or(named);
    let one = realm.as_slice();
    if !caller.sees(one) || named.is_some_and(|named| Some(named) != realm) {
        return Err(ServiceError::NotFound("realm"));
    }
    Ok(realm.map(|realm| realm.to_string()).unwrap_or_default())
}

fn check_key(key: &str) -> Result<(), ServiceError> {
    if (1..=MAX_KEY_CHARS).contains(&key.chars().count()) && !key.chars().any(char::is_control) {
        return Ok(());
    }
    Err(ServiceError::invalid("key", format!("must be 1 to {MAX_KEY_CHARS} printable characters")))
}

/// What a value is bound to: realm ids have one form, so the three cannot be taken for others.
fn place(caller: &Caller, realm: &str, key: &str) -> String {
    format!("{}/{realm}/{key}", caller.user)
}

/// The caller's data key; made with the first value.
async fn data_key(app: &App, caller: &Caller) -> Result<SealingKey, ServiceError> {
    let user = caller.user.to_string();
    let sealed = match store::find_data_key(&app.store, caller.user).await? {
        Some(sealed) => sealed,
        None => {
            let made = app.keys.seal(DATA_KEY, &user, SealingKey::generate().expose());
            store::data_key(&app.store, caller.user, &made, now_ms() as i64).await?
        }
    };
    let opened = app.keys.open_sealed(DATA_KEY, &user, &sealed).map_err(ServiceError::internal)?;
    SealingKey::from_slice(&opened).ok_or_else(damaged)
}

fn damaged() -> ServiceError {
    ServiceError::internal(StoreError::Corrupt { what: "vault_entries", source: "does not open".into() })
}

fn open(
    data_key: &SealingKey,
    caller: &Caller,
    realm: &str,
    entry: Entry,
    with_value: bool,
) -> Result<Opened, ServiceError> {
    let place = place(caller, realm, &entry.key);
    let value = match with_value {
        true => {
            let bytes = data_key.open(VALUE, &place, &entry.sealed_value).ok_or_else(damaged)?;
            let text = std::str::from_utf8(&bytes).map_err(|_| damaged())?;
            Some(Zeroizing::new(text.to_owned()))
        }
        false => None,
    };
    let metadata = match &entry.sealed_metadata {
        Some(sealed) => {
            let bytes = data_key.open(METADATA, &place, sealed).ok_or_else(damaged)?;
            Some(serde_json::from_slice(&bytes).map_err(|_| damaged())?)
        }
        None => None,
    };
    let Entry { key, size_bytes, created_at, updated_at, .. } = entry;
    Ok(Opened { realm: realm.to_owned(), key, value, metadata, size_bytes, created_at, updated_at })
}

/// Every entry of a vault, without values.
pub async fn list(app: &App, caller: &Caller, named: Option<RealmId>) -> Result<Vec<Opened>, ServiceError> {
    let realm = realm_of(caller, named)?;
    let entries = store::list(&app.store, caller.user, &realm).await?;
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    let data_key = data_key(app, caller).await?;
    entries.into_iter().map(|entry| open(&data_key, caller, &realm, entry, false)).collect()
}

/// One entry with its value.
pub async fn get(app: &App, caller: &Caller, named: Option<RealmId>, key: &str) -> Result<Opened, ServiceError> {
    check_key(key)?;
    let realm = realm_of(caller, named)?;
    let size = store::size(&app.store, caller.user, &realm, key).await?.ok_or(ServiceError::NotFound(NAME))?;
    let _place = if size > SMALL_BYTES as i64 { Some(app.vault_places.read().await?) } else { None };
    let entry = store::get(&app.store, caller.user, &realm, key).await?.ok_or(ServiceError::NotFound(NAME))?;
    open(&data_key(app, caller).await?, caller, &realm, entry, true)
}

/// Writes an entry, in place of the one before.
pub async fn set(
    app: &App,
    caller: &Caller,
    named: Option<RealmId>,
    key: &str,
    input: Input,
) -> Result<Opened, ServiceError> {
    check_key(key)?;
    let realm = realm_of(caller, named)?;
    let metadata = match &input.metadata {
        Some(Some(map)) => Some(Zeroizing::new(serde_json::to_vec(map).map_err(ServiceError::internal)?)),
        _ => None,
    };
    if metadata.as_ref().is_some_and(|bytes| bytes.len() > MAX_METADATA_BYTES) {
        return Err(ServiceError::invalid("metadata", format!("must be at most {MAX_METADATA_BYTES} bytes of JSON")));
    }
    if input.value.len() as i64 > MAX_BYTES {
        return Err(ServiceError::invalid("value", format!("must be at most {MAX_BYTES} bytes")));
    }
    let data_key = data_key(app, caller).await?;
    let place = place(caller, &realm, key);
    let now = now_ms() as i64;
    let sealed_value = data_key.seal(VALUE, &place, input.value.as_bytes());

    let mut tx = app.store.begin().await?;
    let before = store::lock(&mut tx, caller.user, &realm, key, LIMITS).await?.map_err(refused)?;
    let value_bytes = input.value.len() as i64;
    let (sealed_metadata, metadata_bytes) = match (&metadata, &input.metadata, &before) {
        (Some(bytes), _, _) => (Some(data_key.seal(METADATA, &place, bytes)), bytes.len() as i64),
        (None, None, Some(before)) => match &before.sealed_metadata {
            Some(sealed) => {
                let kept = data_key.open(METADATA, &place, sealed).ok_or_else(damaged)?;
                (Some(sealed.clone()), kept.len() as i64)
            }
            None => (None, 0),
        },
        _ => (None, 0),
    };
    let entry = Entry {
        key: key.to_owned(),
        sealed_value,
        sealed_metadata,
        size_bytes: value_bytes + metadata_bytes,
        created_at: before.as_ref().map_or(now, |before| before.created_at),
        updated_at: now,
    };
    store::put(&mut tx, caller.user, &realm, &entry, before.as_ref(), LIMITS).await?.map_err(refused)?;
    tx.commit().await.map_err(StoreError::from)?;
    open(&data_key, caller, &realm, entry, true)
}

fn refused(full: Full) -> ServiceError {
    let (message, detail) = match full {
        Full::Bytes(used) => (
            "the vault is full: delete what is not needed".to_owned(),
            ("value".to_owned(), format!("{used} of {MAX_BYTES} bytes are used")),
        ),
        Full::Entries => (
            format!("the vault has {} keys, as many as it may: delete one first", LIMITS.entries),
            ("key".to_owned(), "is one too many".to_owned()),
        ),
        Full::Realms => (
            format!("you have vaults in {} realms, as many as you may: clear one first", LIMITS.realms),
            ("realm_id".to_owned(), "is one too many".to_owned()),
        ),
    };
    ServiceError::Unprocessable { message, details: [detail].into() }
}

/// Removes an entry.
pub async fn delete(app: &App, caller: &Caller, named: Option<RealmId>, key: &str) -> Result<(), ServiceError> {
    check_key(key)?;
    let realm = realm_of(caller, named)?;
    match store::delete(&app.store, caller.user, &realm, Some(key)).await? {
        0 => Err(ServiceError::NotFound(NAME)),
        _ => Ok(()),
    }
}

/// Removes every entry; how many it were.
pub async fn clear(app: &App, caller: &Caller, named: Option<RealmId>) -> Result<u64, ServiceError> {
    let realm = realm_of(caller, named)?;
    Ok(store::delete(&app.store, caller.user, &realm, None).await?)
}

/// Entries and bytes of a vault.
pub async fn usage(app: &App, caller: &Caller, named: Option<RealmId>) -> Result<(i64, i64), ServiceError> {
    let realm = realm_of(caller, named)?;
    Ok(store::usage(&app.store, caller.user, &realm).await?)
}
