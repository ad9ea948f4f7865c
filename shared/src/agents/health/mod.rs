//! Whether agents are well: `GET {endpoint}/health` every minute, with a day's history.

mod store;

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures::{StreamExt as _, stream};
use sqlx::PgPool;

use super::AgentName;
use crate::{
    db::TenantTx,
    error::Result,
    ids::TenantId,
    outbound::{Outbound, Outgoing},
};

/// How long an agent may take to say that it is well.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of its answer that are read.
const LARGEST: usize = 64 * 1024;
/// Agents that are asked at once.
const AT_ONCE: usize = 16;

/// One look at an agent.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Check {
    pub at: DateTime<Utc>,
    /// It answered 2xx in time.
    pub healthy: bool,
    /// The HTTP status, if there was an answer.
    pub status: Option<i64>,
    pub duration_ms: i64,
    /// Why there was none.
    pub error: Option<String>,
}

/// Asks every enabled agent of every tenant, and keeps what they said; answers how many were asked.
///
/// # Errors
/// The database's.
pub async fn check_all(engine: &PgPool, outbound: &Outbound) -> Result<usize> {
    let agents = store::enabled(engine).await?;
    let checks = stream::iter(agents).map(|(tenant, agent, endpoint)| async move {
        let check = check(outbound, &endpoint).await;
        (tenant, agent, check)
    });
    let checks: Vec<(TenantId, AgentName, Check)> = checks.buffer_unordered(AT_ONCE).collect().await;
    store::keep(engine, &checks).await?;
    Ok(checks.len())
}

async fn check(outbound: &Outbound, endpoint: &str) -> Check {
    let begun = Instant::now();
    let at = Utc::now();
    let answered = match format!("{endpoint}/health").parse() {
        Ok(url) => outbound.send(Outgoing::get(&url), LARGEST, PATIENCE).await.map_err(crate::Error::from),
        Err(error) => Err(crate::Error::internal(error)),
    };
    let duration_ms = i64::try_from(begun.elapsed().as_millis()).unwrap_or(i64::MAX);
    match answered {
        Ok(answer) => Check {
            at,
            healthy: answer.status.is_success(),
            status: Some(i64::from(answer.status.as_u16())),
            duration_ms,
            error: None,
        },
        Err(error) => {
            Check { at, healthy: false, status: None, duration_ms, error: Some(error.message.into_owned()) }
        }
    }
}

/// The newest looks at an agent, newest first.
///
/// # Errors
/// The database's.
pub async fn history(tx: &mut TenantTx, agent: &AgentName, most: i64) -> Result<Vec<Check>> {
    store::history(tx, agent, most).await
}
