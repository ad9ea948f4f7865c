//! A stream's own connection. hyper keeps two buffers of 8 KiB and its state for as long as a response lasts, which for
//! ten thousand idle streams is most of the memory. So a stream's connection is taken out of hyper's hands before the
//! answer begins, and its head and chunks are written here. It ends with the stream: `Connection: close`.

use std::{
    fmt::Write as _,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{body::Body, response::Response};
use bytes::{Buf as _, Bytes};
use futures::StreamExt as _;
use http::{HeaderValue, Version, header, response::Parts};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

/// Put into a response's extensions by a stream: it wants its connection for itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WantsConnection;

/// A stream that wants its connection, with the version that the client spoke.
pub(crate) struct Wanting {
    pub(crate) version: Version,
    pub(crate) response: Response,
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

/// Writes the stream, until it ends or the client has gone.
///
/// # Errors
/// The connection's: the client has gone.
pub(crate) async fn write(mut socket: TcpStream, wanting: Wanting) -> io::Result<()> {
    let (mut parts, body) = wanting.response.into_parts();
    // Before 1.1 there are no chunks; the end of the connection is the end of the body.
    let chunked = wanting.version >= Version::HTTP_11;
    if chunked {
        parts.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    socket.write_all(&head(&parts)).await?;
    drop(parts);
    chunks(&mut socket, body, chunked).await?;
    if chunked {
        socket.write_all(b"0\r\n\r\n").await?;
    }
    socket.shutdown().await
}

async fn chunks(socket: &mut TcpStream, body: Body, chunked: bool) -> io::Result<()> {
    let mut stream = body.into_data_stream();
    loop {
        let chunk = tokio::select! {
            biased;
            chunk = stream.next() => chunk,
            gone = gone(socket) => return gone,
        };
        let Some(chunk) = chunk else { return Ok(()) };
        let chunk = chunk.map_err(io::Error::other)?;
        // The stream is not polled while this waits, so a slow reader holds one chunk and nothing grows.
        if chunked {
            let length = Bytes::from(format!("{:x}\r\n", chunk.len()));
            socket.write_all_buf(&mut length.chain(chunk).chain(&b"\r\n"[..])).await?;
        } else {
            socket.write_all(&chunk).await?;
        }
    }
}

fn head(parts: &Parts) -> Vec<u8> {
    let mut head = Vec::with_capacity(512);
    let reason = parts.status.canonical_reason().unwrap_or_default();
    head.extend_from_slice(format!("HTTP/1.1 {} {reason}\r\n", parts.status.as_str()).as_bytes());
    for (name, value) in &parts.headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    let mut last = String::new();
    // Writing to a String cannot fail.
    let _ = write!(last, "date: {}\r\n", chrono::Utc::now().format("%a, %d %b %Y %H:%M:%S GMT"));
    last.push_str("connection: close\r\n\r\n");
    head.extend_from_slice(last.as_bytes());
    head
}

/// Waits until the client has closed the connection. What it sends is thrown away: a stream answers one request.
async fn gone(socket: &TcpStream) -> io::Result<()> {
    let mut bin = [0; 64];
    loop {
        socket.readable().await?;
        match socket.try_read(&mut bin) {
            Ok(0) => return Err(io::ErrorKind::ConnectionAborted.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
