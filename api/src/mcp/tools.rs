//! Tools over MCP: the values of [`shared::tools`], described as the protocol wants them and run as the caller.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use rmcp::model::{CallToolResult, ContentBlock, ErrorCode, ErrorData, Tool, ToolAnnotations};
use serde_json::Value;
use shared::{
    db::TenantTx,
    error::{Code, Error, Result},
    identity::Scope,
    tenancy::Policy,
    tools::{Effect, ToolDef, ToolOutput, ToolRun},
    workspace,
};
use tokio_util::sync::CancellationToken;

use super::{
    problem::{self, Mender},
    server::Call,
};

/// How long a call may take; then it is rolled back.
const CALL_TIME: Duration = Duration::from_secs(30);
/// How often a call is made whose database connection was lost, or that lost against another; nothing was written.
const TRIES: u32 = 3;

/// The tools that are served: those that run in our own database, in the order of their names.
pub(super) struct Catalogue {
    described: Vec<Tool>,
    places: HashMap<String, usize>,
    served: Vec<ToolDef>,
}

impl Catalogue {
    pub(super) fn of(tools: &[ToolDef]) -> Self {
        // Remote tools are for our own turns: whoever is here can ask their server directly.
        let inside = tools.iter().filter(|tool| matches!(tool.run, ToolRun::Workspace(_)));
        let mut served: Vec<ToolDef> = inside.cloned().collect();
        served.sort_by(|one, other| one.name.cmp(&other.name));
        Self {
            described: served.iter().map(describe).collect(),
            places: served.iter().enumerate().map(|(place, tool)| (tool.name.to_string(), place)).collect(),
            served,
        }
    }

    pub(super) fn described(&self) -> &[Tool] {
        &self.described
    }

    pub(super) fn find(&self, name: &str) -> Option<&Tool> {
        self.places.get(name).and_then(|place| self.described.get(*place))
    }

    /// Calls a tool and counts the call.
    ///
    /// # Errors
    /// An unknown tool, and what is ours to mend.
    pub(super) async fn call(
        &self,
        call: &Call,
        name: &str,
        arguments: &Value,
        cancelled: &CancellationToken,
    ) -> Result<CallToolResult, ErrorData> {
        let Some(tool) = self.places.get(name).and_then(|place| self.served.get(*place)) else {
            return Err(ErrorData::new(ErrorCode::INVALID_PARAMS, format!("Unknown tool: {name}"), None));
        };
        call.span.record("tool", &*tool.name);
        let begun = Instant::now();
        let ran = within_time(call, tool, arguments, cancelled).await;
        let outcome = match &ran {
            Err(_) if cancelled.is_cancelled() => "cancelled",
            Ok(output) if !output.is_error => "ok",
            Ok(_) => "refused",
            Err(error) if problem::mender(error.code) == Mender::Model => "refused",
            Err(_) => "failed",
        };
        metrics::counter!("mcp_tool_calls_total", "tool" => tool.name.to_string(), "outcome" => outcome)
            .increment(1);
        metrics::histogram!("mcp_tool_call_duration_seconds").record(begun.elapsed().as_secs_f64());
        match ran {
            Ok(output) => Ok(result(tool, output)),
            Err(error) if problem::mender(error.code) == Mender::Model => {
                Ok(CallToolResult::error(vec![ContentBlock::text(error.message.into_owned())]))
            }
            Err(error) => Err(problem::data(&error, &call.request_id)),
        }
    }
}

/// Runs the tool until it is done, told to stop, or out of time. What was begun is rolled back in the latter cases;
/// only a commit that is under way is waited for, because it cannot be taken back.
async fn within_time(
    call: &Call,
    tool: &ToolDef,
    arguments: &Value,
    cancelled: &CancellationToken,
) -> Result<ToolOutput> {
    let work = async {
        let mut tries = 0;
        loop {
            tries += 1;
            match prepare(call, tool, arguments).await {
                Err(error) if error.is_transient() && tries < TRIES => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "a call is made again");
                }
                other => return other,
            }
        }
    };
    let (tx, output) = tokio::select! {
        biased;
        () = cancelled.cancelled() => return Err(Error::conflict("the call was cancelled; nothing was changed")),
        worked = tokio::time::timeout(CALL_TIME, work) => worked.map_err(|_| late())??,
    };
    // A read has nothing to keep: its transaction is rolled back while the answer is already on its way.
    if tool.effect != Effect::Read && !output.is_error {
        tx.commit().await?;
    }
    Ok(output)
}

async fn prepare(call: &Call, tool: &ToolDef, arguments: &Value) -> Result<(TenantTx, ToolOutput)> {
    if tool.effect != Effect::Read {
        call.actor.must_have(Scope::Write)?;
    }
    // Before the transaction begins, which must not wait for a model.
    let meaning = workspace::meaning_of_call(call.app.embedder.as_ref(), &tool.name, arguments).await?;
    let mut tx = call.app.tenants.begin(&call.actor).await?;
    if let Some(meaning) = meaning {
        tx.bring(meaning);
    }
    // `ask` is for turns, where nobody may be watching: a client of MCP has its user in front of it.
    if call.app.policies.get(&mut tx).await?.get(&*tool.name) == Some(&Policy::Deny) {
        let sentence = format!("{} is not allowed in this workspace: an admin has denied it", tool.name);
        return Ok((tx, ToolOutput::error(sentence)));
    }
    let ToolRun::Workspace(run) = &tool.run else {
        return Err(Error::internal("a tool that runs elsewhere is in the catalogue"));
    };
    let output = run(&mut tx, arguments).await?;
    Ok((tx, output))
}

fn late() -> Error {
    Error::new(
        Code::Conflict,
        format!(
            "the call took longer than {} seconds and was given up; nothing was changed",
            CALL_TIME.as_secs()
        ),
    )
}

fn result(tool: &ToolDef, output: ToolOutput) -> CallToolResult {
    let structured = (tool.output.is_some() && !output.is_error)
        .then(|| serde_json::from_str::<Value>(&output.content).ok())
        .flatten();
    let content = vec![ContentBlock::text(output.content)];
    let mut result =
        if output.is_error { CallToolResult::error(content) } else { CallToolResult::success(content) };
    result.structured_content = structured;
    result
}

fn describe(tool: &ToolDef) -> Tool {
    let described = Tool::new(tool.name.clone(), tool.description.clone(), object(&tool.input))
        .with_title(title(&tool.name))
        .with_annotations(annotations(tool.effect));
    match &tool.output {
        Some(output) => described.with_raw_output_schema(object(output)),
        None => described,
    }
}

fn object(schema: &Value) -> Arc<serde_json::Map<String, Value>> {
    Arc::new(schema.as_object().cloned().unwrap_or_default())
}

/// What the effect means in the protocol's words. Everything we serve happens in our own database.
fn annotations(effect: Effect) -> ToolAnnotations {
    ToolAnnotations::new()
        .read_only(effect == Effect::Read)
        .destructive(effect == Effect::Destructive)
        .idempotent(effect.may_run_again())
        .open_world(false)
}

/// `create_chat_message` for people.
fn title(name: &str) -> String {
    let words = name.replace('_', " ");
    let mut letters = words.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
