//! The worker: claims turns and runs them, works on the queues, sweeps up after processes that died.
//!
//! [`start`] runs one in this process; the binary is a few lines around it.

mod engine;
mod jobs;
mod metrics;
mod queues;
mod schedule;
pub mod solo;
mod supervisor;
mod turn;
mod wake;

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use secrecy::{ExposeSecret, SecretString};
use shared::{
    agents::{
        configured,
        deliveries::{Deliverer, DeliverySettings},
    },
    bell::{Bell, Channel, Heard, Ring},
    cache::ToolCache,
    config::Config,
    connections::{self, Connections},
    counters::Counters,
    db::{self, DbRole, TenantDb},
    events::EventLog,
    model::{self, embeddings::Embedder},
    outbound::Outbound,
    redis_stream,
    remote::{Gateway, GatewaySettings, Registry},
    sessions::{Sessions, TokenKeys},
    switches::Switches,
    tenancy::secrets::{Folder, SecretStore},
    tools::ToolDef,
    turns::{TurnSettings, Turns},
    vault::Vault,
};
use sqlx::postgres::PgConnectOptions;
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    engine::{Engine, Settings},
    jobs::{Upkeep, embeddings::Embedding},
    queues::Handling,
    supervisor::{Role, Supervisor},
};

/// Makes tools over the process's cache.
pub type ToolsOverCache = Box<dyn FnOnce(&ToolCache) -> Vec<ToolDef> + Send>;

/// What a test or another program adds to a worker.
#[derive(Default)]
pub struct Extras {
    /// Tools beside the workspace's.
    pub tools: Vec<ToolDef>,
    /// The same, for tools that want the process's cache.
    pub cached_tools: Option<ToolsOverCache>,
    /// Run one turn that killed processes before, then end.
    pub solo: bool,
}

/// A worker that runs in this process.
pub struct Running {
    stopping: CancellationToken,
    killed: CancellationToken,
    hasten: CancellationToken,
    done: JoinHandle<()>,
}

impl Running {
    /// Stops claiming, lets turns finish for the drain's time, hands over the rest.
    pub async fn stop(self) {
        self.stopping.cancel();
        if self.done.await.is_err() {
            tracing::error!("the worker did not stop in an orderly way");
        }
        self.killed.cancel();
    }

    /// Drops everything without a word, as the death of the process would.
    pub fn kill(self) {
        self.killed.cancel();
        self.done.abort();
    }

    /// Waits until the worker has ended by itself; a solo one does.
    pub async fn ended(&mut self) {
        let _ = (&mut self.done).await;
    }

    /// Stops at once, handing over what runs.
    pub async fn hand_over(self) {
        self.hasten.cancel();
        self.stop().await;
    }
}

