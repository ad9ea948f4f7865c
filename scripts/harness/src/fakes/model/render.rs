//! Scripts in the bytes of each wire, rendered before the first one is sent.

use std::{fmt::Write as _, time::Duration};

use bytes::Bytes;
use serde_json::json;
use shared::model::Usage;

use super::{Script, Step, Wire};

/// What a connection does next.
#[derive(Debug, Clone)]
pub(super) enum Frame {
    Bytes(Bytes),
    Pause(Duration),
    Gate(String),
    Stall,
    Cut,
    End,
}

/// Renders a script. Neighbouring events become one piece, unless the script wants pieces of its own.
pub(super) fn render(wire: Wire, model: &str, number: u64, script: &Script, usage: Usage) -> Vec<Frame> {
    let mut pen = Pen { out: Vec::new(), text: String::new(), chunk_bytes: script.chunk_bytes };
    let calls = script.steps.iter().any(|step| matches!(step, Step::Call { .. }));
    let stop = match (script.max_tokens, calls) {
        (true, _) => Stop::MaxTokens,
        (false, true) => Stop::Calls,
        (false, false) => Stop::End,
    };
    if script.steps != [Step::End] {
        match wire {
            Wire::Anthropic => anthropic(&mut pen, model, number, script, usage, stop),
            Wire::Responses => responses(&mut pen, model, number, script, usage, stop),
            Wire::Chat => chat(&mut pen, model, number, script, usage, stop),
        }
    }
    pen.flush();
    pen.out
}

#[derive(Clone, Copy, PartialEq)]
enum Stop {
    End,
    Calls,
    MaxTokens,
}

