//! Asking the model: retries of what may pass, then the next of the chain, and a ledger row for every request sent.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use rand::RngExt;
use shared::{
    Error,
    error::Code,
    events::{EventKind, data},
    ids::ModelCallId,
    model::{
        Model, ModelError, ModelErrorKind, ModelEvent, ModelId, ModelReply, ModelRequest, Provider, Usage,
        price,
    },
    turns::{CallRecord, ModelStep, Settled, Warning},
};

use super::{Attempt, Stop, from_log, on_demand, thrift, tools::marked};

/// A provider that wants to be asked again later than this is passed over.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(30);
/// Tool calls of one reply that are carried out at most.
const MAX_CALLS: usize = 128;
/// Bytes of a call's arguments; more would not fit the event that tells of the call.
const MAX_ARGUMENTS: usize = 60 * 1024;
const MAX_OUTPUT_TOKENS: u32 = 8192;

enum Asked {
    Stop(Stop),
    /// The database was silent for so long that somebody else may hold the turn: its stream was dropped.
    OutOfContact,
    Model(ModelError),
}

impl Attempt {
    /// The next reply, from whichever model of the chain gives one.
    pub(super) async fn next_reply(&mut self, step: i64) -> Result<ModelStep, Stop> {
        let chain = self.engine.models.clone();
        let mut last = None;
        for (index, model) in chain.iter().enumerate() {
            if index > 0 {
                self.warn(
                    "MODEL_FALLBACK",
                    format!("the reply comes from {}, as the model before it failed", model.id().name),
                )
                .await?;
            }
            let request = self.request(model.id());
            match self.ask_patiently(model, &request, step).await {
                Ok(reply) => return Ok(reply),
                Err(Asked::Stop(stop)) => return Err(stop),
                Err(Asked::Model(error)) => last = Some(error),
                // Asked again until there is an answer of another kind.
                Err(Asked::OutOfContact) => {}
            }
        }
        Err(match last {
            Some(error) => from_model(error),
            None => Stop::Fatal(Error::new(Code::ModelUnavailable, "no model is configured")),
        })
    }

    /// What this model is asked, as thriftily as the settings want it.
    fn request(&self, model: &ModelId) -> ModelRequest {
        let thrift = &self.engine.settings.thrift;
        let tools = self.offered();
        let plain = ModelRequest {
            system: self.system(),
            max_output_tokens: MAX_OUTPUT_TOKENS,
            ..ModelRequest::default()
        };
        // The offline model reads results as they were stored, and costs nothing.
        if model.provider == Provider::Offline {
            return ModelRequest { messages: self.messages.clone(), tools, ..plain };
        }
        if !thrift.on {
            return ModelRequest { messages: marked(self.messages.clone()), tools, ..plain };
        }
        let offer = on_demand::offer(tools, &self.messages, thrift.tools_on_demand_above);
        let conversation = format!("{}:{}", self.claimed.actor.tenant, self.claimed.conversation);
        let mut cache_key = shared::cache::hash(&conversation);
        cache_key.truncate(32);
        ModelRequest {
            messages: marked(thrift::sent(&self.messages, self.this_turn, thrift)),
            tools: offer.tools,
            lasting_tools: offer.lasting,
            cache_key: Some(cache_key),
            ..plain
        }
    }

    async fn ask_patiently(
        &mut self,
        model: &Arc<dyn Model>,
        request: &ModelRequest,
        step: i64,
    ) -> Result<ModelStep, Asked> {
        let retries = self.engine.settings.model_retries;
        let mut tried = 0;
        loop {
            match self.ask(model, request, step).await {
                // Not the model's fault: asked again as soon as the database answers.
                Err(Asked::OutOfContact) => {
                    if self.text.len() > self.step_text {
                        self.void_text().await.map_err(Asked::Stop)?;
                    }
                }
                Err(Asked::Model(error)) => {
                    tracing::warn!(
                        turn_id = %self.claimed.lease.turn, request_id = %self.claimed.request_id,
                        provider = model.id().provider.as_str(), kind = ?error.kind, tried, error = %error, "a model call failed"
                    );
                    if self.text.len() > self.step_text {
                        self.void_text().await.map_err(Asked::Stop)?;
                    }
                    let wait = error.retry_after.unwrap_or_else(|| self.backoff(tried));
                    if !error.is_retryable() || tried >= retries || wait > LONGEST_RETRY_AFTER {
                        return Err(Asked::Model(error));
                    }
                    self.interruptible(tokio::time::sleep(wait)).await.map_err(Asked::Stop)?;
                    tried += 1;
                }
                other => return other,
            }
        }
    }

