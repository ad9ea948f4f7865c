//! The one client for addresses that somebody else has chosen. It goes to public addresses alone, by https alone, follows no
//! redirect to another place, and bounds the time and the size of what comes back.
//!
//! Invariant: the address that was checked is the one that is connected to, because the check is the resolver.

mod address;
mod exchange;

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::{StatusCode, header};
use reqwest::{
    ClientBuilder,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect::Policy,
};
use serde_json::Value;
use tokio::sync::OnceCell;
use url::{Host, Url};

pub use self::exchange::{Incoming, Outgoing, Unanswered};
use crate::{
    config::Reachable,
    error::{Error, Result},
};

const CONNECT_TIME: Duration = Duration::from_secs(3);
const WHOLE_TIME: Duration = Duration::from_secs(5);
/// Connections to one place that are kept.
const KEPT_AT_MOST: usize = 16;
/// Redirects within one place that are followed.
const REDIRECTS: usize = 3;

/// Asks others, with care.
#[derive(Clone)]
pub struct Outbound {
    allowed: Arc<[Reachable]>,
    /// Made when it is first needed: reading the machine's certificates takes long.
    client: Arc<OnceCell<reqwest::Client>>,
    /// For how long a connection is kept that nobody uses; none is kept otherwise.
    kept: Option<Duration>,
}

impl Outbound {
    /// What is in `allowed` may be asked as well, also without TLS.
    #[must_use]
    pub fn new(allowed: &[Reachable]) -> Self {
        Self { allowed: allowed.into(), client: Arc::default(), kept: None }
    }

    /// The same for exchanges that may be repeated: it keeps a connection for the next request to the same place for so long. A
    /// kept one may end just as the next request is sent, and then nobody knows whether that arrived.
    #[must_use]
    pub fn keeping_connections(self, kept: Duration) -> Self {
        Self { client: Arc::default(), kept: Some(kept), ..self }
    }