/// The raw arguments in three pieces, cut between characters.
fn pieces(arguments: &str) -> Vec<&str> {
    let cut = |at: usize| (at..=arguments.len()).find(|at| arguments.is_char_boundary(*at)).unwrap_or(at);
    let (first, second) = (cut(arguments.len() / 3), cut(arguments.len() * 2 / 3));
    [&arguments[..first], &arguments[first..second], &arguments[second..]]
        .into_iter()
        .filter(|piece| !piece.is_empty())
        .collect()
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

struct Pen {
    out: Vec<Frame>,
    text: String,
    chunk_bytes: Option<usize>,
}

impl Pen {
    fn named(&mut self, name: &str, data: &str) {
        let _ = write!(self.text, "event: {name}\ndata: {data}\n\n");
    }

    fn data(&mut self, data: &str) {
        let _ = write!(self.text, "data: {data}\n\n");
    }

    fn flush(&mut self) {
        let bytes = Bytes::from(std::mem::take(&mut self.text));
        self.bytes(&bytes);
    }

    fn bytes(&mut self, bytes: &Bytes) {
        if bytes.is_empty() {
            return;
        }
        match self.chunk_bytes {
            None => self.out.push(Frame::Bytes(bytes.clone())),
            Some(size) => {
                for start in (0..bytes.len()).step_by(size.max(1)) {
                    let end = bytes.len().min(start + size.max(1));
                    self.out.push(Frame::Bytes(bytes.slice(start..end)));
                    self.out.push(Frame::Pause(Duration::ZERO));
                }
            }
        }
    }

    fn frame(&mut self, frame: Frame) {
        self.flush();
        self.out.push(frame);
    }

    /// Steps that are the same on every wire. Says whether the answer ends here.
    fn common(&mut self, step: &Step) -> bool {
        match step {
            Step::Gate(name) => self.frame(Frame::Gate(name.clone())),
            Step::Pause(pause) => self.frame(Frame::Pause(*pause)),
            Step::Garbage(bytes) => {
                self.flush();
                self.bytes(&Bytes::from(bytes.clone()));
            }
            Step::Stall => self.frame(Frame::Stall),
            Step::Cut => self.frame(Frame::Cut),
            Step::End | Step::Overloaded => self.frame(Frame::End),
            Step::Text(_) | Step::Tokens { .. } | Step::Thinking { .. } | Step::Call { .. } => {}
        }
        matches!(step, Step::Stall | Step::Cut | Step::End | Step::Overloaded)
    }

    /// The deltas of a text step.
    fn deltas(&mut self, step: &Step, mut write: impl FnMut(&mut Self, &str)) {
        match step {
            Step::Text(text) => write(self, text),
            Step::Tokens { count, delay } => {
                let mut token = String::new();
                for at in 0..*count {
                    if !delay.is_zero() {
                        self.frame(Frame::Pause(*delay));
                    }
                    token.clear();
                    let _ = write!(token, "t{at} ");
                    write(self, &token);
                }
            }
            _ => {}
        }
    }
}

fn anthropic(pen: &mut Pen, model: &str, number: u64, script: &Script, usage: Usage, stop: Stop) {
    let plain = usage.input - usage.cache_read - usage.cache_write;
    let start = json!({"type": "message_start", "message": {
        "id": format!("msg_{number}"), "type": "message", "role": "assistant", "model": model, "content": [],
        "stop_reason": null, "stop_sequence": null,
        "usage": {"input_tokens": plain, "cache_read_input_tokens": usage.cache_read,
                  "cache_creation_input_tokens": usage.cache_write, "output_tokens": 1}}});
    pen.named("message_start", &start.to_string());
    pen.named("ping", r#"{"type": "ping"}"#);
    let (mut index, mut text_open) = (0_usize, false);
    for (at, step) in script.steps.iter().enumerate() {
        let is_text = matches!(step, Step::Text(_) | Step::Tokens { .. });
        let is_block = is_text || matches!(step, Step::Thinking { .. } | Step::Call { .. });
        if text_open && is_block && !is_text {
            pen.named("content_block_stop", &format!(r#"{{"type":"content_block_stop","index":{index}}}"#));
            (index, text_open) = (index + 1, false);
        }
        if is_text && !text_open {
            text_open = true;
            pen.named("content_block_start", &format!(
                r#"{{"type":"content_block_start","index":{index},"content_block":{{"type":"text","text":""}}}}"#
            ));
        }
        let delta = |pen: &mut Pen, kind: &str, field: &str, value: &str| {
            pen.named("content_block_delta", &format!(
                r#"{{"type":"content_block_delta","index":{index},"delta":{{"type":"{kind}","{field}":{}}}}}"#,
                quoted(value)
            ));
        };
        pen.deltas(step, |pen, text| delta(pen, "text_delta", "text", text));
        let block = match step {
            Step::Thinking { .. } => {
                r#"{"type":"thinking","thinking":"","signature":"","x_new":{"b":1,  "a":[1.0]}}"#.to_owned()
            }
            Step::Call { name, .. } => {
                json!({"type": "tool_use", "id": format!("toolu_{number}_{at}"), "name": name, "input": {}})
                    .to_string()
            }
            _ => String::new(),
        };
        if !block.is_empty() {
            pen.named(
                "content_block_start",
                &format!(r#"{{"type":"content_block_start","index":{index},"content_block":{block}}}"#),
            );
            match step {
                Step::Thinking { text, signature } => {
                    delta(pen, "thinking_delta", "thinking", text);
                    delta(pen, "signature_delta", "signature", signature);
                }
                Step::Call { arguments, .. } => {
                    delta(pen, "input_json_delta", "partial_json", "");
                    for piece in pieces(arguments) {
                        delta(pen, "input_json_delta", "partial_json", piece);
                    }
                }
                _ => {}
            }
            pen.named("content_block_stop", &format!(r#"{{"type":"content_block_stop","index":{index}}}"#));
            index += 1;
        }
        if *step == Step::Overloaded {
            pen.named(
                "error",
                r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
            );
        }
        if pen.common(step) {
            return;
        }
    }
    if text_open {
        pen.named("content_block_stop", &format!(r#"{{"type":"content_block_stop","index":{index}}}"#));
    }
    let stop = match stop {
        Stop::End => "end_turn",
        Stop::Calls => "tool_use",
        Stop::MaxTokens => "max_tokens",
    };
    pen.named("message_delta", &format!(
        r#"{{"type":"message_delta","delta":{{"stop_reason":"{stop}","stop_sequence":null}},"usage":{{"output_tokens":{}}}}}"#,
        usage.output
    ));
    pen.named("message_stop", r#"{"type":"message_stop"}"#);
}

fn responses(pen: &mut Pen, model: &str, number: u64, script: &Script, usage: Usage, stop: Stop) {
    let mut sequence = 0_u64;
    let mut event = |pen: &mut Pen, name: &str, fields: &str| {
        pen.named(name, &format!(r#"{{"type":"{name}","sequence_number":{sequence},{fields}}}"#));
        sequence += 1;
    };
    event(
        pen,
        "response.created",
        &format!(
            r#""response":{{"id":"resp_{number}","object":"response","status":"in_progress","model":"{model}","output":[],"usage":null}}"#
        ),
    );
    let mut items: Vec<String> = Vec::new();
    let mut open: Option<String> = None;
    let close = |event: &mut dyn FnMut(&mut Pen, &str, &str),
                 pen: &mut Pen,
                 items: &mut Vec<String>,
                 text: String| {
        // Odd spacing and an unknown field, as a client must not care.
        let item = format!(
            r#"{{"id":"msg_{number}_{0}", "type":"message","status":"completed","role":"assistant","x_new": 1.0,"content":[{{"type":"output_text","annotations":[],"text":{1}}}]}}"#,
            items.len(),
            quoted(&text)
        );
        event(pen, "response.output_item.done", &format!(r#""output_index":{},"item":{item}"#, items.len()));
        items.push(item);
    };
    for (at, step) in script.steps.iter().enumerate() {
        let is_text = matches!(step, Step::Text(_) | Step::Tokens { .. });
        if is_text && open.is_none() {
            event(
                pen,
                "response.output_item.added",
                &format!(
                    r#""output_index":{0},"item":{{"id":"msg_{number}_{0}","type":"message","status":"in_progress","role":"assistant","content":[]}}"#,
                    items.len()
                ),
            );
            open = Some(String::new());
        }
        let place = items.len();
        let mut whole = open.take();
        pen.deltas(step, |pen, text| {
            event(
                pen,
                "response.output_text.delta",
                &format!(
                    r#""item_id":"msg_{number}_{place}","output_index":{place},"content_index":0,"delta":{}"#,
                    quoted(text)
                ),
            );
            if let Some(whole) = &mut whole {
                whole.push_str(text);
            }
        });
        open = whole;
        if matches!(step, Step::Thinking { .. } | Step::Call { .. })
            && let Some(text) = open.take()
        {
            close(&mut event, pen, &mut items, text);
        }
        let place = items.len();
        let item = match step {
            Step::Thinking { text, signature } => Some(format!(
                r#"{{"id":"rs_{number}_{at}","type":"reasoning",  "summary":[{{"type":"summary_text","text":{}}}],"encrypted_content":{}}}"#,
                quoted(text),
                quoted(signature)
            )),
            Step::Call { name, arguments } => {
                for piece in pieces(arguments) {
                    event(
                        pen,
                        "response.function_call_arguments.delta",
                        &format!(
                            r#""item_id":"fc_{number}_{at}","output_index":{place},"delta":{}"#,
                            quoted(piece)
                        ),
                    );
                }
                Some(format!(
                    r#"{{"id":"fc_{number}_{at}","type":"function_call","status":"completed","call_id":"call_{number}_{at}","name":{}, "arguments":{}}}"#,
                    quoted(name),
                    quoted(arguments)
                ))
            }
            _ => None,
        };
        if let Some(item) = item {
            event(pen, "response.output_item.done", &format!(r#""output_index":{place},"item":{item}"#));
            items.push(item);
        }
        if *step == Step::Overloaded {
            event(pen, "error", r#""code":"server_is_overloaded","message":"Overloaded","param":null"#);
        }
        if pen.common(step) {
            return;
        }
    }
    if let Some(text) = open {
        close(&mut event, pen, &mut items, text);
    }
    let usage = json!({
        "input_tokens": usage.input, "output_tokens": usage.output, "total_tokens": usage.input + usage.output,
        "input_tokens_details": {"cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_write},
        "output_tokens_details": {"reasoning_tokens": 0}});
    let (name, status, details) = match stop {
        Stop::MaxTokens => ("response.incomplete", "incomplete", r#"{"reason":"max_output_tokens"}"#),
        Stop::End | Stop::Calls => ("response.completed", "completed", "null"),
    };
    event(
        pen,
        name,
        &format!(
            r#""response":{{"id":"resp_{number}","object":"response","status":"{status}","incomplete_details":{details},"model":"{model}","output":[{}],"usage":{usage}}}"#,
            items.join(",")
        ),
    );
}

fn chat(pen: &mut Pen, model: &str, number: u64, script: &Script, usage: Usage, stop: Stop) {
    let chunk = |pen: &mut Pen, delta: &str, finish: &str| {
        pen.data(&format!(
            r#"{{"id":"chatcmpl-{number}","object":"chat.completion.chunk","model":"{model}","choices":[{{"index":0,"delta":{delta},"finish_reason":{finish}}}]}}"#
        ));
    };
    chunk(pen, r#"{"role":"assistant","content":""}"#, "null");
    let mut signature: Option<&str> = None;
    let mut calls = 0_usize;
    for (at, step) in script.steps.iter().enumerate() {
        pen.deltas(step, |pen, text| chunk(pen, &format!(r#"{{"content":{}}}"#, quoted(text)), "null"));
        match step {
            Step::Thinking { text, signature: proof } => {
                chunk(pen, &format!(r#"{{"reasoning_content":{}}}"#, quoted(text)), "null");
                signature = Some(proof);
            }
            Step::Call { name, arguments } => {
                // As Gemini's endpoint does it: the proof of the reasoning rides on the call.
                let extra = signature.take().map_or(String::new(), |proof| {
                    format!(
                        r#","extra_content":{{"google":{{"thought_signature":{},  "n":1.0}}}}"#,
                        quoted(proof)
                    )
                });
                chunk(
                    pen,
                    &format!(
                        r#"{{"tool_calls":[{{"index":{calls},"id":"call_{number}_{at}","type":"function","function":{{"name":{},"arguments":""}}{extra}}}]}}"#,
                        quoted(name)
                    ),
                    "null",
                );
                for piece in pieces(arguments) {
                    chunk(
                        pen,
                        &format!(
                            r#"{{"tool_calls":[{{"index":{calls},"function":{{"arguments":{}}}}}]}}"#,
                            quoted(piece)
                        ),
                        "null",
                    );
                }
                calls += 1;
            }
            Step::Overloaded => {
                pen.data(r#"{"error":{"code":503,"message":"Overloaded","type":"server_error"}}"#);
            }
            _ => {}
        }
        if pen.common(step) {
            return;
        }
    }
    let stop = match stop {
        Stop::End => r#""stop""#,
        Stop::Calls => r#""tool_calls""#,
        Stop::MaxTokens => r#""length""#,
    };
    chunk(pen, "{}", stop);
    let usage = json!({
        "prompt_tokens": usage.input, "completion_tokens": usage.output, "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read}});
    pen.data(&format!(
        r#"{{"id":"chatcmpl-{number}","object":"chat.completion.chunk","model":"{model}","choices":[],"usage":{usage}}}"#
    ));
    pen.data("[DONE]");
}
