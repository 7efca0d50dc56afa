//! `/meta/public-key` and `/ip`.

use super::{
    client,
    envelope::{Reply, Success},
    request_id,
    time::rfc3339,
};
use crate::app::App;
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
    OpenApiRouter::new().routes(routes!(public_key)).routes(routes!(ip))
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
    let key = app.keys.responses.public();
    let data = PublicKeys {
        active_kid: key.kid.clone(),
        keys: vec![Key {
            kid: key.kid,
            algorithm: "ed25519",
            public_key_hex: key.hex,
            public_key_b64: key.base64,
            public_key_b64url: key.base64url,
        }],
        usage: vec!["api_response"],
        signing_format: SigningFormat {
            response_header: "X-Hoody-Signature: t=<unix>,kid=<id>,m=<METHOD>,s=<status>,path=<path>,sig=<hex>",
            response_signed_data: "<t>\\n<METHOD>\\n<status>\\n<path>\\n<body>",
            replay_tolerance_seconds: REPLAY_TOLERANCE_S,
        },
    };
    Reply::ok(data, "verify responses with these keys")
}

#[derive(Serialize, ToSchema)]
struct IpData {
    ip: String,
    /// Nothing is looked up about the address.
    #[schema(value_type = Option<Object>)]
    ip_info: Option<()>,
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
async fn ip(State(app): State<App>, version: Version, headers: HeaderMap, extensions: Extensions) -> Reply<IpData> {
    let text = |name: HeaderName| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let shown = headers.iter().filter(|(name, _)| !PRIVATE.contains(name) && *name != request_id::HEADER);
    let data = IpData {
        ip: client::address(&headers, &extensions, &app.config).to_string(),
        ip_info: None,
        is_logged: false,
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
