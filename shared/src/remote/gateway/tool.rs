//! One tool of a remote server, and calling it: a limit on calls at once, a breaker, one retry of what may be made again,
//! and word to the server when nobody waits for the answer any more.

use std::{
    pin::pin,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use futures::{FutureExt as _, StreamExt as _, future::BoxFuture};
use rand::RngExt as _;
use rmcp::{
    model::{
        CallToolRequest, CallToolRequestParams, CancelledNotification, CancelledNotificationParam,
        ClientRequest, RequestId, RequestMetaObject, ServerResult,
    },
    service::{Peer, PeerRequestOptions, RoleClient},
};
use serde_json::Value;

use super::{Connection, Inner, failure::Failure, listing, listing_key, result, wire::SentOn};
use crate::{
    connections::{self, Credential},
    error::{Code, Error, Result},
    remote::registry::Server,
    tools::{Effect, OutsideCall, OutsideTool, ToolOutput, Warning},
};

/// Where our idempotency key stands in a call's `_meta`.
const IDEMPOTENCY_KEY: &str = "alfred/idempotencyKey";
/// How long a call may take although the server keeps reporting progress.
const LONGEST_CALL: Duration = Duration::from_secs(300);

/// A tool of a remote server.
pub struct RemoteTool {
    pub(super) gateway: Weak<Inner>,
    /// Whose it is.
    pub server: Arc<Server>,
    /// How it is offered: `server.tool`, or its alias.
    pub name: String,
    /// The server's own name of it.
    pub own_name: String,
    /// What calling it does.
    pub effect: Effect,
    /// Some of its arguments go into headers as well.
    pub(super) has_headers: bool,
    /// The fingerprint of what was approved of it.
    pub version: String,
}

impl OutsideTool for RemoteTool {
    fn call<'a>(&'a self, call: OutsideCall<'a>) -> BoxFuture<'a, Result<ToolOutput>> {
        async move {
            let gone = || Error::new(Code::McpUnavailable, "the process is stopping");
            let gateway = self.gateway.upgrade().ok_or_else(gone)?;
            match self.ask_server(&gateway, call).await {
                // Told to the person as well, who alone can mend it.
                Err(error) if error.code == Code::OauthRefresh => {
                    let detail = if connections::wants_sign_in(&error) {
                        sign_in_again(self.server.name())
                    } else {
                        error.message.clone().into_owned()
                    };
                    let warning = Some(Warning { code: error.code.as_str().to_owned(), detail });
                    Ok(ToolOutput { warning, ..ToolOutput::error(error.message) })
                }
                outcome => outcome,
            }
        }
        .boxed()
    }
}

impl RemoteTool {
    /// Calls the server.
    async fn ask_server(&self, gateway: &Arc<Inner>, call: OutsideCall<'_>) -> Result<ToolOutput> {
        let begun = Instant::now();
        let mut attempts = 0;
        let outcome = self.ask_patiently(gateway, call, &mut attempts).await;
        let name = self.server.name();
        let counted = self.server.counted_as();
        let mcp_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let said = match &outcome {
            Ok(output) if output.is_error => "tool_error",
            Ok(_) => "ok",
            Err(error) => error.code.as_str(),
        };
        metrics::counter!("mcp_calls_total", "server" => counted.clone(), "outcome" => said).increment(1);
        metrics::histogram!("mcp_call_duration_seconds", "server" => counted)
            .record(begun.elapsed().as_secs_f64());
        tracing::info!(
            server = name, tool = %self.name, request_id = call.request_id, turn_id = %call.turn, tenant_id = %call.actor.tenant,
            user_id = %call.actor.user, mcp_ms, mcp_attempts = attempts, outcome = said, "a remote tool was called"
        );
        outcome
    }

    async fn ask_patiently(
        &self,
        gateway: &Arc<Inner>,
        call: OutsideCall<'_>,
        attempts: &mut u32,
    ) -> Result<ToolOutput> {
        let name = self.server.name();
        let gate = gateway.gate(&self.server, call.actor.tenant);
        let mut credential = self.credential(gateway, call).await?;
        let (mut may_retry, mut may_renew) = (self.effect.may_run_again(), credential.is_some());
        loop {
            let Some(leave) = gate.leave() else {
                let sentence =
                    format!("the server {name} has failed several times and is left alone for a while");
                return Err(Error::new(Code::McpUnavailable, sentence));
            };
            let waited = tokio::time::timeout(gateway.settings.read_time, gate.permits.acquire()).await;
            let Ok(Ok(permit)) = waited else {
                drop(leave);
                let sentence = format!("the server {name} is busy with other calls of ours");
                return Err(Error::new(Code::McpUnavailable, sentence));
            };
            *attempts += 1;
            let outcome = self.once(gateway, call, credential.as_ref()).await;
            drop(permit);
            let failure = match outcome {
                Ok(output) => {
                    leave.answered();
                    gate.report();
                    return Ok(output);
                }
                Err(failure) => failure,
            };
            if failure.is_outage() {
                leave.failed()
            } else {
                leave.answered()
            }
            gate.report();
            tracing::warn!(server = name, tool = %self.name, request_id = call.request_id, failure = ?failure, "a call of a remote tool failed");
            // The server did nothing, so this is no second call, whatever the tool does.
            if let (Failure::Unauthorized, true, Some(refused)) = (&failure, may_renew, &credential) {
                may_renew = false;
                match gateway
                    .credentials
                    .refused(call.actor, Some(call.session), &self.server, refused)
                    .await?
                {
                    Connection::Good(newer) => {
                        credential = Some(newer);
                        continue;
                    }
                    Connection::None | Connection::SignInAgain => return Err(sign_in(name)),
                }
            }
            // Not even a new token is good there: another authorization server may give them out by now.
            if let (Failure::Unauthorized, Some(_)) = (&failure, &credential) {
                return Err(sign_in(name));
            }
            if !(may_retry && failure.may_pass()) {
                return Err(failure.into_error(name));
            }
            may_retry = false;
            let pause = gateway.settings.retry_pause.mul_f64(rand::rng().random_range(0.5..1.5));
            tokio::time::sleep(pause).await;
        }
    }

    async fn credential(&self, gateway: &Inner, call: OutsideCall<'_>) -> Result<Option<Credential>> {
        if !self.server.definition.wants_connection() {
            return Ok(None);
        }
        match gateway.credentials.credential(call.actor, Some(call.session), &self.server).await? {
            Connection::Good(credential) => Ok(Some(credential)),
            Connection::None | Connection::SignInAgain => Err(sign_in(self.server.name())),
        }
    }

    /// One call.
    async fn once(
        &self,
        gateway: &Arc<Inner>,
        call: OutsideCall<'_>,
        credential: Option<&Credential>,
    ) -> Result<ToolOutput, Failure> {
        let (key, session) = gateway.session(&self.server, call.actor, credential).await?;
        // Somebody else of the tenant may have listed the tools, or this person in a session of before.
        if self.has_headers
            && !session.has_listed()
            && let Err(failure) = listing::fetch(&session, gateway.settings.read_time).await
        {
            gateway.sessions.forget(&key, &session).await;
            return Err(failure);
        }
        let mut params = CallToolRequestParams::new(self.own_name.clone());
        params.arguments = match call.arguments {
            Value::Object(arguments) => Some(arguments.clone()),
            _ => None,
        };
        let mut request = CallToolRequest::new(params);
        request.extensions.insert(SentOn::of(call.request_id));
        let mut meta = RequestMetaObject::new();
        if self.effect != Effect::Read {
            meta.0.insert(IDEMPOTENCY_KEY.to_owned(), call.idempotency_key.into());
        }
        let options = PeerRequestOptions::with_timeout(gateway.settings.read_time)
            .reset_timeout_on_progress()
            .with_max_total_timeout(LONGEST_CALL)
            .with_meta(meta);
        let peer = session.peer();
        let answered = async {
            let handle =
                peer.send_cancellable_request(ClientRequest::CallToolRequest(request), options).await?;
            let mut waiting = Waiting { peer, id: Some(handle.id.clone()) };
            let mut told = session.progress(handle.progress_token.clone()).await;
            let mut answering = pin!(handle.await_response());
            let answered = loop {
                tokio::select! {
                    biased;
                    answered = &mut answering => break answered,
                    Some(how_far) = told.next() => {
                        call.progress.send_replace(result::sentence(&self.name, &how_far));
                    }
                }
            };
            waiting.id = None;
            answered
        };
        let answered = match answered.await.map_err(Failure::from) {
            Ok(ServerResult::CallToolResult(answer))
                if credential.is_some() && result::says_unauthorized(&answer) =>
            {
                Err(Failure::Unauthorized)
            }
            other => other,
        };
        match answered {
            Ok(ServerResult::CallToolResult(answer)) => Ok(result::flattened(&answer)),
            Ok(ServerResult::InputRequiredResult(_)) => {
                Ok(ToolOutput::error("the server wants to ask the person something, which it cannot do here"))
            }
            Ok(_) => Err(Failure::Unavailable("the answer is none of a tool".to_owned())),
            Err(failure) => {
                if failure.is_outage() || matches!(failure, Failure::Unauthorized) {
                    gateway.sessions.forget(&key, &session).await;
                    // With the session went whoever would have told us that the tools changed.
                    gateway.listings.forget(&listing_key(&self.server, call.actor, credential));
                }
                Err(failure)
            }
        }
    }
}

fn sign_in(server: &str) -> Error {
    let sentence = format!(
        "the person has to connect {server} (again) at /connect/{server} before its tools can be used"
    );
    Error::new(Code::OauthRefresh, sentence).with_detail("connectUrl", format!("/connect/{server}"))
}

/// What a person is told who has to sign in again.
#[must_use]
pub fn sign_in_again(server: &str) -> String {
    format!("{server} wants you to sign in again at /connect/{server}")
}

/// Somebody waits for the answer. When they give up, the server is told.
struct Waiting<'a> {
    peer: &'a Peer<RoleClient>,
    id: Option<RequestId>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        let reason = "nobody waits for the answer any more".to_owned();
        let params = CancelledNotificationParam::new(Some(id), Some(reason));
        let peer = self.peer.clone();
        tokio::spawn(async move {
            if let Err(error) = peer.send_notification(CancelledNotification::new(params).into()).await {
                tracing::debug!(error = %error, "an MCP server was not told that a call was given up");
            }
        });
    }
}
