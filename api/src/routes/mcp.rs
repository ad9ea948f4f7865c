//! The MCP server's door, and what tells a client how to get a key to it (RFC 9728).

use axum::{
    Json as JsonAnswer,
    extract::{Request, State},
    response::Response,
};
use http::HeaderMap;
use serde::Serialize;
use shared::identity::Scope;
use utoipa::ToSchema;

use crate::{error::Answer, mcp, oauth_server, state::App};

/// One message of the Model Context Protocol: Streamable HTTP without sessions, any revision from 2024-11-05 to
/// 2026-07-28. What is wrong with the message itself is answered as JSON-RPC.
#[utoipa::path(
    post, path = "/mcp", tag = "mcp", security(("apiKey" = [])),
    request_body(content = Object, description = "A JSON-RPC message", content_type = "application/json"),
    responses(
        (status = 200, description = "The answer, a JSON-RPC message", body = Object),
        (status = 202, description = "A notification was taken"),
        (status = 403, description = "Host or Origin are not ours", body = crate::error::ErrorBody),
        (status = 413, description = "The body is too large", body = crate::error::ErrorBody),
        (status = 415, description = "The body is not JSON", body = crate::error::ErrorBody),
    )
)]
pub(crate) async fn post_mcp(State(app): State<App>, request: Request) -> Answer<Response> {
    app.mcp.answer(&app, request).await
}

/// How the MCP server is protected.
#[derive(Serialize, ToSchema)]
pub(crate) struct ProtectedResource {
    /// What tokens are issued for.
    #[schema(example = "https://alfred.example/mcp")]
    resource: String,
    /// Who issues them.
    authorization_servers: Vec<String>,
    bearer_methods_supported: Vec<&'static str>,
    resource_name: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    scopes_supported: Vec<&'static str>,
}

/// Tells who issues tokens for the MCP server (RFC 9728).
#[utoipa::path(
    get, path = "/.well-known/oauth-protected-resource/mcp", tag = "mcp",
    responses(
        (status = 200, description = "The description", body = ProtectedResource),
        (status = 403, description = "Host is not ours", body = crate::error::ErrorBody),
    )
)]
pub(crate) async fn protected_resource(
    State(app): State<App>,
    headers: HeaderMap,
) -> Answer<JsonAnswer<ProtectedResource>> {
    let base = app.mcp.base(&app, &headers).await?;
    let (issuer, scopes) = match &app.config.sign_ins.outside_issuer {
        Some(outside) => (outside.issuer.clone(), Vec::new()),
        None => {
            let scopes = oauth_server::GRANTABLE.map(Scope::as_str).to_vec();
            (app.callers.sign_ins().issuer().to_owned(), scopes)
        }
    };
    Ok(JsonAnswer(ProtectedResource {
        resource: mcp::resource(&base),
        authorization_servers: vec![issuer],
        bearer_methods_supported: vec!["header"],
        resource_name: "Alfred",
        scopes_supported: scopes,
    }))
}
