//! What a worker counts, and the port where it tells. Loopback unless `APP_HOST` says otherwise; no credential.

use std::{convert::Infallible, net::IpAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use http::{Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use shared::{
    Error,
    model::{Provider, Usage},
    telemetry::Recorder,
};
use sqlx::PgPool;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

/// Ports that are tried, from the given one on: as many workers of one machine may share a setting.
const PORTS: u16 = 32;
/// Connections that are served at once.
const CONNECTIONS: usize = 16;
/// How long a connection may take for its request, and how long it is kept.
const PATIENCE: Duration = Duration::from_secs(10);

/// Counts the tokens of a model call that this process settled. What turns used on all workers is for an api to tell.
pub(crate) fn count_tokens(provider: Provider, usage: &Usage) {
    let kinds = [
        ("input", usage.input),
        ("output", usage.output),
        ("cache_read", usage.cache_read),
        ("cache_write", usage.cache_write),
    ];
    for (kind, tokens) in kinds {
        metrics::counter!("model_call_tokens_total", "provider" => provider.as_str(), "kind" => kind)
            .increment(u64::try_from(tokens).unwrap_or(0));
    }
}

/// Counts what failed a run of a turn.
pub(crate) fn count_error(error: &Error) {
    metrics::counter!("errors_total", "origin" => error.origin.as_str(), "code" => error.code.as_str())
        .increment(1);
}

/// A worker's figures, and where they are asked for.
pub(crate) struct Metrics {
    recorder: Recorder,
    listener: TcpListener,
}

impl Metrics {
    /// Takes the first free port from `first` on.
    pub(crate) async fn listen(host: IpAddr, first: u16) -> anyhow::Result<Self> {
        let recorder = Recorder::start()?;
        for port in (first..=u16::MAX).take(usize::from(PORTS)) {
            match TcpListener::bind((host, port)).await {
                Ok(listener) => {
                    tracing::info!(addr = %listener.local_addr()?, "figures are told at /metrics");
                    return Ok(Self { recorder, listener });
                }
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("WORKER_METRICS_PORT: cannot listen on {host}:{port}"));
                }
            }
        }
        bail!("WORKER_METRICS_PORT: {first} and the ports after it are in use")
    }

    /// Answers until dropped.
    pub(crate) async fn serve(self, pools: Vec<(&'static str, PgPool)>) {
        let (pools, room) = (Arc::new(pools), Arc::new(Semaphore::new(CONNECTIONS)));
        loop {
            // Whoever comes when all are busy waits in the kernel's line.
            let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
            let Ok((stream, _)) = self.listener.accept().await else {
                // Out of descriptors, most likely.
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            };
            let (recorder, pools) = (self.recorder.clone(), Arc::clone(&pools));
            tokio::spawn(async move {
                connection(stream, recorder, pools).await;
                drop(place);
            });
        }
    }
}

async fn connection(stream: TcpStream, recorder: Recorder, pools: Arc<Vec<(&'static str, PgPool)>>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answered = answer(&request, &recorder, &pools);
        async move { Ok::<_, Infallible>(answered) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE).keep_alive(false);
    // How a connection ends is the client's affair.
    let _ = tokio::time::timeout(PATIENCE, http.serve_connection(TokioIo::new(stream), service)).await;
}

fn answer(
    request: &Request<Incoming>,
    recorder: &Recorder,
    pools: &[(&'static str, PgPool)],
) -> Response<String> {
    let asks = matches!(*request.method(), Method::GET | Method::HEAD);
    let (status, kind, body) = match request.uri().path() {
        "/metrics" if asks => {
            let pools: Vec<_> = pools.iter().map(|(name, pool)| (*name, pool)).collect();
            (StatusCode::OK, "text/plain; version=0.0.4", recorder.text(&pools))
        }
        "/healthz" if asks => {
            let health = json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") });
            (StatusCode::OK, "application/json", health.to_string())
        }
        _ => {
            let error = json!({
                "error": "APP-404-NOT-FOUND", "message": "a worker answers GET /metrics and GET /healthz",
                "origin": "app", "requestId": shared::ids::TurnId::generate().to_string(),
            });
            (StatusCode::NOT_FOUND, "application/json", error.to_string())
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}
