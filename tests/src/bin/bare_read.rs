//! What reading one container costs at least: a bare axum handler that checks the token, reads the row and
//! signs the answer with the control plane's own functions, and does nothing else. `make bench` compares
//! the public API with it.
//!
//! Usage: bare_read <data folder> <database URL> <address>

use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use hoody_control_plane::{
    config::Config,
    keys::{Keys, TokenKind},
    store::{Store, container, user},
};
use hoody_protocol::time::now_ms;
use std::{error::Error, sync::Arc};

type App = (Store, Arc<Keys>);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or("usage: bare_read <data folder> <database URL> <address>");
    let (folder, database, address) = (next()?, next()?, next()?);
    let store = Store::open(&database).await?;
    let keys = Keys::open(&store, Config::in_dir(folder.into()).open_master_key()?).await?;
    let router = Router::new().route("/api/v1/containers/{id}", get(read)).with_state((store, Arc::new(keys)));
    axum_server::bind(address.parse::<std::net::SocketAddr>()?).serve(router.into_make_service()).await?;
    Ok(())
}

async fn read(
    State((store, keys)): State<App>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, StatusCode> {
    let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let claims = keys.tokens.verify(token.unwrap_or_default(), TokenKind::Access);
    let claims = claims.map_err(|_| StatusCode::UNAUTHORIZED)?;
    // Also the part of the check that ends the tokens of those who logged out or were banned.
    let user = user::by_session(&store, claims.sub, claims.sid).await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    if user.is_none_or(|user| user.is_banned || user.token_generation != claims.generation) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let found = container::get(&store, id.parse().map_err(|_| StatusCode::BAD_REQUEST)?).await;
    let row = found.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?.ok_or(StatusCode::NOT_FOUND)?;
    if row.spec.owner != claims.sub {
        return Err(StatusCode::NOT_FOUND);
    }
    let body = serde_json::to_vec(&row.spec).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    let signature = keys.responses.sign(now_ms() / 1000, "GET", 200, &format!("/api/v1/containers/{id}"), &body);
    Ok(([("content-type", "application/json".to_owned()), ("x-hoody-signature", signature)], body))
}
