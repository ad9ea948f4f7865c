//! What every handler can reach.

use std::{ops::Deref, sync::Arc};

use shared::{
    agents::{contexts::ContextCache, side::AgentSide},
    bell::{Bell, Ring},
    config::Config,
    connections::Connections,
    db::TenantDb,
    events::Hub,
    mcp::authorization::AuthorizationServer,
    model::embeddings::Embedder,
    outbound::Outbound,
    queues::Queues,
    remote::Gateway,
    sessions::LastAccessed,
    tenancy::policies::KnownPolicies,
    tools::ToolDef,
    turns::Turns,
    vault::Vault,
    workspace::changes::ChangeHub,
};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::{auth::Callers, limits::AgentLimits, mcp, metrics::Metrics};

/// The process's one of everything; cheap to clone.
#[derive(Clone)]
pub(crate) struct App(Arc<Parts>);

/// The parts of an [`App`].
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) tenants: TenantDb,
    pub(crate) engine: PgPool,
    pub(crate) bell: Bell,
    pub(crate) turns: Turns,
    pub(crate) hub: Hub,
    pub(crate) changes: ChangeHub,
    /// Where agents come in.
    pub(crate) agents: AgentSide,
    pub(crate) agent_limits: AgentLimits,
    /// What is known of people.
    pub(crate) contexts: ContextCache,
    pub(crate) last_accessed: LastAccessed,
    /// What models can call; every worker has the same.
    pub(crate) tools: Vec<ToolDef>,
    /// Other people's servers.
    pub(crate) gateway: Gateway,
    pub(crate) callers: Callers,
    /// Which tools may run, for callers that come often.
    pub(crate) policies: KnownPolicies,
    pub(crate) mcp: mcp::Endpoint,
    /// Says what queries mean; none where no model of embeddings is set up.
    pub(crate) embedder: Option<Embedder>,
    /// Lets programs in; none where an outside issuer does.
    pub(crate) oauth: Option<AuthorizationServer>,
    /// People's accounts at other services.
    pub(crate) connections: Connections,
    /// Asks addresses that others named.
    pub(crate) outbound: Outbound,
    /// Seals secrets at rest.
    pub(crate) vault: Vault,
    /// The queues as admins see them.
    pub(crate) queues: Queues,
    pub(crate) metrics: Metrics,
    /// Cancelled when the process begins to stop: streams end and readiness is gone.
    pub(crate) draining: CancellationToken,
}

impl App {
    /// Has agents told, after the commit of something that they want to know.
    pub(crate) fn tell_agents(&self) {
        self.bell.ring(Ring::Deliveries);
    }

    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Deref for App {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0
    }
}
