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
    outbound::{Outbound, Outgoing},
};

/// How long an agent may take to say that it is well.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of its answer that are read.
const LARGEST: usize = 64 * 1024;
/// Agents that are asked at once.
const AT_ONCE: usize = 16;
/// For how long a round begins to ask: it ends within its minute, so that rounds never pile up, nor what stands behind them.
const ROUND: Duration = Duration::from_secs(40);

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

/// Asks every enabled agent of every tenant that is active, as many as a round has time for, and keeps what they said as they say
/// it; answers how many were asked. Those that were not asked are the next round's first.
///
/// # Errors
/// The database's.
pub async fn check_all(engine: &PgPool, outbound: &Outbound) -> Result<usize> {
    let agents = store::enabled(engine).await?;
    let in_time = stream::iter(agents).take_until(tokio::time::sleep(ROUND));
    let checks = in_time.map(|(tenant, agent, endpoint)| async move {
        let check = check(outbound, &endpoint).await;
        (tenant, agent, check)
    });
    let mut checks = std::pin::pin!(checks.buffer_unordered(AT_ONCE).chunks(AT_ONCE));
    let mut asked = 0;
    while let Some(some) = checks.next().await {
        store::keep(engine, &some).await?;
        asked += some.len();
    }
    Ok(asked)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestDb;

    #[tokio::test]
    async fn agents_of_active_tenants_are_asked_first_those_that_waited_longest() {
        let db = TestDb::new().await;
        let admin = db.admin();
        sqlx::raw_sql(
            "insert into tenants (id, name, state) values ('0198c0de-0000-7000-8000-0000000000aa', 'on', 'active'),
                                                          ('0198c0de-0000-7000-8000-0000000000bb', 'off', 'suspended');
             insert into agents (tenant_id, name, endpoint, enabled)
             select t.id, 'agent_' || n, 'https://127.0.0.1:9', n <= 40 from tenants t, generate_series(1, 41) n;
             insert into agent_health (tenant_id, agent, healthy, duration_ms, at)
             select tenant_id, name, true, 1, now() - interval '25 hours' * (name = 'agent_7')::int
             from agents where name <> 'agent_9'",
        )
        .execute(&admin)
        .await
        .unwrap();
        let first: Vec<_> = store::enabled(&db.engine).await.unwrap().into_iter().take(2).collect();
        assert_eq!(
            first.iter().map(|(_, name, _)| name.as_str()).collect::<Vec<_>>(),
            ["agent_9", "agent_7"]
        );
        // More than one chunk; nothing inside is reached.
        assert_eq!(check_all(&db.engine, &Outbound::new(&[])).await.unwrap(), 40);
        let count =
            async |query: &'static str| -> i64 { sqlx::query_scalar(query).fetch_one(&admin).await.unwrap() };
        assert_eq!(count("select count(*) from agent_health where not healthy").await, 40);
        assert_eq!(count("select count(*) from agent_health where at < now() - interval '1 day'").await, 0);
    }
}
