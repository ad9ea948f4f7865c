//! What models can call.

use axum::{Json as JsonAnswer, extract::State};
use serde::Serialize;
use serde_json::Value;
use shared::{
    tenancy::{self, Policy},
    tools::{Effect, ToolDef},
};
use utoipa::ToSchema;

use super::admin::PolicyView;
use crate::{auth::Caller, error::Answer, state::App};

/// The tools that a turn of the caller is offered.
#[derive(Serialize, ToSchema)]
pub(crate) struct ToolList {
    tools: Vec<ToolView>,
}

/// A tool.
#[derive(Serialize, ToSchema)]
pub(crate) struct ToolView {
    #[schema(example = "create_task")]
    name: String,
    /// Who serves it; workspace is built in.
    #[schema(example = "workspace")]
    server: &'static str,
    description: String,
    effect: EffectView,
    /// What the tenant's admins decided.
    policy: PolicyView,
    /// JSON Schema of the arguments.
    #[schema(value_type = Object)]
    input: Value,
}

/// What calling a tool does to the world.
#[derive(Serialize, ToSchema)]
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

/// Lists the tools that models can call, each with what it does and whether it may.
#[utoipa::path(
    get, path = "/tools", tag = "tools", security(("apiKey" = [])),
    responses((status = 200, description = "The tools", body = ToolList))
)]
pub(crate) async fn list_tools(
    State(app): State<App>,
    Caller(actor): Caller,
) -> Answer<JsonAnswer<ToolList>> {
    let mut tx = app.tenants.begin(&actor).await?;
    let policies = tenancy::policies(&mut tx).await?;
    tx.commit().await?;
    let view = |tool: &ToolDef| ToolView {
        name: tool.name.to_string(),
        server: "workspace",
        description: tool.description.to_string(),
        effect: tool.effect.into(),
        policy: policies.get(tool.name.as_ref()).copied().unwrap_or(Policy::Allow).into(),
        input: tool.input.clone(),
    };
    Ok(JsonAnswer(ToolList { tools: app.tools.iter().map(view).collect() }))
}
