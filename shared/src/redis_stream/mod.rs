//! Events about users, appended to a Redis stream for consumers that already read one [A6]. Off by default.
//!
//! Postgres stays the truth: a position says how far the stream is filled, and only what Redis has taken moves it. So a Redis
//! that is down, slow or full costs a warning, and gets what it missed when it is well again. An event may be appended twice
//! (a process died between the two writes); `event_id` tells.
//!
//! Invariant: no transaction is open while Redis is asked, and one process at a time appends, so events are in the order in
//! which their transactions ended.

mod store;

use std::time::Duration;

use redis::{AsyncConnectionConfig, aio::MultiplexedConnection};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::store::{Event, Place};
use crate::{
    bell::{Bell, Heard},
    error::Result,
};

/// The stream's key.
pub const STREAM: &str = "alfred:authentication_events";
/// Events appended in one go.
const BATCH: i64 = 500;
/// How long Redis may take for anything.
const PATIENCE: Duration = Duration::from_secs(2);
/// A process that fills the stream and says nothing for so long has died.
const LEASE: Duration = Duration::from_secs(15);
/// Looks by itself this often, in case a bell was lost.
const LOOK: Duration = Duration::from_secs(5);
/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// See `.env.example`.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    /// `REDIS_URL`; it may hold a password.
    pub url: SecretString,
    /// `REDIS_STREAM_MAX_LENGTH`: about so many events are kept.
    pub max_length: u64,
    /// `REDIS_CONSUMER_GROUP`: made when it is not there.
    pub group: String,
}

/// Why a round did not succeed.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("Redis: {0}")]
    Redis(#[from] redis::RedisError),
    #[error("Redis did not answer in time")]
    Late,
    #[error("the database: {0}")]
    Database(#[from] crate::error::Error),
}

impl From<tokio::time::error::Elapsed> for Trouble {
    fn from(_: tokio::time::error::Elapsed) -> Self {
        Self::Late
    }
}

/// Fills the stream until the process stops.
pub async fn fill(engine: PgPool, bell: Bell, config: RedisConfig, stopping: CancellationToken) {
    let mut filler = Filler { engine, config, connection: None };
    let mut hearing = bell.subscribe();
    let mut pause = Duration::ZERO;
    loop {
        match filler.round(&stopping).await {
            Ok(()) => {
                if !pause.is_zero() {
                    tracing::info!(stream = STREAM, "the Redis stream is filled again");
                }
                pause = Duration::ZERO;
            }
            Err(trouble) => {
                filler.connection = None;
                metrics::counter!("redis_stream_failures_total").increment(1);
                if pause.is_zero() {
                    tracing::warn!(stream = STREAM, error = %trouble, "events wait for the Redis stream; nothing else does");
                }
                pause = (pause * 2).clamp(Duration::from_secs(1), LONGEST_PAUSE);
            }
        }
        let waiting = async {
            if !pause.is_zero() {
                return tokio::time::sleep(pause).await;
            }
            let told =
                async { while !matches!(hearing.next().await, Heard::Deliveries | Heard::Reconnected) {} };
            // Late is as good as told.
            let _ = tokio::time::timeout(LOOK, told).await;
        };
        if stopping.run_until_cancelled(waiting).await.is_none() {
            return;
        }
    }
}

struct Filler {
    engine: PgPool,
    config: RedisConfig,
    connection: Option<MultiplexedConnection>,
}

impl Filler {
    /// Appends all that is there, unless another process does.
    async fn round(&mut self, stopping: &CancellationToken) -> Result<(), Trouble> {
        let lease = Uuid::new_v4();
        let Some(mut place) = store::take(&self.engine, STREAM, lease, LEASE).await? else { return Ok(()) };
        let filled = self.from(&mut place, lease, stopping).await;
        // A lease that is not given back runs out.
        let _ = store::give_back(&self.engine, STREAM, lease).await;
        filled
    }

    async fn from(
        &mut self,
        place: &mut Place,
        lease: Uuid,
        stopping: &CancellationToken,
    ) -> Result<(), Trouble> {
        while !stopping.is_cancelled() {
            let events = store::after(&self.engine, place, BATCH).await?;
            let Some(last) = events.last() else { return Ok(()) };
            let reached = last.place.clone();
            self.append(&events).await?;
            metrics::counter!("redis_stream_events_total").increment(events.len() as u64);
            if !store::moved(&self.engine, STREAM, lease, &reached, LEASE).await? {
                return Ok(());
            }
            *place = reached;
        }
        Ok(())
    }

    async fn append(&mut self, events: &[Event]) -> Result<(), Trouble> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let mut pipe = redis::pipe();
        for event in events {
            let command =
                pipe.cmd("XADD").arg(STREAM).arg("MAXLEN").arg("~").arg(self.config.max_length).arg("*");
            for (field, value) in event.fields() {
                command.arg(field).arg(value);
            }
            command.ignore();
        }
        let () = tokio::time::timeout(PATIENCE, pipe.query_async(&mut connection)).await??;
        self.connection = Some(connection);
        Ok(())
    }

    /// Connects, and makes the group of consumers where there is none.
    async fn connect(&self) -> Result<MultiplexedConnection, Trouble> {
        let client = redis::Client::open(self.config.url.expose_secret())?;
        let bounds = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        let connecting = client.get_multiplexed_async_connection_with_config(&bounds);
        let mut connection = tokio::time::timeout(PATIENCE, connecting).await??;
        let mut make = redis::cmd("XGROUP");
        make.arg("CREATE").arg(STREAM).arg(&self.config.group).arg("$").arg("MKSTREAM");
        let made: redis::RedisResult<()> =
            tokio::time::timeout(PATIENCE, make.query_async(&mut connection)).await?;
        match made {
            Err(error) if error.code() == Some("BUSYGROUP") => {}
            made => made?,
        }
        Ok(connection)
    }
}

impl Event {
    /// What a consumer reads, in words.
    fn fields(&self) -> [(&'static str, String); 7] {
        [
            ("event_id", self.id.to_string()),
            ("event_type", self.event_type.clone()),
            ("tenant_id", self.tenant_id.to_string()),
            ("user_id", self.user_id.to_string()),
            ("correlation_id", self.correlation_id.clone().unwrap_or_default()),
            ("timestamp", self.created_at.to_rfc3339()),
            ("data", self.event_data.to_string()),
        ]
    }
}
