//! SQL of switches, as the engine.

use sqlx::PgPool;

use crate::{error::Result, flags::Flag};

/// Paused queues, and all flags.
pub(super) async fn read(engine: &PgPool) -> Result<(Vec<String>, Vec<Flag>)> {
    let paused = sqlx::query_scalar("select name from queues where paused_at is not null order by name")
        .fetch_all(engine)
        .await?;
    Ok((paused, crate::flags::all(engine).await?))
}
