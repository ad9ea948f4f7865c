//! What a model can call. A tool is a value: its schema, its effect and how to run it.
//!
//! [`Effect`] is the one source of what may be run again after a crash, what may need a person's approval and how a
//! tool is described to others. Tools get their identity from the transaction they are handed, never from arguments.

mod wire;

use std::{borrow::Cow, sync::Arc};

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;

use crate::{
    db::TenantTx,
    error::Result,
    identity::Actor,
    ids::{SessionId, TurnId},
};

pub use self::wire::wire_name;

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

/// What a client should know although nothing failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// Upper-case words, such as `CONTEXT_NEAR_LIMIT`.
    pub code: String,
    /// A sentence.
    pub detail: String,
}

/// What the cache had to do with a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheFacts {
    /// `{tool}:{version}:{hash of the arguments}`
    pub key: String,
    /// The result came from the cache.
    pub hit: bool,
    /// Seconds for which the stored result is still good.
    pub ttl_remaining: i64,
}

/// What a tool answered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ToolOutput {
    /// As the model reads it: JSON text, or a sentence when it is an error.
    pub content: String,
    /// The call was understood and refused, or could not be carried out; the model may try something else.
    pub is_error: bool,
    /// Set when the result was read from the cache, or stored in it.
    pub cache: Option<CacheFacts>,
    /// For the person: told in the stream and in the answer's meta.
    pub warning: Option<Warning>,
}

impl ToolOutput {
    /// A result.
    ///
    /// # Errors
    /// When the value cannot be written as JSON.
    pub fn json(value: &impl Serialize) -> Result<Self> {
        Ok(Self { content: serde_json::to_string(value)?, ..Self::default() })
    }

    /// A sentence that tells the model what was wrong.
    #[must_use]
    pub fn error(sentence: impl Into<String>) -> Self {
        Self { content: sentence.into(), is_error: true, ..Self::default() }
    }
}

/// Runs within the turn's own transaction: effect and result are committed together, exactly once. It must write
/// nothing when it answers an error (`is_error` or `Err`).
pub type WorkspaceRun =
    Arc<dyn for<'a> Fn(&'a mut TenantTx, &'a Value) -> BoxFuture<'a, Result<ToolOutput>> + Send + Sync>;

/// Names the resource that a call with these arguments touches.
pub type ResourceOf = Arc<dyn Fn(&Value) -> Option<String> + Send + Sync>;

/// One call of a tool whose effect lies beyond the database: for whom, in what, and what with.
#[derive(Clone, Copy)]
pub struct OutsideCall<'a> {
    /// Whose turn it is. A tool finds credentials by it, and never hands it on.
    pub actor: &'a Actor,
    /// The session that the turn was posted to.
    pub session: SessionId,
    /// The turn.
    pub turn: TurnId,
    /// What the model wrote: an object, or null when it wrote nothing.
    pub arguments: &'a Value,
    /// The same whenever this call of this turn is made again: `{turn}:{call}`.
    pub idempotency_key: &'a str,
    /// Read from the source, not from the cache, and store what it says.
    pub force_refresh: bool,
    /// Of the request that posted the turn; sent on.
    pub request_id: &'a str,
    /// Where a tool that takes its time says how far it is, in a sentence; the newest one counts.
    pub progress: &'a watch::Sender<String>,
}

/// A tool whose effect lies beyond the database.
pub trait OutsideTool: Send + Sync {
    /// Makes the call. Dropping the future gives the call up: whoever carries it out is told, where the protocol can.
    fn call<'a>(&'a self, call: OutsideCall<'a>) -> BoxFuture<'a, Result<ToolOutput>>;
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
