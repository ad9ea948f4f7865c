//! What models can call.

use axum::{Json as JsonAnswer, extract::State};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::{
    remote::{ServerState, Standing},
    tenancy::{self, Policy},
    tools::{Effect, ToolDef},
};
use utoipa::{IntoParams, ToSchema};

use super::admin::PolicyView;
use crate::{
    auth::Caller,
    error::{Answer, ErrorBody},
    extract::Parameters,
    state::App,
};

/// Whose tools.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ToolQuery {
    /// A session's token: what its next turn would be offered.
    #[param(value_type = Option<String>)]
    session: Option<SecretString>,
}

/// The tools that a turn of the caller is offered.
#[derive(Serialize, ToSchema)]
pub(crate) struct ToolList {
    tools: Vec<ToolView>,
    /// The remote servers of the tenant.
    servers: Vec<ToolServerView>,
}

/// A tool.
#[derive(Serialize, ToSchema)]
pub(crate) struct ToolView {
    #[schema(example = "create_task")]
    name: String,
    /// Who serves it; workspace is built in.
    #[schema(example = "workspace")]
    server: String,
    description: String,
    effect: EffectView,
    /// What the tenant's admins decided.
    policy: PolicyView,
    /// How the caller stands with its server.
    connection: StandingView,
    /// JSON Schema of the arguments.
    #[schema(value_type = Object)]
    input: Value,
}

/// A remote server of the tenant.
#[derive(Serialize, ToSchema)]
pub(crate) struct ToolServerView {
    #[schema(example = "notion")]
    name: String,
    connection: StandingView,
    /// Why its tools cannot be had now; null when they can.
    #[schema(required = true)]
    trouble: Option<String>,
    /// Its tools that are not offered.
    held: Vec<HeldView>,
}

/// A tool that is not offered.
#[derive(Serialize, ToSchema)]
pub(crate) struct HeldView {
    /// The server's own name of it.
    tool: String,
    why: &'static str,
}

/// How a person stands with a server.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StandingView {
    /// It is built in.
    BuiltIn,
    /// It wants no connection.
    Open,
    Connected,
    NotConnected,
    /// The connection ended.
    SignInAgain,
}

impl From<Standing> for StandingView {
    fn from(standing: Standing) -> Self {
        match standing {
            Standing::Open => Self::Open,
            Standing::Connected => Self::Connected,
            Standing::NotConnected => Self::NotConnected,
            Standing::SignInAgain => Self::SignInAgain,
        }
    }
}

impl From<&ServerState> for ToolServerView {
    fn from(state: &ServerState) -> Self {
        let held = state.held.iter().map(|held| HeldView { tool: held.tool.clone(), why: held.why });
        Self {
            name: state.name.clone(),
            connection: state.standing.into(),
            trouble: state.trouble.clone(),
            held: held.collect(),
        }
    }
}

/// What calling a tool does to the world.
#[derive(Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EffectView {
    Read,
    IdempotentWrite,
    Write,
    Destructive,
}

impl From<Effect> for EffectView {
    fn from(effect: Effect) -> Self {
        match effect {
            Effect::Read => Self::Read,
            Effect::IdempotentWrite => Self::IdempotentWrite,
            Effect::Write => Self::Write,
            Effect::Destructive => Self::Destructive,
        }
    }
}

/// Lists the tools that models can call for the caller, each with what it does and whether it may: the built-in ones and
/// those of remote servers.
#[utoipa::path(
    get, path = "/tools", tag = "tools", security(("apiKey" = [])),
    params(ToolQuery),
    responses(
        (status = 200, description = "The tools", body = ToolList),
        (status = 400, description = "An unreadable parameter", body = ErrorBody),
        (status = 404, description = "There is no such session", body = ErrorBody),
        (status = 410, description = "The session has expired", body = ErrorBody),
    )
)]
pub(crate) async fn list_tools(
    State(app): State<App>,
    Caller(actor): Caller,
    Parameters(query): Parameters<ToolQuery>,
) -> Answer<JsonAnswer<ToolList>> {
    let session = match &query.session {
        Some(token) => Some(app.turns.sessions().by_token(&actor, token).await?.id),
        None => None,
    };
    let remote = app.gateway.toolset(&actor, session).await?;
    let mut tx = app.tenants.begin(&actor).await?;
    let policies = tenancy::policies(&mut tx).await?;
    tx.commit().await?;
    let view = |tool: &ToolDef, server: &str, policy: Policy, connection: StandingView| ToolView {
        name: tool.name.to_string(),
        server: server.to_owned(),
        description: tool.description.to_string(),
        effect: tool.effect.into(),
        policy: policy.into(),
        connection,
        input: tool.input.clone(),
    };
    let own = app.tools.iter().map(|tool| {
        let policy = policies.get(tool.name.as_ref()).copied().unwrap_or(Policy::Allow);
        view(tool, "workspace", policy, StandingView::BuiltIn)
    });
    let theirs = remote.tools().map(|(whose, tool)| {
        let server = whose.server.name();
        let state = remote.servers.iter().find(|state| state.name == server);
        let connection = state.map_or(StandingView::Open, |state| state.standing.into());
        view(tool, server, remote.policy(&policies, &tool.name), connection)
    });
    let tools = own.chain(theirs).collect();
    let servers = remote.servers.iter().map(ToolServerView::from).collect();
    Ok(JsonAnswer(ToolList { tools, servers }))
}
