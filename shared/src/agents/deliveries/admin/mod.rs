//! Deliveries as admins see them: what became of each, and telling again what nobody took.

mod store;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    agents::AgentName,
    db::TenantTx,
    error::{Error, Result},
    ids::UserId,
    tenancy::{
        AdminActor,
        audit::{self, Entry},
    },
};

/// Deliveries that one replay by filter changes at most.
const MOST_REPLAYED: i64 = 10_000;

/// How a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Not tried yet.
    Pending,
    /// The agent has it.
    Delivered,
    /// To be tried again.
    Retry,
    /// A dead letter.
    Failed,
}

impl Status {
    /// The word of the table.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Retry => "retry",
            Self::Failed => "failed",
        }
    }
}

/// A delivery.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Delivery {
    pub id: Uuid,
    pub event_id: Uuid,
    pub target_agent: AgentName,
    pub user_id: UserId,
    pub event_type: String,
    pub payload: Value,
    pub status: String,
    pub error_message: Option<String>,
    pub retry_count: i64,
    pub max_retries: i64,
    pub correlation_id: Option<String>,
    pub created_at: DateTime<Utc>,
    pub processed_at: Option<DateTime<Utc>>,
    /// When it may be tried next.
    pub due_at: DateTime<Utc>,
    pub response_status: Option<i64>,
    /// The beginning of what the agent last answered.
    pub response_body: Option<String>,
    pub duration_ms: Option<i64>,
    /// When the agent said that it has dealt with it.
    pub acknowledged_at: Option<DateTime<Utc>>,
}

/// Which deliveries; what is none does not matter.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub agent: Option<AgentName>,
    pub status: Option<Status>,
    pub user: Option<UserId>,
    /// Written at this moment or later.
    pub since: Option<DateTime<Utc>>,
    /// Written before this moment.
    pub until: Option<DateTime<Utc>>,
}

/// What a replay by filter came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replayed {
    /// Dead letters that match.
    pub matched: i64,
    /// Of them, those that will be delivered again now.
    pub replayed: i64,
}

/// A page of the tenant's deliveries, newest first, after the one that the cursor names.
///
/// # Errors
/// The database's.
pub async fn list(
    tx: &mut TenantTx,
    _: &AdminActor,
    filter: &Filter,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Delivery>> {
    store::list(tx, filter, before, limit).await
}

/// One delivery.
///
/// # Errors
/// 404; the database's.
pub async fn get(tx: &mut TenantTx, _: &AdminActor, id: Uuid) -> Result<Delivery> {
    store::one(tx, id).await?.ok_or_else(no_such_delivery)
}

/// Has a dead letter delivered again, with all its retries. The event's id stays, so that an agent that has seen it knows.
///
/// # Errors
/// 404; 409 for a delivery that is not dead, or whose agent is gone; the database's.
pub async fn replay(tx: &mut TenantTx, admin: &AdminActor, id: Uuid) -> Result<Delivery> {
    let delivery = get(tx, admin, id).await?;
    if !store::replay(tx, id).await? {
        return Err(Error::conflict(format!(
            "only dead letters of agents that are there are replayed; this one is {}",
            delivery.status
        )));
    }
    audit::record(tx, admin, Entry::new("delivery.replayed", &id.to_string())).await?;
    get(tx, admin, id).await
}

/// Has dead letters delivered again, in their order; with `dry_run` only counts them.
///
/// # Errors
/// The database's.
pub async fn replay_all(
    tx: &mut TenantTx,
    admin: &AdminActor,
    filter: &Filter,
    dry_run: bool,
) -> Result<Replayed> {
    let matched = store::count_dead(tx, filter).await?;
    if dry_run || matched == 0 {
        return Ok(Replayed { matched, replayed: 0 });
    }
    let replayed = store::replay_all(tx, filter, MOST_REPLAYED).await?;
    let target = filter.agent.as_ref().map_or("", AgentName::as_str);
    let entry = Entry::new("deliveries.replayed", target).with(json!({ "replayed": replayed }));
    audit::record(tx, admin, entry).await?;
    Ok(Replayed { matched, replayed })
}

fn no_such_delivery() -> Error {
    Error::not_found("the tenant has no such delivery")
}
