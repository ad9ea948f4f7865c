//! Calling other people's servers. One gateway a process: its sessions, its lists of tools, its breakers.
//!
//! Invariant: whatever a server does, a call ends in bounded time with a result, a sentence or a give-up, and costs nobody
//! but its own tenant.

mod failure;
mod listing;
mod result;
mod session;
mod tool;
mod toolset;
mod wire;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use futures::{StreamExt as _, future::BoxFuture, stream};
use tokio::sync::{OnceCell, Semaphore};

use self::{
    failure::Failure,
    listing::{Listing, ListingKey},
    session::{Session, SessionKey, Sessions},
    wire::Wire,
};
pub use self::{
    listing::HeldTool,
    tool::{RemoteTool, sign_in_again},
    toolset::{ServerState, Standing, Toolset},
};
use super::{
    health,
    registry::{Registry, Scope, Server},
};
use crate::{
    cache::ToolCache,
    config::RemoteConfig,
    connections::Credential,
    error::{Code, Error, Origin, Result},
    flags::CIRCUIT_BREAKER_ENABLED,
    identity::Actor,
    ids::{SessionId, TenantId, UserId},
    outbound::Outbound,
    resilience::{Breaker, BreakerSettings, Leave},
    switches::Switches,
    tenancy::remembered::Remembered,
};

/// Bytes of one message of a server that are read.
const MOST_BYTES: usize = 4 << 20;
/// Lists and toolsets remembered at most.
const REMEMBERED: usize = 10_000;
/// Servers asked at once for one person.
const AT_ONCE: usize = 16;

/// How patient the gateway is.
#[derive(Debug, Clone, Copy)]
pub struct GatewaySettings {
    /// To connect.
    pub connect_time: Duration,
    /// Until a server says something.
    pub read_time: Duration,
    /// Before the one retry; half to one and a half times this.
    pub retry_pause: Duration,
    /// When a server is left alone.
    pub breaker: BreakerSettings,
}

impl GatewaySettings {
    /// As configured.
    #[must_use]
    pub fn of(config: &RemoteConfig) -> Self {
        Self {
            connect_time: config.connect_time,
            read_time: config.read_time,
            retry_pause: Duration::from_millis(250),
            breaker: BreakerSettings { failures: config.breaker_failures, recovery: config.breaker_recovery },
        }
    }
}

/// How a person stands with a server that wants a connection.
#[derive(Clone)]
pub enum Connection {
    /// They have a token that should be good.
    Good(Credential),
    /// They have not connected the server.
    None,
    /// Their connection ended: they have to sign in again.
    SignInAgain,
}

/// Knows people's tokens.
pub trait UserCredentials: Send + Sync {
    /// The actor's token for the server. Of several, the session's choice.
    fn credential<'a>(
        &'a self,
        actor: &'a Actor,
        session: Option<SessionId>,
        server: &'a Server,
    ) -> BoxFuture<'a, Result<Connection>>;

    /// The server refused this token: a newer one, if there is or can be one.
    fn refused<'a>(
        &'a self,
        actor: &'a Actor,
        session: Option<SessionId>,
        server: &'a Server,
        credential: &'a Credential,
    ) -> BoxFuture<'a, Result<Connection>>;
}

/// Nobody has connected anything.
pub struct NoConnections;

impl UserCredentials for NoConnections {
    fn credential<'a>(
        &'a self,
        _: &'a Actor,
        _: Option<SessionId>,
        _: &'a Server,
    ) -> BoxFuture<'a, Result<Connection>> {
        Box::pin(async { Ok(Connection::None) })
    }

    fn refused<'a>(
        &'a self,
        _: &'a Actor,
        _: Option<SessionId>,
        _: &'a Server,
        _: &'a Credential,
    ) -> BoxFuture<'a, Result<Connection>> {
        Box::pin(async { Ok(Connection::SignInAgain) })
    }
}

/// Calls other people's servers.
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

