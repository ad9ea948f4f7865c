//! How often a client may ask [O5]: each credential and each address has a budget of requests a minute, and a smaller one
//! of chat turns. A budget may be spent at once and fills up steadily. Per process, in memory that is bounded.
//!
//! Not counted: health and metrics. A stream that is taken up again counts for its address alone, so that a restart does
//! not shut out those whom it cut off, and nobody has credentials looked up without end. A repeated Idempotency-Key of a
//! post is one turn, so it counts as one.

mod store;

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
};
use http::{HeaderMap, HeaderValue, Method};
use secrecy::{ExposeSecret as _, SecretString};
use shared::{
    agents::AgentName,
    config::{Config, Network},
    error::{Code, Error},
    ids::TenantId,
};
use url::form_urlencoded;

use self::store::{Bounded, Generations};
use crate::{
    address::{Peer, behind_proxies},
    auth::{self, Cookies},
    error::Failure,
};

/// Keys remembered at least; twice as many at most.
const REMEMBERED: usize = 50_000;
/// What names a tenant: the same key in another tenant is another turn.
const TENANT: [&str; 3] = ["x-tenant-id", "x-tb-tenant-id", "host"];

type Limiter = RateLimiter<u64, Bounded, DefaultClock>;

/// The budgets of one process.
#[derive(Clone)]
pub(crate) struct Limits(Arc<Parts>);

struct Parts {
    all: Budgets,
    chat: Budgets,
    /// Chat posts that were counted already, by credential and idempotency key.
    counted: Mutex<Generations<()>>,
    trusted: Vec<Network>,
    cookies: Cookies,
    keys: RandomState,
    clock: DefaultClock,
}

/// None is without a limit.
struct Budgets {
    credential: Option<Limiter>,
    address: Option<Limiter>,
}

impl Budgets {
    fn new(credential: u32, address: u32) -> Self {
        let limiter = |per_minute: u32| {
            let quota = Quota::per_minute(NonZeroU32::new(per_minute)?);
            Some(RateLimiter::new(quota, Bounded::new(REMEMBERED), DefaultClock::default()))
        };
        Self { credential: limiter(credential), address: limiter(address) }
    }

    /// Spends one request; how long to wait when there is nothing left.
    fn spend(&self, who: &Who, clock: &DefaultClock) -> Result<(), Duration> {
        check(self.credential.as_ref(), who.credential, clock)?;
        self.spend_of_address(who, clock)
    }

    fn spend_of_address(&self, who: &Who, clock: &DefaultClock) -> Result<(), Duration> {
        check(self.address.as_ref(), who.address, clock)
    }
}

fn check(limiter: Option<&Limiter>, key: u64, clock: &DefaultClock) -> Result<(), Duration> {
    let Some(limiter) = limiter else { return Ok(()) };
    limiter.check_key(&key).map_err(|refused| refused.wait_time_from(clock.now()))
}

/// Whose budgets a request spends.
struct Who {
    /// Of a request without a credential, its address.
    credential: u64,
    address: u64,
}

impl Limits {
    pub(crate) fn new(config: &Config) -> Self {
        let limits = &config.rate_limits;
        Self(Arc::new(Parts {
            all: Budgets::new(limits.per_minute, limits.address_per_minute),
            chat: Budgets::new(limits.chat_per_minute, limits.address_chat_per_minute),
            counted: Mutex::new(Generations::new(REMEMBERED)),
            trusted: config.trusted_proxies.clone(),
            cookies: Cookies::new(config),
            keys: RandomState::new(),
            clock: DefaultClock::default(),
        }))
    }

    /// How long this request has to wait, if it has to.
    fn refused(&self, request: &Request) -> Option<Duration> {
        let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
        if matches!(route, "/healthz" | "/readyz" | "/metrics") {
            return None;
        }
        self.spend(route, request).err()
    }

    fn spend(&self, route: &str, request: &Request) -> Result<(), Duration> {
        let (all, chat, clock) = (&self.0.all, &self.0.chat, &self.0.clock);
        let who = self.who(route, request);
        if takes_up_a_stream(route, request) {
            return all.spend_of_address(&who, clock);
        }
        all.spend(&who, clock)?;
        if request.method() != Method::POST {
            return Ok(());
        }
        match route {
            "/chat" | "/api/{user_id}/chat" => self.spend_post(&who, route, request.headers()),
            // Each makes another turn, whatever keys it has.
            "/jobs/{id}/retry" => chat.spend(&who, clock),
            _ => Ok(()),
        }
    }

