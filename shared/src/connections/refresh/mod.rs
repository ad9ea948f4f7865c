//! Refreshing tokens: one request to the provider, however many ask and in however many processes.
//!
//! Whoever takes the row's lease asks; all others wait for the new version. What may become of the answer decides what
//! the next one does:
//!
//! ```text
//! answer              the row
//! tokens              version n becomes n + 1, lease or not: they are the only good ones
//! did not act         free again, after a pause
//! unknown             free again, after a pause, with `sent_at` kept: the token may have been used up
//! invalid_grant       of a token that nobody else can have used: invalid
//!                     after an unknown answer: doubted. Whoever has that answer gets one more lease to write it; only
//!                     then is the person asked to sign in again
//! ```
//!
//! A process that dies between the provider's answer and our commit loses a token that the provider may have replaced.
//! The next one tries the old token once, which providers allow after a lost answer; where they do not, it ends as doubted.

mod store;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use rand::RngExt as _;
use secrecy::SecretString;
use sqlx::PgPool;
use uuid::Uuid;

use super::{Connections, Credential, Place, REFRESH, Sealed, store as connections, store::Row};
use crate::{
    error::{Code, Error, Result},
    identity::Actor,
    ids::{ConnectionId, TenantId, UserId},
    oauth::{self, ClientIdentity, Endpoints, TokenFailure, Tokens},
    resilience::failpoint,
};

/// How long before its end a token is refreshed by the clock, in seconds.
const AHEAD: f64 = 300.0;
/// How long a token must be good for to be used; a shorter one is refreshed first. Half of its life for one that is
/// good for less than twice this.
const MARGIN: f64 = 60.0;
/// The request leaves so soon after the lease was taken, or not at all: a process that stood still has lost it.
const SENT_WITHIN: Duration = Duration::from_secs(2);
/// Pauses after failures: the first, and the longest.
const PAUSES: (f64, f64) = (1.0, 900.0);
const LOOKS_EVERY: Duration = Duration::from_millis(100);

/// What a caller needs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wanted {
    /// A token that is good for a while.
    Good,
    /// A newer one than this version.
    After(i64),
    /// One that is good for [`AHEAD`].
    Fresh,
}

/// One refresh at a time of each connection in this process, so that waiting costs the database nothing.
#[derive(Default)]
pub(super) struct Flights(Mutex<HashMap<ConnectionId, Weak<tokio::sync::Mutex<()>>>>);

impl Flights {
    fn of(&self, id: ConnectionId) -> Arc<tokio::sync::Mutex<()>> {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(&id).and_then(Weak::upgrade) {
            return flight;
        }
        if flights.len() >= 1024 {
            flights.retain(|_, flight| flight.strong_count() > 0);
        }
        let flight = Arc::default();
        flights.insert(id, Arc::downgrade(&flight));
        flight
    }
}

/// A connection whose token ends soon.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub struct Due {
    pub tenant_id: TenantId,
    pub user_id: UserId,
    pub id: ConnectionId,
}

/// What refreshing a connection by the clock came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is good for longer now, or somebody else is at it, or it is gone.
    Done,
    /// The person has to sign in again.
    SignInAgain,
}

/// The connections whose tokens end within five minutes and that nobody refreshes now, the soonest first.
///
/// # Errors
/// The database's.
pub async fn due(engine: &PgPool, most: i64) -> Result<Vec<Due>> {
    store::due(engine, AHEAD, most).await
}

/// What an attempt came to.
enum Attempt {
    /// The row is another one now: read it again.
    Changed,
    /// Somebody else is at it.
    Held,
    /// The provider cannot be asked before so many seconds have passed.
    Later(f64),
}

/// A lease that was taken.
#[derive(sqlx::FromRow)]
struct Taken {
    /// An earlier request's answer is not known.
    is_ambiguous: bool,
    /// The provider refused after such a request, and nobody has come with its answer since.
    is_doubted: bool,
}