pub(super) struct Inner {
    registry: Registry,
    outbound: Outbound,
    settings: GatewaySettings,
    credentials: Arc<dyn UserCredentials>,
    cache: Option<ToolCache>,
    switches: Switches,
    wire: OnceCell<Wire>,
    sessions: Sessions,
    listings: Remembered<ListingKey, Arc<Listing>>,
    gates: Mutex<HashMap<(Scope, String, TenantId), Arc<ServerGate>>>,
    toolsets: Mutex<HashMap<(TenantId, UserId), Known>>,
    nothing: Arc<Toolset>,
}

/// A server's name, how the person stands with it, what is wrong with it, and its list.
type MadeOf = (String, Standing, Option<String>, Option<Arc<Listing>>);

/// A toolset and the lists that it was made of.
struct Known {
    made_of: Vec<MadeOf>,
    toolset: Arc<Toolset>,
}

/// What stands before a tenant's calls to a server.
struct ServerGate {
    name: String,
    counted_as: String,
    breaker: Breaker,
    switches: Switches,
    permits: Semaphore,
}

impl ServerGate {
    /// Leave to call, or none while the server is left alone.
    fn leave(&self) -> Option<Leave<'_>> {
        if self.is_heeded() { self.breaker.leave() } else { Some(self.breaker.leave_unheeded()) }
    }

    fn is_heeded(&self) -> bool {
        self.switches.is_on(CIRCUIT_BREAKER_ENABLED, &self.name)
    }

    fn report(&self) {
        let state = if self.is_heeded() && self.breaker.is_open() { 1.0 } else { 0.0 };
        metrics::gauge!("circuit_breaker_state", "target" => self.counted_as.clone()).set(state);
    }
}

impl Gateway {
    /// Starts one; it tidies up after itself for as long as it is held. Without a cache each call asks the server.
    #[must_use]
    pub fn start(
        registry: Registry,
        outbound: Outbound,
        settings: GatewaySettings,
        credentials: Arc<dyn UserCredentials>,
        cache: Option<ToolCache>,
        switches: Switches,
    ) -> Self {
        let inner = Arc::new(Inner {
            registry,
            outbound,
            settings,
            credentials,
            cache,
            switches,
            wire: OnceCell::new(),
            sessions: Sessions::default(),
            listings: Remembered::new(listing::BELIEVED, REMEMBERED),
            gates: Mutex::default(),
            toolsets: Mutex::default(),
            nothing: Arc::default(),
        });
        tokio::spawn(session::tidy(Arc::downgrade(&inner)));
        Self(inner)
    }

    /// Which servers there are.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// What may be said about an address before it is asked.
    #[must_use]
    pub fn outbound(&self) -> &Outbound {
        &self.0.outbound
    }

    /// The tools that a turn of this person is offered. A server that cannot be asked is told of in the answer, and keeps no
    /// other waiting for longer than its time.
    ///
    /// # Errors
    /// The database's.
    pub async fn toolset(&self, actor: &Actor, session: Option<SessionId>) -> Result<Arc<Toolset>> {
        let servers = self.0.registry.servers(actor).await?;
        if servers.list.is_empty() {
            return Ok(Arc::clone(&self.0.nothing));
        }
        let asked = stream::iter(servers.list.iter().cloned())
            .map(|server| {
                let approved_at = servers.approved_at(server.name());
                self.0.look_at(server, approved_at, actor, session)
            })
            .buffered(AT_ONCE)
            .collect::<Vec<Result<_>>>()
            .await;
        let states = asked.into_iter().collect::<Result<Vec<_>>>()?;
        let of = |(state, listing): &(ServerState, Option<Arc<Listing>>)| {
            (state.name.clone(), state.standing, state.trouble.clone(), listing.clone())
        };
        let made_of: Vec<_> = states.iter().map(of).collect();
        let mut known = self.0.toolsets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(&(actor.tenant, actor.user)) {
            let is_same = known.made_of.len() == made_of.len()
                && known.made_of.iter().zip(&made_of).all(|(one, other)| {
                    let lists = match (&one.3, &other.3) {
                        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
                        (None, None) => true,
                        _ => false,
                    };
                    lists && (&one.0, one.1, &one.2) == (&other.0, other.1, &other.2)
                });
            if is_same {
                return Ok(Arc::clone(&known.toolset));
            }
        }
        if known.len() >= REMEMBERED {
            known.clear();
        }
        let toolset = Arc::new(Toolset::new(states));
        known.insert((actor.tenant, actor.user), Known { made_of, toolset: Arc::clone(&toolset) });
        Ok(toolset)
    }

