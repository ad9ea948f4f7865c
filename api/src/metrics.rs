//! What `/metrics` shows [O4]. Counters of this process come from the `metrics` recorder; figures that belong to the
//! whole deployment (the queue, turns by how they ended) are read from the database at each scrape.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use sqlx::PgPool;

use crate::state::App;

/// The recorder is global to a process, and tests start several servers in one.
static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// The recorder's reading end.
pub(crate) struct Metrics {
    recorder: PrometheusHandle,
}

impl Metrics {
    /// Installs the recorder, unless this process has one.
    pub(crate) fn start() -> Result<Self, BuildError> {
        if let Some(recorder) = RECORDER.get() {
            return Ok(Self { recorder: recorder.clone() });
        }
        let recorder = match PrometheusBuilder::new().install_recorder() {
            Ok(recorder) => RECORDER.get_or_init(|| recorder).clone(),
            // Another server of this process was faster.
            Err(error) => RECORDER.get().cloned().ok_or(error)?,
        };
        describe();
        Ok(Self { recorder })
    }

    /// The text of a scrape.
    pub(crate) fn render(&self, app: &App) -> String {
        pool("app", app.tenants.app());
        pool("engine", &app.engine);
        self.recorder.run_upkeep();
        self.recorder.render()
    }
}

fn describe() {
    metrics::describe_counter!(
        "errors_total",
        "Requests that were answered with an error, by origin and code."
    );
    metrics::describe_gauge!("sse_streams", "Open event streams of this process.");
    metrics::describe_gauge!(
        "db_pool_connections",
        "Database connections of this process, by pool and state."
    );
}

fn pool(name: &'static str, pool: &PgPool) {
    let (all, idle) = (f64::from(pool.size()), pool.num_idle() as f64);
    metrics::gauge!("db_pool_connections", "pool" => name, "state" => "idle").set(idle);
    metrics::gauge!("db_pool_connections", "pool" => name, "state" => "used").set((all - idle).max(0.0));
}
