//! From a server's address to its authorization server: protected-resource metadata (RFC 9728), then authorization-server
//! metadata (RFC 8414, or OpenID Connect's).

use std::time::Duration;

use http::{StatusCode, header};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;
use url::Url;

use super::{AuthMethod, Endpoints, Wire};
use crate::{
    error::{Code, Error, Result},
    outbound::{Outbound, Outgoing},
};

const LARGEST: usize = 256 * 1024;
/// Words of one kind that are looked at.
const MOST: usize = 64;

/// What a server's metadata say.
#[derive(Debug, Clone)]
pub struct Discovered {
    pub endpoints: Endpoints,
    /// Where clients register themselves.
    pub registration: Option<Url>,
    /// Clients may be called by the address of a document about them.
    pub takes_documents: bool,
    pub auth_methods: Vec<AuthMethod>,
    /// What to ask for; empty when nothing is said.
    pub scopes: Vec<String>,
}

#[derive(Deserialize)]
struct ResourceMetadata {
    resource: String,
    #[serde(default)]
    authorization_servers: Vec<String>,
    #[serde(default)]
    scopes_supported: Vec<String>,
}

#[derive(Deserialize)]
struct ServerMetadata {
    issuer: String,
    authorization_endpoint: Url,
    token_endpoint: Url,
    #[serde(default)]
    registration_endpoint: Option<Url>,
    #[serde(default)]
    revocation_endpoint: Option<Url>,
    #[serde(default)]
    userinfo_endpoint: Option<Url>,
    #[serde(default)]
    scopes_supported: Vec<String>,
    #[serde(default)]
    response_types_supported: Option<Vec<String>>,
    #[serde(default)]
    code_challenge_methods_supported: Vec<String>,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Vec<String>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
    #[serde(default)]
    client_id_metadata_document_supported: bool,
}

/// What a refusal of the server itself said.
#[derive(Default)]
struct Challenge {
    metadata: Option<Url>,
    scope: Option<String>,
}

/// Finds out who issues tokens for the server at this address, and what it can do.
///
/// # Errors
/// OAUTH-EXCHANGE-FAIL with a sentence that says what is missing.
pub async fn discover(outbound: &Outbound, server: &Url, within: Duration) -> Result<Discovered> {
    outbound.must_be_open(server)?;
    let challenge = challenge(outbound, server, within).await;
    let resource = resource(outbound, server, &challenge, within).await?;
    let issuer = match &resource {
        Some(resource) => match resource.authorization_servers.first() {
            Some(issuer) => Url::parse(issuer)
                .map_err(|_| failed(server, "names an authorization server without an address"))?,
            None => return Err(failed(server, "names no authorization server")),
        },
        // Servers of before 2025-06-18 are their own.
        None => origin(server),
    };
    let found = server_metadata(outbound, server, &issuer, within).await?;
    check(outbound, server, &found)?;
    let mut scopes: Vec<String> = match (challenge.scope, &resource) {
        (Some(scope), _) => scope.split_ascii_whitespace().map(str::to_owned).collect(),
        (None, Some(resource)) => resource.scopes_supported.clone(),
        (None, None) => Vec::new(),
    };
    // Without it, some issuers give no refresh token.
    let offline = "offline_access".to_owned();
    if found.scopes_supported.contains(&offline) && !scopes.contains(&offline) {
        scopes.push(offline);
    }
    scopes.retain(|scope| scope.len() <= 200 && scope.bytes().all(|byte| byte.is_ascii_graphic()));
    scopes.truncate(MOST);
    let auth_methods = found.token_endpoint_auth_methods_supported.iter().take(MOST);
    Ok(Discovered {
        auth_methods: auth_methods.filter_map(|method| AuthMethod::from_word(method)).collect(),
        registration: found.registration_endpoint,
        takes_documents: found.client_id_metadata_document_supported,
        scopes,
        endpoints: Endpoints {
            issuer: found.issuer,
            authorization: found.authorization_endpoint,
            token: found.token_endpoint,
            revocation: found.revocation_endpoint,
            userinfo: found.userinfo_endpoint,
            wire: Wire::Form,
            says_issuer: found.authorization_response_iss_parameter_supported,
            resource: Some(resource.map_or_else(|| canonical(server), |resource| resource.resource)),
        },
    })
}

