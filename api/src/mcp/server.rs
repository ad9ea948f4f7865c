//! The protocol's methods. Every one finds its caller in the request itself.

use std::{future::Future, sync::Arc, time::Instant};

use http::request::Parts;
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CacheScope, CallToolRequestParams, CallToolResponse, CompleteRequestParams, CompleteResult,
        GetPromptRequestParams, GetPromptResponse, Implementation, ListPromptsResult,
        ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, PaginatedRequestParams,
        ReadResourceRequestParams, ReadResourceResponse, Reference, ServerCapabilities, ServerConfig, Tool,
    },
    service::RequestContext,
};
use serde_json::Value;
use shared::{error::Error, identity::Actor};
use tracing::{Instrument as _, Span};

use super::{problem, prompts, resources, tools::Catalogue};
use crate::state::App;

/// How long a client may keep what only a new version of this server changes.
const UNCHANGING_MS: u64 = 300_000;

const INSTRUCTIONS: &str = "Alfred keeps the user's workspace: notes, tasks, comments, chats and their messages. Items \
    have a short id for people and a uid; either names them. Lists come newest first, one page at a time: pass \
    nextCursor as cursor for the next page. Send if_match with the version you read when somebody else may have \
    changed the item. Archived items are left out of lists unless asked for; deleted ones cannot be changed.";

/// Who calls, put into the request's extensions once the credential was checked.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) app: App,
    pub(super) actor: Actor,
    pub(super) request_id: String,
    pub(super) span: Span,
}

impl Call {
    /// The call of this request.
    fn of(context: &RequestContext<RoleServer>) -> Result<Self, ErrorData> {
        let call = context.extensions.get::<Parts>().and_then(|parts| parts.extensions.get::<Self>());
        call.cloned().ok_or_else(|| {
            problem::data(&Error::internal("a request came past the place that checks its credential"), "")
        })
    }
}

/// The handler of one request; cheap to make.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) catalogue: Arc<Catalogue>,
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_completions()
            .enable_prompts()
            .enable_resources()
            .enable_tools()
            .build();
        let mut info = ServerConfig::new(capabilities).with_instructions(INSTRUCTIONS);
        info.server_info = Implementation::new("alfred", env!("CARGO_PKG_VERSION")).with_title("Alfred");
        info
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.catalogue.find(name).cloned()
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        counted("tools/list", &Call::of(&context)?, async {
            no_cursor(request)?;
            let mut list = ListToolsResult::with_all_items(self.catalogue.described().to_vec());
            list.ttl_ms = Some(UNCHANGING_MS);
            list.cache_scope = Some(CacheScope::Private);
            Ok(list)
        })
        .await
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let call = Call::of(&context)?;
        counted("tools/call", &call, async {
            let arguments = Value::Object(request.arguments.unwrap_or_default());
            let result = self.catalogue.call(&call, &request.name, &arguments, &context.ct).await?;
            Ok(CallToolResponse::Complete(result))
        })
        .await
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let call = Call::of(&context)?;
        let cursor = request.and_then(|request| request.cursor);
        counted("resources/list", &call, resources::list(&call, cursor.as_deref())).await
    }

    async fn list_resource_templates(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        counted("resources/templates/list", &Call::of(&context)?, async {
            no_cursor(request)?;
            let mut list = resources::templates();
            list.ttl_ms = Some(UNCHANGING_MS);
            Ok(list)
        })
        .await
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let call = Call::of(&context)?;
        counted("resources/read", &call, async {
            Ok(ReadResourceResponse::Complete(resources::read(&call, &request.uri).await?))
        })
        .await
    }

    async fn list_prompts(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        counted("prompts/list", &Call::of(&context)?, async {
            no_cursor(request)?;
            let mut list = prompts::list();
            list.ttl_ms = Some(UNCHANGING_MS);
            Ok(list)
        })
        .await
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        counted("prompts/get", &Call::of(&context)?, async {
            Ok(GetPromptResponse::Complete(prompts::get(&request.name, request.arguments.as_ref())?))
        })
        .await
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let call = Call::of(&context)?;
        counted("completion/complete", &call, async {
            let (argument, begun) = (&request.argument.name, &request.argument.value);
            let info = match &request.r#ref {
                Reference::Prompt(prompt) => prompts::complete(&call, &prompt.name, argument, begun).await?,
                Reference::Resource(template) => resources::complete(&call, &template.uri, begun).await?,
                _ => return Err(ErrorData::invalid_params("ref: is of a kind that is not known here", None)),
            };
            Ok(CompleteResult::new(info))
        })
        .await
    }
}

/// A list that is one page has no second one.
fn no_cursor(request: Option<PaginatedRequestParams>) -> Result<(), ErrorData> {
    match request.and_then(|request| request.cursor) {
        None => Ok(()),
        Some(_) => {
            Err(ErrorData::invalid_params("cursor: is not one of this list, which has one page", None))
        }
    }
}

/// Carries a method out under the request's own span, whose task this is not, and counts it.
async fn counted<T>(
    method: &'static str,
    call: &Call,
    work: impl Future<Output = Result<T, ErrorData>>,
) -> Result<T, ErrorData> {
    let begun = Instant::now();
    call.span.record("mcp_method", method);
    let done = work.instrument(call.span.clone()).await;
    let outcome = if done.is_ok() { "ok" } else { "error" };
    metrics::counter!("mcp_requests_total", "method" => method, "outcome" => outcome).increment(1);
    metrics::histogram!("mcp_request_duration_seconds", "method" => method)
        .record(begun.elapsed().as_secs_f64());
    done
}
