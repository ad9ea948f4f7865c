//! The offline stand-in: a few hundred lines of rules in place of a language model, so that the first five minutes
//! need no account and no network. It streams word by word, counts tokens by a simple estimate, calls the tools it is
//! offered, and says what it is.
//!
//! It keeps nothing: what to do next follows from the messages alone, as with any model. The same request always
//! gets the same reply.

mod date;
mod intent;
mod kit;
mod memory;
mod plan;
mod rules;
mod say;
mod target;
mod text;

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream, stream::BoxStream};
use serde::Serialize;

use self::plan::Answer;
use super::{
    Model, ModelError, ModelErrorKind, ModelEvent, ModelId, ModelMessage, ModelReply, ModelRequest,
    StopReason, ToolCall, Usage,
    raw::{clean, wrap},
};

/// The stand-in.
#[derive(Debug)]
pub(super) struct Offline {
    id: Arc<ModelId>,
    /// The pause before each word.
    delay: Duration,
}

impl Offline {
    pub(super) fn new(id: ModelId, delay: Duration) -> Self {
        Self { id: Arc::new(id), delay }
    }
}

impl Model for Offline {
    fn id(&self) -> &ModelId {
        &self.id
    }

    fn stream(&self, request: ModelRequest) -> BoxStream<'static, Result<ModelEvent, ModelError>> {
        let (id, delay) = (self.id.clone(), self.delay);
        stream::once(async move { events(&id, &request) })
            .flat_map(stream::iter)
            .then(move |event| async move {
                if !delay.is_zero() && matches!(event, Ok(ModelEvent::Text(_))) {
                    tokio::time::sleep(delay).await;
                }
                event
            })
            .boxed()
    }
}

/// The whole reply as events.
fn events(id: &ModelId, request: &ModelRequest) -> Vec<Result<ModelEvent, ModelError>> {
    let answer = plan::answer(request);
    let mut usage = Usage { input: prompt_tokens(request), ..Usage::default() };
    let mut events = vec![Ok(ModelEvent::Usage(usage))];
    events.extend(words(&answer.text).map(|word| Ok(ModelEvent::Text(word.to_owned()))));
    usage.output = tokens(&answer.text) + answer.calls.iter().map(call_tokens).sum::<i64>();
    events.push(Ok(ModelEvent::Usage(usage)));
    events.push(
        reply(id, answer, usage)
            .map(ModelEvent::Done)
            .map_err(|error| ModelError::new(ModelErrorKind::Rejected, "offline failed").caused_by(error)),
    );
    events
}

fn reply(id: &ModelId, answer: Answer, usage: Usage) -> Result<ModelReply, serde_json::Error> {
    #[derive(Serialize)]
    struct Blocks<'a> {
        text: &'a str,
        calls: &'a [ToolCall],
    }
    let Answer { text, calls } = answer;
    Ok(ModelReply {
        blocks: wrap(id, &Blocks { text: &text, calls: &calls })?,
        stop: if calls.is_empty() { StopReason::End } else { StopReason::ToolUse },
        text,
        calls,
        usage,
    })
}

/// Words with the white space after them.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let word = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let gap = rest[word..].find(|c: char| !c.is_whitespace()).unwrap_or(rest.len() - word);
        let (first, others) = rest.split_at(word + gap);
        rest = others;
        (!first.is_empty()).then_some(first)
    })
}

/// The estimate: a token is four characters, begun ones counting whole.
fn tokens(text: &str) -> i64 {
    i64::try_from(text.chars().count().div_ceil(4)).unwrap_or(i64::MAX)
}

fn call_tokens(call: &ToolCall) -> i64 {
    let arguments = match &call.arguments {
        Ok(value) => tokens(&value.to_string()),
        Err(raw) => tokens(raw),
    };
    tokens(&call.name) + arguments
}

fn prompt_tokens(request: &ModelRequest) -> i64 {
    let messages = request.messages.iter().map(|message| match message {
        ModelMessage::User { text } => tokens(text),
        ModelMessage::Assistant { text, calls, .. } => {
            tokens(text) + calls.iter().map(call_tokens).sum::<i64>()
        }
        ModelMessage::ToolResults(results) => results.iter().map(|result| tokens(&result.content)).sum(),
    });
    let tools = request
        .tools
        .iter()
        .map(|tool| tokens(&tool.name) + tokens(&tool.description) + tokens(&tool.input_schema.to_string()));
    tokens(&request.system) + messages.sum::<i64>() + tools.sum::<i64>()
}
