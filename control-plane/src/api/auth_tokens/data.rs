//! Auth tokens as answered.

use crate::{
    access::{Permissions, template::Template},
    api::time::rfc3339,
    service::auth_token::Secret,
    store::auth_token::AuthToken,
};
use hoody_protocol::id::RealmId;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// An auth token, without its value.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuthTokenData)]
pub(super) struct TokenData {
    id: String,
    alias: String,
    /// The value's beginning.
    prefix: String,
    #[schema(value_type = Object)]
    permissions: Permissions,
    /// The realms it is for; empty: all.
    realm_ids: Vec<String>,
    /// May be used outside of realms.
    allow_no_realm: bool,
    /// Where it may be used from; empty: everywhere.
    ip_whitelist: Vec<String>,
    vault_access: bool,
    event_access: bool,
    is_enabled: bool,
    expires_at: Option<String>,
    last_used_at: Option<String>,
    last_used_ip: Option<String>,
    /// The token that made it.
    created_by_token_id: Option<String>,
    /// 0 where a session made it, else one more than its maker's.
    delegation_depth: i64,
    public_key: Option<String>,
    #[schema(value_type = Option<Object>)]
    public_storage: Option<Map<String, Value>>,
    created_at: String,
    updated_at: String,
}

impl From<AuthToken> for TokenData {
    fn from(token: AuthToken) -> Self {
        Self {
            id: token.id.to_string(),
            is_enabled: token.is_active(),
            alias: token.alias,
            prefix: token.prefix,
            permissions: token.permissions,
            realm_ids: token.realms.iter().map(RealmId::to_string).collect(),
            allow_no_realm: token.allow_no_realm,
            ip_whitelist: token.networks.iter().map(ToString::to_string).collect(),
            vault_access: token.vault_access,
            event_access: token.event_access,
            expires_at: token.expires_at.map(rfc3339),
            last_used_at: token.last_used_at.map(rfc3339),
            last_used_ip: token.last_used_ip,
            created_by_token_id: token.maker.map(|maker| maker.to_string()),
            delegation_depth: token.depth,
            public_key: token.public_key,
            public_storage: token.public_storage,
            created_at: rfc3339(token.created_at),
            updated_at: rfc3339(token.updated_at),
        }
    }
}

/// An auth token with its value.
#[derive(Serialize, ToSchema)]
pub(super) struct NewTokenData {
    #[serde(flatten)]
    data: TokenData,
    /// The value; never shown again.
    token: String,
}

impl NewTokenData {
    pub(super) fn new(token: AuthToken, secret: &Secret) -> Self {
        Self { data: token.into(), token: secret.reveal().to_owned() }
    }
}

/// Where a token may be used, and where this request is.
#[derive(Debug, Serialize, ToSchema)]
struct Restrictions {
    has_realm_restrictions: bool,
    /// Requests outside of realms are refused.
    requires_realm_scope: bool,
    allowed_realm_ids: Vec<String>,
    allow_no_realm: bool,
    active_realm_id: Option<String>,
}

/// The token of the request.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct CurrentData {
    token: TokenData,
    restrictions: Restrictions,
}

impl CurrentData {
    pub(in crate::api) fn new(token: AuthToken, realm: Option<RealmId>) -> Self {
        let restrictions = Restrictions {
            has_realm_restrictions: !token.realms.is_empty(),
            requires_realm_scope: !token.allow_no_realm,
            allowed_realm_ids: token.realms.iter().map(RealmId::to_string).collect(),
            allow_no_realm: token.allow_no_realm,
            active_realm_id: realm.map(|realm| realm.to_string()),
        };
        Self { token: token.into(), restrictions }
    }
}

/// What anybody may read who knows the key.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ProfileData {
    pub(super) public_key: String,
    #[schema(value_type = Option<Object>)]
    pub(super) public_storage: Option<Map<String, Value>>,
}

/// A named set of permissions.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TemplateData {
    id: &'static str,
    name: &'static str,
    description: &'static str,
    #[schema(value_type = Object)]
    permissions: Permissions,
}

impl From<&Template> for TemplateData {
    fn from(template: &Template) -> Self {
        let &Template { name, title, description, permissions } = template;
        Self { id: name, name: title, description, permissions }
    }
}