    fn who(&self, route: &str, request: &Request) -> Who {
        let peer = request.extensions().get::<Peer>();
        let address =
            peer.map(|Peer(peer)| behind_proxies(peer.to_canonical(), request.headers(), &self.0.trusted));
        let address = address.map(|address| self.of_address(address)).unwrap_or_default();
        Who { credential: self.of_credential(route, request.headers()).unwrap_or(address), address }
    }

    /// A household or a server has a whole /64 of IPv6.
    fn of_address(&self, address: IpAddr) -> u64 {
        match address {
            IpAddr::V4(address) => self.0.keys.hash_one((1, address.to_bits())),
            IpAddr::V6(address) => self.0.keys.hash_one((2, address.to_bits() >> 64)),
        }
    }

    /// By what the client sent, before anybody looked whether it is good: whoever makes credentials up spends the budget
    /// of his address.
    /// Only what the route looks at counts, as it reads it: a header or a cookie beside it, or another spelling, would be a
    /// new budget for each value.
    fn of_credential(&self, route: &str, headers: &HeaderMap) -> Option<u64> {
        let of = |kind: &str, secret: &SecretString| self.0.keys.hash_one((3, kind, secret.expose_secret()));
        if route.starts_with("/api/v1/agents/") {
            return auth::agent_token(headers).ok().map(|token| of("agent", &token));
        }
        auth::shown(headers, &self.0.cookies).ok().map(|shown| of(shown.kind(), shown.secret()))
    }

    /// Spends one turn, unless a request with this key has spent it before: a key is good once for each route and tenant. A
    /// key that was refused has spent nothing.
    fn spend_post(&self, who: &Who, route: &str, headers: &HeaderMap) -> Result<(), Duration> {
        let Some(key) = headers.get("idempotency-key") else { return self.0.chat.spend(who, &self.0.clock) };
        let tenant = TENANT.map(|name| headers.get(name).map(HeaderValue::as_bytes));
        let key = self.0.keys.hash_one((4, who.credential, route, tenant, key.as_bytes()));
        // Held while spending, so that a hundred requests with one key at once spend one turn.
        let mut counted = self.0.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.get(key).is_none() {
            self.0.chat.spend(who, &self.0.clock)?;
            counted.put(key, ());
        }
        Ok(())
    }
}

/// How often an agent may ask, whatever number of sessions it has.
pub(crate) struct AgentLimits {
    /// None is without a limit.
    limiter: Option<Limiter>,
    /// Refusals that are worth writing down.
    told: Option<Limiter>,
    keys: RandomState,
    clock: DefaultClock,
}

impl AgentLimits {
    pub(crate) fn new(per_minute: u32) -> Self {
        let limiter = Budgets::new(per_minute, 0).credential;
        let told = Budgets::new(1, 0).credential;
        Self { limiter, told, keys: RandomState::new(), clock: DefaultClock::default() }
    }

    /// How long this agent has to wait, if it has to.
    pub(crate) fn refused(&self, tenant: TenantId, agent: &AgentName) -> Option<AgentRefused> {
        let key = self.keys.hash_one((tenant, agent));
        let spent = self.limiter.as_ref()?.check_key(&key);
        spent.err().map(|refused| AgentRefused {
            wait: refused.wait_time_from(self.clock.now()),
            is_news: self.told.as_ref().is_some_and(|told| told.check_key(&key).is_ok()),
        })
    }
}

/// An agent that has to wait.
pub(crate) struct AgentRefused {
    pub(crate) wait: Duration,
    /// Nobody was told of it within the last minute.
    pub(crate) is_news: bool,
}

fn takes_up_a_stream(route: &str, request: &Request) -> bool {
    let query = request.uri().query().unwrap_or_default();
    let has = |name: &str| form_urlencoded::parse(query.as_bytes()).any(|(given, _)| given == name);
    let is_stream = match route {
        "/jobs/{id}/events" | "/chat/stream" => true,
        // With `since` it is a page.
        "/v1/changes" => !has("since"),
        _ => false,
    };
    is_stream && (request.headers().contains_key("last-event-id") || has("lastEventId"))
}

/// Lets a request through, or answers 429.
pub(crate) async fn limit(State(limits): State<Limits>, request: Request, next: Next) -> Response {
    match limits.refused(&request) {
        None => next.run(request).await,
        Some(wait) => refusal(wait),
    }
}

fn refusal(wait: Duration) -> Response {
    Failure(too_many(wait)).into_response()
}

/// 429 with when to come again, in the body and so in `Retry-After`.
pub(crate) fn too_many(wait: Duration) -> Error {
    let seconds = (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1);
    let message = format!("too many requests; send it again in {seconds} s");
    Error::new(Code::Rate, message).with_detail("retryAfter", seconds)
}