    /// Says goodbye to all servers.
    pub async fn close(&self) {
        self.0.sessions.close_all().await;
    }

    /// Asks a server for a sign of life, for nobody in particular.
    pub(super) async fn probe(&self, server: &Arc<Server>) -> health::Found {
        let begun = Instant::now();
        let opened = session::open(&self.0, server, None, None).await;
        let latency_ms = i64::try_from(begun.elapsed().as_millis()).unwrap_or(i64::MAX);
        let (is_well, detail) = match opened {
            Ok(session) => {
                let version = session.version();
                session.close().await;
                (true, version)
            }
            Err(Failure::Unauthorized) if server.definition.wants_connection() => {
                (true, "it asks people to sign in".to_owned())
            }
            Err(failure) => (false, failure.into_error(server.name()).message.into_owned()),
        };
        health::Found { is_well, latency_ms, detail }
    }
}

impl Inner {
    /// How the person stands with a server, and its tools if they can be had.
    async fn look_at(
        self: &Arc<Self>,
        server: Arc<Server>,
        approved_at: Option<DateTime<Utc>>,
        actor: &Actor,
        session: Option<SessionId>,
    ) -> Result<(ServerState, Option<Arc<Listing>>)> {
        let state = |standing, trouble| ServerState {
            name: server.name().to_owned(),
            standing,
            trouble,
            held: Vec::new(),
        };
        let (standing, credential) = if server.definition.wants_connection() {
            let connection = match self.credentials.credential(actor, session, &server).await {
                Ok(connection) => connection,
                // The provider cannot be asked for a new token now: it costs this server's tools, not the turn.
                Err(error) if error.origin == Origin::Oauth => {
                    return Ok((state(Standing::Connected, Some(error.message.into_owned())), None));
                }
                Err(error) => return Err(error),
            };
            match connection {
                Connection::Good(credential) => (Standing::Connected, Some(credential)),
                Connection::None => return Ok((state(Standing::NotConnected, None), None)),
                Connection::SignInAgain => return Ok((state(Standing::SignInAgain, None), None)),
            }
        } else {
            (Standing::Open, None)
        };
        let listed = self.list(&server, approved_at, actor, credential.as_ref()).await;
        // Whoever lists first after a token was taken back finds that out.
        let listed = match (listed, credential) {
            (Err(error), Some(refused)) if error.code == Code::OauthRefresh => {
                let newer = match self.credentials.refused(actor, session, &server, &refused).await {
                    Ok(Connection::Good(newer)) => newer,
                    Ok(Connection::None | Connection::SignInAgain) => {
                        return Ok((state(Standing::SignInAgain, None), None));
                    }
                    Err(error) if error.origin == Origin::Oauth => {
                        return Ok((state(standing, Some(error.message.into_owned())), None));
                    }
                    Err(error) => return Err(error),
                };
                match self.list(&server, approved_at, actor, Some(&newer)).await {
                    // Not even a new one: another authorization server may give them out by now.
                    Err(error) if error.code == Code::OauthRefresh => {
                        return Ok((state(Standing::SignInAgain, None), None));
                    }
                    listed => listed,
                }
            }
            (listed, _) => listed,
        };
        match listed {
            Ok(listing) => {
                Ok((ServerState { held: listing.held.clone(), ..state(standing, None) }, Some(listing)))
            }
            Err(error) if error.origin == Origin::Mcp => {
                Ok((state(standing, Some(error.message.into_owned())), None))
            }
            Err(error) => Err(error),
        }
    }

