//! Telling agents: deliveries are rows, written with what they tell of; workers claim them and POST them.
//!
//! Promises: at least once, with an event id that stays the same; in order for one user and one agent, so that the first
//! delivery of each such line is the only one that may be claimed; a dead delivery holds up nobody. An agent that fails is
//! left alone for a while by all workers together (its breaker), which costs its deliveries no retry.
//!
//! Agents that accept batches are told of several users' events, and of several events of one user, in one exchange. Only what was
//! not tried yet goes together: a try that failed is made again alone, so that one event that an agent cannot take holds up
//! nothing but its own line.
//!
//! Invariant: whoever claims a delivery has it for a little longer than the longest exchange; what it settles later than that
//! is dropped, because somebody else may have told the agent again.

mod admin;
mod envelope;
mod exchange;
mod outcome;
mod store;

use std::{collections::HashMap, time::Duration};

use secrecy::SecretString;
use sqlx::PgPool;
use tokio::{
    sync::Notify,
    task::{self, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use uuid::Uuid;

pub use self::{
    admin::{Delivery, Filter, Replayed, Status, get, list, replay, replay_all},
    outcome::Outcome,
};
use self::{exchange::Exchange, store::Most};
use super::AgentName;
use crate::{error::Result, ids::TenantId, outbound::Outbound, vault::Vault};

/// For how much longer than an exchange may take a claimed delivery is one worker's.
const MARGIN: Duration = Duration::from_secs(5);
/// Exchanges that one process has under way at most, and with one agent.
const AT_ONCE: usize = 128;
const AT_ONCE_TO_ONE: usize = 16;
/// Deliveries that go together at most.
const BATCH: usize = 50;
/// For how long a connection waits for the next exchange: shorter than common servers wait before they close it.
const KEPT_OPEN: Duration = Duration::from_secs(1);
/// Exchanges that end before a next claim.
const SEVERAL: usize = 8;
/// While deliveries are under way, others that are due are looked for this often: when nothing tells of any, and when there
/// is a reason, which every sign-in and every delivery that ends may be.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
const LOOK_AGAIN_WITH_REASON: Duration = Duration::from_millis(20);

/// How deliveries are made.
#[derive(Debug, Clone)]
pub struct DeliverySettings {
    /// `MCP_AGENT_NOTIFICATION_ENABLED`: the master switch.
    pub enabled: bool,
    /// `MCP_NOTIFICATION_TIMEOUT`: for the whole exchange.
    pub timeout: Duration,
    /// `MCP_MAX_RETRY_ATTEMPTS`: retries after the first try, of deliveries that fail from now on.
    pub max_retries: i64,
    /// The pause before the first retry; it doubles each time.
    pub retry_base: Duration,
    /// `MCP_CIRCUIT_BREAKER_FAILURE_THRESHOLD`
    pub breaker_threshold: i64,
    /// `MCP_CIRCUIT_BREAKER_RECOVERY_TIMEOUT`
    pub breaker_recovery: Duration,
    /// What tokens for agents are signed with, and who signs them.
    pub token_key: SecretString,
    pub issuer: String,
    /// `DEFAULT_TENANT_ID`: whoever belongs to no other tenant belongs to it.
    pub default_tenant: TenantId,
}

/// Delivers what is due.
#[derive(Clone)]
pub struct Deliverer {
    engine: PgPool,
    vault: Vault,
    outbound: Outbound,
    settings: DeliverySettings,
}

impl Deliverer {
    /// Over the engine's pool: deliveries of all tenants are claimed together.
    #[must_use]
    pub fn new(engine: PgPool, vault: Vault, outbound: &Outbound, settings: DeliverySettings) -> Self {
        Self { engine, vault, outbound: outbound.clone().keeping_connections(KEPT_OPEN), settings }
    }

    /// Delivers until nothing is due; answers how many exchanges there were. Whoever tells it of more meanwhile has it look
    /// soon. When told to stop it claims nothing more, and finishes what is under way.
    ///
    /// Each exchange is a task. Were they only futures of this one, they would stand still while it waits for a connection to
    /// claim with, and one that has just been given a connection would keep it from everybody, this one included.
    ///
    /// # Errors
    /// The database's, when what was under way is finished; what was not settled is claimed again when its lease is over.
    pub async fn run(&self, told: &Notify, stopping: &CancellationToken) -> Result<u64> {
        let mut running = JoinSet::new();
        let mut with: HashMap<task::Id, (TenantId, AgentName)> = HashMap::new();
        let (mut made, mut broken) = (0, None);
        let (mut ended, mut claimed_at) = (0, Instant::now());
        let mut was_told = false;
        loop {
            // A claim looks at all that waits: one for several exchanges, not for each.
            let look_again = if was_told || ended > 0 { LOOK_AGAIN_WITH_REASON } else { LOOK_AGAIN };
            let is_time = running.is_empty() || ended >= SEVERAL || claimed_at.elapsed() >= look_again;
            let claims = self.settings.enabled && !stopping.is_cancelled() && broken.is_none();
            if claims && is_time && running.len() < AT_ONCE {
                (ended, claimed_at, was_told) = (0, Instant::now(), false);
                let claimed = self.claim(AT_ONCE - running.len(), &with).await;
                for exchange in claimed.unwrap_or_else(|error| {
                    broken = Some(error);
                    Vec::new()
                }) {
                    let (agent, deliverer) = (exchange.with(), self.clone());
                    let task = running.spawn(async move { deliverer.tell(exchange).await }.in_current_span());
                    with.insert(task.id(), agent);
                }
            }
            if running.is_empty() {
                return broken.map_or(Ok(made), Err);
            }
            // What is due meanwhile does not wait for an agent that is slow to answer.
            let pause = if is_time { LOOK_AGAIN } else { look_again.saturating_sub(claimed_at.elapsed()) };
            let next = tokio::select! {
                next = running.join_next_with_id() => next,
                () = told.notified(), if !was_told => {
                    was_told = true;
                    continue;
                }
                () = tokio::time::sleep(pause) => continue,
            };
            let Some(next) = next else { continue };
            ended += 1;
            let (id, settled) = match next {
                Ok((id, settled)) => (id, settled),
                Err(panicked) => {
                    tracing::error!(error = &panicked as &dyn std::error::Error, "telling an agent panicked");
                    with.remove(&panicked.id());
                    continue;
                }
            };
            let agent = with.remove(&id);
            match settled {
                Ok(()) => made += 1,
                // Others under way are finished; this one is claimed again when its lease is over.
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(
                        error,
                        agent_name = agent.as_ref().map(|(_, name)| name.as_str()),
                        "what came of a delivery was not written"
                    );
                }
            }
        }
    }

    /// When the next delivery is due, from now; none when nothing waits.
    ///
    /// # Errors
    /// The database's.
    pub async fn next_due(&self) -> Result<Option<Duration>> {
        if !self.settings.enabled {
            return Ok(None);
        }
        store::next_due(&self.engine).await
    }

    /// Gives up deliveries that are a day old.
    ///
    /// # Errors
    /// The database's.
    pub async fn give_up_old(&self) -> Result<u64> {
        store::give_up_old(&self.engine).await
    }

    async fn claim(
        &self,
        most: usize,
        with: &HashMap<task::Id, (TenantId, AgentName)>,
    ) -> Result<Vec<Exchange>> {
        let mut under_way: HashMap<(TenantId, AgentName), usize> = HashMap::new();
        with.values().for_each(|agent| *under_way.entry(agent.clone()).or_default() += 1);
        let lease = self.lease();
        let most = Most { in_all: most, alone: AT_ONCE_TO_ONE, in_batch: BATCH };
        let claimed = loop {
            let default_tenant = self.settings.default_tenant;
            let mut claimed =
                store::claim(&self.engine, Uuid::new_v4(), lease, &most, &under_way, default_tenant).await?;
            let all = claimed.len();
            claimed.retain(|delivery| delivery.belongs);
            // Dead letters alone: those behind them are due by now.
            if all == 0 || !claimed.is_empty() {
                break claimed;
            }
        };
        let mut free = Vec::with_capacity(claimed.len());
        for delivery in claimed {
            // An agent whose breaker was open is asked once, by whoever gets there first.
            let may_go = !delivery.breaker_was_open || store::probe(&self.engine, &delivery, lease).await?;
            if may_go {
                free.push(delivery);
            } else {
                store::put_back(&self.engine, &[delivery]).await?;
            }
        }
        self.exchanges(free).await
    }

    /// For how long what is claimed is ours.
    fn lease(&self) -> Duration {
        self.settings.timeout + MARGIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{outbound::Outbound, testing::TestDb, vault::Vault};

    /// A Fernet key of nobody's.
    const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    /// For longer than a test takes.
    const LONG: Duration = Duration::from_secs(600);

    async fn run(db: &TestDb, statements: &'static str) {
        sqlx::raw_sql(statements).execute(&db.admin()).await.unwrap();
    }

    /// Claims so many at most: their correlations.
    async fn claim(db: &TestDb, in_all: usize, under_way: &[(&str, usize)]) -> Vec<String> {
        let most = Most { in_all, alone: AT_ONCE_TO_ONE, in_batch: BATCH };
        let tenant = sqlx::query_scalar("select min(tenant_id::text)::uuid from agents")
            .fetch_one(&db.engine)
            .await
            .unwrap();
        let under_way =
            under_way.iter().map(|(agent, count)| ((tenant, agent.parse().unwrap()), *count)).collect();
        let claimed =
            store::claim(&db.engine, Uuid::new_v4(), LONG, &most, &under_way, tenant).await.unwrap();
        let mut claimed: Vec<_> = claimed.into_iter().map(|one| one.correlation_id.unwrap()).collect();
        claimed.sort();
        claimed
    }

    /// An agent that is slow has the oldest deliveries, twenty here; one that is quick has two.
    const SLOW_AND_QUICK: &str = "
        insert into tenants (id, name) values ('0198c0de-0000-7000-8000-0000000000aa', 'acme');
        insert into agents (tenant_id, name, endpoint)
        select t.id, n, 'https://agents.example.com' from tenants t, (values ('slow'), ('quick')) a (n) where t.name = 'acme';
        insert into agent_notification_events (tenant_id, event_id, target_agent, user_id, event_type, correlation_id, due_at)
        select a.tenant_id, gen_random_uuid(), a.name, gen_random_uuid(), 'user_logout', a.name || to_char(n, 'FM00'),
               now() - case a.name when 'slow' then interval '1 hour' else interval '1 second' end + n * interval '1 millisecond'
        from agents a, generate_series(1, case a.name when 'slow' then 20 else 2 end) n";

    #[tokio::test]
    async fn agents_take_turns_and_none_has_more_than_its_share() {
        let db = TestDb::new().await;
        run(&db, SLOW_AND_QUICK).await;
        assert_eq!(claim(&db, 3, &[]).await, ["quick01", "slow01", "slow02"], "one each, then the oldest");
        // Of sixteen fifteen are under way.
        assert_eq!(claim(&db, 100, &[("slow", 15)]).await, ["quick02", "slow03"]);
        assert!(claim(&db, 100, &[("slow", 16)]).await.is_empty());
        assert_eq!(claim(&db, 100, &[]).await.len(), 16);
    }

    #[tokio::test]
    async fn many_that_are_slow_leave_places_to_one_that_is_quick() {
        let db = TestDb::new().await;
        run(
            &db,
            "insert into tenants (id, name) values ('0198c0de-0000-7000-8000-0000000000aa', 'acme');
             insert into agents (tenant_id, name, endpoint)
             select t.id, n, 'https://agents.example.com'
             from tenants t, (values ('quick'), ('slow_1'), ('slow_2'), ('slow_3')) a (n) where t.name = 'acme';
             insert into agent_notification_events
               (tenant_id, event_id, target_agent, user_id, event_type, correlation_id, due_at)
             select a.tenant_id, gen_random_uuid(), a.name, gen_random_uuid(), 'user_logout', a.name,
                    now() - case a.name when 'quick' then interval '1 second' else interval '1 hour' end
             from agents a, generate_series(1, 5)",
        )
        .await;
        // The places that became free are fewer than the agents that are slow.
        let under_way = [("slow_1", 6), ("slow_2", 6), ("slow_3", 6)];
        assert_eq!(claim(&db, 2, &under_way).await, ["quick", "quick"]);
    }

    #[tokio::test]
    async fn what_stands_behind_a_sign_out_is_no_business_of_a_tenant_that_was_left() {
        let db = TestDb::new().await;
        run(
            &db,
            "insert into tenants (id, name) values ('0198c0de-0000-7000-8000-0000000000aa', 'acme');
             insert into agents (tenant_id, name, endpoint, accepts_batches)
             select id, 'agent', 'https://agents.example.com', true from tenants where name = 'acme';
             insert into users (id, email) values ('0198c0de-0000-7000-8000-000000000001', 'gone@example.com');
             select user_event(t.id, u.id, kind, '{}', kind)
             from tenants t, users u, (values (1, 'user_logout'), (2, 'user_login')) kinds (n, kind) where t.name = 'acme'
             order by n",
        )
        .await;
        let settings = DeliverySettings {
            enabled: true,
            timeout: LONG,
            max_retries: 3,
            retry_base: LONG,
            breaker_threshold: 5,
            breaker_recovery: LONG,
            token_key: "key".into(),
            issuer: "https://alfred.example.com".to_owned(),
            default_tenant: TenantId(Uuid::nil()),
        };
        let vault = Vault::new(&[KEY.into()]).unwrap();
        let deliverer = Deliverer::new(db.engine.clone(), vault, &Outbound::new(&[]), settings);
        let told = deliverer.claim(10, &HashMap::new()).await.unwrap();
        let told: Vec<_> =
            told.iter().flat_map(|one| &one.deliveries).map(|one| one.event_type.as_str()).collect();
        assert_eq!(told, ["user_logout"]);
        run(
            &db,
            "update agent_notification_events set status = 'delivered' where event_type = 'user_logout'",
        )
        .await;
        assert!(deliverer.claim(10, &HashMap::new()).await.unwrap().is_empty());
        let left: String =
            sqlx::query_scalar("select error_message from agent_notification_events where status = 'failed'")
                .fetch_one(&db.admin())
                .await
                .unwrap();
        assert_eq!(left, "the user left the tenant");
    }

    #[tokio::test]
    async fn only_active_tenants_are_told_and_only_of_those_who_belong_there() {
        let db = TestDb::new().await;
        let admin = db.admin();
        sqlx::raw_sql(
            "insert into tenants (id, name) values ('0198c0de-0000-7000-8000-0000000000aa', 'on'),
                                                   ('0198c0de-0000-7000-8000-0000000000bb', 'off'),
                                                   ('0198c0de-0000-7000-8000-0000000000dd', 'default');
             insert into agents (tenant_id, name, endpoint) select id, 'agent', 'https://agents.example.com' from tenants;
             insert into users (id) values ('0198c0de-0000-7000-8000-000000000001'), ('0198c0de-0000-7000-8000-000000000002');
             insert into memberships (tenant_id, user_id, role)
             select t.id, u.id, 'member' from tenants t, users u where t.name <> 'default' and u.id::text like '%1';
             select user_event(t.id, u.id, kind, '{}', t.name || right(u.id::text, 1) || kind)
             from tenants t, users u, (values ('user_login'), ('user_logout')) kinds (kind)
             order by kind;
             update tenants set state = 'suspended' where name = 'off'",
        )
        .execute(&admin)
        .await
        .unwrap();
        let default = TenantId("0198c0de-0000-7000-8000-0000000000dd".parse().unwrap());
        let claim = async || {
            let most = Most { in_all: 100, alone: 100, in_batch: 100 };
            let time = Duration::from_secs(10);
            let claimed = store::claim(&db.engine, Uuid::new_v4(), time, &most, &HashMap::new(), default)
                .await
                .unwrap();
            let mut claimed: Vec<_> =
                claimed.into_iter().map(|one| (one.correlation_id.unwrap(), one.belongs)).collect();
            claimed.sort();
            claimed
        };
        let found = |name: &str, belongs: bool| (name.to_owned(), belongs);
        // One is a member of both tenants, and so no business of the default one's; two belongs to none.
        assert_eq!(
            claim().await,
            [
                found("default1user_login", false),
                found("default2user_login", true),
                found("on1user_login", true),
                found("on2user_login", false)
            ]
        );
        // Behind the dead letters: an id alone.
        assert_eq!(claim().await, [found("default1user_logout", true), found("on2user_logout", true)]);
        assert!(claim().await.is_empty());
        let dead: Vec<String> = sqlx::query_scalar(
            "select correlation_id || ': ' || error_message from agent_notification_events
             where status = 'failed' and processed_at is not null and lease is null order by 1",
        )
        .fetch_all(&admin)
        .await
        .unwrap();
        let left = "the user left the tenant";
        assert_eq!(dead, [format!("default1user_login: {left}"), format!("on2user_login: {left}")]);
        sqlx::query("update agent_notification_events set status = 'delivered' where tenant_id <> $1")
            .bind(Uuid::from_u128(0x0198_c0de_0000_7000_8000_0000_0000_00bb))
            .execute(&admin)
            .await
            .unwrap();
        assert_eq!(store::next_due(&db.engine).await.unwrap(), None, "a suspended tenant's wait");
        sqlx::query("update tenants set state = 'active'").execute(&admin).await.unwrap();
        assert!(store::next_due(&db.engine).await.unwrap().is_some());
    }
}
