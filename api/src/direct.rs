//! A stream's own connection. hyper keeps two buffers of 8 KiB and its state for as long as a response lasts, which for
//! ten thousand idle streams is most of the memory. So a stream's connection is taken out of hyper's hands before the
//! answer begins, its head and chunks are written here, and afterwards the connection goes back.

use std::{
    future::poll_fn,
    io::{self, Write as _},
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
};

use axum::{body::BodyDataStream, response::Response};
use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderValue, header, response::Parts};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

/// Chunks that are ready are written together up to this many bytes.
const WRITE: usize = 16 * 1024;

/// Put into a response's extensions by a stream: it wants its connection for itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WantsConnection;

/// A stream that wants its connection.
pub(crate) struct Wanting {
    pub(crate) response: Response,
    pub(crate) client: Client,
}

/// What the client said about the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    /// HTTP/1.1, and wants the connection afterwards.
    KeepsAlive,
    /// HTTP/1.1, and closes the connection afterwards.
    Closes,
    /// HTTP/1.0: knows no chunks; the end of the connection is the end of the body.
    IsOld,
}

impl Client {
    /// The same, but without its wish for the connection.
    pub(crate) fn without_keep_alive(self) -> Self {
        if self == Self::KeepsAlive { Self::Closes } else { self }
    }
}

/// Where the service leaves a [`Wanting`] for the connection's task, which polls the service and looks here after.
#[derive(Clone, Default)]
pub(crate) struct Slot(Arc<Mutex<Option<Wanting>>>);

impl Slot {
    pub(crate) fn put(&self, wanting: Wanting) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(wanting);
    }

    pub(crate) fn take(&self) -> Option<Wanting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Writes the stream until it ends; then answers the connection if it can serve another request.
///
/// # Errors
/// The connection's: the client has gone.
pub(crate) async fn write(mut socket: TcpStream, wanting: Wanting) -> io::Result<Option<TcpStream>> {
    let (mut parts, body) = wanting.response.into_parts();
    let (name, value) = match wanting.client {
        Client::IsOld => (header::CONNECTION, "close"),
        _ => (header::TRANSFER_ENCODING, "chunked"),
    };
    parts.headers.insert(name, HeaderValue::from_static(value));
    if wanting.client == Client::Closes {
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let head = head(&parts);
    drop(parts);
    let untouched = copy(&mut socket, head, body.into_data_stream(), wanting.client != Client::IsOld).await?;
    if untouched && wanting.client == Client::KeepsAlive {
        return Ok(Some(socket));
    }
    socket.shutdown().await?;
    Ok(None)
}

/// Writes the head and the stream's bytes. Answers whether the client has sent nothing meanwhile, or a part of its next
/// request would be lost.
async fn copy(
    socket: &mut TcpStream,
    mut ready: Vec<u8>,
    mut stream: BodyDataStream,
    chunked: bool,
) -> io::Result<bool> {
    let mut untouched = true;
    loop {
        // What is ready goes out at once and together; nothing waits for more. The stream is not polled while a slow
        // reader is waited for, so nothing grows.
        let mut ended = false;
        while ready.len() < WRITE && !ended {
            match poll_fn(|cx| Poll::Ready(stream.poll_next_unpin(cx))).await {
                Poll::Ready(chunk) => {
                    ended =
                        !encode(&mut ready, chunk.transpose().map_err(io::Error::other)?.as_ref(), chunked)
                }
                Poll::Pending => break,
            }
        }
        socket.write_all(&ready).await?;
        // An idle stream holds no buffer.
        ready = Vec::new();
        if ended {
            return Ok(untouched);
        }
        let chunk = loop {
            tokio::select! {
                biased;
                chunk = stream.next() => break chunk,
                sent = sent(socket) => {
                    sent?;
                    untouched = false;
                }
            }
        };
        if !encode(&mut ready, chunk.transpose().map_err(io::Error::other)?.as_ref(), chunked) {
            socket.write_all(&ready).await?;
            return Ok(untouched);
        }
    }
}

/// Appends a chunk, or the end; false at the end.
fn encode(ready: &mut Vec<u8>, chunk: Option<&Bytes>, chunked: bool) -> bool {
    match (chunk, chunked) {
        (Some(bytes), true) => {
            // Writing to a Vec cannot fail.
            let _ = write!(ready, "{:x}\r\n", bytes.len());
            ready.extend_from_slice(bytes);
            ready.extend_from_slice(b"\r\n");
        }
        (Some(bytes), false) => ready.extend_from_slice(bytes),
        (None, true) => ready.extend_from_slice(b"0\r\n\r\n"),
        (None, false) => {}
    }
    chunk.is_some()
}

fn head(parts: &Parts) -> Vec<u8> {
    let mut head = Vec::with_capacity(1024);
    let reason = parts.status.canonical_reason().unwrap_or_default();
    // Writing to a Vec cannot fail.
    let _ = write!(head, "HTTP/1.1 {} {reason}\r\n", parts.status.as_str());
    for (name, value) in &parts.headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    let _ = write!(head, "date: {}\r\n\r\n", chrono::Utc::now().format("%a, %d %b %Y %H:%M:%S GMT"));
    head
}

/// Waits until the client sends something, which is thrown away, or has gone, which is an error.
async fn sent(socket: &TcpStream) -> io::Result<()> {
    let mut bin = [0; 64];
    loop {
        socket.readable().await?;
        match socket.try_read(&mut bin) {
            Ok(0) => return Err(io::ErrorKind::ConnectionAborted.into()),
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
