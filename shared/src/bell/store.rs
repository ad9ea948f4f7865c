//! The SQL of the bell.

use std::time::Duration;

use sqlx::{
    PgConnection,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};

use crate::error::Result;

/// Sends notifications, each payload on its channel, in one statement.
pub(super) async fn notify(
    engine: &mut PgConnection,
    channels: &[String],
    payloads: &[String],
) -> Result<()> {
    sqlx::query(
        "select pg_notify(u.channel, u.payload) from unnest($1::text[], $2::text[]) u(channel, payload)",
    )
    .bind(channels)
    .bind(payloads)
    .execute(engine)
    .await?;
    Ok(())
}

/// A new connection that listens. It has a pool to itself, because a listener that is dropped hands its connection
/// back in its own time, and a deaf one may never.
pub(super) async fn listen(options: PgConnectOptions, channels: &[&str]) -> Result<PgListener> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(Duration::from_secs(5))
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_lazy_with(options);
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.ignore_pool_close_event(true);
    // The listening task makes a new listener instead, so that it notices every loss.
    listener.eager_reconnect(false);
    listener.listen_all(channels.iter().copied()).await?;
    Ok(listener)
}