/// Starts a worker.
///
/// # Errors
/// A configuration that does not fit together, or a database that does not answer.
pub async fn start(config: Config, extras: Extras) -> anyhow::Result<Running> {
    let app = options(&config.db_url, DbRole::App).context("DB_URL")?;
    let engine_options = options(&config.db_engine_url, DbRole::Engine).context("DB_ENGINE_URL")?;
    let listen = options(&config.db_listen_url, DbRole::Engine).context("DB_LISTEN_URL")?;
    let engine_pool = db::pool(engine_options.clone(), config.db_pool_max);
    let counters = Arc::new(Counters::start(db::relaxed_pool(engine_options.clone())));
    let app_pool = db::pool(app, config.db_pool_max);
    let mut channels =
        vec![Channel::Work, Channel::Cancel, Channel::Cache, Channel::Deliveries, Channel::Switches];
    if config.embeddings.is_some() && !extras.solo {
        channels.push(Channel::Changes);
    }
    let bell = Bell::start(listen, &engine_pool, &channels);
    let rung = bell.clone();
    let tenants =
        TenantDb::new(app_pool.clone(), counters).announcing(move |tenant| rung.ring(Ring::Changes(tenant)));
    let last_rings = bell.clone();
    let cache_tenants = tenants.clone();
    let log = EventLog::start(engine_pool.clone(), bell.clone());
    let sessions =
        Sessions::new(tenants.clone(), TokenKeys::new(&config.fernet_keys)?, config.session_idle_days);
    let vault = Vault::new(&config.fernet_keys)?;
    let registry = Registry::new(tenants.clone(), vault.clone(), &config.remote.servers)?;
    let connections = Connections::new(connections::Parts {
        bell: bell.clone(),
        tenants: tenants.clone(),
        vault: vault.clone(),
        outbound: Outbound::new(&config.outbound_allow),
        config: config.connections.clone(),
        public_url: config.public_url.as_str().trim_end_matches('/').to_owned(),
        servers: Some(Arc::new(registry.clone())),
        forget: None,
    });
    let items = tenants.clone();
    let turns = Turns::new(
        tenants,
        engine_pool.clone(),
        bell.clone(),
        None,
        sessions,
        TurnSettings {
            max_attempts: config.turn_max_attempts,
            lease: config.turn_lease,
            retry_base: config.turn_retry_base,
            approval_timeout: config.approval_timeout,
        },
    );
    let http = model::http::client(|builder| builder).context("the HTTP client for models")?;
    let models = model::by_name(&config.model, &http)?;
    let (stopping, killed, hasten) =
        (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
    let cache =
        ToolCache::start(config.cache, cache_tenants, engine_pool.clone(), bell.clone(), killed.clone());
    let embedder =
        config.embeddings.as_ref().map(|embeddings| Embedder::new(embeddings, &http)).transpose()?;
    let switches = Switches::start(engine_pool.clone(), &bell, killed.clone());
    let gateway = Gateway::start(
        registry,
        Outbound::new(&config.outbound_allow),
        GatewaySettings::of(&config.remote),
        Arc::new(connections.clone()),
        Some(cache.clone()),
        switches.clone(),
    );
    let mut tools = shared::workspace::turn_tools();
    tools.extend(extras.tools);
    tools.extend(extras.cached_tools.map(|make| make(&cache)).unwrap_or_default());
    let queues = queues::queues();
    let told = |name| queues.iter().find(|queue| queue.name == name).map(|queue| Arc::clone(&queue.told));
    let maintenance = told(shared::jobs::MAINTENANCE).unwrap_or_default();
    let chat_turns = told(shared::jobs::CHAT_TURNS);
    let engine = Arc::new(
        Engine::new(turns, log, models, tools, gateway.clone(), Settings::of(&config), maintenance)
            .with_embedder(embedder.clone()),
    );

    let metrics = match config.worker_metrics_port {
        Some(port) => Some(metrics::Metrics::listen(config.app_host, port).await?),
        None => None,
    };
    let role = Role {
        concurrency: if extras.solo { 1 } else { config.worker_concurrency },
        solo: extras.solo,
        sweeps: config.turn_sweep && !extras.solo,
        lease: config.turn_lease,
        drain: config.drain,
        host: hostname(),
        pulse: db::relaxed_pool(engine_options.clone()),
    };
    let supervisor =
        Supervisor::start(Arc::clone(&engine), role, stopping.clone(), killed.clone(), hasten.clone())
            .await?;
    let finish = |work: futures::future::BoxFuture<'static, ()>| {
        tokio::spawn(killed.clone().run_until_cancelled_owned(work))
    };
    let mut finishing = Vec::new();
    let spawn = |work| {
        finish(work);
    };
    if let Some(metrics) = metrics {
        let pools = vec![("app", app_pool), ("engine", engine_pool.clone())];
        spawn(Box::pin(metrics.serve(pools)));
    }
    let told_of_deliveries: Arc<Notify> = Arc::default();
    let hearing = hear(
        bell.clone(),
        Arc::clone(&engine.wake),
        chat_turns,
        Arc::clone(&told_of_deliveries),
        stopping.clone(),
    );
    spawn(Box::pin(hearing));
    if !extras.solo {
        // Pools of their own: the queues must not wait for turns, nor turns for the queues.
        let queue_pool = db::pool(engine_options.clone(), 3);
        // What a crash of Postgres makes it forget to have told is told again, under the same id: these commits wait for no
        // flush, so that telling agents does not slow the sign-ins that it is about.
        let telling = db::pool(engine_options.options([("synchronous_commit", "off")]), 4);
        let folder = config.tenants.secrets_folder.clone();
        let all = queues.clone();
        let outbound = Outbound::new(&config.outbound_allow);
        configured::apply(&engine_pool, &vault, config.default_tenant, &config.agents.configured).await?;
        let deliverer = Deliverer::new(telling, vault.clone(), &outbound, delivery_settings(&config));
        let deliveries = jobs::deliveries::Deliveries::new(deliverer, told_of_deliveries, stopping.clone());
        finishing.push(finish(Box::pin(deliveries.clone().when_told(switches.clone()))));
        let upkeep = Upkeep {
            deliveries,
            context_inactive_days: config.agents.context_inactive_days,
            outbound,
            engine: engine_pool.clone(),
            vault,
            connections,
            compactor: jobs::compaction::Compactor::new(engine.turns.clone(), &engine.models, &config.thrift),
            gateway: gateway.clone(),
            secret_store: folder.map(|folder| Arc::new(Folder(folder)) as Arc<dyn SecretStore>),
            embedding: embedder.map(|embedder| Embedding { embedder, tenants: items }),
        };
        let embeds = upkeep.embedding.as_ref().map(|embedding| embedding.embedder.name().to_owned());
        let to_embed = told(shared::jobs::EMBEDDINGS).unwrap_or_default();
        let (looking, stopped) = (engine_pool.clone(), stopping.clone());
        let (is_embedding, watched) = (embeds.is_some(), switches.clone());
        spawn(Box::pin(async move {
            jobs::embeddings::announce(looking.clone(), embeds, stopped.clone()).await;
            if is_embedding {
                jobs::embeddings::watch(looking, bell, to_embed, watched, stopped).await;
            }
        }));
        for queue in queues {
            if queue.name == shared::jobs::EMBEDDINGS && !is_embedding {
                continue;
            }
            let handling = Handling {
                claim: Arc::clone(&engine.wake),
                upkeep: upkeep.clone(),
                switches: switches.clone(),
                told: Arc::clone(&queue.told),
            };
            let driven = queues::drive(queue, queue_pool.clone(), handling, stopping.clone());
            finishing.push(finish(Box::pin(driven)));
        }
        if let Some(redis) = config.redis.clone() {
            let filling =
                redis_stream::fill(engine_pool.clone(), last_rings.clone(), redis, stopping.clone());
            spawn(Box::pin(filling));
        }
        spawn(Box::pin(schedule::tick(engine_pool, all, switches, stopping.clone())));
    }
    tracing::info!(models = ?engine.models.iter().map(|model| model.id().to_string()).collect::<Vec<_>>(), "the worker is ready");
    let hastened = hasten.clone();
    let done = tokio::spawn(async move {
        supervisor.run().await;
        // They claim nothing more: what they have begun is finished, so that no agent is told twice and no job waits for its lease.
        let finished = futures::future::join_all(finishing);
        let _ = tokio::time::timeout(LAST_JOBS, hastened.run_until_cancelled(finished)).await;
        gateway.close().await;
        cache.settle().await;
        // What was handed over is taken at once by whoever hears of it.
        let _ = tokio::time::timeout(LAST_RINGS, last_rings.settled()).await;
    });
    Ok(Running { stopping, killed, hasten, done })
}

