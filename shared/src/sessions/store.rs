//! SQL of sessions.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::{PgPool, Row, postgres::PgRow};

use super::{LastEvent, NewSession, RunningTurn, Session};
use crate::{
    db::TenantTx,
    error::Result,
    ids::{ConversationId, SessionId, TenantId, TurnId},
    turns::Status,
};

pub(super) async fn create(tx: &mut TenantTx, new: &NewSession) -> Result<()> {
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    let chat = json!({ "title": new.title, "participants": [user.to_string()] });
    sqlx::query(
        "with chat as (
           insert into items (tenant_id, kind, uid, id, user_id, payload) values ($1, 'chat', $4, $3, $2, $5)
         ), conversation as (
           insert into conversations (tenant_id, id, user_id, chat_uid, next_turn_no) values ($1, $3, $2, $4, $9)
         )
         insert into user_sessions (tenant_id, id, user_id, token_hash, conversation_id, expires_at)
         values ($1, $6, $2, $7, $3, now() + make_interval(days => $8::int))",
    )
    .bind(tenant)
    .bind(user)
    .bind(new.conversation)
    .bind(new.chat)
    .bind(chat)
    .bind(new.id)
    .bind(new.token_hash.as_slice())
    .bind(new.idle_days)
    .bind(new.next_turn_no)
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// None: the caller has no such conversation. Within: their newest session of it that is alive, and its token's hash.
pub(super) async fn newest_of(
    tx: &mut TenantTx,
    conversation: ConversationId,
) -> Result<Option<Option<(SessionId, Vec<u8>)>>> {
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    let row: Option<(Option<SessionId>, Option<Vec<u8>>)> = sqlx::query_as(
        "select s.id, s.token_hash
         from conversations c
         join items i on i.tenant_id = c.tenant_id and i.kind = 'chat' and i.uid = c.chat_uid and i.deleted_at is null
         left join lateral (
           select s.id, s.token_hash from user_sessions s
           where s.tenant_id = c.tenant_id and s.conversation_id = c.id and s.user_id = c.user_id and s.expires_at > now()
           order by s.id desc limit 1
         ) s on true
         where c.tenant_id = $1 and c.id = $2 and c.user_id = $3",
    )
    .bind(tenant)
    .bind(conversation)
    .bind(user)
    .fetch_optional(tx.connection())
    .await?;
    Ok(row.map(|(id, hash)| id.zip(hash)))
}

/// What the token of a session hashes to; none when there is no such session.
pub(super) async fn token_hash(tx: &mut TenantTx, id: SessionId) -> Result<Option<Vec<u8>>> {
    let tenant = tx.actor().tenant;
    Ok(sqlx::query_scalar("select token_hash from user_sessions where tenant_id = $1 and id = $2")
        .bind(tenant)
        .bind(id)
        .fetch_optional(tx.connection())
        .await?)
}

/// One more session of a conversation.
pub(super) async fn add(
    tx: &mut TenantTx,
    id: SessionId,
    token_hash: &[u8; 32],
    conversation: ConversationId,
    idle_days: i64,
) -> Result<()> {
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    sqlx::query(
        "insert into user_sessions (tenant_id, id, user_id, token_hash, conversation_id, expires_at)
         values ($1, $2, $3, $4, $5, now() + make_interval(days => $6::int))",
    )
    .bind(tenant)
    .bind(id)
    .bind(user)
    .bind(token_hash.as_slice())
    .bind(conversation)
    .bind(idle_days)
    .execute(tx.connection())
    .await?;
    Ok(())
}

pub(super) async fn is_number_of(tx: &mut TenantTx, number: i64) -> Result<bool> {
    let user = tx.actor().user;
    Ok(sqlx::query_scalar("select exists (select 1 from users where id = $1 and number = $2)")
        .bind(user)
        .bind(number)
        .fetch_one(tx.connection())
        .await?)
}

pub(super) async fn resolve(
    tx: &mut TenantTx,
    token_hash: &[u8; 32],
) -> Result<Option<(SessionId, ConversationId, bool)>> {
    // An admin sees the tenant's rows, but a token is good for its own user only.
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    Ok(sqlx::query_as(
        "select id, conversation_id, expires_at > now() from user_sessions
         where tenant_id = $1 and token_hash = $2 and user_id = $3",
    )
    .bind(tenant)
    .bind(token_hash.as_slice())
    .bind(user)
    .fetch_optional(tx.connection())
    .await?)
}

pub(super) async fn by_token(tx: &mut TenantTx, token_hash: &[u8; 32]) -> Result<Option<Session>> {
    let Some((id, _, _)) = resolve(tx, token_hash).await? else { return Ok(None) };
    by_id(tx, id).await
}

