//! Where a request comes from.

use std::net::IpAddr;

use axum::extract::FromRequestParts;
use http::{HeaderMap, header, request::Parts};
use shared::{config::Network, identity::SignInFrom};

use crate::{error::Failure, state::App};

/// The other end of the connection; put into every request's extensions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// The client's address: the peer's, or the one that trusted proxies say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientAddress(pub(crate) IpAddr);

impl FromRequestParts<App> for ClientAddress {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        match of(parts, &app.config.trusted_proxies) {
            Some(address) => Ok(Self(address)),
            None => Err(shared::Error::internal("a request came past the place that notes its peer").into()),
        }
    }
}

/// The client's address of a request.
pub(crate) fn of(parts: &Parts, trusted: &[Network]) -> Option<IpAddr> {
    let Peer(peer) = *parts.extensions.get::<Peer>()?;
    Some(behind_proxies(peer.to_canonical(), &parts.headers, trusted))
}

/// The most letters of what a client calls itself that are kept.
const USER_AGENT: usize = 300;

/// Where a sign-in comes from.
pub(crate) fn sign_in_from(address: Option<IpAddr>, headers: &HeaderMap) -> SignInFrom {
    let user_agent = headers.get(header::USER_AGENT).and_then(|name| name.to_str().ok());
    let user_agent = user_agent.map(|name| name.chars().take(USER_AGENT).collect());
    SignInFrom { address, user_agent }
}

/// Goes back along `X-Forwarded-For` for as long as whoever added to it is trusted: what stands before that, the client
/// may have invented.
pub(crate) fn behind_proxies(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let lines: Vec<&str> =
        headers.get_all("x-forwarded-for").into_iter().filter_map(|line| line.to_str().ok()).collect();
    let mut hops = lines.iter().rev().flat_map(|line| line.rsplit(',')).map(str::trim);
    let mut client = peer;
    while is_trusted(client) {
        let Some(Ok(next)) = hops.next().map(str::parse::<IpAddr>) else { break };
        client = next.to_canonical();
    }
    client
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_proxies_are_believed() {
        let client = |peer: &str, forwarded: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-for", forwarded.parse().unwrap());
            let trusted = ["10.0.0.0/8".parse().unwrap()];
            behind_proxies(peer.parse().unwrap(), &headers, &trusted).to_string()
        };
        assert_eq!(client("1.2.3.4", "5.6.7.8"), "1.2.3.4");
        assert_eq!(client("10.0.0.1", "5.6.7.8"), "5.6.7.8");
        assert_eq!(client("10.0.0.1", "9.9.9.9, 5.6.7.8, 10.0.0.2"), "5.6.7.8");
        assert_eq!(client("10.0.0.1", "9.9.9.9, what"), "10.0.0.1");
        assert_eq!(client("10.0.0.1", "10.0.0.3"), "10.0.0.3");
    }
}