/// Turns bells into claims. The queue's own tickets are collected a moment later, in batches.
async fn hear(
    bell: Bell,
    claim: Arc<Notify>,
    chat_turns: Option<Arc<Notify>>,
    deliveries: Arc<Notify>,
    stopping: CancellationToken,
) {
    let mut hearing = bell.subscribe();
    loop {
        let heard = tokio::select! {
            heard = hearing.next() => heard,
            () = stopping.cancelled() => return,
        };
        if matches!(heard, Heard::Deliveries | Heard::Reconnected) {
            deliveries.notify_one();
        }
        if matches!(heard, Heard::Work | Heard::Reconnected) {
            claim.notify_one();
            if let Some(told) = &chat_turns {
                told.notify_one();
            }
        }
    }
}

fn delivery_settings(config: &Config) -> DeliverySettings {
    let agents = &config.agents;
    DeliverySettings {
        enabled: agents.notifications,
        timeout: agents.timeout,
        max_retries: agents.max_retries,
        retry_base: agents.retry_base,
        breaker_threshold: agents.breaker_threshold,
        breaker_recovery: agents.breaker_recovery,
        token_key: agents.jwt_secret.clone(),
        issuer: config.public_url.as_str().trim_end_matches('/').to_owned(),
        default_tenant: config.default_tenant,
    }
}

fn options(url: &SecretString, role: DbRole) -> anyhow::Result<PgConnectOptions> {
    db::options(url.expose_secret(), role, "alfred-worker").map_err(anyhow::Error::msg)
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "localhost".to_owned(), |name| name.trim().to_owned())
}

/// How long a worker that stops waits for the deliveries and the jobs of its queues that it has begun. An exchange takes
/// no longer, unless `MCP_NOTIFICATION_TIMEOUT` is.
const LAST_JOBS: Duration = Duration::from_secs(10);
/// How long a worker that stops waits for its last bells to be rung.
const LAST_RINGS: Duration = Duration::from_secs(2);

/// How long the binary waits for the database at its start before it gives up.
pub const START_PATIENCE: Duration = Duration::from_secs(60);
