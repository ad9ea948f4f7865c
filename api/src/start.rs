//! Starting and stopping the process's parts, in order.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};
use shared::{
    agents::{
        contexts::ContextCache,
        side::{AgentSide, SideSettings},
    },
    bell::{Bell, Channel, Ring},
    config::Config,
    connections::{self, Connections},
    counters::Counters,
    db::{self, DbRole, TenantDb},
    events::Hub,
    identity::{SignInSettings, SignIns, TellAgents},
    mcp::authorization::AuthorizationServer,
    model::{self, embeddings::Embedder},
    outbound::Outbound,
    queues::Queues,
    remote::{Gateway, GatewaySettings, Registry},
    sessions::{LastAccessed, Sessions, TokenKeys},
    switches::Switches,
    telemetry::Recorder,
    tenancy::policies::KnownPolicies,
    turns::{TurnSettings, Turns},
    vault::Vault,
    workspace::{ENTITIES, EntityDef, changes::ChangeHub},
};
use sqlx::postgres::PgConnectOptions;
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    auth::Callers,
    limits::AgentLimits,
    mcp,
    metrics::Metrics,
    router,
    serve::{self, Ending},
    state::{App, Parts},
};

/// Bytes that the kernel holds for a client that reads slowly; then the stream waits.
const SEND_BUFFER: u32 = 128 * 1024;

/// A serving process, or a test's.
pub struct Running {
    /// Where it listens.
    pub addr: SocketAddr,
    app: App,
    ending: Ending,
}

/// Starts serving. The database need not be there yet: requests are refused until it is.
///
/// # Errors
/// A database URL that cannot be read, or an address that cannot be listened on.
pub async fn start(config: Config) -> anyhow::Result<Running> {
    start_with_entities(config, &*ENTITIES).await
}

/// The same with other entities in the workspace.
///
/// # Errors
/// As [`start`].
pub async fn start_with_entities(config: Config, entities: &'static [EntityDef]) -> anyhow::Result<Running> {
    let app_pool = db::pool(options(&config.db_url, "DB_URL", DbRole::App)?, config.db_pool_max);
    let engine_options = options(&config.db_engine_url, "DB_ENGINE_URL", DbRole::Engine)?;
    let engine = db::pool(engine_options.clone(), config.db_pool_max);
    let counters = Arc::new(Counters::start(db::relaxed_pool(engine_options)));

    let listen_options = options(&config.db_listen_url, "DB_LISTEN_URL", DbRole::Engine)?;
    let channels = [Channel::Events, Channel::Turns, Channel::Changes, Channel::Contexts, Channel::Switches];
    let bell = Bell::start(listen_options, &engine, &channels);
    let rung = bell.clone();
    let tenants =
        TenantDb::new(app_pool.clone(), counters).announcing(move |tenant| rung.ring(Ring::Changes(tenant)));
    let changes = ChangeHub::start(&bell, &engine);
    let hub = Hub::start(engine.clone(), bell.clone());
    let sessions =
        Sessions::new(tenants.clone(), TokenKeys::new(&config.fernet_keys)?, config.session_idle_days);
    let settings = TurnSettings {
        max_attempts: config.turn_max_attempts,
        lease: config.turn_lease,
        retry_base: config.turn_retry_base,
        approval_timeout: config.approval_timeout,
    };
    let turns =
        Turns::new(tenants.clone(), engine.clone(), bell.clone(), Some(hub.clone()), sessions, settings);

    let listener = listen(SocketAddr::new(config.app_host, config.app_port))?;
    let addr = listener.local_addr()?;
    let draining = CancellationToken::new();
    let ending =
        Ending { draining: draining.clone(), cut: CancellationToken::new(), connections: TaskTracker::new() };
    let sign_ins = SignIns::start(
        engine.clone(),
        sign_in_settings(&config),
        tell_agents(bell.clone()),
        draining.clone(),
    )?;
    let vault = Vault::new(&config.fernet_keys)?;
    let outbound = Outbound::new(&config.outbound_allow);
    let registry = Registry::new(tenants.clone(), vault.clone(), &config.remote.servers)?;
    let callers =
        Callers::start(&config, vault.clone(), app_pool, engine.clone(), sign_ins, draining.clone())?;
    let connections = Connections::new(connections::Parts {
        bell: bell.clone(),
        tenants: tenants.clone(),
        vault: vault.clone(),
        outbound: outbound.clone(),
        config: config.connections.clone(),
        public_url: config.public_url.as_str().trim_end_matches('/').to_owned(),
        servers: Some(Arc::new(registry.clone())),
        forget: None,
    });
    let gateway = Gateway::start(
        registry,
        outbound.clone(),
        GatewaySettings::of(&config.remote),
        Arc::new(connections.clone()),
        // It lists tools and calls none.
        None,
        Switches::start(engine.clone(), &bell, draining.clone()),
    );
    let app = App::new(Parts {
        queues: Queues::new(
            engine.clone(),
            tenants.clone(),
            turns.clone(),
            bell.clone(),
            config.agents.notifications,
        ),
        connections,
        last_accessed: LastAccessed::start(engine.clone(), config.session_idle_days, draining.clone()),
        turns,
        hub,
        agents: AgentSide::new(engine.clone(), tenants.clone(), side_settings(&config)),
        agent_limits: AgentLimits::new(config.rate_limits.agent_per_minute),
        contexts: ContextCache::start(tenants.clone(), bell.clone(), draining.clone()),
        changes,
        mcp: mcp::Endpoint::new(&config, &shared::workspace::tools_of(entities)),
        tools: shared::workspace::turn_tools(),
        embedder: embedder(&config)?,
        oauth: config
            .sign_ins
            .outside_issuer
            .is_none()
            .then(|| AuthorizationServer::new(engine.clone(), outbound)),
        gateway,
        callers,
        policies: KnownPolicies::default(),
        outbound: Outbound::new(&config.outbound_allow),
        vault,
        metrics: Metrics::new(Recorder::start()?),
        config,
        tenants,
        engine,
        bell,
        draining,
    });
    let (router, _) = router::build(&app.config, entities);
    tokio::spawn(serve::accept(listener, app.clone(), router.with_state(app.clone()), ending.clone()));
    tracing::info!(%addr, version = env!("CARGO_PKG_VERSION"), "listening");
    Ok(Running { addr, app, ending })
}

