//! Requests with a body, and answers whose status matters. What is told apart is whether the other side may have acted.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use url::Url;

use super::Outbound;
use crate::error::{Error, Result};

/// A request to somebody else's address.
#[derive(Debug, Clone)]
pub struct Outgoing {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Bytes,
}

impl Outgoing {
    /// GET.
    #[must_use]
    pub fn get(url: &Url) -> Self {
        Self::new(Method::GET, url, Bytes::new())
    }

    /// POST of a form.
    #[must_use]
    pub fn form<'a>(url: &Url, fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        Self::new(Method::POST, url, body.into())
            .header(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"))
    }

    /// POST of JSON.
    #[must_use]
    pub fn json(url: &Url, body: &serde_json::Value) -> Self {
        Self::new(Method::POST, url, body.to_string().into())
            .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
    }

    /// The same with one more header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    fn new(method: Method, url: &Url, body: Bytes) -> Self {
        let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static("application/json"))]);
        Self { method, url: url.clone(), headers, body }
    }
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Incoming {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// May hold secrets.
    pub body: Bytes,
}

/// Why nothing came back.
#[derive(Debug)]
pub enum Unanswered {
    /// The address is none that is asked.
    Refused(Error),
    /// There was no connection: the other side knows nothing of the request.
    NotSent(Error),
    /// Nobody knows what became of it.
    Unknown(Error),
}

impl From<Unanswered> for Error {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Refused(error) | Unanswered::NotSent(error) | Unanswered::Unknown(error) => error,
        }
    }
}

impl Outbound {
    /// Whether the address may be asked, as far as that can be said before its name is resolved.
    ///
    /// # Errors
    /// 422.
    pub fn must_be_open(&self, url: &Url) -> Result<()> {
        self.check(url)
    }

    /// Sends a request and reads the whole answer, of at most `largest` bytes, `within` this time.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub async fn send(
        &self,
        request: Outgoing,
        largest: usize,
        within: Duration,
    ) -> Result<Incoming, Unanswered> {
        let host = request.url.host_str().unwrap_or_default().to_owned();
        let (answer, is_whole) = self.exchange(request, largest, within).await?;
        if !is_whole {
            let told = Error::unacceptable(format!("{host} answers more than {largest} bytes"));
            return Err(Unanswered::Unknown(told));
        }
        Ok(answer)
    }

    /// The same for whom the status is enough: of a body that is longer the beginning is read, and nothing after it.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn send_for_status(
        &self,
        request: Outgoing,
        most: usize,
        within: Duration,
    ) -> Result<Incoming, Unanswered> {
        Ok(self.exchange(request, most, within).await?.0)
    }

    /// The answer, and whether its body is whole.
    async fn exchange(
        &self,
        request: Outgoing,
        most: usize,
        within: Duration,
    ) -> Result<(Incoming, bool), Unanswered> {
        let Outgoing { method, url, headers, body } = request;
        self.check(&url).map_err(Unanswered::Refused)?;
        let client =
            self.client.get_or_try_init(|| async { self.build() }).await.map_err(Unanswered::NotSent)?;
        let host = url.host_str().unwrap_or_default().to_owned();
        let silent = |error: reqwest::Error| {
            let is_connect = error.is_connect() || error.is_builder();
            let told =
                Error::unacceptable(format!("{host} does not answer")).with_source(error.without_url());
            if is_connect { Unanswered::NotSent(told) } else { Unanswered::Unknown(told) }
        };
        let asked = client.request(method, url).headers(headers).body(body).timeout(within).send().await;
        let mut response = asked.map_err(silent)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = Vec::new();
        let mut is_whole = true;
        while let Some(chunk) = response.chunk().await.map_err(silent)? {
            let room = most - body.len();
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if chunk.len() > room {
                is_whole = false;
                break;
            }
        }
        Ok((Incoming { status, headers, body: body.into() }, is_whole))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    const WITHIN: Duration = Duration::from_secs(10);

    /// Answers every request with so many bytes; how many connections there were.
    async fn server(bytes: usize) -> (Url, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/x", listener.local_addr().unwrap()).parse().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let mut seen = Vec::new();
                    while stream.read_buf(&mut seen).await.is_ok_and(|read| read > 0) {
                        if seen.ends_with(b"\r\n\r\n") {
                            seen.clear();
                            let head = format!("HTTP/1.1 203 x\r\ncontent-length: {bytes}\r\n\r\n");
                            let _ = stream.write_all(head.as_bytes()).await;
                            let _ = stream.write_all(&vec![b'y'; bytes]).await;
                        }
                    }
                });
            }
        });
        (url, connections)
    }

    fn outbound() -> Outbound {
        Outbound::new(&["127.0.0.0/8".parse().unwrap()])
    }

    #[tokio::test]
    async fn connections_are_kept_where_that_is_asked_for() {
        let keeping = outbound().keeping_connections(WITHIN);
        for (outbound, wanted) in [(outbound(), 3), (keeping, 1)] {
            let (url, connections) = server(2).await;
            for _ in 0..3 {
                outbound.send(Outgoing::get(&url), 10, WITHIN).await.unwrap();
            }
            assert_eq!(connections.load(Ordering::SeqCst), wanted);
        }
    }

    #[tokio::test]
    async fn of_a_long_answer_the_status_is_known_where_it_is_enough() {
        let (url, _) = server(1 << 20).await;
        let whole = outbound().send(Outgoing::get(&url), 1000, WITHIN).await;
        assert!(matches!(whole, Err(Unanswered::Unknown(_))), "{whole:?}");
        let begun = outbound().send_for_status(Outgoing::get(&url), 1000, WITHIN).await.unwrap();
        assert_eq!((begun.status.as_u16(), begun.body.len()), (203, 1000));
        let (url, _) = server(1000).await;
        let whole = outbound().send(Outgoing::get(&url), 1000, WITHIN).await.unwrap();
        assert_eq!(whole.body.len(), 1000);
    }
}