    /// The server's tools, as they were remembered or as it tells them now. `OAUTH-REFRESH-FAIL`: it does not take the token.
    async fn list(
        self: &Arc<Self>,
        server: &Arc<Server>,
        approved_at: Option<DateTime<Utc>>,
        actor: &Actor,
        credential: Option<&Credential>,
    ) -> Result<Arc<Listing>> {
        let key = listing_key(server, actor, credential);
        let list = async || {
            let tools = self.fetch(server, actor, credential).await.map_err(|failure| match failure {
                Failure::Unauthorized if credential.is_some() => {
                    Error::new(Code::OauthRefresh, format!("{} does not take the token", server.name()))
                }
                failure => failure.into_error(server.name()),
            })?;
            listing::judged(self, server, actor, credential, approved_at, &tools).await.map(Arc::new)
        };
        let listed = self.listings.get(&key, list).await;
        if listed.as_ref().is_ok_and(|listing| listing.approved_at < approved_at) {
            self.listings.forget(&key);
            return self.listings.get(&key, list).await;
        }
        listed
    }

    async fn fetch(
        self: &Arc<Self>,
        server: &Arc<Server>,
        actor: &Actor,
        credential: Option<&Credential>,
    ) -> Result<Vec<rmcp::model::Tool>, Failure> {
        let gate = self.gate(server, actor.tenant);
        let Some(leave) = gate.leave() else {
            return Err(Failure::Unavailable("it has failed several times and is left alone".to_owned()));
        };
        let fetched = async {
            let (key, session) = self.session(server, actor, credential).await?;
            let fetched = listing::fetch(&session, self.settings.read_time).await;
            if fetched.is_err() {
                self.sessions.forget(&key, &session).await;
            }
            fetched
        }
        .await;
        match &fetched {
            Err(failure) if failure.is_outage() => leave.failed(),
            _ => leave.answered(),
        }
        gate.report();
        if let Err(failure) = &fetched {
            tracing::warn!(server = server.name(), tenant_id = %actor.tenant, failure = ?failure, "the tools of an MCP server cannot be listed");
        }
        fetched
    }

    /// The person's session with the server.
    async fn session(
        self: &Arc<Self>,
        server: &Arc<Server>,
        actor: &Actor,
        credential: Option<&Credential>,
    ) -> Result<(SessionKey, Arc<Session>), Failure> {
        let key = SessionKey {
            tenant: actor.tenant,
            user: actor.user,
            scope: server.scope,
            server: server.name().to_owned(),
            revision: server.revision.clone(),
            credential: credential.map(revision),
        };
        let listing = listing_key(server, actor, credential);
        let open = || session::open(self, server, credential, Some(listing));
        let session = self.sessions.get(&key, open).await?;
        Ok((key, session))
    }

    fn gate(&self, server: &Server, tenant: TenantId) -> Arc<ServerGate> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        if gates.len() >= REMEMBERED {
            gates.retain(|_, gate| Arc::strong_count(gate) > 1 || gate.breaker.is_open());
        }
        let made = || {
            Arc::new(ServerGate {
                name: server.name().to_owned(),
                counted_as: server.counted_as(),
                switches: self.switches.clone(),
                breaker: Breaker::new(self.settings.breaker),
                permits: Semaphore::new(usize::try_from(server.definition.concurrency).unwrap_or(16)),
            })
        };
        let key = (server.scope, format!("{} {}", server.name(), server.revision), tenant);
        Arc::clone(gates.entry(key).or_insert_with(made))
    }

    /// The clients, made when they are first needed.
    async fn wire(&self) -> Result<Wire> {
        let make = || async {
            let GatewaySettings { connect_time, read_time, .. } = self.settings;
            let bounded = |builder: reqwest::ClientBuilder| {
                builder.connect_timeout(connect_time).tcp_keepalive(Duration::from_secs(30))
            };
            Ok::<_, Error>(Wire {
                // A little longer than a call, which knows better what it waits for.
                prompt: self.outbound.guarded(|builder| bounded(builder).read_timeout(read_time * 2))?,
                patient: self.outbound.guarded(bounded)?,
            })
        };
        self.wire.get_or_try_init(make).await.cloned()
    }
}

/// Names a token without being one.
fn revision(credential: &Credential) -> String {
    format!("{}:{}", credential.connection, credential.version)
}

fn listing_key(server: &Server, actor: &Actor, credential: Option<&Credential>) -> ListingKey {
    ListingKey {
        scope: server.scope,
        server: server.name().to_owned(),
        revision: server.revision.clone(),
        tenant: actor.tenant,
        user: credential.map(|credential| (actor.user, revision(credential))),
    }
}