pub(super) async fn by_id(tx: &mut TenantTx, id: SessionId) -> Result<Option<Session>> {
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    let row = sqlx::query(
        "select s.id, s.conversation_id, s.conversation_context, s.active_notion_workspace, s.tokens_total, s.created_at,
                s.last_accessed, s.expires_at, a.id as active, a.state as active_state, l.turn_no,
                (select max(e.seq) from turn_events e where e.tenant_id = s.tenant_id and e.turn_id = l.id) as seq
         from user_sessions s
         left join turns a on a.tenant_id = s.tenant_id and a.conversation_id = s.conversation_id
                           and a.state in ('waiting', 'ready', 'running', 'awaiting_approval')
         left join lateral (select t.id, t.turn_no from turns t where t.tenant_id = s.tenant_id
                            and t.conversation_id = s.conversation_id order by t.turn_no desc limit 1) l on true
         where s.tenant_id = $1 and s.id = $2 and s.user_id = $3",
    )
    .bind(tenant)
    .bind(id)
    .bind(user)
    .fetch_optional(tx.connection())
    .await?;
    Ok(row.as_ref().map(session).transpose()?)
}

pub(super) async fn list(tx: &mut TenantTx, before: Option<SessionId>, limit: i64) -> Result<Vec<Session>> {
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    let rows = sqlx::query(
        "select s.id, s.conversation_id, s.conversation_context, s.active_notion_workspace, s.tokens_total, s.created_at,
                s.last_accessed, s.expires_at, a.id as active, a.state as active_state,
                null::bigint as turn_no, null::bigint as seq
         from user_sessions s
         left join turns a on a.tenant_id = s.tenant_id and a.conversation_id = s.conversation_id
                           and a.state in ('waiting', 'ready', 'running', 'awaiting_approval')
         where s.tenant_id = $1 and s.user_id = $2 and s.expires_at > now() and ($3::uuid is null or s.id < $3)
         order by s.id desc limit $4",
    )
    .bind(tenant)
    .bind(user)
    .bind(before)
    .bind(limit)
    .fetch_all(tx.connection())
    .await?;
    Ok(rows.iter().map(session).collect::<Result<_, sqlx::Error>>()?)
}

fn session(row: &PgRow) -> Result<Session, sqlx::Error> {
    let active: Option<TurnId> = row.try_get("active")?;
    let running = match active {
        Some(turn) => {
            let state: String = row.try_get("active_state")?;
            Some(RunningTurn { turn, status: Status::of_state(&state).as_str() })
        }
        None => None,
    };
    let (turn_no, seq): (Option<i64>, Option<i64>) = (row.try_get("turn_no")?, row.try_get("seq")?);
    Ok(Session {
        id: row.try_get("id")?,
        conversation: row.try_get("conversation_id")?,
        conversation_context: row.try_get::<Value, _>("conversation_context")?,
        active_notion_workspace: row.try_get("active_notion_workspace")?,
        tokens_total: row.try_get("tokens_total")?,
        created_at: row.try_get::<DateTime<Utc>, _>("created_at")?,
        last_accessed: row.try_get("last_accessed")?,
        expires_at: row.try_get("expires_at")?,
        running,
        last_event: turn_no.zip(seq).map(|(turn_no, seq)| LastEvent { turn_no, seq }),
    })
}

pub(super) async fn set_workspace(tx: &mut TenantTx, id: SessionId, workspace: Option<&str>) -> Result<()> {
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    sqlx::query(
        "update user_sessions set active_notion_workspace = $4 where tenant_id = $1 and id = $2 and user_id = $3",
    )
    .bind(tenant)
    .bind(id)
    .bind(user)
    .bind(workspace)
    .execute(tx.connection())
    .await?;
    Ok(())
}

pub(super) async fn delete(tx: &mut TenantTx, id: SessionId) -> Result<bool> {
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    let done = sqlx::query("delete from user_sessions where tenant_id = $1 and id = $2 and user_id = $3")
        .bind(tenant)
        .bind(id)
        .bind(user)
        .execute(tx.connection())
        .await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn touch(
    engine: &PgPool,
    seen: &HashSet<(TenantId, SessionId)>,
    idle_days: i64,
) -> Result<(), sqlx::Error> {
    let mut seen: Vec<_> = seen.iter().copied().collect();
    seen.sort_unstable();
    let tenants: Vec<TenantId> = seen.iter().map(|key| key.0).collect();
    let sessions: Vec<SessionId> = seen.iter().map(|key| key.1).collect();
    sqlx::query(
        "update user_sessions s set last_accessed = now(), expires_at = now() + make_interval(days => $3::int)
         from unnest($1::uuid[], $2::uuid[]) w (tenant_id, id)
         where s.tenant_id = w.tenant_id and s.id = w.id and s.expires_at > now()",
    )
    .bind(&tenants)
    .bind(&sessions)
    .bind(idle_days)
    .execute(engine)
    .await?;
    Ok(())
}
