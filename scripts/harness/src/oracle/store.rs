//! SQL of the oracle: one consistent picture of a database, read past row-level security.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{FromRow, PgPool};
use uuid::Uuid;

/// A turn's row, as far as the rules need it.
#[derive(Debug, Clone, FromRow)]
pub struct TurnRow {
    pub tenant_id: Uuid,
    pub id: Uuid,
    pub conversation_id: i64,
    pub session_id: Uuid,
    pub turn_no: i64,
    pub state: String,
    pub slot: Option<i64>,
    pub process_id: Option<Uuid>,
    pub attempts: i64,
    pub takeovers_total: i64,
    pub reply: Option<String>,
    pub input_tokens: i64,
    pub output_tokens: i64,
    pub started_at: Option<DateTime<Utc>>,
    pub finished_at: Option<DateTime<Utc>>,
}

/// A row of the event log.
#[derive(Debug, Clone, FromRow)]
pub struct EventRow {
    pub turn_id: Uuid,
    pub seq: i64,
    pub kind: String,
    pub data: String,
}

/// A step of a turn's journal.
#[derive(Debug, Clone, FromRow)]
pub struct StepRow {
    pub turn_id: Uuid,
    pub step: i64,
    pub call_id: String,
    pub kind: String,
    pub view: String,
    pub content: Option<String>,
    pub is_error: bool,
    pub finished_at: Option<DateTime<Utc>>,
}

/// A call to a model.
#[derive(Debug, Clone, FromRow)]
pub struct CallRow {
    pub id: Uuid,
    pub turn_id: Uuid,
    pub settled_at: Option<DateTime<Utc>>,
    pub outcome: Option<String>,
    pub estimated: bool,
    pub input_tokens: i64,
    pub output_tokens: i64,
}

/// A slot of a tenant.
#[derive(Debug, Clone, FromRow)]
pub struct SlotRow {
    pub tenant_id: Uuid,
    pub n: i64,
    pub turn_id: Option<Uuid>,
}

/// A worker process, with the age of its heartbeat in milliseconds.
#[derive(Debug, Clone, FromRow)]
pub struct WorkerRow {
    pub id: Uuid,
    pub dead: bool,
    pub silent_ms: i64,
}

/// An item of the workspace.
#[derive(Debug, Clone, FromRow)]
pub struct ItemRow {
    pub tenant_id: Uuid,
    pub kind: String,
    pub uid: Uuid,
    pub id: i64,
    pub payload: Value,
    pub turn_id: Option<Uuid>,
}

/// A session's total.
#[derive(Debug, Clone, FromRow)]
pub struct SessionRow {
    pub tenant_id: Uuid,
    pub id: Uuid,
    pub tokens_total: i64,
}

/// Everything the rules look at.
#[derive(Debug, Clone, Default)]
pub struct Picture {
    pub turns: Vec<TurnRow>,
    /// By turn, in the order of their ids.
    pub events: BTreeMap<Uuid, Vec<EventRow>>,
    pub steps: BTreeMap<Uuid, Vec<StepRow>>,
    pub calls: BTreeMap<Uuid, Vec<CallRow>>,
    pub slots: Vec<SlotRow>,
    pub workers: Vec<WorkerRow>,
    pub items: Vec<ItemRow>,
    pub sessions: Vec<SessionRow>,
}

impl Picture {
    /// Reads it in one snapshot.
    ///
    /// # Errors
    /// The database's.
    pub async fn of(admin: &PgPool) -> Result<Self, sqlx::Error> {
        let mut tx = admin.begin_with("begin isolation level repeatable read read only").await?;
        let turns = sqlx::query_as(
            "select tenant_id, id, conversation_id, session_id, turn_no, state, slot, process_id, attempts, takeovers_total,
                    reply, input_tokens, output_tokens, started_at, finished_at
             from turns order by tenant_id, conversation_id, turn_no",
        )
        .fetch_all(&mut *tx)
        .await?;
        let events: Vec<EventRow> =
            sqlx::query_as("select turn_id, seq, kind, data from turn_events order by turn_id, seq")
                .fetch_all(&mut *tx)
                .await?;
        let steps: Vec<StepRow> = sqlx::query_as(
            "select turn_id, step, call_id, kind, view, content, is_error, finished_at from turn_steps
             order by turn_id, step, call_id",
        )
        .fetch_all(&mut *tx)
        .await?;
        let calls: Vec<CallRow> = sqlx::query_as(
            "select id, turn_id, settled_at, outcome, estimated, input_tokens, output_tokens from model_calls
             order by turn_id, sent_at",
        )
        .fetch_all(&mut *tx)
        .await?;
        let slots =
            sqlx::query_as("select tenant_id, n, turn_id from tenant_slots").fetch_all(&mut *tx).await?;
        let workers = sqlx::query_as(
            "select id, dead_at is not null as dead,
                    (extract(epoch from clock_timestamp() - seen_at) * 1000)::bigint as silent_ms from workers",
        )
        .fetch_all(&mut *tx)
        .await?;
        let items =
            sqlx::query_as("select tenant_id, kind, uid, id, payload, turn_id from items order by kind, id")
                .fetch_all(&mut *tx)
                .await?;
        let sessions = sqlx::query_as("select tenant_id, id, tokens_total from user_sessions")
            .fetch_all(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(Self {
            turns,
            events: by_turn(events, |row| row.turn_id),
            steps: by_turn(steps, |row| row.turn_id),
            calls: by_turn(calls, |row| row.turn_id),
            slots,
            workers,
            items,
            sessions,
        })
    }

    /// The events of a turn; none when it has none.
    #[must_use]
    pub fn events_of(&self, turn: Uuid) -> &[EventRow] {
        self.events.get(&turn).map_or(&[], Vec::as_slice)
    }

    /// The steps of a turn.
    #[must_use]
    pub fn steps_of(&self, turn: Uuid) -> &[StepRow] {
        self.steps.get(&turn).map_or(&[], Vec::as_slice)
    }

    /// The calls to models of a turn.
    #[must_use]
    pub fn calls_of(&self, turn: Uuid) -> &[CallRow] {
        self.calls.get(&turn).map_or(&[], Vec::as_slice)
    }
}

fn by_turn<T>(rows: Vec<T>, turn: impl Fn(&T) -> Uuid) -> BTreeMap<Uuid, Vec<T>> {
    let mut map: BTreeMap<Uuid, Vec<T>> = BTreeMap::new();
    for row in rows {
        map.entry(turn(&row)).or_default().push(row);
    }
    map
}
