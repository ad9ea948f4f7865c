//! Sessions with servers: one for each person, server and credential, kept while it is used and opened again when the
//! server forgot it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use http::{HeaderName, HeaderValue};
use rmcp::{
    ErrorData,
    handler::client::{
        ClientHandler,
        progress::{ProgressDispatcher, ProgressSubscriber},
    },
    model::{
        ClientCapabilities, ClientConfig, Implementation, ListRootsRequestMethod, ProgressNotificationParam,
        ProgressToken, ProtocolVersion, SubscriptionFilter,
    },
    service::{
        ClientCacheConfig, ClientLifecycleMode, ClientServiceExt as _, NotificationContext, Peer,
        RequestContext, RoleClient, RunningService,
    },
    transport::streamable_http_client::{StreamableHttpClientTransport, StreamableHttpClientTransportConfig},
};
use secrecy::ExposeSecret as _;
use tokio::{sync::Mutex as Gate, task::AbortHandle};

use super::{
    Inner, MOST_BYTES,
    failure::{self, Failure},
    listing::ListingKey,
};
use crate::{
    connections::Credential,
    ids::{TenantId, UserId},
    remote::{
        definition::Auth,
        registry::{Scope, Server},
    },
};

/// A session that was not used for so long is closed.
const IDLE: Duration = Duration::from_secs(300);
/// How often idle ones are looked for.
const LOOK: Duration = Duration::from_secs(30);
/// Sessions of a process; beyond, the ones longest idle are closed.
const MOST: usize = 5000;
/// How long closing may take.
const CLOSING: Duration = Duration::from_secs(2);

/// What a session belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct SessionKey {
    pub(super) tenant: TenantId,
    pub(super) user: UserId,
    pub(super) scope: Scope,
    pub(super) server: String,
    pub(super) revision: String,
    /// Which credential; another one is another session.
    pub(super) credential: Option<String>,
}

/// An open session.
pub(super) struct Session {
    service: RunningService<RoleClient, Listener>,
    subscription: Option<AbortHandle>,
    /// Whether the tools were listed in it.
    listed: AtomicBool,
}

impl Session {
    pub(super) fn peer(&self) -> &Peer<RoleClient> {
        self.service.peer()
    }

    /// How far the call is that has this token, for as long as it is listened to.
    pub(super) async fn progress(&self, token: ProgressToken) -> ProgressSubscriber {
        self.service.service().progress.subscribe(token).await
    }

    pub(super) fn version(&self) -> String {
        self.peer().peer_info().map(|info| info.protocol_version.to_string()).unwrap_or_default()
    }

    /// Whether the tools were listed in it: its transport learns from that which arguments go into headers as well.
    pub(super) fn has_listed(&self) -> bool {
        self.listed.load(Ordering::Relaxed)
    }

    /// The tools were listed in it.
    pub(super) fn note_listed(&self) {
        self.listed.store(true, Ordering::Relaxed);
    }

    fn is_closed(&self) -> bool {
        self.service.is_closed() || self.peer().is_transport_closed()
    }

    /// Says goodbye, so that the server need not remember.
    pub(super) async fn close(mut self) {
        if let Err(error) = self.service.close_with_timeout(CLOSING).await {
            tracing::debug!(error = %error, "a session with an MCP server was not closed in an orderly way");
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(subscription) = &self.subscription {
            subscription.abort();
        }
    }
}

/// Hears what a server says by itself.
pub(super) struct Listener {
    gateway: Weak<Inner>,
    listing: Option<ListingKey>,
    progress: ProgressDispatcher,
}

impl Listener {
    fn tools_changed(&self) {
        if let (Some(gateway), Some(listing)) = (self.gateway.upgrade(), &self.listing) {
            gateway.listings.forget(listing);
        }
    }
}

#[expect(deprecated, reason = "older servers may still ask for roots, and are refused")]
impl ClientHandler for Listener {
    fn get_info(&self) -> ClientConfig {
        // No sampling, roots or elicitation: a server cannot ask us for anything.
        ClientConfig::new(
            ClientCapabilities::default(),
            Implementation::new("alfred", env!("CARGO_PKG_VERSION")),
        )
        // For servers that want to be initialized; others are told with each request.
        .with_protocol_version(ProtocolVersion::V_2025_11_25)
    }

    async fn on_progress(&self, told: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        self.progress.handle_notification(told).await;
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.tools_changed();
    }