/// What one attempt needs all the way.
struct Flight {
    actor: Actor,
    id: ConnectionId,
    version: i64,
    lease: Uuid,
    provider: String,
}

impl Connections {
    /// Refreshes a connection by the clock.
    ///
    /// # Errors
    /// OAUTH-REFRESH-FAIL when the provider cannot be asked now; the database's.
    pub async fn refresh(&self, due: &Due) -> Result<Outcome> {
        let actor = Actor::of_turn(due.tenant_id, due.user_id);
        let mut tx = self.begin(&actor).await?;
        let row = connections::by_id(&mut tx, due.id).await?.filter(Row::is_active);
        tx.commit().await?;
        let Some(row) = row else { return Ok(Outcome::Done) };
        match self.usable(&actor, row, Wanted::Fresh).await {
            Ok(_) => Ok(Outcome::Done),
            Err(error) if super::wants_sign_in(&error) => Ok(Outcome::SignInAgain),
            Err(error) => Err(error),
        }
    }

    /// The row's token, refreshed first when that is needed.
    pub(super) async fn usable(&self, actor: &Actor, row: Row, wanted: Wanted) -> Result<Option<Credential>> {
        if !row.wants(wanted) {
            return self.open(actor, &row).map(Some);
        }
        let flight = self.0.flights.of(row.id);
        let _one_at_a_time = flight.lock().await;
        let until = Instant::now() + self.lease() * 2;
        let id = row.id;
        loop {
            let mut tx = self.begin(actor).await?;
            let row = connections::by_id(&mut tx, id).await?;
            tx.commit().await?;
            let Some(row) = row else { return Ok(None) };
            if !row.is_active() {
                return Err(self.sign_in_again(&row.provider));
            }
            if !row.wants(wanted) {
                return self.open(actor, &row).map(Some);
            }
            if row.refresh_token_enc.is_none() {
                if matches!(wanted, Wanted::After(_)) || row.has_ended() {
                    self.end(actor, &row).await?;
                    continue;
                }
                return self.open(actor, &row).map(Some);
            }
            let pause = match self.attempt(actor, &row).await? {
                Attempt::Changed => continue,
                Attempt::Held if Instant::now() < until => {
                    tokio::time::sleep(LOOKS_EVERY).await;
                    continue;
                }
                Attempt::Held => 1.0,
                Attempt::Later(pause) => pause,
            };
            // A token that is still good is better than none.
            if matches!(wanted, Wanted::Good) && !row.has_ended() {
                return self.open(actor, &row).map(Some);
            }
            let sentence = format!("{} cannot be asked for a new token now", row.provider);
            let seconds = pause.ceil().max(1.0) as u64;
            return Err(Error::new(Code::OauthRefresh, sentence).with_detail("retryAfter", seconds));
        }
    }

    /// How long whoever refreshes has, at the least.
    fn lease(&self) -> Duration {
        self.timeout() * 2 + self.timeout().min(Duration::from_secs(10))
    }

    /// A row that cannot be refreshed and is good for nothing any more.
    async fn end(&self, actor: &Actor, row: &Row) -> Result<()> {
        let mut tx = self.begin(actor).await?;
        store::end(&mut tx, row.id, row.token_version, None, "ended").await?;
        tx.commit().await?;
        note(&row.provider, "ended");
        Ok(())
    }