    fn backoff(&self, tried: u32) -> Duration {
        let base = self.engine.settings.model_retry_base.saturating_mul(1 << tried.min(10));
        base.mul_f64(rand::rng().random_range(0.8..1.2)).min(LONGEST_RETRY_AFTER)
    }

    /// One request.
    async fn ask(
        &mut self,
        model: &Arc<dyn Model>,
        request: &ModelRequest,
        step: i64,
    ) -> Result<ModelStep, Asked> {
        let id = model.id().clone();
        // Out of contact for long, somebody else may hold the turn by now: ask nobody on its behalf.
        self.interruptible(self.engine.contact.regained()).await.map_err(Asked::Stop)?;
        let estimate = estimate(request);
        let call = ModelCallId::generate();
        let opened =
            self.engine.turns.open_model_call(&self.claimed, call, id.provider.as_str(), &id.name, estimate);
        match self.interruptible(opened).await {
            Ok(opened) => opened.map_err(|error| Asked::Stop(Stop::Failed(error)))?,
            // The row will be written when the database is back, and nothing was sent.
            Err(stop) => {
                self.settle(model, call, "stopped", Usage::default(), true);
                return Err(Asked::Stop(stop));
            }
        }
        let mut stream = model.stream(request.clone());
        let mut usage = None;
        let interrupted = self.interrupted();
        let engine = Arc::clone(&self.engine);
        let out_of_contact = engine.contact.lost();
        tokio::pin!(interrupted, out_of_contact);
        let ended = loop {
            let next = tokio::select! {
                biased;
                stop = &mut interrupted => break Err(Asked::Stop(stop)),
                () = &mut out_of_contact => break Err(Asked::OutOfContact),
                next = stream.next() => next,
            };
            match next {
                Some(Ok(ModelEvent::Text(text))) => {
                    if let Err(stop) = self.token(&text).await {
                        break Err(Asked::Stop(stop));
                    }
                    shared::resilience::failpoint("mid_tokens").await;
                }
                Some(Ok(ModelEvent::Usage(so_far))) => usage = Some(so_far),
                Some(Ok(ModelEvent::Done(reply))) => break Ok(reply),
                Some(Err(error)) => break Err(Asked::Model(error)),
                None => {
                    break Err(Asked::Model(ModelError::new(
                        ModelErrorKind::Truncated,
                        "the model's stream just ended",
                    )));
                }
            }
        };
        drop(stream);
        let outcome = match &ended {
            Ok(_) => "ok",
            Err(Asked::Stop(_) | Asked::OutOfContact) => "stopped",
            Err(Asked::Model(error)) => error.kind.as_str(),
        };
        let (used, estimated) = match (&ended, usage) {
            (Ok(reply), _) if reply.usage != Usage::default() => (reply.usage, false),
            // A server that counts nothing.
            (Ok(reply), _) => (with_output(Usage { input: estimate, ..Usage::default() }, &reply.text), true),
            (Err(_), Some(seen)) => (with_output(seen, self.message()), true),
            (Err(Asked::Stop(_) | Asked::OutOfContact), None) => {
                (with_output(Usage { input: estimate, ..Usage::default() }, self.message()), true)
            }
            // Refused before it began: nothing was used.
            (Err(Asked::Model(_)), None) if self.message().is_empty() => (Usage::default(), true),
            (Err(Asked::Model(_)), None) => {
                (with_output(Usage { input: estimate, ..Usage::default() }, self.message()), true)
            }
        };
        self.settle(model, call, outcome, used, estimated);
        if matches!(ended, Ok(_) | Err(Asked::Stop(_))) {
            self.model = Some(id.to_string());
        }
        let reply = ended?;
        if used.input * 10 > self.engine.settings.context_budget_tokens * 8 {
            let detail = format!(
                "the last request had {} tokens, over 80 % of the context budget of {}",
                used.input, self.engine.settings.context_budget_tokens
            );
            self.warn("CONTEXT_NEAR_LIMIT", detail).await.map_err(Asked::Stop)?;
        }
        Ok(self.number(step, reply, &id))
    }

