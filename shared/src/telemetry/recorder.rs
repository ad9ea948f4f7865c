//! What a process counts [O4], and the text of it for Prometheus.

use std::sync::{Mutex, PoisonError};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use sqlx::PgPool;

/// The recorder is global to a process, and tests start several servers in one.
static RECORDER: Mutex<Option<PrometheusHandle>> = Mutex::new(None);

/// Counters and gauges of every process, with what they say.
const COUNTERS: &[(&str, &str)] = &[
    (
        "errors_total",
        "Requests that were answered with an error, and runs of turns that failed, by origin and code.",
    ),
    (
        "model_tokens_total",
        "Tokens by provider and kind: at an api those of turns that ended, on all workers; of embeddings those of this process.",
    ),
    ("model_call_tokens_total", "Tokens of model calls that this worker settled, by provider and kind."),
    (
        "auth_events_total",
        "Sign-ups, sign-ins, refreshes, sign-outs and changes of API keys, by event type and outcome.",
    ),
    ("context_cache_requests_total", "Reads of one's own context, by whether the process remembered it."),
    ("cache_requests_total", "Reads of outside tools, by tool and by what the cache had for them."),
    ("bell_reconnects_total", "Listening connections that were lost."),
    ("embedding_requests_total", "Requests for embeddings, by provider and outcome."),
    ("mcp_calls_total", "Calls of other people's tools, by server and outcome."),
    ("event_gaps_total", "Event ids that were missing when a reader first looked."),
    ("event_gaps_passed_over_total", "Event ids that were missing for over a second."),
];
const HISTOGRAMS: &[(&str, &str, &[f64])] = &[
    (
        "auth_duration_seconds",
        "How long signing up, in and out took, by event type.",
        &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 10.0],
    ),
    (
        "mcp_call_duration_seconds",
        "How long calls of other people's tools took, with their retry, by server.",
        &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0],
    ),
];
const GAUGES: &[(&str, &str)] = &[
    ("sse_streams", "Open event streams of this process."),
    ("circuit_breaker_state", "1 while a target is left alone after failures, by target."),
    ("db_pool_connections", "Database connections of this process, by pool and state."),
];

/// The process's recorder.
#[derive(Clone)]
pub struct Recorder(PrometheusHandle);

impl Recorder {
    /// Installs it, unless this process has one.
    ///
    /// # Errors
    /// Another recorder was installed first.
    pub fn start() -> Result<Self, BuildError> {
        // One at a time, or the slower of two would find a recorder that is not noted yet.
        let mut recorder = RECORDER.lock().unwrap_or_else(PoisonError::into_inner);
        let handle = match &*recorder {
            Some(handle) => handle.clone(),
            None => recorder.insert(builder()?.install_recorder()?).clone(),
        };
        drop(recorder);
        for (name, what) in COUNTERS {
            metrics::describe_counter!(*name, *what);
        }
        for (name, what, _) in HISTOGRAMS {
            metrics::describe_histogram!(*name, *what);
        }
        for (name, what) in GAUGES {
            metrics::describe_gauge!(*name, *what);
        }
        Ok(Self(handle))
    }

    /// The text of a scrape, with the connections of these pools.
    #[must_use]
    pub fn text(&self, pools: &[(&'static str, &PgPool)]) -> String {
        for (name, pool) in pools {
            let all = pool.size();
            let idle = u32::try_from(pool.num_idle()).unwrap_or(all);
            metrics::gauge!("db_pool_connections", "pool" => *name, "state" => "idle").set(f64::from(idle));
            metrics::gauge!("db_pool_connections", "pool" => *name, "state" => "used")
                .set(f64::from(all.saturating_sub(idle)));
        }
        self.0.run_upkeep();
        self.0.render()
    }
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    HISTOGRAMS.iter().try_fold(PrometheusBuilder::new(), |builder, (name, _, bounds)| {
        builder.set_buckets_for_metric(Matcher::Full((*name).to_owned()), bounds)
    })
}