    /// Takes the lease, asks, writes back. The asking lives on when the caller is gone: an answer must not be lost.
    async fn attempt(&self, actor: &Actor, row: &Row) -> Result<Attempt> {
        // What can fail here fails before anybody is told that the provider was asked.
        let place = self.place(actor, row);
        let sealed = row.refresh_token_enc.as_deref().unwrap_or_default();
        let token = self.0.parts.vault.open(place.binding(REFRESH), sealed)?;
        let endpoints = row.endpoints()?;
        let client = self.client_of(actor, row).await?;
        let lease = Uuid::new_v4();
        let taken_at = Instant::now();
        let mut tx = self.begin(actor).await?;
        let taken = store::take(&mut tx, row.id, row.token_version, lease, self.lease()).await?;
        tx.commit().await?;
        let flight = Flight {
            actor: actor.clone(),
            id: row.id,
            version: row.token_version,
            lease,
            provider: row.provider.clone(),
        };
        let Some(taken) = taken else { return self.why_not(actor, row).await };
        failpoint("connection_refresh_leased").await;
        if taken.is_doubted {
            // The lease that was given to whoever had the answer has passed.
            self.invalid(&flight, "answer_lost").await?;
            return Ok(Attempt::Changed);
        }
        if taken_at.elapsed() > SENT_WITHIN {
            self.release(&flight, taken.is_ambiguous).await?;
            return Ok(Attempt::Held);
        }
        let this = self.clone();
        let flying = tokio::spawn(async move {
            let asked =
                oauth::refresh(&this.0.parts.outbound, &endpoints, &client, &token, this.timeout()).await;
            failpoint("connection_refresh_answered").await;
            this.settle(flight, &place, taken.is_ambiguous, &endpoints, &client, &token, asked).await
        });
        flying.await.map_err(Error::internal)?
    }

    /// Why the lease was not to be had.
    async fn why_not(&self, actor: &Actor, row: &Row) -> Result<Attempt> {
        let mut tx = self.begin(actor).await?;
        let now = connections::by_id(&mut tx, row.id).await?;
        tx.commit().await?;
        Ok(match now {
            Some(now) if now.is_active() && now.token_version == row.token_version => {
                match (now.pause.filter(|pause| *pause > 0.0), now.held_for.filter(|held| *held > 0.0)) {
                    (Some(pause), _) => Attempt::Later(pause),
                    (None, Some(_)) => Attempt::Held,
                    (None, None) => Attempt::Changed,
                }
            }
            _ => Attempt::Changed,
        })
    }

    #[expect(clippy::too_many_arguments, reason = "one use: the end of an attempt")]
    async fn settle(
        &self,
        flight: Flight,
        place: &Place,
        is_ambiguous: bool,
        endpoints: &Endpoints,
        client: &ClientIdentity,
        token: &SecretString,
        asked: Result<Tokens, TokenFailure>,
    ) -> Result<Attempt> {
        match asked {
            Ok(tokens) => self.write_back(&flight, place, endpoints, client, token, &tokens).await,
            Err(TokenFailure::Rejected) if is_ambiguous => {
                let wait = self.lease();
                let mut tx = self.begin(&flight.actor).await?;
                store::doubt(&mut tx, flight.id, flight.version, flight.lease, wait).await?;
                tx.commit().await?;
                note(&flight.provider, "doubted");
                Ok(Attempt::Later(wait.as_secs_f64()))
            }
            Err(TokenFailure::Rejected) => {
                self.invalid(&flight, "refused").await?;
                Ok(Attempt::Changed)
            }
            Err(TokenFailure::Refused(word))
                if matches!(word.as_str(), "invalid_client" | "unauthorized_client") =>
            {
                self.retire(&flight.actor, &endpoints.issuer, &client.id).await?;
                self.invalid(&flight, "client_refused").await?;
                Ok(Attempt::Changed)
            }
            Err(failure) => {
                let keeps_doubt = is_ambiguous || matches!(failure, TokenFailure::Unknown(_));
                self.fail(flight, keeps_doubt, &failure.to_string()).await
            }
        }
    }

