//! Auth tokens as sent, in all forms that clients use.

use crate::{api::json::present, service::auth_token::Input};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// A token as sent. An update changes what is there and keeps the rest.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = AuthTokenInput)]
pub(super) struct TokenInput {
    #[schema(min_length = 1, max_length = 254, pattern = "^[a-zA-Z0-9 _-]*$")]
    alias: Option<String>,
    /// The tree; what is left out is not permitted.
    #[schema(value_type = Option<Object>)]
    permissions: Option<Map<String, Value>>,
    /// In place of `permissions`: full_access, external_customer, dev_team, finance_team or read_only.
    permission_template: Option<String>,
    realm_ids: Option<Vec<String>>,
    allow_no_realm: Option<bool>,
    /// Addresses and networks, as a list or in one text with commas.
    #[serde(alias = "ip_restrictions")]
    #[schema(value_type = Option<Vec<String>>)]
    ip_whitelist: Option<Texts>,
    vault_access: Option<bool>,
    event_access: Option<bool>,
    /// The token may not make other credentials.
    deny_reauthorization: Option<bool>,
    #[serde(alias = "enabled")]
    is_enabled: Option<bool>,
    /// today, tomorrow, an ISO 8601 time, seconds since 1970, or null: never.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    expires_at: Option<Option<Value>>,
    /// Ed25519, in hexadecimal or base64.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    public_key: Option<Option<String>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Object>)]
    public_storage: Option<Option<Value>>,
    /// A code of the second factor: where the account's token gate is on.
    #[schema(max_length = 12)]
    pub(super) otp_code: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Texts {
    Many(Vec<String>),
    One(String),
}

impl From<Texts> for Vec<String> {
    fn from(texts: Texts) -> Self {
        match texts {
            Texts::Many(texts) => texts,
            Texts::One(text) => {
                text.split([',', ' ', '\n']).map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
            }
        }
    }
}

impl TokenInput {
    /// Something that an update cannot change.
    pub(super) fn only_at_creation(&self) -> bool {
        self.deny_reauthorization.is_some()
    }
}

impl From<TokenInput> for Input {
    fn from(input: TokenInput) -> Self {
        Self {
            alias: input.alias,
            permissions: input.permissions,
            template: input.permission_template,
            realms: input.realm_ids,
            allow_no_realm: input.allow_no_realm,
            networks: input.ip_whitelist.map(Vec::from),
            vault_access: input.vault_access,
            event_access: input.event_access,
            deny_reauthorization: input.deny_reauthorization,
            is_enabled: input.is_enabled,
            expires_at: input.expires_at,
            public_key: input.public_key,
            public_storage: input.public_storage,
        }
    }
}

/// What a copy has of its own.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct CopyInput {
    #[schema(min_length = 1, max_length = 254, pattern = "^[a-zA-Z0-9 _-]*$")]
    alias: Option<String>,
    /// As for a new token; left out: as the original's.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    expires_at: Option<Option<Value>>,
    /// A code of the second factor: where the account's token gate is on.
    #[schema(max_length = 12)]
    pub(super) otp_code: Option<String>,
}

impl From<CopyInput> for Input {
    fn from(input: CopyInput) -> Self {
        Self { alias: input.alias, expires_at: input.expires_at, ..Self::default() }
    }
}

/// A realm.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct RealmInput {
    #[schema(pattern = "^[0-9a-f]{24}$")]
    pub(super) realm_id: String,
    /// A code of the second factor: where the account's token gate is on.
    #[schema(max_length = 12)]
    pub(super) otp_code: Option<String>,
}

/// A public profile as sent; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct ProfileInput {
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    public_key: Option<Option<String>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Object>)]
    public_storage: Option<Option<Value>>,
}

impl From<ProfileInput> for Input {
    fn from(input: ProfileInput) -> Self {
        Self { public_key: input.public_key, public_storage: input.public_storage, ..Self::default() }
    }
}