    fn settle(
        &mut self,
        model: &Arc<dyn Model>,
        call: ModelCallId,
        outcome: &'static str,
        usage: Usage,
        estimated: bool,
    ) {
        let cost_micros = price::cost_micros(model.id(), &usage);
        crate::metrics::count_tokens(model.id().provider, &usage);
        self.used.input += usage.input;
        self.used.output += usage.output;
        self.spent_micros += cost_micros;
        let turn = self.claimed.lease.turn;
        let settled = Settled { outcome, usage, estimated, cost_micros };
        let settling = self.engine.turns.settle_model_call(&self.claimed, call, settled);
        // Beside the turn: what was used is used, whatever becomes of the turn.
        self.engine.tasks.spawn(async move {
            if let Err(error) = settling.await {
                tracing::error!(turn_id = %turn, error = %error, "a model call was not settled; its row keeps the estimate");
            }
        });
    }

    /// Gives a reply's calls ids of ours, unique within the conversation.
    fn number(&self, step: i64, reply: ModelReply, id: &ModelId) -> ModelStep {
        // Blocks with a call that gets no result are refused when they are replayed.
        let whole = reply.calls.len() <= MAX_CALLS;
        let calls = reply.calls.into_iter().take(MAX_CALLS).enumerate().map(|(index, call)| {
            let (arguments, malformed) = match call.arguments {
                Ok(arguments) if arguments.to_string().len() > MAX_ARGUMENTS => {
                    (None, Some(format!("arguments of more than {MAX_ARGUMENTS} bytes")))
                }
                Ok(arguments) => (Some(arguments), None),
                Err(raw) => (None, Some(raw.chars().take(1000).collect())),
            };
            CallRecord {
                id: format!("call_{}_{step}_{index}", self.claimed.turn_no),
                provider_id: call.id,
                tool: self.tool_of_wire(&call.name),
                arguments,
                malformed,
            }
        });
        ModelStep {
            step,
            calls: calls.collect(),
            text: reply.text,
            stop: reply.stop,
            usage: reply.usage,
            model: id.name.clone(),
            provider: id.provider.as_str().to_owned(),
            blocks: if whole { reply.blocks } else { String::new() },
        }
    }

    pub(super) async fn warn(&mut self, code: &str, detail: String) -> Result<(), Stop> {
        self.log.append(EventKind::Warning, data::warning(code, &detail)).await.map_err(from_log)?;
        self.warnings.push(Warning { code: code.to_owned(), detail });
        Ok(())
    }
}

/// Tokens of a request, by the rule of thumb of four bytes a token.
fn estimate(request: &ModelRequest) -> i64 {
    let system = i64::try_from(request.system.len() / 4).unwrap_or(i64::MAX);
    thrift::tokens(&request.messages).saturating_add(system)
}

/// Usage of a stream that did not end: its output so far is at least the text that came.
fn with_output(mut usage: Usage, text: &str) -> Usage {
    usage.output = usage.output.max(i64::try_from(text.len().div_ceil(4)).unwrap_or(0));
    usage
}

/// What a model's failure is for the turn: mended by another attempt, or not at all.
fn from_model(error: ModelError) -> Stop {
    let code = match error.kind {
        ModelErrorKind::RateLimited => Code::ModelRate,
        ModelErrorKind::Overloaded | ModelErrorKind::Unavailable | ModelErrorKind::Truncated => {
            Code::ModelUnavailable
        }
        ModelErrorKind::Timeout => Code::ModelTimeout,
        ModelErrorKind::Rejected | ModelErrorKind::Unauthorized => Code::ModelRejected,
    };
    let retryable = error.is_retryable();
    let failure = Error::new(code, error.message.clone()).with_source(error);
    if retryable { Stop::Failed(failure) } else { Stop::Fatal(failure) }
}
