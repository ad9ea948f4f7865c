//! HTTP on one side, rmcp on the other. What is wrong with a request as HTTP is answered in our one error shape; from
//! the body on, everything is answered as JSON-RPC.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{FromRequestParts as _, Request},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts};
use rmcp::transport::streamable_http_server::{
    StreamableHttpServerConfig, StreamableHttpService, session::never::NeverSessionManager,
};
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use shared::{
    config::Config,
    error::{Code, Error, Result},
    tools::ToolDef,
};
use tracing::Span;
use url::Url;

use super::{
    doors::{Doors, Name},
    server::{Call, Server},
    tools::Catalogue,
};
use crate::{
    auth::{Caller, note_route},
    error::{Answer, Failure},
    extract::{self, RequestId},
    state::App,
};

/// Where the description of the protected resource is (RFC 9728).
const METADATA: &str = ".well-known/oauth-protected-resource/mcp";

/// JSON-RPC's codes for what rmcp never gets to see.
const PARSE_ERROR: i64 = -32700;
const INVALID_REQUEST: i64 = -32600;

/// What answers messages.
#[cfg(not(feature = "conformance"))]
type Handler = Server;
#[cfg(feature = "conformance")]
type Handler = super::fixtures::Fixtures;

/// The process's MCP server.
pub(crate) struct Endpoint {
    doors: Doors,
    service: StreamableHttpService<Handler, NeverSessionManager>,
}

impl Endpoint {
    pub(crate) fn new(config: &Config, tools: &[ToolDef]) -> Self {
        let server = Server { catalogue: Arc::new(Catalogue::of(tools)) };
        #[cfg(feature = "conformance")]
        let server = super::fixtures::Fixtures(server);
        let settings = StreamableHttpServerConfig::default()
            .with_legacy_session_mode(false)
            .with_json_response(true)
            .with_max_request_body_bytes(config.max_body_bytes)
            // `doors` has let the request in before its credential was looked at.
            .disable_allowed_hosts()
            .disable_allowed_origins();
        Self {
            doors: Doors::of(config),
            service: StreamableHttpService::new(move || Ok(server.clone()), Arc::default(), settings),
        }
    }

    /// Answers a POST.
    ///
    /// # Errors
    /// What is wrong with it as HTTP.
    pub(crate) async fn answer(&self, app: &App, request: Request) -> Answer<Response> {
        let (mut parts, body) = request.into_parts();
        note_route(&parts);
        let base = self.base(app, &parts.headers).await?;
        self.doors.check_origin(&parts.headers, &base)?;
        let actor = match Caller::from_request_parts(&mut parts, app).await {
            Ok(Caller(actor)) => actor,
            Err(failure) => return Ok(refuse(failure, &base, &parts.headers)),
        };
        let RequestId(request_id) = RequestId::from_request_parts(&mut parts, app).await?;
        let body =
            extract::json_body(Request::from_parts(parts.clone(), body), app.config.max_body_bytes).await?;
        if let Some(refusal) = refused(&body) {
            return Ok(refusal);
        }
        without_secrets(&mut parts);
        parts.extensions.insert(Call { app: app.clone(), actor, request_id, span: Span::current() });
        let answered = self.service.handle(Request::from_parts(parts, Body::from(body))).await;
        Ok(in_json_rpc(answered.map(Body::new)))
    }

    /// The address under which this request reached us: `PUBLIC_URL`, a name that stands for a tenant, or in development
    /// a name of this machine.
    ///
    /// # Errors
    /// 403 for a name that is not ours; the database's.
    pub(crate) async fn base(&self, app: &App, headers: &HeaderMap) -> Result<Url> {
        let base = by_name(app, self.doors.name(headers)).await?;
        base.ok_or_else(|| {
            let message = "Host: this is not a name of this server; PUBLIC_URL says which one is";
            Error::new(Code::Forbidden, message)
        })
    }

    /// Whether this names us as the resource that a token is for.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn is_resource(&self, app: &App, text: &str) -> Result<bool> {
        Ok(by_name(app, self.doors.resource(text)).await?.is_some())
    }
}

async fn by_name(app: &App, name: Name) -> Result<Option<Url>> {
    Ok(match name {
        Name::Ours(base) => Some(base),
        Name::Perhaps(host, base) => app.callers.tenants.is_host(&host).await?.then_some(base),
        Name::Others => None,
    })
}

/// A refusal for want of a credential tells where to get one.
fn refuse(failure: Failure, base: &Url, headers: &HeaderMap) -> Response {
    let mut response = failure.into_response();
    if response.status() == StatusCode::UNAUTHORIZED {
        let tried = headers.contains_key(header::AUTHORIZATION) || headers.contains_key("x-api-key");
        if let Ok(challenge) = HeaderValue::from_str(&challenge(base, tried)) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
    }
    response
}

/// The protected resource's identifier.
pub(crate) fn resource(base: &Url) -> String {
    format!("{base}mcp")
}

/// What `WWW-Authenticate` says (RFC 6750, RFC 9728).
fn challenge(base: &Url, tried: bool) -> String {
    let error = if tried { ", error=\"invalid_token\"" } else { "" };
    format!("Bearer realm=\"alfred\"{error}, resource_metadata=\"{base}{METADATA}\"")
}

/// rmcp writes whole requests to the log at its finest levels; a credential must not be among them.
fn without_secrets(parts: &mut Parts) {
    for name in [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION] {
        parts.headers.remove(name);
    }
    parts.headers.remove("x-api-key");
    parts.headers.remove("x-tb-signature");
}

/// The refusal of what is not one JSON object.
fn refused(body: &Bytes) -> Option<Response> {
    if serde_json::from_slice::<IgnoredAny>(body).is_err() {
        return Some(refusal(PARSE_ERROR, "the body is not JSON"));
    }
    match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{') => None,
        Some(b'[') => Some(refusal(INVALID_REQUEST, "the body is a batch; send one message a request")),
        _ => Some(refusal(INVALID_REQUEST, "the body is not a JSON-RPC message")),
    }
}

fn refusal(code: i64, message: &str) -> Response {
    (StatusCode::BAD_REQUEST, axum::Json(json_rpc_error(code, message))).into_response()
}

fn json_rpc_error(code: i64, message: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": null, "error": {"code": code, "message": message}})
}

/// rmcp answers some errors of the transport in plain text.
fn in_json_rpc(mut response: Response) -> Response {
    let status = response.status();
    let content_type = response.headers().get(header::CONTENT_TYPE);
    let is_json = content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
    if is_json || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (status, message) = match status {
        // The content type was checked before: this is JSON, but no message.
        StatusCode::UNSUPPORTED_MEDIA_TYPE => (StatusCode::BAD_REQUEST, "the body is not a JSON-RPC message"),
        StatusCode::NOT_ACCEPTABLE => {
            (status, "Accept: must have both application/json and text/event-stream")
        }
        status if status.is_server_error() => {
            (status, "an internal error; the log has it under this request id")
        }
        status => (status, "the headers of this request do not fit the protocol"),
    };
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().remove(header::CONTENT_LENGTH);
    *response.body_mut() = Body::from(json_rpc_error(INVALID_REQUEST, message).to_string());
    response
}
