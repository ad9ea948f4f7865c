//! Whether the process lives, whether it can work, and how it does. No credential.

use std::time::Duration;

use axum::{Json, extract::State};
use http::{StatusCode, header};
use serde::Serialize;
use shared::db;
use utoipa::ToSchema;

use crate::state::App;

/// How long the database may take to answer before the process counts as not ready.
const PATIENCE: Duration = Duration::from_secs(2);

/// The process lives.
#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    #[schema(example = "ok")]
    status: &'static str,
    version: &'static str,
}

/// Says that the process lives, whatever its dependencies do.
#[utoipa::path(get, path = "/healthz", tag = "operations", responses((status = 200, description = "It lives", body = Health)))]
pub(crate) async fn healthz() -> Json<Health> {
    Json(Health { status: "ok", version: env!("CARGO_PKG_VERSION") })
}

/// What the process needs.
#[derive(Serialize, ToSchema)]
pub(crate) struct Readiness {
    /// ready, draining or unavailable.
    #[schema(example = "ready")]
    status: &'static str,
    /// Whether Postgres answers requests.
    postgres: bool,
    /// Whether the queue's tables can be read.
    queue: bool,
}

/// Says whether the process can do its work: Postgres and the queue answer, and it is not stopping.
#[utoipa::path(
    get, path = "/readyz", tag = "operations",
    responses(
        (status = 200, description = "It can work", body = Readiness),
        (status = 503, description = "Postgres or the queue cannot be reached, or the process is stopping", body = Readiness),
    )
)]
pub(crate) async fn readyz(State(app): State<App>) -> (StatusCode, Json<Readiness>) {
    let asked = async {
        tokio::join!(
            tokio::time::timeout(PATIENCE, db::answers(app.tenants.app())),
            tokio::time::timeout(PATIENCE, db::queue_answers(&app.engine)),
        )
    };
    let (postgres, queue) = asked.await;
    let (postgres, queue) = (matches!(postgres, Ok(Ok(()))), matches!(queue, Ok(Ok(()))));
    let (code, status) = match (postgres && queue, app.draining.is_cancelled()) {
        (true, false) => (StatusCode::OK, "ready"),
        (true, true) => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    };
    (code, Json(Readiness { status, postgres, queue }))
}

/// Figures for Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "operations",
    responses((status = 200, description = "Prometheus text format", body = String, content_type = "text/plain"))
)]
pub(crate) async fn metrics(State(app): State<App>) -> ([(header::HeaderName, &'static str); 1], String) {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], app.metrics.scrape(&app).await)
}
