//! The accept loop, on hyper itself: axum's own leaves no say over a connection's buffers, and ten thousand idle
//! streams are ten thousand connections.
//!
//! Stopping: no new connections, idle ones are closed, streams are told to reconnect and end, requests under way are
//! answered; whatever is left when the time is up is cut.

use std::{future::poll_fn, io, pin::Pin, task::Poll, time::Duration};

use axum::{Router, body::Body, response::Response};
use http::{Method, Request, Version, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    address::Peer,
    direct::{self, Client, Slot, Wanting, WantsConnection},
    request,
    state::App,
};

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
            Ok((stream, peer)) => {
                ending.connections.spawn(connection(
                    stream,
                    Peer(peer.ip()),
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

async fn connection(
    stream: TcpStream,
    peer: Peer,
    http: http1::Builder,
    app: App,
    router: Router,
    ending: Ending,
) {
    // Each event is a small write that must not wait for the former one's acknowledgement.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let mut next = Some(stream);
    while let Some(stream) = next.take() {
        // In a box that is gone when a stream begins: a task is as large as its largest moment.
        let requests =
            Box::pin(requests(stream, peer, http.clone(), app.clone(), router.clone(), ending.clone()));
        let Some((socket, wanting)) = requests.await else { return };
        // How a connection ends is the client's affair.
        tokio::select! {
            written = direct::write(socket, wanting) => next = written.unwrap_or_default(),
            () = ending.cut.cancelled() => {}
        }
    }
}

/// Answers requests until the connection ends or a stream wants it for itself.
async fn requests(
    stream: TcpStream,
    peer: Peer,
    http: http1::Builder,
    app: App,
    router: Router,
    ending: Ending,
) -> Option<(TcpStream, Wanting)> {
    let slot = Slot::default();
    let service_slot = slot.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        serve(app.clone(), router.clone(), service_slot.clone(), request.map(Body::new))
    });
    let mut serving = http.serve_connection(TokioIo::new(stream), service);
    let mut draining = std::pin::pin!(ending.draining.cancelled());
    let mut is_draining = false;
    let ended = poll_fn(|cx| {
        if !is_draining && draining.as_mut().poll(cx).is_ready() {
            is_draining = true;
            Pin::new(&mut serving).graceful_shutdown();
        }
        // Errors of ours were logged with their request; others are the client's affair.
        if Pin::new(&mut serving).poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        slot.take().map_or(Poll::Pending, |wanting| Poll::Ready(Some(wanting)))
    });
    let wanting = tokio::select! {
        wanting = ended => wanting?,
        () = ending.cut.cancelled() => return None,
    };
    let hyper = serving.into_parts();
    let wanting = match hyper.read_buf.is_empty() {
        true => wanting,
        // The beginning of a further request was read, and cannot be put back.
        false => Wanting { client: wanting.client.without_keep_alive(), ..wanting },
    };
    Some((hyper.io.into_inner(), wanting))
}

async fn serve(
    app: App,
    router: Router,
    slot: Slot,
    request: Request<Body>,
) -> Result<Response, request::ClosedWithoutAnswer> {
    let (client, is_get) = (client(&request), request.method() == Method::GET);
    let response = request::answer(app, router, request).await?;
    if is_get && response.extensions().get::<WantsConnection>().is_some() {
        slot.put(Wanting { response, client });
        // hyper is to write nothing; the connection's task looks into the slot after this poll.
        return std::future::pending().await;
    }
    Ok(response)
}

fn client(request: &Request<Body>) -> Client {
    let says = |word: &str| {
        let connection = request.headers().get(header::CONNECTION).and_then(|value| value.to_str().ok());
        connection.is_some_and(|value| value.split(',').any(|token| token.trim().eq_ignore_ascii_case(word)))
    };
    match request.version() {
        version if version < Version::HTTP_11 => Client::IsOld,
        _ if says("close") => Client::Closes,
        _ => Client::KeepsAlive,
    }
}
