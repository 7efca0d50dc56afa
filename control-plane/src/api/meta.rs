//! `/meta/public-key`, `/meta/social-stats` and `/ip`.

use super::{
    caller::Identity,
    client,
    envelope::{Failure, Reply, Success},
    request_id,
    time::rfc3339,
};
use crate::{app::App, error::ServiceError, service::social_stats};
use axum::extract::State;
use hoody_protocol::time::now_ms;
use http::{Extensions, HeaderMap, HeaderName, Version, header};
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Age in seconds above which a signed response should not be believed.
const REPLAY_TOLERANCE_S: u64 = 300;
/// Headers that carry credentials and are not shown back.
const PRIVATE: [HeaderName; 3] = [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION];

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(public_key)).routes(routes!(stats)).routes(routes!(ip))
}

#[derive(Serialize, ToSchema)]
struct Key {
    kid: String,
    /// Always `ed25519`.
    algorithm: &'static str,
    public_key_hex: String,
    public_key_b64: String,
    public_key_b64url: String,
}

#[derive(Serialize, ToSchema)]
struct SigningFormat {
    response_header: &'static str,
    response_signed_data: &'static str,
    identity_claim_signed_data: &'static str,
    replay_tolerance_seconds: u64,
}

#[derive(Serialize, ToSchema)]
struct PublicKeys {
    active_kid: String,
    keys: Vec<Key>,
    usage: Vec<&'static str>,
    signing_format: SigningFormat,
}

/// The keys that verify response signatures
#[utoipa::path(get, path = "/api/v1/meta/public-key", operation_id = "meta.getPublicKey", tag = "meta", security(()),
    responses((status = 200, body = Success<PublicKeys>)))]
async fn public_key(State(app): State<App>) -> Reply<PublicKeys> {
    let keys = app.keys.responses.public().into_iter().map(|key| Key {
        kid: key.kid,
        algorithm: "ed25519",
        public_key_hex: key.hex,
        public_key_b64: key.base64,
        public_key_b64url: key.base64url,
    });
    let data = PublicKeys {
        active_kid: app.keys.responses.active_kid(),
        keys: keys.collect(),
        usage: vec!["api_response", "identity_claim"],
        signing_format: SigningFormat {
            response_header: "X-Hoody-Signature: t=<unix>,kid=<id>,m=<METHOD>,s=<status>,path=<path>,sig=<hex>",
            response_signed_data: "<t>\\n<METHOD>\\n<status>\\n<path>\\n<body>",
            identity_claim_signed_data: "the bytes that payload_b64 encodes",
            replay_tolerance_seconds: REPLAY_TOLERANCE_S,
        },
    };
    Reply::ok(data, "verify responses and claims with these keys")
}

#[derive(Serialize, ToSchema)]
struct SocialStats {
    discord: Option<u64>,
    discord_online: Option<u64>,
    github: Option<u64>,
    linkedin: Option<u64>,
    telegram: Option<u64>,
    x: Option<u64>,
    /// When the numbers were written.
    #[serde(rename = "fetchedAt")]
    fetched_at: Option<String>,
}

/// How many follow us where
#[utoipa::path(get, path = "/api/v1/meta/social-stats", operation_id = "meta.getSocialStats", tag = "meta", security(()),
    responses((status = 200, body = Success<SocialStats>), (status = 503, body = Failure)))]
async fn stats(State(app): State<App>) -> Result<Reply<SocialStats>, ServiceError> {
    let (numbers, written_at) = social_stats::read(&app).await?;
    let data = SocialStats {
        discord: numbers.discord,
        discord_online: numbers.discord_online,
        github: numbers.github,
        linkedin: numbers.linkedin,
        telegram: numbers.telegram,
        x: numbers.x,
        fetched_at: written_at.map(rfc3339),
    };
    Ok(Reply::ok(data, "these are the numbers last written down"))
}

#[derive(Serialize, ToSchema)]
struct IpData {
    ip: String,
    /// Nothing is looked up about the address.
    #[schema(value_type = Option<Object>)]
    ip_info: Option<()>,
    /// The request carries a credential that is good.
    is_logged: bool,
    protocol: &'static str,
    referer: String,
    user_agent: String,
    timestamp: String,
    headers: BTreeMap<String, String>,
}

/// Your address as we see it
#[utoipa::path(get, path = "/api/v1/ip", operation_id = "utilities.getIpInfo", tag = "utilities", security(()),
    responses((status = 200, body = Success<IpData>)))]
async fn ip(
    State(app): State<App>,
    identity: Result<Identity, ServiceError>,
    version: Version,
    headers: HeaderMap,
    extensions: Extensions,
) -> Reply<IpData> {
    let text = |name: HeaderName| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let shown = headers.iter().filter(|(name, _)| !PRIVATE.contains(name) && *name != request_id::HEADER);
    let data = IpData {
        ip: client::address(&headers, &extensions, &app.config).to_string(),
        ip_info: None,
        is_logged: identity.is_ok(),
        protocol: match version {
            Version::HTTP_2 => "HTTP/2",
            Version::HTTP_10 => "HTTP/1.0",
            _ => "HTTP/1.1",
        },
        referer: text(header::REFERER),
        user_agent: text(header::USER_AGENT),
        timestamp: rfc3339(now_ms() as i64),
        headers: shown
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect(),
    };
    Reply::ok(data, "this is where you come from")
}
