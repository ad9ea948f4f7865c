//! Remote MCP servers: a tenant's admin sets up the tenant's own, an operator those of the deployment.

use std::collections::BTreeMap;

use axum::{
    Json as JsonAnswer,
    extract::{Path, State},
};
use chrono::{DateTime, Utc};
use http::{HeaderName, StatusCode, header};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use shared::{
    error::{Error, Result},
    remote::{Auth, Scope, registry},
};
use utoipa::ToSchema;

use crate::{
    auth::Steward,
    error::{Answer, ErrorBody},
    extract::Json,
    routes::tools::EffectView,
    state::App,
};

/// Who may use a server.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ScopeView {
    /// The tenant that the request acts in.
    Tenant,
    /// Every tenant.
    Deployment,
}

/// Whose credential a server's requests carry.
#[derive(Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AuthKind {
    /// Nobody's.
    #[default]
    None,
    /// One token for everybody who may use it.
    Bearer,
    /// Each person's own, from their connection.
    Oauth,
}

/// Whose credential a server's requests carry, with the credential itself, which is never answered.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct AuthBody {
    #[serde(rename = "type")]
    kind: AuthKind,
    /// The bearer token.
    #[schema(value_type = Option<String>, write_only)]
    token: Option<SecretString>,
    /// A client id that was registered beforehand.
    client_id: Option<String>,
    /// Scopes to ask people for.
    scopes: Option<Vec<String>>,
    /// The header for a person's token, where it is not Authorization.
    token_header: Option<String>,
}

impl AuthBody {
    fn split(self) -> (Value, Option<SecretString>) {
        let Self { kind, token, client_id, scopes, token_header } = self;
        let mut auth = Map::from_iter([("type".to_owned(), json!(kind))]);
        let texts = [("clientId", client_id), ("tokenHeader", token_header)];
        auth.extend(texts.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?.into()))));
        auth.extend(scopes.map(|scopes| ("scopes".to_owned(), json!(scopes))));
        (Value::Object(auth), token)
    }
}

/// What is said about a server, or what is to change of it.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ServerBody {
    /// Its tools are called name.tool: up to 32 lower-case letters, digits and -. Given when the server is made, and kept.
    #[schema(example = "docs")]
    name: Option<String>,
    /// Tenant unless it says otherwise; deployment needs an operator.
    scope: Option<ScopeView>,
    /// Its Streamable HTTP endpoint.
    #[schema(example = "https://docs.example.com/mcp")]
    url: Option<String>,
    auth: Option<AuthBody>,
    /// scope (user, tenant or global), defaultTtlSeconds, and tools: seconds by a tool's name.
    #[schema(value_type = Option<Object>)]
    cache: Option<Value>,
    /// Names under which its tools are offered, name.alias to the server's own.
    aliases: Option<BTreeMap<String, String>>,
    /// What its tools do, by the server's own names, where it does not say so or is not believed.
    effects: Option<BTreeMap<String, EffectView>>,
    /// Whether the server is believed when it says what its tools do.
    trust_annotations: Option<bool>,
    /// Calls that each process makes to it at once.
    #[schema(minimum = 1, maximum = 1000)]
    concurrency: Option<u32>,
    enabled: Option<bool>,
}

impl ServerBody {
    fn split(self) -> (Map<String, Value>, Option<SecretString>) {
        let Self {
            name: _,
            scope: _,
            url,
            auth,
            cache,
            aliases,
            effects,
            trust_annotations,
            concurrency,
            enabled,
        } = self;
        let (auth, token) = auth.map(AuthBody::split).unzip();
        let members = [
            ("url", url.map(Value::from)),
            ("auth", auth),
            ("cache", cache),
            ("aliases", aliases.map(|aliases| json!(aliases))),
            ("effects", effects.map(|effects| json!(effects))),
            ("trustAnnotations", trust_annotations.map(Value::from)),
            ("concurrency", concurrency.map(Value::from)),
            ("enabled", enabled.map(Value::from)),
        ];
        let members = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        (members.collect(), token.flatten())
    }
}

/// Whose credential a server's requests carry.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AuthView {
    #[serde(rename = "type")]
    kind: AuthKind,
    /// Whether a bearer token is stored.
    has_token: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scopes: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_header: Option<String>,
}

/// How a server was when it was last asked; each is asked once a minute.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HealthView {
    is_well: bool,
    /// Since when it has been so.
    since: DateTime<Utc>,
    checked_at: DateTime<Utc>,
    latency_ms: i64,
    /// The protocol's version, or what is wrong.
    detail: String,
}

