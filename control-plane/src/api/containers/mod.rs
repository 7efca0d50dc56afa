//! `/containers` and `/projects/{id}/containers`.

mod authorize;
mod copy;
mod create;
pub(in crate::api) mod exec;
mod export;
mod get;
pub(in crate::api) mod import;
mod kvm;
mod list;
mod logs;
mod moving;
mod operate;
mod runtime_info;
mod stats;
mod status_logs;
mod sync;
mod terminal;
mod terminals;
mod transfer;
mod update;
mod view;

pub(in crate::api) use moving::MoveData;
pub(in crate::api) use operate::Operated;
pub use stats::Stats;
pub use view::ContainerData;

use crate::{app::App, service::container::Progress};
use axum::extract::DefaultBodyLimit;
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouterExt},
    routes,
};

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list::list))
        .routes(routes!(list::list_by_project, create::create))
        .routes(routes!(get::get, update::update, update::patch, get::delete))
        .routes(routes!(exec::exec).layer(DefaultBodyLimit::max(exec::MAX_BODY_BYTES)))
        .routes(routes!(export::export))
        .routes(routes!(import::import).layer(DefaultBodyLimit::disable()))
        .routes(routes!(logs::logs))
        .routes(routes!(terminal::connect))
        .routes(routes!(terminals::list))
        .routes(routes!(terminals::end))
        .routes(routes!(authorize::authorize))
        .routes(routes!(kvm::set))
        .routes(routes!(copy::copy))
        .routes(routes!(sync::sync))
        .routes(routes!(moving::start, moving::last))
        .routes(routes!(operate::operate))
        .routes(routes!(stats::stats))
        .routes(routes!(status_logs::status_logs))
}

/// What a write answers, by how far the node is.
pub(super) fn written(progress: Progress, done: &str) -> String {
    match progress {
        Progress::Answered => done.to_owned(),
        Progress::Pending => "accepted; the server is still at it: read the container to follow".to_owned(),
        Progress::Offline => "accepted; the server is offline and does it when it is back".to_owned(),
    }
}
