//! The breaker of an agent, as admins see and set it. All workers share it: it is a row.

mod store;

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::json;

use super::AgentName;
use crate::{
    db::TenantTx,
    error::Result,
    tenancy::{
        AdminActor,
        audit::{self, Entry},
    },
};

/// How a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Deliveries are made.
    Closed,
    /// The agent is left alone.
    Open,
    /// Its time is over: one delivery finds out how the agent is.
    HalfOpen,
}

/// A breaker.
#[derive(Debug, Clone, Default, sqlx::FromRow)]
pub struct AgentBreaker {
    /// In a row.
    pub failures: i64,
    pub open_until: Option<DateTime<Utc>>,
    pub updated_at: Option<DateTime<Utc>>,
    /// Whether the database's clock says that the agent is left alone.
    is_open: bool,
    /// Whether breakers are heeded for this agent.
    pub is_heeded: bool,
}

impl AgentBreaker {
    /// How it stands.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        match (self.is_open, self.open_until) {
            (true, _) => BreakerState::Open,
            (false, Some(_)) => BreakerState::HalfOpen,
            (false, None) => BreakerState::Closed,
        }
    }
}

/// The breaker of an agent of the tenant.
///
/// # Errors
/// 404; the database's.
pub async fn get(tx: &mut TenantTx, admin: &AdminActor, agent: &AgentName) -> Result<AgentBreaker> {
    super::get(tx, admin, agent).await?;
    store::get(tx, agent).await
}

/// Closes it, as if the agent had never failed. The caller has deliveries looked for after the commit.
///
/// # Errors
/// 404; the database's.
pub async fn reset(tx: &mut TenantTx, admin: &AdminActor, agent: &AgentName) -> Result<AgentBreaker> {
    super::get(tx, admin, agent).await?;
    store::reset(tx, agent).await?;
    audit::record(tx, admin, Entry::new("agent_breaker.reset", agent.as_str())).await?;
    store::get(tx, agent).await
}

/// Has the agent left alone for a time.
///
/// # Errors
/// 404; the database's.
pub async fn open(
    tx: &mut TenantTx,
    admin: &AdminActor,
    agent: &AgentName,
    time: Duration,
) -> Result<AgentBreaker> {
    super::get(tx, admin, agent).await?;
    store::open(tx, agent, time).await?;
    let entry = Entry::new("agent_breaker.opened", agent.as_str()).with(json!({ "seconds": time.as_secs() }));
    audit::record(tx, admin, entry).await?;
    store::get(tx, agent).await
}
