//! Pausing a queue and letting it go on. What runs then runs to its end; nothing more is taken up, on any process. Kept in a
//! table, so that a pause outlives every process.

mod store;

use chrono::{DateTime, Utc};
use serde_json::json;

pub(super) use self::store::since;
use super::{QueueDef, Queues};
use crate::{
    bell::Ring,
    db,
    error::Result,
    ids::UserId,
    tenancy::{
        OperatorActor,
        audit::{self, Entry},
    },
};

/// A queue that stands still.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Paused {
    /// The queue.
    pub queue: String,
    pub since: DateTime<Utc>,
    pub by: UserId,
    pub because: Option<String>,
}

impl Queues {
    /// The queues that stand still.
    ///
    /// # Errors
    /// The database's.
    pub async fn paused(&self) -> Result<Vec<Paused>> {
        store::all(&self.engine).await
    }

    /// Stops a queue; false when it stood still already.
    ///
    /// # Errors
    /// The database's.
    pub async fn pause(
        &self,
        operator: &OperatorActor,
        queue: &QueueDef,
        because: Option<&str>,
    ) -> Result<bool> {
        let mut tx = db::begin(&self.engine).await?;
        let done = store::pause(&mut tx, queue.name, operator.actor().user, because).await?;
        if done {
            let entry = Entry::new("queue.paused", queue.name).with(json!({ "because": because }));
            audit::record_for(&mut tx, operator, operator.actor().tenant, entry).await?;
        }
        tx.commit().await?;
        self.bell.ring(Ring::Switches);
        Ok(done)
    }

    /// Lets a queue go on; false when it was not paused.
    ///
    /// # Errors
    /// The database's.
    pub async fn resume(&self, operator: &OperatorActor, queue: &QueueDef) -> Result<bool> {
        let mut tx = db::begin(&self.engine).await?;
        let done = store::resume(&mut tx, queue.name).await?;
        if done {
            let entry = Entry::new("queue.resumed", queue.name);
            audit::record_for(&mut tx, operator, operator.actor().tenant, entry).await?;
        }
        tx.commit().await?;
        // What piled up is taken at once.
        self.bell.ring_all([Ring::Switches, Ring::Work, Ring::Deliveries]);
        Ok(done)
    }
}