impl Running {
    /// How many password hashes this server has computed: tests measure by them that no answer tells who has an account.
    #[must_use]
    pub fn password_hashes(&self) -> u64 {
        self.app.callers.sign_ins().hashes_made()
    }

    /// What its handlers reach.
    #[cfg(test)]
    pub(crate) fn app(&self) -> &App {
        &self.app
    }

    /// Stops: streams are told to reconnect, requests under way are answered, for at most `DRAIN_SECONDS`.
    pub async fn stop(self) {
        self.ending.draining.cancel();
        self.ending.connections.close();
        let drained = tokio::time::timeout(self.app.config.drain, self.ending.connections.wait()).await;
        if drained.is_err() {
            tracing::warn!(
                connections = self.ending.connections.len(),
                "cutting connections that did not end in time"
            );
            self.ending.cut.cancel();
            self.ending.connections.wait().await;
        }
        let last = async {
            self.app.last_accessed.write().await;
            self.app.callers.finish().await;
            tokio::join!(self.app.tenants.app().close(), self.app.engine.close());
        };
        if tokio::time::timeout(Duration::from_secs(2), last).await.is_err() {
            tracing::warn!("database connections did not close in time");
        }
    }
}

fn sign_in_settings(config: &Config) -> SignInSettings {
    SignInSettings {
        issuer: config.public_url.as_str().trim_end_matches('/').to_owned(),
        deployment_keys: config.fernet_keys.clone(),
        access_life: config.sign_ins.access_life,
        idle_days: config.sign_ins.idle_days,
        password_cost: config.sign_ins.password_cost,
        home_tenant: config.default_tenant,
    }
}

fn side_settings(config: &Config) -> SideSettings {
    SideSettings {
        token_key: config.agents.jwt_secret.clone(),
        issuer: config.public_url.as_str().trim_end_matches('/').to_owned(),
        token_life: config.agents.token_life,
        default_tenant: config.default_tenant,
    }
}

/// Without a model of embeddings no client is made: reading the machine's certificates takes long.
fn embedder(config: &Config) -> anyhow::Result<Option<Embedder>> {
    let Some(embeddings) = &config.embeddings else { return Ok(None) };
    let http = model::http::client(|builder| builder).context("the HTTP client for embeddings")?;
    Ok(Some(Embedder::new(embeddings, &http)?))
}

fn tell_agents(bell: Bell) -> TellAgents {
    Arc::new(move || bell.ring(Ring::Deliveries))
}

fn options(url: &SecretString, variable: &str, role: DbRole) -> anyhow::Result<PgConnectOptions> {
    db::options(url.expose_secret(), role, "alfred-api")
        .map_err(|problem| anyhow::anyhow!("{variable}: {problem}"))
}

fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Accepted connections inherit this.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.set_reuseaddr(true)?;
    socket.bind(address).with_context(|| format!("APP_PORT: cannot listen on {address}"))?;
    // Two thousand readers may come back at once.
    Ok(socket.listen(4096)?)
}