    /// Fetches a JSON document.
    ///
    /// # Errors
    /// 422 with a sentence that names neither address nor answer, so that nobody learns about a network by asking us.
    pub async fn json(&self, url: &Url, largest: usize) -> Result<Value> {
        self.check(url)?;
        let client = self.client.get_or_try_init(|| async { self.build() }).await?;
        let refused = || Error::unacceptable(format!("{url} cannot be fetched"));
        let asked = client.get(url.clone()).header(header::ACCEPT, "application/json").send().await;
        let mut response = asked.map_err(|error| refused().with_source(error.without_url()))?;
        if response.status() != StatusCode::OK {
            return Err(refused());
        }
        let content_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if essence != "application/json"
            && !(essence.starts_with("application/") && essence.ends_with("+json"))
        {
            return Err(Error::unacceptable(format!("{url} is not JSON")));
        }
        let mut body = Vec::new();
        while let Some(chunk) =
            response.chunk().await.map_err(|error| refused().with_source(error.without_url()))?
        {
            if body.len() + chunk.len() > largest {
                return Err(Error::unacceptable(format!("{url} is larger than {largest} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body).map_err(|_| Error::unacceptable(format!("{url} is not JSON")))
    }

    /// A client for exchanges that this one does not lead itself, such as streams. It resolves names under the same guard and
    /// follows redirects only within scheme, host and port; `bounds` says how long it waits. Whoever uses it must
    /// [`check`](Self::check) each address first, because an address that is a number is resolved by nobody.
    ///
    /// # Errors
    /// When the machine's TLS cannot be used.
    pub fn guarded(&self, bounds: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Result<reqwest::Client> {
        let same_place = Policy::custom(|attempt| {
            let is_same =
                attempt.previous().first().is_some_and(|first| first.origin() == attempt.url().origin());
            if is_same && attempt.previous().len() <= REDIRECTS { attempt.follow() } else { attempt.stop() }
        });
        let builder = reqwest::Client::builder()
            .dns_resolver(Arc::new(Guard { allowed: Arc::clone(&self.allowed) }))
            .redirect(same_place)
            // A proxy would resolve names by itself, out of the guard's sight.
            .no_proxy()
            .referer(false)
            .user_agent(concat!("alfred/", env!("CARGO_PKG_VERSION")));
        bounds(builder).build().map_err(Error::internal)
    }

    /// What can be said about an address before it is resolved.
    ///
    /// # Errors
    /// 422 with what is wrong with it.
    pub fn check(&self, url: &Url) -> Result<()> {
        let literal = match url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            Some(Host::Domain(_)) => None,
            None => return Err(Error::unacceptable(format!("{url} has no host"))),
        };
        let named = match self.named(url, literal) {
            Named::Here => true,
            Named::Elsewhere => return Err(Error::unacceptable(format!("{url} cannot be fetched"))),
            Named::Not => literal.is_some_and(|address| is_in(&self.allowed, address)),
        };
        if url.scheme() != "https" && !(url.scheme() == "http" && named) {
            return Err(Error::unacceptable(format!("{url} must begin with https://")));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::unacceptable("an address with a user name or password is not fetched"));
        }
        if literal.is_some_and(|address| !named && !is_open(&self.allowed, address)) {
            return Err(Error::unacceptable(format!("{url} cannot be fetched")));
        }
        Ok(())
    }

    /// Whether the list names this host, and at this port. The resolver knows no ports, so a host that is listed with some
    /// is asked at no other.
    fn named(&self, url: &Url, literal: Option<IpAddr>) -> Named {
        let host = match literal {
            Some(address) => address.to_string(),
            None => url.host_str().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase(),
        };
        let mut found = Named::Not;
        for entry in self.allowed.iter() {
            if let Reachable::Host { name, port } = entry
                && *name == host
            {
                if port.is_none() || *port == url.port_or_known_default() {
                    return Named::Here;
                }
                found = Named::Elsewhere;
            }
        }
        found
    }

    fn build(&self) -> Result<reqwest::Client> {
        self.guarded(|builder| {
            builder
                .redirect(Policy::none())
                .connect_timeout(CONNECT_TIME)
                .timeout(WHOLE_TIME)
                .pool_idle_timeout(self.kept)
                .pool_max_idle_per_host(if self.kept.is_some() { KEPT_AT_MOST } else { 0 })
        })
    }
}

/// What the list of what may be asked says about a host.
enum Named {
    Here,
    Elsewhere,
    Not,
}

/// Resolves names, to addresses that may be asked.
struct Guard {
    allowed: Arc<[Reachable]>,
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let allowed = Arc::clone(&self.allowed);
        Box::pin(async move {
            let found: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let asked = name.as_str().trim_end_matches('.');
            let is_named = allowed.iter().any(
                |entry| matches!(entry, Reachable::Host { name, .. } if name.eq_ignore_ascii_case(asked)),
            );
            // One closed address among open ones is an attempt to have us choose it.
            if found.is_empty() || (!is_named && found.iter().any(|found| !is_open(&allowed, found.ip()))) {
                return Err("the name leads to an address that is not asked".into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

fn is_open(allowed: &[Reachable], address: IpAddr) -> bool {
    address::is_public(address) || is_in(allowed, address)
}

fn is_in(allowed: &[Reachable], address: IpAddr) -> bool {
    let address = address.to_canonical();
    allowed.iter().any(|entry| matches!(entry, Reachable::Network(network) if network.contains(address)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbound(allowed: &[&str]) -> Outbound {
        Outbound::new(&allowed.iter().map(|entry| entry.parse().unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn only_public_addresses_by_https() {
        let nothing = Outbound::new(&[]);
        let inside = outbound(&["127.0.0.0/8"]);
        let may = |outbound: &Outbound, url: &str| outbound.check(&url.parse().unwrap()).is_ok();
        for url in ["https://example.com/client.json", "https://93.184.216.34/x"] {
            assert!(may(&nothing, url) && may(&inside, url), "{url}");
        }
        for url in [
            "http://example.com/x",
            "https://127.0.0.1/x",
            "https://2130706433/x",
            "https://0x7f.1/x",
            "https://[::1]/x",
            "https://[::ffff:10.0.0.1]/x",
            "https://169.254.169.254/latest",
            "https://user:p@example.com/x",
            "file:///etc/passwd",
        ] {
            assert!(!may(&nothing, url), "{url}");
        }
        assert!(may(&inside, "http://127.0.0.1:9000/x") && may(&inside, "https://127.0.0.1/x"));
        assert!(!may(&inside, "http://localhost/x") && !may(&inside, "https://10.0.0.1/x"));
    }

    #[test]
    fn a_host_may_be_listed_with_its_port() {
        let listed = outbound(&["notion.internal:3000", "mcp.internal", "10.0.0.7:8080"]);
        let may = |url: &str| listed.check(&url.parse().unwrap()).is_ok();
        assert!(may("http://notion.internal:3000/mcp") && may("http://mcp.internal:1/x"));
        assert!(may("http://10.0.0.7:8080/x") && may("https://example.com/x"));
        for url in [
            "http://notion.internal/mcp",
            "https://notion.internal/mcp",
            "http://10.0.0.7/x",
            "http://other.internal/x",
            "http://mcp.internal.example.com/x",
        ] {
            assert!(!may(url), "{url}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_is_not_asked() {
        let asked = Outbound::new(&[]).json(&"https://localhost:1/x".parse().unwrap(), 1024).await;
        let source = std::error::Error::source(&asked.unwrap_err()).map(|error| format!("{error:?}"));
        assert!(source.unwrap().contains("not asked"));
    }
}
