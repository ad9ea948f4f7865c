//! Language models behind one small trait: what a turn sends, what streams back, and how it fails.
//!
//! Each provider is a thin client of our own, because a durable turn needs three things that wrappers hide: the
//! provider's blocks byte for byte (a later request replays them), an error for every stream that ends without its
//! end marker, and the provider's own wish for when to be asked again.
//! Knows nothing of turns, tools or tenants. Invariant: a stream yields exactly one `Done`, last, or exactly one
//! error, last; nothing here retries, logs a body or shows a key.

mod anthropic;
mod config;
pub mod embeddings;
mod error;
pub mod http;
mod id;
mod message;
mod offline;
mod openai;
mod openai_compatible;
pub mod price;
mod raw;
mod sse;
mod stream;

use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

pub use self::{
    config::{ModelConfig, ModelConfigError, by_name, check},
    error::{ModelError, ModelErrorKind},
    id::{ModelId, Provider, UnknownProvider},
    message::{ModelMessage, ModelRequest, NativeBlocks, ToolCall, ToolResult, ToolSpec},
};

/// One model of one provider.
pub trait Model: Send + Sync {
    /// Which model this is.
    fn id(&self) -> &ModelId;

    /// Sends the request once it is polled and streams the reply. Dropping the stream closes the connection.
    fn stream(&self, request: ModelRequest) -> BoxStream<'static, Result<ModelEvent, ModelError>>;
}

/// What a model's stream yields.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelEvent {
    /// Text for the user, one event per provider delta, never empty and without U+0000.
    Text(String),
    /// What has been used so far: cumulative, so the last one seen is what a cut stream cost.
    Usage(Usage),
    /// The whole reply: last, exactly once, only on success.
    Done(ModelReply),
}

/// Tokens as the provider counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// All prompt tokens, cached ones included: `cache_read` and `cache_write` are parts of it.
    pub input: i64,
    /// Tokens written by the model, its hidden reasoning included.
    pub output: i64,
    /// The part of `input` that was read from the provider's prompt cache.
    pub cache_read: i64,
    /// The part of `input` that was written to the provider's prompt cache.
    pub cache_write: i64,
}

/// A reply that ended as it should.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelReply {
    /// The provider's own content as JSON text, kept as received so that it can be replayed byte for byte.
    pub blocks: String,
    /// All text for the user: the concatenation of the `Text` events.
    pub text: String,
    /// The tool calls, in the order the model wrote them.
    pub calls: Vec<ToolCall>,
    /// Why the model stopped.
    pub stop: StopReason,
    /// The final usage.
    pub usage: Usage,
}

/// Why a model stopped writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The reply is complete.
    End,
    /// The model waits for the results of its tool calls.
    ToolUse,
    /// The reply was cut at `max_output_tokens`, or the context is full.
    MaxTokens,
    /// The model, or a filter in front of it, declined to answer.
    Refused,
}
