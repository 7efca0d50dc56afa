//! Accounts and tokens as clients see them.

use crate::{
    api::{auth_tokens::CurrentData, envelope::Reply, time::rfc3339},
    app::App,
    caller::Caller,
    error::ServiceError,
    keys::{Claims, SignedClaim},
    service::{
        account::{history, profile},
        free_tier::{self, Home},
        identity,
        session::Tokens,
        sign_in::{Entered, Login},
        two_factor::Challenge,
    },
    store::{profile::Object, profile::Profile, server::Server, user::User},
};
use hoody_protocol::time::now_ms;
use serde::Serialize;
use utoipa::ToSchema;

/// The tokens under every name that clients know.
#[derive(Serialize, ToSchema)]
#[schema(as = SessionTokenData)]
pub(in crate::api) struct TokenData {
    token: String,
    #[serde(rename = "refreshToken")]
    refresh_token_camel: String,
    #[serde(rename = "accessToken")]
    access_token_camel: String,
    access_token: String,
    refresh_token: String,
    /// Seconds that the access token lives.
    expires_in: u64,
    expires_at: String,
    /// Seconds that the refresh token lives.
    refresh_expires_in: u64,
    refresh_expires_at: String,
}

impl From<Tokens> for TokenData {
    fn from(tokens: Tokens) -> Self {
        let lifetime = |claims: &Claims| claims.exp - claims.iat;
        let end = |claims: &Claims| rfc3339(claims.exp as i64 * 1000);
        Self {
            expires_in: lifetime(&tokens.access_claims),
            expires_at: end(&tokens.access_claims),
            refresh_expires_in: lifetime(&tokens.refresh_claims),
            refresh_expires_at: end(&tokens.refresh_claims),
            token: tokens.access.clone(),
            access_token_camel: tokens.access.clone(),
            access_token: tokens.access,
            refresh_token_camel: tokens.refresh.clone(),
            refresh_token: tokens.refresh,
        }
    }
}

/// An account, as its owner and operators see it.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct UserData {
    id: String,
    username: String,
    alias: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    email_verified: bool,
    avatar_url: Option<String>,
    is_admin: bool,
    is_banned: bool,
    /// Ed25519, hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<String>,
    #[schema(value_type = Object)]
    metadata: Object,
    /// Milestone → when it was reached.
    #[schema(value_type = Object)]
    onboarding: Object,
    /// Absent where an operator made the account.
    #[serde(skip_serializing_if = "Option::is_none")]
    signup_method: Option<String>,
    free_tier_unlocked: bool,
    free_tier_unlocked_at: Option<String>,
    free_tier_unlock_source: Option<String>,
    created_at: String,
    updated_at: String,
}

impl UserData {
    pub(in crate::api) fn new(user: User, profile: Profile, app: &App) -> Self {
        Self {
            id: user.id.to_string(),
            username: user.username,
            alias: user.alias,
            email: user.email,
            email_verified: profile.email_verified_at.is_some(),
            avatar_url: profile.avatar_url,
            is_admin: user.is_admin,
            is_banned: user.is_banned,
            public_key: profile.public_key,
            metadata: profile.metadata,
            onboarding: profile.onboarding,
            signup_method: profile.signup_method,
            free_tier_unlocked: !app.config.free_tier.needs_invite || profile.free_tier_unlocked_at.is_some(),
            free_tier_unlocked_at: profile.free_tier_unlocked_at.map(rfc3339),
            free_tier_unlock_source: profile.free_tier_unlock_source,
            created_at: rfc3339(user.created_at),
            updated_at: rfc3339(user.updated_at),
        }
    }

    /// The account with its profile, which is read.
    pub(in crate::api) async fn of(app: &App, user: User) -> Result<Self, ServiceError> {
        let profile = profile::of(app, user.id).await?;
        Ok(Self::new(user, profile, app))
    }
}

/// The account of a credential, what waits for it, and the auth token of the request where it is one.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct MeData {
    #[serde(flatten)]
    user: UserData,
    pending_pool_invitations: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_token: Option<CurrentData>,
}

impl MeData {
    pub(in crate::api) async fn of(app: &App, user: User, caller: Option<Caller>) -> Result<Self, ServiceError> {
        let realm = caller.as_ref().and_then(|caller| caller.realm);
        let token = caller.and_then(|caller| caller.token);
        Ok(Self {
            pending_pool_invitations: profile::pending_invitations(app, user.id).await?,
            auth_token: token.map(|token| CurrentData::new(token.as_ref().clone(), realm)),
            user: UserData::of(app, user).await?,
        })
    }
}

