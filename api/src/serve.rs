//! The accept loop, on hyper itself: axum's own leaves no say over a connection's buffers, and ten thousand idle
//! streams are ten thousand connections.
//!
//! Stopping: no new connections, idle ones are closed, streams are told to reconnect and end, requests under way are
//! answered; whatever is left when the time is up is cut.

use std::{io, time::Duration};

use axum::{Router, body::Body};
use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{request, state::App};

/// How long a client may take for a request's head; also how long an idle connection is kept.
const HEAD_TIME: Duration = Duration::from_secs(75);
/// The least that hyper takes. Heads larger than this are refused (431).
const BUFFER: usize = 16 * 1024;

/// How the process's connections are ended.
#[derive(Clone)]
pub(crate) struct Ending {
    /// Be done soon.
    pub(crate) draining: CancellationToken,
    /// Be done now.
    pub(crate) cut: CancellationToken,
    pub(crate) connections: TaskTracker,
}

/// Accepts connections until the process drains.
pub(crate) async fn accept(listener: TcpListener, app: App, router: Router, ending: Ending) {
    let mut http = http1::Builder::new();
    http.max_buf_size(BUFFER).timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ending.draining.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                ending.connections.spawn(connection(
                    stream,
                    http.clone(),
                    app.clone(),
                    router.clone(),
                    ending.clone(),
                ));
            }
            Err(error) if is_about_the_client(&error) => {}
            Err(error) => {
                // Out of descriptors, most likely: trying again at once would only burn the processor.
                tracing::error!(error = &error as &dyn std::error::Error, "accepting a connection failed");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

fn is_about_the_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

async fn connection(stream: TcpStream, http: http1::Builder, app: App, router: Router, ending: Ending) {
    // Each event is a small write that must not wait for the former one's acknowledgement.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let service = service_fn(move |request: Request<Incoming>| {
        request::answer(app.clone(), router.clone(), request.map(Body::new))
    });
    let mut serving = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
    // How a connection ends is the client's affair; errors of ours were logged with their request.
    tokio::select! {
        _ = serving.as_mut() => return,
        () = ending.draining.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        _ = serving => {}
        () = ending.cut.cancelled() => {}
    }
}
