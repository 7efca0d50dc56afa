//! `/device`: the page where people type the code of a device and sign in. Everything it needs is in this
//! binary, and it may load and send nothing elsewhere.

use crate::app::App;
use axum::{Router, response::IntoResponse, routing::get};
use http::header;

const PAGE: &str = "/device";
const SCRIPT: &str = "/device/page.js";
const STYLE: &str = "/device/page.css";
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// True for its routes, which are open to anybody.
pub(super) fn is_page(path: &str) -> bool {
    [PAGE, SCRIPT, STYLE].contains(&path)
}

/// Its address.
pub(super) fn url(app: &App) -> String {
    format!("{}{PAGE}", app.config.public_url.trim_end_matches('/'))
}

/// Its address with what it shall show, which only the browser sees.
pub(super) fn with_outcome(app: &App, outcome: &[(&str, &str)]) -> String {
    let outcome = form_urlencoded::Serializer::new(String::new()).extend_pairs(outcome).finish();
    format!("{}#{outcome}", url(app))
}

/// Its routes.
pub(super) fn router() -> Router<App> {
    Router::new()
        .route(PAGE, get(|| file("text/html; charset=utf-8", include_str!("device_page/page.html"))))
        .route(SCRIPT, get(|| file("text/javascript; charset=utf-8", include_str!("device_page/page.js"))))
        .route(STYLE, get(|| file("text/css; charset=utf-8", include_str!("device_page/page.css"))))
}

async fn file(kind: &'static str, text: &'static str) -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text)
}