#[derive(Debug, Serialize, ToSchema)]
struct DefaultProject {
    id: String,
    alias: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct DefaultContainer {
    id: String,
    name: String,
    status: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct FreeServer {
    id: String,
    name: String,
    country: String,
    region: String,
    city: String,
    datacenter: String,
    /// Its agent is connected.
    is_ready: bool,
}

impl From<Server> for FreeServer {
    fn from(server: Server) -> Self {
        Self {
            id: server.id.to_string(),
            is_ready: server.online && server.status == "enrolled",
            name: server.name,
            country: server.place.country,
            region: server.place.region,
            city: server.place.city,
            datacenter: server.place.datacenter,
        }
    }
}

/// What an account has by default; null where it has none.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct HomeData {
    project: Option<DefaultProject>,
    container: Option<DefaultContainer>,
    server: Option<FreeServer>,
}

impl From<Home> for HomeData {
    fn from(home: Home) -> Self {
        Self {
            project: home.project.map(|(id, alias)| DefaultProject { id: id.to_string(), alias }),
            container: home.container.map(|free_tier::Container { id, name, status }| DefaultContainer {
                id,
                name,
                status,
            }),
            server: home.server.map(FreeServer::from),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
struct RecentLogin {
    ip: String,
    timestamp: String,
}

/// A finished login.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct LoginData {
    #[serde(flatten)]
    tokens: TokenData,
    requires_2fa: bool,
    user: UserData,
    #[serde(flatten)]
    home: HomeData,
    identity_claim: SignedClaim,
    auth_token_count: i64,
    client_ip: String,
    recent_login_ips: Vec<RecentLogin>,
}

impl LoginData {
    pub(in crate::api) async fn new(
        app: &App,
        user: User,
        tokens: Tokens,
        client_ip: std::net::IpAddr,
    ) -> Result<Self, ServiceError> {
        let recent = history::recent_logins(app, user.id).await?;
        Ok(Self {
            tokens: tokens.into(),
            requires_2fa: false,
            home: free_tier::home(app, user.id).await?.into(),
            identity_claim: identity::of_login(app, &user),
            auth_token_count: profile::auth_tokens(app, user.id).await?,
            client_ip: client_ip.to_string(),
            recent_login_ips: recent
                .into_iter()
                .map(|event| RecentLogin { ip: event.ip_address, timestamp: rfc3339(event.created_at) })
                .collect(),
            user: UserData::of(app, user).await?,
        })
    }
}

/// A login that waits for a code: send it with the temporary token to `/users/auth/2fa/verify`.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct ChallengeData {
    requires_2fa: bool,
    /// Always `totp`.
    method: &'static str,
    temp_token: String,
    expires_at: String,
}

impl From<Challenge> for ChallengeData {
    fn from(challenge: Challenge) -> Self {
        Self {
            requires_2fa: true,
            method: "totp",
            temp_token: challenge.temp_token.to_string(),
            expires_at: rfc3339(challenge.expires_at),
        }
    }
}

/// A login that `/auth/authorize` turns into a code for an application.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct IntentData {
    /// Send it as `Authorization: Bearer` to `/auth/authorize`.
    auth_intent_token: String,
    /// Seconds that it lives.
    expires_in: i64,
    expires_at: String,
    requires_2fa: bool,
    user: UserData,
}

/// A device that was let in.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct ApprovedData {
    /// Always `approved`.
    status: &'static str,
}

/// How a login ended.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(in crate::api) enum LoginOutcome {
    /// Logged in.
    Done(Box<LoginData>),
    /// An intent, as asked for.
    Intent(Box<IntentData>),
    /// The device that this was about is let in.
    Approved(ApprovedData),
    /// A code is needed.
    NeedsCode(ChallengeData),
}

impl LoginOutcome {
    /// How it ended, and a sentence about it.
    pub(in crate::api) async fn new(
        app: &App,
        login: Login,
        client_ip: std::net::IpAddr,
    ) -> Result<Reply<Self>, ServiceError> {
        match login {
            Login::Done(entered) => Self::entered(app, entered, client_ip).await,
            Login::NeedsCode(challenge) => {
                let message = "now send a code of your authenticator, or a backup code, with the temporary token";
                Ok(Reply::ok(Self::NeedsCode(challenge.into()), message))
            }
        }
    }

    /// What a finished login gave, and a sentence about it.
    pub(in crate::api) async fn entered(
        app: &App,
        entered: Entered,
        client_ip: std::net::IpAddr,
    ) -> Result<Reply<Self>, ServiceError> {
        match entered {
            Entered::Session(done) => {
                let (user, tokens) = *done;
                let data = LoginData::new(app, user, tokens, client_ip).await?;
                Ok(Reply::ok(Self::Done(Box::new(data)), "logged in"))
            }
            Entered::Intent(done) => {
                let (user, intent) = *done;
                let data = IntentData {
                    auth_intent_token: intent.token.to_string(),
                    expires_in: (intent.expires_at - now_ms() as i64).max(0) / 1000,
                    expires_at: rfc3339(intent.expires_at),
                    requires_2fa: false,
                    user: UserData::of(app, user).await?,
                };
                let message = "now send the intent to /auth/authorize with the application's address";
                Ok(Reply::ok(Self::Intent(Box::new(data)), message))
            }
            Entered::Device => Ok(Reply::ok(
                Self::Approved(ApprovedData { status: "approved" }),
                "the device is let in: go back to it",
            )),
        }
    }
}
