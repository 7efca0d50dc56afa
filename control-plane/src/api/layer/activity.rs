//! Every request of a user becomes a line of the activity log, whatever the answer.

use crate::{
    api::{caller::Credential, client, realm},
    app::App,
    store::activity::Activity,
};
use axum::{
    extract::{OriginalUri, Request, State},
    middleware::Next,
    response::Response,
};
use hoody_protocol::{id::ActivityId, time::now_ms};
use http::header;

/// Characters of the longest path and the longest name of a client that are kept.
const MAX_CHARS: usize = 256;

pub(super) async fn layer(
    State(app): State<App>,
    OriginalUri(uri): OriginalUri,
    request: Request,
    next: Next,
) -> Response {
    // The credential was looked at; whether the session still is there shows in the status.
    let Some(Credential(Ok(presented))) = request.extensions().get::<Credential>() else {
        return next.run(request).await;
    };
    let user = presented.user();
    let cut = |text: &str| text.chars().take(MAX_CHARS).collect::<String>();
    let (parts, body) = request.into_parts();
    let mut activity = Activity {
        id: ActivityId::generate(),
        user,
        method: parts.method.as_str().to_owned(),
        path: cut(uri.path()),
        status: 0,
        address: client::address(&parts.headers, &parts.extensions, &app.config).to_string(),
        user_agent: cut(parts.headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default()),
        realm: realm::of_request(&parts, &app.config).ok().flatten(),
        created_at: now_ms() as i64,
    };
    let response = next.run(Request::from_parts(parts, body)).await;
    activity.status = response.status().as_u16();
    app.activity.record(activity);
    response
}
