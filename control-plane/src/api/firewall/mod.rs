//! `/containers/{id}/firewall`.

mod handlers;
mod view;

use crate::app::App;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(handlers::list))
        .routes(routes!(handlers::reset))
        .routes(routes!(handlers::add_ingress, handlers::toggle_ingress, handlers::remove_ingress))
        .routes(routes!(handlers::add_egress, handlers::toggle_egress, handlers::remove_egress))
}
