//! How often a client may ask [O5]: each credential and each address has a budget of requests a minute, and a smaller one
//! of chat turns. A budget may be spent at once and fills up steadily. Per process, in memory that is bounded.
//!
//! Not counted: health and metrics, and streams that are taken up again, so that a restart does not shut out those whom
//! it cut off. A repeated Idempotency-Key is one turn, so it counts as one.

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
use http::{HeaderMap, Method};
use shared::{
    agents::AgentName,
    config::{Config, Network},
    error::{Code, Error},
    ids::TenantId,
};

use self::store::{Bounded, Generations};
use crate::{
    address::{Peer, behind_proxies},
    error::Failure,
};

/// Keys remembered at least; twice as many at most.
const REMEMBERED: usize = 50_000;

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
        for (limiter, key) in [(&self.credential, who.credential), (&self.address, who.address)] {
            if let Some(limiter) = limiter {
                limiter.check_key(&key).map_err(|refused| refused.wait_time_from(clock.now()))?;
            }
        }
        Ok(())
    }
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
            keys: RandomState::new(),
            clock: DefaultClock::default(),
        }))
    }

    /// How long this request has to wait, if it has to.
    fn refused(&self, request: &Request) -> Option<Duration> {
        let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
        if matches!(route, "/healthz" | "/readyz" | "/metrics") || takes_up_a_stream(route, request) {
            return None;
        }
        let who = self.who(route, request);
        let spent = self.0.all.spend(&who, &self.0.clock).and_then(|()| {
            if is_chat(route, request.method()) { self.spend_turn(&who, request.headers()) } else { Ok(()) }
        });
        spent.err()
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
    /// Only what the route looks at counts: a header beside it would be a new budget for each value.
    fn of_credential(&self, route: &str, headers: &HeaderMap) -> Option<u64> {
        let names: &[&str] = if route.starts_with("/api/v1/agents/") {
            &["x-agent-authorization"]
        } else {
            &["authorization", "x-api-key", "cookie"]
        };
        let credential = names.iter().find_map(|name| headers.get(*name))?;
        Some(self.0.keys.hash_one((3, credential.as_bytes())))
    }

    /// Spends one turn, unless a request with this key has spent it before. A key that was refused has spent nothing.
    fn spend_turn(&self, who: &Who, headers: &HeaderMap) -> Result<(), Duration> {
        let Some(key) = headers.get("idempotency-key") else { return self.0.chat.spend(who, &self.0.clock) };
        let key = self.0.keys.hash_one((4, who.credential, key.as_bytes()));
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

/// Routes that make a turn.
fn is_chat(route: &str, method: &Method) -> bool {
    method == Method::POST && matches!(route, "/chat" | "/api/{user_id}/chat" | "/jobs/{id}/retry")
}

fn takes_up_a_stream(route: &str, request: &Request) -> bool {
    let query = request.uri().query().unwrap_or_default();
    matches!(route, "/jobs/{id}/events" | "/chat/stream" | "/v1/changes/stream")
        && (request.headers().contains_key("last-event-id")
            || query.split('&').any(|parameter| parameter.starts_with("lastEventId=")))
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