    async fn list_roots(
        &self,
        _: RequestContext<RoleClient>,
    ) -> Result<rmcp::model::ListRootsResult, ErrorData> {
        Err(ErrorData::method_not_found::<ListRootsRequestMethod>())
    }
}

/// All sessions of a process.
#[derive(Default)]
pub(super) struct Sessions {
    slots: Mutex<HashMap<SessionKey, Arc<Slot>>>,
}

#[derive(Default)]
struct Slot {
    /// Held while the session is opened, so that a crowd opens one.
    session: Gate<Option<Arc<Session>>>,
    used: Mutex<Option<Instant>>,
}

impl Slot {
    fn idle_for(&self) -> Duration {
        let used = *self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.map_or(Duration::ZERO, |used| used.elapsed())
    }
}

impl Sessions {
    /// The session of this key, opened if there is none.
    pub(super) async fn get<F>(
        &self,
        key: &SessionKey,
        open: impl FnOnce() -> F,
    ) -> Result<Arc<Session>, Failure>
    where
        F: Future<Output = Result<Session, Failure>>,
    {
        let slot = Arc::clone(self.slots().entry(key.clone()).or_default());
        let mut session = slot.session.lock().await;
        *slot.used.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        if let Some(session) = session.as_ref().filter(|session| !session.is_closed()) {
            return Ok(Arc::clone(session));
        }
        *session = None;
        let opened = Arc::new(open().await?);
        *session = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// The session went wrong: the next call opens another. Calls that still wait on it are not cut off.
    pub(super) async fn forget(&self, key: &SessionKey, broken: &Arc<Session>) {
        let slot = self.slots().get(key).cloned();
        if let Some(slot) = slot {
            let mut session = slot.session.lock().await;
            if session.as_ref().is_some_and(|session| Arc::ptr_eq(session, broken)) {
                *session = None;
            }
        }
    }

    /// Closes what fits; answers how many.
    async fn close_where(&self, fits: impl Fn(&Slot) -> bool) -> usize {
        let gone: Vec<Arc<Slot>> = {
            let mut slots = self.slots();
            let keys: Vec<SessionKey> =
                slots.iter().filter(|(_, slot)| fits(slot)).map(|(key, _)| key.clone()).collect();
            keys.iter().filter_map(|key| slots.remove(key)).collect()
        };
        let closing = gone.iter().map(async |slot| {
            let session = slot.session.lock().await.take();
            // Whoever still uses it closes it by dropping it.
            if let Some(session) = session.and_then(|session| Arc::try_unwrap(session).ok()) {
                session.close().await;
            }
        });
        futures::future::join_all(closing).await;
        gone.len()
    }

    /// Closes all of them, at the end of the process.
    pub(super) async fn close_all(&self) {
        self.close_where(|_| true).await;
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<SessionKey, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes idle sessions for as long as there is a gateway.
pub(super) async fn tidy(gateway: Weak<Inner>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(gateway) = gateway.upgrade() else { return };
        let crowded = gateway.sessions.slots().len() > MOST;
        let idle = if crowded { LOOK } else { IDLE };
        let closed = gateway.sessions.close_where(|slot| slot.idle_for() > idle).await;
        if closed > 0 {
            tracing::debug!(closed, "idle sessions with MCP servers were closed");
        }
    }
}

/// Opens a session, in whichever era of the protocol the server lives.
pub(super) async fn open(
    gateway: &Arc<Inner>,
    server: &Server,
    credential: Option<&Credential>,
    listing: Option<ListingKey>,
) -> Result<Session, Failure> {
    let definition = &server.definition;
    gateway.outbound.check(&definition.url).map_err(Failure::Forbidden)?;
    let wire = gateway.wire().await.map_err(|error| Failure::Unavailable(error.to_string()))?;
    let mut config = StreamableHttpClientTransportConfig::with_uri(definition.url.as_str())
        .max_concurrent_requests(usize::try_from(definition.concurrency).unwrap_or(16))
        .max_sse_event_size(MOST_BYTES)
        .reinit_on_expired_session(true);
    let own_header = match &definition.auth {
        Auth::OAuth(settings) => settings.token_header.as_deref(),
        Auth::None | Auth::Bearer => None,
    };
    match (own_header, credential) {
        (Some(header), Some(credential)) => {
            let name = HeaderName::from_bytes(header.as_bytes());
            let value = HeaderValue::from_str(credential.token.expose_secret());
            if let (Ok(name), Ok(mut value)) = (name, value) {
                value.set_sensitive(true);
                config.custom_headers.insert(name, value);
            }
        }
        (None, Some(credential)) => config.auth_header = Some(credential.token.expose_secret().to_owned()),
        (_, None) => {}
    }
    if let Some(bearer) = server.bearer().filter(|_| config.auth_header.is_none()) {
        config.auth_header = Some(bearer.expose_secret().to_owned());
    }
    let listener = || Listener {
        gateway: Arc::downgrade(gateway),
        listing: listing.clone(),
        progress: ProgressDispatcher::new(),
    };
    let either = ClientLifecycleMode::Auto {
        preferred_versions: vec![ProtocolVersion::V_2026_07_28],
        legacy_version: Some(ProtocolVersion::V_2025_11_25),
    };
    let patience = gateway.settings.connect_time + gateway.settings.read_time;
    let opening = async |lifecycle| {
        let transport = StreamableHttpClientTransport::with_client(wire.clone(), config.clone());
        let opening = listener().serve_with_lifecycle(transport, lifecycle);
        tokio::time::timeout(patience, opening).await.map_err(|_| Failure::Timeout)
    };
    let service = match opening(either).await? {
        Err(error) if failure::is_of_an_older_server(&error) => {
            opening(ClientLifecycleMode::Initialize).await??
        }
        opened => opened?,
    };
    // Lists are remembered by us, with bounds of ours.
    service.peer().set_response_cache_config(ClientCacheConfig::disabled()).await;
    let subscription = listing.and_then(|listing| subscribe(gateway, service.peer().clone(), listing));
    Ok(Session { service, subscription, listed: AtomicBool::new(false) })
}

/// Servers of the newest era tell of changed tools only to who asks for it.
fn subscribe(gateway: &Arc<Inner>, peer: Peer<RoleClient>, listing: ListingKey) -> Option<AbortHandle> {
    let info = peer.peer_info()?;
    let tells = info.capabilities.tools.as_ref().is_some_and(|tools| tools.list_changed == Some(true));
    if info.protocol_version.has_initialize() || !tells {
        return None;
    }
    let (gateway, progress) = (Arc::downgrade(gateway), ProgressDispatcher::new());
    let listener = Listener { gateway, listing: Some(listing), progress };
    let mut wanted = SubscriptionFilter::new();
    wanted.tools_list_changed = Some(true);
    let listening = async move {
        let Ok(mut subscription) = peer.listen(wanted).await else { return };
        while let Ok(Some(_)) = subscription.next().await {
            listener.tools_changed();
        }
    };
    Some(tokio::spawn(listening).abort_handle())
}
