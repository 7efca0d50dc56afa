//! `/metrics`, `/healthz` and `/readyz` on an address of their own.

use super::{ServeError, failed};
use crate::{api, app::App};
use axum::{Router, extract::State, routing::get};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::io;

/// Upper bounds of the latency histogram, seconds.
const LATENCY_BUCKETS_S: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Makes this process record its metrics. Once per process.
pub(super) fn install_recorder() -> Result<PrometheusHandle, ServeError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_duration_seconds".to_owned()), LATENCY_BUCKETS_S)
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|error| failed("record metrics")(io::Error::other(error)))
}

/// The routes.
pub(super) fn router(app: App, recorder: PrometheusHandle) -> Router {
    let metrics = get(move |State(app): State<App>| {
        let recorder = recorder.clone();
        async move {
            let (open, idle) = app.store.connections();
            metrics::gauge!("hoody_database_connections").set(open);
            metrics::gauge!("hoody_database_connections_idle").set(idle as f64);
            recorder.run_upkeep();
            recorder.render()
        }
    });
    let (probes, _) = api::probes().split_for_parts();
    probes.route("/metrics", metrics).with_state(app)
}