    /// Writes the new tokens over the version that they replace. Not fenced by the lease, and tried as long as the process
    /// lives: these are the only good tokens that there are.
    async fn write_back(
        &self,
        flight: &Flight,
        place: &Place,
        endpoints: &Endpoints,
        client: &ClientIdentity,
        former: &SecretString,
        tokens: &Tokens,
    ) -> Result<Attempt> {
        // A server that gives no new refresh token goes on with the one that it gave.
        let refresh = tokens.refresh.as_ref().unwrap_or(former);
        let sealed = Sealed::new(&self.0.parts.vault, place, &tokens.access, Some(refresh))?;
        let mut pause = Duration::from_millis(50);
        loop {
            let written = async {
                let mut tx = self.begin(&flight.actor).await?;
                let written =
                    store::write_back(&mut tx, flight.id, flight.version, &sealed, tokens.expires_in).await?;
                let is_there = written || connections::by_id(&mut tx, flight.id).await?.is_some();
                tx.commit().await?;
                Ok::<_, Error>((written, is_there))
            };
            match written.await {
                Ok((true, _)) => {
                    note(&flight.provider, "refreshed");
                    return Ok(Attempt::Changed);
                }
                Ok((false, true)) => return Ok(Attempt::Changed),
                Ok((false, false)) => {
                    // Disconnected meanwhile: what was given after that goes back too.
                    self.revoke(endpoints, client, Some(refresh), Some(&tokens.access)).await;
                    return Ok(Attempt::Changed);
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "refreshed tokens were not stored; trying again"
                    );
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
            }
        }
    }

    /// Only while the row is as it was: whoever has moved it since has won.
    async fn invalid(&self, flight: &Flight, reason: &'static str) -> Result<()> {
        let mut tx = self.begin(&flight.actor).await?;
        let ended = store::end(&mut tx, flight.id, flight.version, Some(flight.lease), reason).await?;
        tx.commit().await?;
        if ended {
            note(&flight.provider, reason);
        }
        Ok(())
    }

    async fn release(&self, flight: &Flight, keeps_doubt: bool) -> Result<()> {
        let mut tx = self.begin(&flight.actor).await?;
        store::release(&mut tx, flight.id, flight.lease, keeps_doubt).await?;
        tx.commit().await
    }

    async fn fail(&self, flight: Flight, keeps_doubt: bool, told: &str) -> Result<Attempt> {
        let mut tx = self.begin(&flight.actor).await?;
        let failures = store::failures(&mut tx, flight.id).await? + 1;
        let pause = pause_after(failures);
        store::fail(&mut tx, flight.id, flight.lease, keeps_doubt, pause, told).await?;
        tx.commit().await?;
        note(&flight.provider, "failed");
        tracing::warn!(
            server = flight.provider,
            failures,
            told,
            "a token was not refreshed; it is tried again"
        );
        Ok(Attempt::Later(pause))
    }
}

impl Row {
    /// Whether the token is not what is wanted.
    fn wants(&self, wanted: Wanted) -> bool {
        let ends_within = |margin: f64| {
            let margin = self.life.map_or(margin, |life| margin.min(life / 2.0));
            self.good_for.is_some_and(|good_for| good_for <= margin)
        };
        !self.is_active()
            || match wanted {
                Wanted::Good => ends_within(MARGIN),
                Wanted::Fresh => ends_within(AHEAD),
                Wanted::After(version) => self.token_version <= version,
            }
    }

    fn has_ended(&self) -> bool {
        self.good_for.is_some_and(|good_for| good_for <= 1.0)
    }
}

/// Twice as long after each failure, and never the same for everybody.
fn pause_after(failures: i64) -> f64 {
    let doubled = PAUSES.0 * 2f64.powi(i32::try_from(failures.clamp(1, 30) - 1).unwrap_or(30));
    doubled.min(PAUSES.1) * rand::rng().random_range(0.75..1.25)
}

fn note(server: &str, outcome: &'static str) {
    metrics::counter!("connection_refreshes_total", "outcome" => outcome).increment(1);
    match outcome {
        "refreshed" | "failed" => {}
        _ => tracing::warn!(
            server,
            outcome,
            error_code = Code::OauthRefresh.as_str(),
            "a connection needs its person"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_quarter_of_an_hour() {
        assert!((0.75..1.25).contains(&pause_after(1)) && (3.0..5.0).contains(&pause_after(3)));
        assert!((675.0..1125.0).contains(&pause_after(1000)));
    }
}