/// A remote MCP server.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct McpServerView {
    name: String,
    scope: ScopeView,
    url: String,
    auth: AuthView,
    #[schema(value_type = Object)]
    cache: Value,
    aliases: BTreeMap<String, String>,
    effects: BTreeMap<String, EffectView>,
    trust_annotations: bool,
    concurrency: u32,
    enabled: bool,
    /// Whether the configuration names it, so that it cannot be changed here.
    is_fixed: bool,
    #[schema(required = true)]
    created_at: Option<DateTime<Utc>>,
    #[schema(required = true)]
    updated_at: Option<DateTime<Utc>>,
    /// Null until it was asked for the first time.
    #[schema(required = true)]
    health: Option<HealthView>,
}

impl TryFrom<registry::Listed> for McpServerView {
    type Error = Error;

    fn try_from(listed: registry::Listed) -> Result<Self> {
        let definition = &listed.server.definition;
        let has_token = listed.server.bearer().is_some();
        let plain = |kind| AuthView { kind, has_token, client_id: None, scopes: None, token_header: None };
        let auth = match &definition.auth {
            Auth::None => plain(AuthKind::None),
            Auth::Bearer => plain(AuthKind::Bearer),
            Auth::OAuth(settings) => AuthView {
                client_id: settings.client_id.clone(),
                scopes: Some(settings.scopes.clone()),
                token_header: settings.token_header.clone(),
                ..plain(AuthKind::Oauth)
            },
        };
        Ok(Self {
            name: definition.name.clone(),
            scope: match listed.server.scope {
                Scope::Deployment => ScopeView::Deployment,
                Scope::Tenant(_) => ScopeView::Tenant,
            },
            url: definition.url.to_string(),
            auth,
            cache: serde_json::to_value(&definition.cache)?,
            aliases: definition.aliases.clone(),
            effects: definition
                .effects
                .iter()
                .map(|(tool, effect)| (tool.clone(), (*effect).into()))
                .collect(),
            trust_annotations: definition.trust_annotations,
            concurrency: definition.concurrency,
            enabled: definition.enabled,
            is_fixed: listed.server.is_fixed,
            created_at: listed.created_at,
            updated_at: listed.updated_at,
            health: listed.health.map(|health| HealthView {
                is_well: health.is_well,
                since: health.since,
                checked_at: health.checked_at,
                latency_ms: health.latency_ms,
                detail: health.detail,
            }),
        })
    }
}

/// Remote MCP servers.
#[derive(Serialize, ToSchema)]
pub(crate) struct ServerList {
    /// By name.
    items: Vec<McpServerView>,
}

/// Lists the MCP servers that the tenant may use, its own and the deployment's, with their health.
#[utoipa::path(
    get, path = "/admin/mcp-servers", tag = "admin", security(("apiKey" = [])),
    responses(
        (status = 200, description = "The servers", body = ServerList),
        (status = 403, description = "The caller is neither admin nor operator", body = ErrorBody),
    )
)]
pub(crate) async fn list_servers(State(app): State<App>, steward: Steward) -> Answer<JsonAnswer<ServerList>> {
    let listed = listed(&app, &steward).await?;
    let items = listed.into_iter().map(McpServerView::try_from).collect::<Result<_>>()?;
    Ok(JsonAnswer(ServerList { items }))
}

/// Reads one MCP server.
#[utoipa::path(
    get, path = "/admin/mcp-servers/{name}", tag = "admin", security(("apiKey" = [])),
    params(("name" = String, Path, description = "The server's name")),
    responses(
        (status = 200, description = "The server", body = McpServerView),
        (status = 403, description = "The caller is neither admin nor operator", body = ErrorBody),
        (status = 404, description = "The tenant may use no such server", body = ErrorBody),
    )
)]
pub(crate) async fn get_server(
    State(app): State<App>,
    steward: Steward,
    Path(name): Path<String>,
) -> Answer<JsonAnswer<McpServerView>> {
    Ok(JsonAnswer(McpServerView::try_from(one(&app, &steward, &name).await?)?))
}

/// Adds an MCP server to the tenant, or, by an operator, to the deployment.
#[utoipa::path(
    post, path = "/admin/mcp-servers", tag = "admin", security(("apiKey" = [])),
    request_body = ServerBody,
    responses(
        (status = 201, description = "The server", body = McpServerView, headers(("Location" = String, description = "Where it is"))),
        (status = 403, description = "The caller is neither admin nor operator, or asked for the deployment and is no operator", body = ErrorBody),
        (status = 409, description = "There is a server of that name, or there are too many", body = ErrorBody),
    )
)]
pub(crate) async fn post_server(
    State(app): State<App>,
    steward: Steward,
    Json(body): Json<ServerBody>,
) -> Answer<(StatusCode, [(HeaderName, String); 1], JsonAnswer<McpServerView>)> {
    let scope = body.scope.unwrap_or(ScopeView::Tenant);
    let name = body.name.clone().ok_or_else(|| Error::unacceptable("name: is required"))?;
    let (mut members, token) = body.split();
    members.insert("name".to_owned(), name.clone().into());
    let definition: shared::remote::ServerDefinition = serde_json::from_value(Value::Object(members))
        .map_err(|error| Error::unacceptable(error.to_string()))?;
    app.gateway.outbound().check(&definition.url)?;
    let registry = app.gateway.registry();
    match scope {
        ScopeView::Deployment => {
            registry::create_for_all(registry, &app.engine, &steward.operator()?, &definition, token).await?;
        }
        ScopeView::Tenant => {
            let admin = steward.admin()?;
            let mut tx = app.tenants.begin(admin.actor()).await?;
            registry::create(registry, &mut tx, &admin, &definition, token).await?;
            tx.commit().await?;
            registry.forget(Scope::Tenant(admin.actor().tenant));
        }
    }
    let made = McpServerView::try_from(one(&app, &steward, &name).await?)?;
    let location = [(header::LOCATION, format!("/admin/mcp-servers/{name}"))];
    Ok((StatusCode::CREATED, location, JsonAnswer(made)))
}

