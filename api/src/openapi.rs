//! The description of the API, and the pages that show it.

use axum::{Router, routing::get};
use http::header;
use utoipa::{
    OpenApi as _,
    openapi::{
        ContentBuilder, OpenApi, Ref, RefOr, ResponseBuilder,
        path::Operation,
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};
use utoipa_swagger_ui::SwaggerUi;

use crate::{error::ErrorBody, state::App};

/// The ways to say who calls.
const CREDENTIALS: [&str; 3] = ["bearer", "apiKey", "cookie"];
const NO_SCOPES: [&str; 0] = [];

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Alfred",
        description = "A self-hosted agent backend: post a chat turn, follow it over a resumable event stream. \
                       Every error has one shape, ErrorBody; every answer carries X-Request-ID.",
        license(name = "MIT")
    ),
    components(schemas(ErrorBody)),
    tags(
        (name = "chat", description = "Turns: post, wait, follow, cancel, retry, approve"),
        (name = "sessions", description = "A session is a user's handle on one conversation"),
        (name = "tools", description = "What models can call, and what they may"),
        (name = "connections", description = "A person's accounts at other services, which tools use"),
        (name = "mcp", description = "The workspace for models of other applications"),
        (name = "workspace", description = "Items that people and models work on: the same eight operations for each kind"),
        (name = "usage", description = "What models cost"),
        (name = "auth", description = "Signing up, in and out; API keys"),
        (name = "tenants", description = "Which tenant a request acts in"),
        (name = "admin", description = "For a tenant's admins"),
        (name = "queues", description = "Lines of jobs, for operators and a tenant's admins"),
        (name = "contexts", description = "What is known of a person, and what each agent may see of it"),
        (name = "agents", description = "Agents that are told of users, for a tenant's admins"),
        (name = "agent side", description = "What agents do here by themselves, with X-Agent-Authorization"),
        (name = "operator", description = "For whoever operates the deployment"),
        (name = "operations", description = "Health and metrics; no credential"),
    )
)]
struct Base;

/// The document without its paths.
pub(crate) fn base() -> OpenApi {
    let mut base = Base::openapi();
    let key = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-API-Key")));
    let bearer =
        SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build());
    let cookie = SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::with_description(
        "__Host-alfred_session",
        "Of a browser that signed in with cookies; what changes something needs the header X-CSRF-Token too. The name \
         has no __Host- over plain http.",
    )));
    let agent = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(
        "X-Agent-Authorization",
        "Bearer, or nothing, and the token of POST /api/v1/agents/token. Good on agents' own routes and nowhere else.",
    )));
    let components = base.components.get_or_insert_default();
    components.add_security_scheme("agent", agent);
    components.add_security_scheme("apiKey", key);
    components.add_security_scheme("bearer", bearer);
    components.add_security_scheme("cookie", cookie);
    base
}

/// Whom operations are for, by their tag: what others are told.
const NOT_LET_IN: [(&str, &str); 4] = [
    ("admin", "The caller is not an admin"),
    ("agents", "The caller is not an admin"),
    ("operator", "The caller is not an operator"),
    ("queues", "The caller is neither an admin nor an operator"),
];
/// What a JSON body may be refused for.
const BODY_REFUSED: [(&str, &str); 4] = [
    ("400", "Unreadable JSON"),
    ("413", "The body is too large"),
    ("415", "The body is not JSON"),
    ("422", "A member is not acceptable"),
];

/// Adds to each operation what all of its kind can answer. What the operation says by itself stays.
pub(crate) fn finish(mut description: OpenApi) -> OpenApi {
    for (path, item) in &mut description.paths.paths {
        let is_limited = !matches!(path.as_str(), "/healthz" | "/readyz" | "/metrics");
        let is_agents = path.starts_with("/api/v1/agents/");
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
        for operation in operations.into_iter().flatten() {
            if operation.security.is_some() {
                // Every credential of a person is one on every route but agents' own.
                if !is_agents {
                    operation.security =
                        Some(CREDENTIALS.map(|name| SecurityRequirement::new(name, NO_SCOPES)).into());
                }
                answers(operation, "401", "No credential, or one that is not good");
            }
            let tag = operation.tags.as_ref().and_then(|tags| tags.first()).cloned().unwrap_or_default();
            if let Some((_, sentence)) = NOT_LET_IN.iter().find(|(whose, _)| *whose == tag) {
                answers(operation, "403", sentence);
            }
            // Of the tag mcp other protocols say how a body is refused.
            if takes_json(operation) && tag != "mcp" {
                for (status, sentence) in BODY_REFUSED {
                    answers(operation, status, sentence);
                }
            }
            if is_limited {
                answers(operation, "429", "Too many requests; Retry-After says when to come again");
            }
            answers(operation, "500", "An error of ours; the log has it under the request's id");
        }
    }
    description
}

fn takes_json(operation: &Operation) -> bool {
    match &operation.request_body {
        Some(RefOr::T(body)) => body.content.contains_key("application/json"),
        _ => false,
    }
}

fn answers(operation: &mut Operation, status: &str, sentence: &str) {
    let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build();
    let response = ResponseBuilder::new().description(sentence).content("application/json", body).build();
    operation.responses.responses.entry(status.to_owned()).or_insert(RefOr::T(response));
}

/// `/openapi.json` and `/docs`.
pub(crate) fn show(description: &OpenApi) -> Router<App> {
    // Made once, as it never changes while the process runs.
    let document = text(description);
    let json = move || {
        let document = document.clone();
        async move { ([(header::CONTENT_TYPE, "application/json")], document) }
    };
    let pages = SwaggerUi::new("/docs").config(utoipa_swagger_ui::Config::from("/openapi.json"));
    Router::new().route("/openapi.json", get(json)).merge(Router::from(pages))
}

/// The document as committed in `docs/openapi.json`.
pub(crate) fn text(description: &OpenApi) -> String {
    match description.to_pretty_json() {
        Ok(mut text) => {
            text.push('\n');
            text
        }
        // Our own types, which a test has written out.
        Err(_) => "{}\n".to_owned(),
    }
}