/// Asks the server itself, as somebody whom it does not know. It need not answer.
async fn challenge(outbound: &Outbound, server: &Url, within: Duration) -> Challenge {
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {},
        "clientInfo": {"name": "alfred", "version": env!("CARGO_PKG_VERSION")},
    }});
    let both = http::HeaderValue::from_static("application/json, text/event-stream");
    let request = Outgoing::json(server, &hello).header(header::ACCEPT, both);
    match outbound.send(request, LARGEST, within).await {
        Ok(answer) if answer.status == StatusCode::UNAUTHORIZED => {
            let lines = answer.headers.get_all(header::WWW_AUTHENTICATE).into_iter();
            let bearer = lines
                .filter_map(|line| line.to_str().ok())
                .find(|line| line.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer")));
            bearer.map_or_else(Challenge::default, |line| Challenge {
                metadata: parameter(line, "resource_metadata").and_then(|url| Url::parse(&url).ok()),
                scope: parameter(line, "scope"),
            })
        }
        _ => Challenge::default(),
    }
}

/// A parameter of a challenge (RFC 9110, section 11.2).
fn parameter(challenge: &str, name: &str) -> Option<String> {
    let mut rest = challenge.split_once(' ')?.1;
    loop {
        let (key, after) = rest.split_once('=')?;
        let key = key.trim().trim_start_matches(',').trim();
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').unwrap_or((after, "")),
        };
        if key.eq_ignore_ascii_case(name) {
            return Some(value.trim().to_owned());
        }
        rest = next;
    }
}

async fn resource(
    outbound: &Outbound,
    server: &Url,
    challenge: &Challenge,
    within: Duration,
) -> Result<Option<ResourceMetadata>> {
    let places = match &challenge.metadata {
        Some(url) => vec![url.clone()],
        None => well_known(server, "oauth-protected-resource"),
    };
    for place in places {
        let Some(found) = document::<ResourceMetadata>(outbound, &place, within).await? else { continue };
        if !is_of(&found.resource, server) {
            return Err(failed(server, "has metadata that are about another resource"));
        }
        return Ok(Some(found));
    }
    if challenge.metadata.is_some() {
        return Err(failed(server, "points to metadata that are not there"));
    }
    Ok(None)
}

/// Whether the resource is the server, or what it lies in. A document that names another would have its tokens sent here.
fn is_of(resource: &str, server: &Url) -> bool {
    let Ok(url) = Url::parse(resource) else { return false };
    let (whole, part) = (server.path().trim_end_matches('/'), url.path().trim_end_matches('/'));
    url.origin() == server.origin()
        && url.fragment().is_none()
        && (whole == part || whole.strip_prefix(part).is_some_and(|rest| rest.starts_with('/')))
}

async fn server_metadata(
    outbound: &Outbound,
    server: &Url,
    issuer: &Url,
    within: Duration,
) -> Result<ServerMetadata> {
    outbound.must_be_open(issuer)?;
    let mut places = well_known(issuer, "oauth-authorization-server");
    places.truncate(1);
    places.extend(well_known(issuer, "openid-configuration").into_iter().take(1));
    if issuer.path() != "/" {
        let mut appended = issuer.clone();
        appended
            .set_path(&format!("{}/.well-known/openid-configuration", issuer.path().trim_end_matches('/')));
        places.push(appended);
    }
    for place in places {
        let Some(found) = document::<ServerMetadata>(outbound, &place, within).await? else { continue };
        if found.issuer.trim_end_matches('/') != issuer.as_str().trim_end_matches('/') {
            return Err(failed(server, "has an authorization server that calls itself something else"));
        }
        return Ok(found);
    }
    Err(failed(server, "has an authorization server that says nothing about itself"))
}

