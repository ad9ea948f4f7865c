//! A model provider that speaks Anthropic Messages, OpenAI Responses and chat completions, and does what a test says.
//!
//! A request is answered by the first of: the queue ([`FakeModel::push`]), the newest rule that wants it
//! ([`FakeModel::rule`]), the directives in the last user message ([`directives`]). Everything a request got is on
//! record: how it ended and which usage it was told ([`Served`]).

pub mod billing;
pub mod directives;
mod record;
mod render;
mod request;
mod respond;
mod script;
mod server;

pub use self::{
    record::{Gate, Outcome, Served},
    request::{ReceivedRequest, Wire},
    script::{Script, Step},
    server::{FakeModel, serve},
};
