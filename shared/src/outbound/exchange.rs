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
        while let Some(chunk) = response.chunk().await.map_err(silent)? {
            if body.len() + chunk.len() > largest {
                let told = Error::unacceptable(format!("{host} answers more than {largest} bytes"));
                return Err(Unanswered::Unknown(told));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Incoming { status, headers, body: body.into() })
    }
}
