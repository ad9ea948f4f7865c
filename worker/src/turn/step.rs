//! The edges of a step: saying that another attempt goes on, and writing a model's reply.

use serde_json::Value;
use shared::{
    Error,
    events::{EventKind, data},
    model::ModelMessage,
    turns::{CallRecord, ModelStep, NewEvent, StepCommit},
};

use super::{Attempt, Stop, from_log, prompt};

/// Bytes of text in one event; what a model sends in a larger piece becomes several.
const LONGEST_PIECE: usize = 10 * 1024;

impl Attempt {
    /// Tells clients that an attempt goes on where another ended, unless nothing came between.
    pub(super) async fn announce(&mut self) -> Result<(), Stop> {
        let earlier = prompt::steps(&self.context.steps, self.open.is_some());
        self.messages.extend(earlier);
        if self.claimed.taken || self.claimed.last_seq > self.last_step_seq {
            self.void_text().await?;
        }
        Ok(())
    }

    /// Text of the step under way does not count any more.
    pub(super) async fn void_text(&mut self) -> Result<(), Stop> {
        self.text.truncate(self.step_text);
        self.message_text = self.step_text;
        let text = data::resumed(self.claimed.turn_no, self.last_step_seq);
        self.log.append(EventKind::Resumed, text).await.map_err(from_log)?;
        Ok(())
    }

    /// Text for the client, as the model gave it.
    pub(super) async fn token(&mut self, piece: &str) -> Result<(), Stop> {
        // Texts of two steps are two paragraphs of one reply.
        if self.text.len() == self.step_text && !self.text.is_empty() {
            self.append_token("\n\n").await?;
            self.message_text = self.text.len();
        }
        // One event holds 64 KiB of JSON, and a letter takes up to six bytes there.
        let mut rest = piece;
        while rest.len() > LONGEST_PIECE {
            let (piece, after) = rest.split_at(rest.floor_char_boundary(LONGEST_PIECE));
            self.append_token(piece).await?;
            rest = after;
        }
        self.append_token(rest).await
    }

    async fn append_token(&mut self, piece: &str) -> Result<(), Stop> {
        self.log.append(EventKind::Token, data::token(piece)).await.map_err(from_log)?;
        self.text.push_str(piece);
        Ok(())
    }

    /// The text of the step under way, without what parts it from the step before.
    pub(super) fn message(&self) -> &str {
        self.text.get(self.message_text..).unwrap_or_default()
    }

    /// Writes a reply that calls tools, with its `tool_call` events.
    pub(super) async fn commit_reply(&mut self, reply: ModelStep) -> Result<(), Stop> {
        self.log.flushed().await.map_err(from_log)?;
        let count = i64::try_from(reply.calls.len()).map_err(|error| Stop::Failed(Error::internal(error)))?;
        let first = self.log.take(count).await;
        let events: Vec<NewEvent> = (first..)
            .zip(&reply.calls)
            .map(|(seq, call)| NewEvent { seq, kind: EventKind::ToolCall, data: tool_call(call) })
            .collect();
        let last = first + count - 1;
        match self.engine.turns.commit_model_step(&self.claimed, &reply, &events).await {
            Ok(StepCommit::Written) => {
                self.log.committed(last);
                self.last_step_seq = last;
                self.step = reply.step;
                self.step_text = self.text.len();
                self.message_text = self.text.len();
                self.open = Some((reply, std::collections::HashMap::new()));
                Ok(())
            }
            Ok(StepCommit::Fenced) => Err(Stop::Fenced),
            Err(error) => Err(Stop::Failed(error)),
        }
    }

    /// All calls have results: the model reads them next.
    pub(super) fn close_calls(&mut self) {
        let Some((reply, states)) = self.open.take() else { return };
        self.messages.push(prompt::assistant(&reply));
        self.messages.push(ModelMessage::ToolResults(prompt::results(&reply.calls, &states)));
    }
}

fn tool_call(call: &CallRecord) -> String {
    let args =
        call.arguments.clone().or_else(|| call.malformed.clone().map(Value::String)).unwrap_or(Value::Null);
    data::tool_call(&call.id, &call.tool, &args)
}
