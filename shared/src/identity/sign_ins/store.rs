//! SQL of sign-ins, on the engine's pool: nobody is anybody yet.

use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::PgPool;

use super::SignIn;
use crate::{
    db,
    error::Result,
    identity::Scopes,
    ids::{SignInId, TenantId, UserId},
};

#[derive(sqlx::FromRow)]
pub(super) struct SignInRow {
    pub(super) id: SignInId,
    pub(super) user_id: UserId,
    pub(super) kind: String,
    pub(super) nonce: Vec<u8>,
    pub(super) generation: i64,
    /// Seconds since the last rotation, by the database's clock.
    pub(super) rotated_before: f64,
    pub(super) scopes: Option<Vec<String>>,
    pub(super) audience: Option<String>,
    pub(super) client_id: Option<String>,
    pub(super) chosen_tenant: Option<TenantId>,
    pub(super) is_live: bool,
    pub(super) email: Option<String>,
    pub(super) email_verified: bool,
    pub(super) timezone: String,
}

pub(super) struct NewSignIn<'a> {
    pub(super) id: SignInId,
    pub(super) user: UserId,
    /// The hash that the user's password must still have.
    pub(super) password: Option<&'a SecretString>,
    pub(super) kind: &'static str,
    pub(super) nonce: [u8; 16],
    pub(super) scopes: Option<Vec<&'static str>>,
    pub(super) audience: Option<&'a str>,
    pub(super) client: Option<&'a str>,
    pub(super) tenant: Option<TenantId>,
    pub(super) idle_days: i64,
    pub(super) address: Option<String>,
    pub(super) user_agent: Option<&'a str>,
    pub(super) home_tenant: TenantId,
}

/// None when the user's password has another hash. The lock waits for a change of the password that is under way: it either
/// ends this sign-in, or is seen here.
pub(super) async fn begin(engine: &PgPool, new: &NewSignIn<'_>) -> Result<Option<SignInRow>> {
    Ok(sqlx::query_as(
        "with proven as (
           select p.user_id from user_passwords p where p.user_id = $2 and p.hash = $13 for share),
         made as (
           insert into sign_ins
             (id, user_id, kind, nonce, scopes, audience, client_id, expires_at, address, user_agent, home_tenant, chosen_tenant)
           select $1, $2, $3, $4, $5, $6, $7, now() + make_interval(days => $8::integer), $9, $10, $11, $12
           where $13::text is null or exists (select from proven) returning *)
         select s.id, s.user_id, s.kind, s.nonce, s.generation, 0::float8 as rotated_before, s.scopes, s.audience,
                s.client_id, s.chosen_tenant, true as is_live, u.email, u.email_verified, u.timezone
         from made s join users u on u.id = s.user_id",
    )
    .bind(new.id)
    .bind(new.user)
    .bind(new.kind)
    .bind(new.nonce.as_slice())
    .bind(&new.scopes)
    .bind(new.audience)
    .bind(new.client)
    .bind(new.idle_days)
    .bind(&new.address)
    .bind(new.user_agent)
    .bind(new.home_tenant)
    .bind(new.tenant)
    .bind(new.password.map(|hash| hash.expose_secret()))
    .fetch_optional(engine)
    .await?)
}

#[derive(sqlx::FromRow)]
struct OwnRow {
    id: SignInId,
    kind: String,
    scopes: Option<Vec<String>>,
    client_id: Option<String>,
    address: Option<String>,
    user_agent: Option<String>,
    created_at: DateTime<Utc>,
    last_used_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
}

pub(super) async fn list(
    engine: &PgPool,
    user: UserId,
    after: Option<SignInId>,
    most: i64,
) -> Result<Vec<SignIn>> {
    let rows: Vec<OwnRow> = sqlx::query_as(
        "select id, kind, scopes, client_id, address, user_agent, created_at, last_used_at, expires_at
         from sign_ins where user_id = $1 and ended_at is null and expires_at > now() and ($2::uuid is null or id < $2)
         order by id desc limit $3",
    )
    .bind(user)
    .bind(after)
    .bind(most)
    .fetch_all(engine)
    .await?;
    let own = |row: OwnRow| SignIn {
        id: row.id,
        kind: row.kind,
        scopes: scopes(row.scopes.as_deref()),
        client: row.client_id,
        address: row.address,
        user_agent: row.user_agent,
        created_at: row.created_at,
        last_used_at: row.last_used_at,
        expires_at: row.expires_at,
    };
    Ok(rows.into_iter().map(own).collect())
}

