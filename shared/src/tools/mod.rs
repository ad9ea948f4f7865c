//! What a model can call. A tool is a value: its schema, its effect and how to run it.
//!
//! [`Effect`] is the one source of what may be run again after a crash, what may need a person's approval and how a
//! tool is described to others. Tools get their identity from the transaction they are handed, never from arguments.

use std::{borrow::Cow, sync::Arc};

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{db::TenantTx, error::Result};

/// What calling a tool does to the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Changes nothing.
    Read,
    /// Changes something, but twice is the same as once.
    IdempotentWrite,
    /// Changes something each time.
    Write,
    /// Destroys something.
    Destructive,
}

impl Effect {
    /// Whether a call whose outcome is unknown may simply be made again.
    #[must_use]
    pub fn may_run_again(self) -> bool {
        matches!(self, Self::Read | Self::IdempotentWrite)
    }
}

/// What a tool answered.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolOutput {
    /// As the model reads it: JSON text, or a sentence when it is an error.
    pub content: String,
    /// The call was understood and refused, or could not be carried out; the model may try something else.
    pub is_error: bool,
}

impl ToolOutput {
    /// A result.
    ///
    /// # Errors
    /// When the value cannot be written as JSON.
    pub fn json(value: &impl Serialize) -> Result<Self> {
        Ok(Self { content: serde_json::to_string(value)?, is_error: false })
    }

    /// A sentence that tells the model what was wrong.
    #[must_use]
    pub fn error(sentence: impl Into<String>) -> Self {
        Self { content: sentence.into(), is_error: true }
    }
}

/// Runs within the turn's own transaction: effect and result are committed together, exactly once. It must write
/// nothing when it answers an error (`is_error` or `Err`).
pub type WorkspaceRun =
    Arc<dyn for<'a> Fn(&'a mut TenantTx, &'a Value) -> BoxFuture<'a, Result<ToolOutput>> + Send + Sync>;

/// Names the resource that a call with these arguments touches.
pub type ResourceOf = Arc<dyn Fn(&Value) -> Option<String> + Send + Sync>;

/// A tool whose effect lies beyond the database.
pub trait OutsideTool: Send + Sync {
    /// Makes the call. `idempotency_key` is the same whenever this call of this turn is made again.
    fn call<'a>(
        &'a self,
        arguments: &'a Value,
        idempotency_key: &'a str,
    ) -> BoxFuture<'a, Result<ToolOutput>>;
}

/// How a tool is run.
#[derive(Clone)]
pub enum ToolRun {
    /// In process, in the transaction that also stores the result.
    Workspace(WorkspaceRun),
    /// Outside: at most once, unless its effect allows more.
    Outside(Arc<dyn OutsideTool>),
}

impl ToolRun {
    /// Runs this function in process.
    pub fn workspace<Run>(run: Run) -> Self
    where
        Run: for<'a> Fn(&'a mut TenantTx, &'a Value) -> BoxFuture<'a, Result<ToolOutput>>
            + Send
            + Sync
            + 'static,
    {
        Self::Workspace(Arc::new(run))
    }
}

/// A tool.
#[derive(Clone)]
pub struct ToolDef {
    /// Letters, digits, `_`, `-`, and `.` between a server's name and its tool's.
    pub name: Cow<'static, str>,
    /// What it does and when to use it, for the model.
    pub description: Cow<'static, str>,
    /// What calling it does to the world.
    pub effect: Effect,
    /// JSON Schema (2020-12) of the arguments.
    pub input: Value,
    /// JSON Schema of the result, where it has one.
    pub output: Option<Value>,
    /// Names the resource that a call touches, so that calls on the same one run in order; none: runs beside all others.
    pub resource: Option<ResourceOf>,
    /// How to run it.
    pub run: ToolRun,
}
