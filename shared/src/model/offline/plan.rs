//! What to say and which tools to call next.

use super::{ModelRequest, ToolCall, clean};

/// One reply.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) calls: Vec<ToolCall>,
}

/// What it says of itself.
const INTRODUCTION: &str = "I am Alfred's offline stand-in: a small set of rules, not a language model.";

/// The reply to a request.
pub(super) fn answer(_request: &ModelRequest) -> Answer {
    Answer { text: clean(INTRODUCTION), calls: Vec::new() }
}