/// Of the column; null is everything.
fn scopes(words: Option<&[String]>) -> Scopes {
    words.map_or(Scopes::ALL, |words| Scopes::of_words(words.iter().map(String::as_str)))
}

pub(super) async fn by_id(engine: &PgPool, id: SignInId) -> Result<Option<SignInRow>> {
    Ok(sqlx::query_as(
        "select s.id, s.user_id, s.kind, s.nonce, s.generation,
                extract(epoch from clock_timestamp() - s.rotated_at)::float8 as rotated_before, s.scopes, s.audience,
                s.client_id, s.chosen_tenant, (s.ended_at is null and s.expires_at > clock_timestamp()) as is_live,
                u.email, u.email_verified, u.timezone
         from sign_ins s join users u on u.id = s.user_id where s.id = $1",
    )
    .bind(id)
    .fetch_optional(engine)
    .await?)
}

/// Goes to the next generation; none when another request was faster, or the sign-in is over.
pub(super) async fn rotate(
    engine: &PgPool,
    id: SignInId,
    generation: i64,
    idle_days: i64,
) -> Result<Option<i64>> {
    Ok(sqlx::query_scalar(
        "update sign_ins set generation = generation + 1, rotated_at = clock_timestamp(),
                last_used_at = clock_timestamp(), expires_at = clock_timestamp() + make_interval(days => $3::integer)
         where id = $1 and generation = $2 and ended_at is null and expires_at > clock_timestamp()
         returning generation",
    )
    .bind(id)
    .bind(generation)
    .bind(idle_days)
    .fetch_optional(engine)
    .await?)
}

pub(super) async fn end(engine: &PgPool, id: SignInId, because: &str) -> Result<bool> {
    let done = sqlx::query(
        "update sign_ins set ended_at = now(), ended_because = $2 where id = $1 and ended_at is null",
    )
    .bind(id)
    .bind(because)
    .execute(engine)
    .await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn end_all(engine: &PgPool, user: UserId, because: &str) -> Result<u64> {
    let done = sqlx::query(
        "update sign_ins set ended_at = now(), ended_because = $2 where user_id = $1 and ended_at is null",
    )
    .bind(user)
    .bind(because)
    .execute(engine)
    .await?;
    Ok(done.rows_affected())
}

/// Ends a sign-in of this user; false when there is none that lasts.
pub(super) async fn revoke(engine: &PgPool, user: UserId, id: SignInId, because: &str) -> Result<bool> {
    let done = sqlx::query(
        "update sign_ins set ended_at = now(), ended_because = $3
         where id = $1 and user_id = $2 and ended_at is null and expires_at > now()",
    )
    .bind(id)
    .bind(user)
    .bind(because)
    .execute(engine)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Replaces the password and ends the user's sign-ins except one; false when the password was not this one any more. Two
/// statements: the second sees the sign-ins that the first had to wait for.
pub(super) async fn set_password(
    engine: &PgPool,
    user: UserId,
    hashes: Hashes<'_>,
    keep: Option<SignInId>,
    because: &str,
) -> Result<bool> {
    let mut tx = db::begin(engine).await?;
    let changed = sqlx::query(
        "update user_passwords set hash = $3, updated_at = clock_timestamp() where user_id = $1 and hash = $2",
    )
    .bind(user)
    .bind(hashes.present.expose_secret())
    .bind(hashes.new)
    .execute(&mut *tx)
    .await?;
    if changed.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query(
        "update sign_ins set ended_at = clock_timestamp(), ended_because = $3
         where user_id = $1 and id is distinct from $2 and ended_at is null",
    )
    .bind(user)
    .bind(keep)
    .bind(because)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(true)
}

/// A password's hash as it is, and as it becomes.
pub(super) struct Hashes<'a> {
    pub(super) present: &'a SecretString,
    pub(super) new: &'a str,
}

/// Notes the use of sign-ins. A browser's lasts as long as it is used; a program's is extended by its refreshes.
pub(super) async fn touch(engine: &PgPool, ids: &[SignInId], idle_days: i64) -> Result<()> {
    sqlx::query(
        "update sign_ins set last_used_at = now(),
                expires_at = case when kind = 'cookie' then now() + make_interval(days => $2::integer) else expires_at end
         where id = any($1) and ended_at is null and expires_at > now()",
    )
    .bind(ids)
    .bind(idle_days)
    .execute(engine)
    .await?;
    Ok(())
}

/// Ended sign-ins are kept for thirty days, so that a stolen token of one is still known as reused.
pub(super) async fn tidy(engine: &PgPool) -> Result<()> {
    sqlx::query("delete from sign_ins where expires_at < now() - interval '30 days'").execute(engine).await?;
    Ok(())
}
