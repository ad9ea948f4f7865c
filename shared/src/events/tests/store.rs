//! Turns for the tests, made as the superuser past the rules of posting, and faults.

use std::time::{Duration, Instant};

use sqlx::{PgPool, Postgres, Transaction};
use uuid::Uuid;

use crate::{
    events::{EventKind, Lease},
    ids::{TenantId, TurnId},
    testing::TestDb,
};

/// A running turn whose first event is written.
pub(super) async fn running_turn(admin: &PgPool, tenant: TenantId) -> Lease {
    let lease = Lease::new(tenant, TurnId::generate(), Uuid::new_v4());
    insert_turn(admin, lease).await;
    append_row(admin, lease, 1, EventKind::Queued).await;
    lease
}

/// The turn's row alone.
pub(super) async fn insert_turn(admin: &PgPool, lease: Lease) {
    let mut tx = admin.begin().await.unwrap();
    // Without the conversation and session that a posted turn has.
    sqlx::query("set local session_replication_role = replica").execute(&mut *tx).await.unwrap();
    sqlx::query(
        "insert into turns (tenant_id, id, conversation_id, session_id, user_id, turn_no, state, slot, lease, process_id, request_id) \
         values ($1, $2, (random() * 1e15)::bigint, gen_random_uuid(), gen_random_uuid(), 1, 'running', 1, $3, gen_random_uuid(), 'r')",
    )
    .bind(lease.tenant)
    .bind(lease.turn)
    .bind(lease.token)
    .execute(&mut *tx)
    .await
    .unwrap();
    tx.commit().await.unwrap();
}

/// A row past the appender.
pub(super) async fn append_row(admin: &PgPool, lease: Lease, seq: i64, kind: EventKind) {
    sqlx::query("insert into turn_events (tenant_id, turn_id, seq, kind, data) values ($1, $2, $3, $4, $5)")
        .bind(lease.tenant)
        .bind(lease.turn)
        .bind(seq)
        .bind(kind.as_str())
        .bind(format!("{{\"n\":{seq}}}"))
        .execute(admin)
        .await
        .unwrap();
}

/// Gives the turn to another attempt.
pub(super) async fn take_over(admin: &PgPool, lease: Lease) -> Lease {
    let taken = Lease::new(lease.tenant, lease.turn, Uuid::new_v4());
    sqlx::query("update turns set lease = $3 where tenant_id = $1 and id = $2")
        .bind(taken.tenant)
        .bind(taken.turn)
        .bind(taken.token)
        .execute(admin)
        .await
        .unwrap();
    taken
}

/// Asks to cancel the turn, without ringing.
pub(super) async fn ask_to_cancel(admin: &PgPool, lease: Lease) {
    sqlx::query("update turns set cancel_requested_at = clock_timestamp() where tenant_id = $1 and id = $2")
        .bind(lease.tenant)
        .bind(lease.turn)
        .execute(admin)
        .await
        .unwrap();
}

/// Holds the turn's row as a step's transaction does.
pub(super) async fn lock(admin: &PgPool, lease: Lease) -> Transaction<'static, Postgres> {
    let mut tx = admin.begin().await.unwrap();
    sqlx::query("select from turns where tenant_id = $1 and id = $2 for no key update")
        .bind(lease.tenant)
        .bind(lease.turn)
        .execute(&mut *tx)
        .await
        .unwrap();
    tx
}

/// The turn's log: id, kind, data.
pub(super) async fn log_of(admin: &PgPool, lease: Lease) -> Vec<(i64, String, String)> {
    sqlx::query_as(
        "select seq, kind, data from turn_events where tenant_id = $1 and turn_id = $2 order by seq",
    )
    .bind(lease.tenant)
    .bind(lease.turn)
    .fetch_all(admin)
    .await
    .unwrap()
}

/// Makes the engine's connections refuse to write for this long.
pub(super) async fn refuse_connections_for(db: &TestDb, time: Duration) {
    let admin = db.admin();
    let name = &db.name;
    let cluster = db.cluster();
    let set = |limit: i32| sqlx::AssertSqlSafe(format!("alter database {name} connection limit {limit}"));
    sqlx::query(set(0)).execute(&cluster).await.unwrap();
    let until = Instant::now() + time;
    while Instant::now() < until {
        crate::bell::tests::store::terminate_others(&admin).await;
        crate::bell::tests::store::terminate_listeners(&admin).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    sqlx::query(set(-1)).execute(&cluster).await.unwrap();
}