/// Changes an MCP server: the members that are given, each whole. A token that is not given stays, as long as the address
/// does.
#[utoipa::path(
    patch, path = "/admin/mcp-servers/{name}", tag = "admin", security(("apiKey" = [])),
    params(("name" = String, Path, description = "The server's name")),
    request_body = ServerBody,
    responses(
        (status = 200, description = "The server", body = McpServerView),
        (status = 403, description = "The server is the deployment's and the caller is no operator, or is no admin either", body = ErrorBody),
        (status = 404, description = "The tenant may use no such server", body = ErrorBody),
        (status = 409, description = "The configuration names the server", body = ErrorBody),
    )
)]
pub(crate) async fn patch_server(
    State(app): State<App>,
    steward: Steward,
    Path(name): Path<String>,
    Json(body): Json<ServerBody>,
) -> Answer<JsonAnswer<McpServerView>> {
    if body.name.as_ref().is_some_and(|given| *given != name) || body.scope.is_some() {
        return Err(Error::unacceptable("name, scope: a server keeps them; make another").into());
    }
    let current = changeable(&app, &steward, &name).await?;
    let (members, bearer) = body.split();
    let definition = registry::amended(&current.server.definition, members.clone())?;
    app.gateway.outbound().check(&definition.url)?;
    let (registry, change) = (app.gateway.registry(), registry::Change { members, bearer });
    match current.server.scope {
        Scope::Deployment => {
            registry::update_for_all(registry, &app.engine, &steward.operator()?, &name, change).await?;
        }
        scope @ Scope::Tenant(_) => {
            let admin = steward.admin()?;
            let mut tx = app.tenants.begin(admin.actor()).await?;
            registry::update(registry, &mut tx, &admin, &name, change).await?;
            tx.commit().await?;
            registry.forget(scope);
        }
    }
    Ok(JsonAnswer(McpServerView::try_from(one(&app, &steward, &name).await?)?))
}

/// Removes an MCP server and what was approved of its tools.
#[utoipa::path(
    delete, path = "/admin/mcp-servers/{name}", tag = "admin", security(("apiKey" = [])),
    params(("name" = String, Path, description = "The server's name")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 403, description = "The server is the deployment's and the caller is no operator, or is no admin either", body = ErrorBody),
        (status = 404, description = "The tenant may use no such server", body = ErrorBody),
        (status = 409, description = "The configuration names the server", body = ErrorBody),
    )
)]
pub(crate) async fn delete_server(
    State(app): State<App>,
    steward: Steward,
    Path(name): Path<String>,
) -> Answer<StatusCode> {
    let registry = app.gateway.registry();
    match changeable(&app, &steward, &name).await?.server.scope {
        Scope::Deployment => {
            registry::delete_for_all(registry, &app.engine, &steward.operator()?, &name).await?;
        }
        scope @ Scope::Tenant(_) => {
            let admin = steward.admin()?;
            let mut tx = app.tenants.begin(admin.actor()).await?;
            registry::delete(&mut tx, &admin, &name).await?;
            tx.commit().await?;
            registry.forget(scope);
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn listed(app: &App, steward: &Steward) -> Result<Vec<registry::Listed>> {
    let mut tx = app.tenants.begin(steward.actor()).await?;
    let listed = app.gateway.registry().list(&mut tx).await?;
    tx.commit().await?;
    Ok(listed)
}

pub(super) async fn one(app: &App, steward: &Steward, name: &str) -> Result<registry::Listed> {
    let found = listed(app, steward).await?.into_iter().find(|listed| listed.server.name() == name);
    found.ok_or_else(|| Error::not_found("there is no such server"))
}

async fn changeable(app: &App, steward: &Steward, name: &str) -> Result<registry::Listed> {
    let found = one(app, steward, name).await?;
    if found.server.is_fixed {
        return Err(Error::conflict("the configuration names this server; change it there"));
    }
    Ok(found)
}