/// What a person and their tokens may be led to.
fn check(outbound: &Outbound, server: &Url, found: &ServerMetadata) -> Result<()> {
    if !found.code_challenge_methods_supported.iter().any(|method| method == "S256") {
        return Err(failed(server, "has an authorization server that does not offer PKCE with S256"));
    }
    let codes = found.response_types_supported.as_ref();
    if codes.is_some_and(|types| !types.iter().any(|kind| kind == "code")) {
        return Err(failed(server, "has an authorization server that gives no codes"));
    }
    let endpoints = [Some(&found.authorization_endpoint), Some(&found.token_endpoint)];
    let more = [&found.registration_endpoint, &found.revocation_endpoint, &found.userinfo_endpoint];
    for endpoint in endpoints.into_iter().chain(more.map(Option::as_ref)).flatten() {
        if outbound.must_be_open(endpoint).is_err() {
            return Err(failed(server, "has an authorization server with an address that is not asked"));
        }
    }
    Ok(())
}

/// A document, when it is there.
async fn document<T: DeserializeOwned>(
    outbound: &Outbound,
    place: &Url,
    within: Duration,
) -> Result<Option<T>> {
    let answer = outbound.send(Outgoing::get(place), LARGEST, within).await.map_err(|unanswered| {
        let sentence = format!("{} does not answer", place.host_str().unwrap_or_default());
        Error::new(Code::OauthExchange, sentence).with_source(Error::from(unanswered))
    })?;
    if answer.status.is_server_error() {
        let sentence = format!("{} answers with an error", place.host_str().unwrap_or_default());
        return Err(Error::new(Code::OauthExchange, sentence));
    }
    if answer.status != StatusCode::OK {
        return Ok(None);
    }
    Ok(serde_json::from_slice(&answer.body).ok())
}

/// Where a document about this address is: with its path at the end, then without.
fn well_known(about: &Url, name: &str) -> Vec<Url> {
    let mut root = origin(about);
    root.set_path(&format!("/.well-known/{name}"));
    let path = about.path().trim_end_matches('/');
    if path.is_empty() {
        return vec![root];
    }
    let mut with_path = root.clone();
    with_path.set_path(&format!("/.well-known/{name}{path}"));
    vec![with_path, root]
}

fn origin(url: &Url) -> Url {
    let mut origin = url.clone();
    origin.set_path("/");
    origin.set_query(None);
    origin.set_fragment(None);
    origin
}

/// A server's name as a resource: without a slash that nobody wrote.
fn canonical(server: &Url) -> String {
    let text = server.as_str();
    if server.path() == "/" && server.query().is_none() { text.trim_end_matches('/') } else { text }
        .to_owned()
}

fn failed(server: &Url, what: &str) -> Error {
    Error::new(Code::OauthExchange, format!("{} {what}", server.host_str().unwrap_or("the server")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_the_server_or_what_it_lies_in() {
        let server: Url = "https://mcp.example/a/mcp".parse().unwrap();
        for good in ["https://mcp.example/a/mcp", "https://mcp.example/a/", "https://mcp.example"] {
            assert!(is_of(good, &server), "{good}");
        }
        for bad in [
            "https://mcp.example/a/mc",
            "https://evil.example/a/mcp",
            "http://mcp.example/a/mcp",
            "https://mcp.example/b",
            "https://mcp.example:444/a/mcp",
            "x",
        ] {
            assert!(!is_of(bad, &server), "{bad}");
        }
    }

    #[test]
    fn challenges_are_read() {
        let line =
            r#"Bearer error="invalid_token", resource_metadata="https://a.example/x?y=1,2", scope="a b""#;
        assert_eq!(parameter(line, "resource_metadata").unwrap(), "https://a.example/x?y=1,2");
        assert_eq!(parameter(line, "scope").unwrap(), "a b");
        assert_eq!(parameter("Bearer realm=x, scope=a", "scope").unwrap(), "a");
        assert_eq!(parameter("Bearer", "scope"), None);
        assert_eq!(parameter(line, "nonce"), None);
    }

    #[test]
    fn documents_have_their_places() {
        let places = |url: &str| -> Vec<String> {
            well_known(&url.parse().unwrap(), "x").iter().map(Url::to_string).collect()
        };
        assert_eq!(places("https://a.example/"), ["https://a.example/.well-known/x"]);
        assert_eq!(
            places("https://a.example/b/c?d"),
            ["https://a.example/.well-known/x/b/c", "https://a.example/.well-known/x"]
        );
    }
}
