//! SQL of sign-ins, on the engine's pool: nobody is anybody yet.

use sqlx::PgPool;

use crate::{
    error::Result,
    ids::{SignInId, UserId},
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
    pub(super) is_live: bool,
    pub(super) email: Option<String>,
    pub(super) email_verified: bool,
    pub(super) timezone: String,
}

pub(super) struct NewSignIn<'a> {
    pub(super) id: SignInId,
    pub(super) user: UserId,
    pub(super) kind: &'static str,
    pub(super) nonce: [u8; 16],
    pub(super) scopes: Option<Vec<&'static str>>,
    pub(super) audience: Option<&'a str>,
    pub(super) client: Option<&'a str>,
    pub(super) idle_days: i64,
}

pub(super) async fn begin(engine: &PgPool, new: &NewSignIn<'_>) -> Result<SignInRow> {
    Ok(sqlx::query_as(
        "with made as (
           insert into sign_ins (id, user_id, kind, nonce, scopes, audience, client_id, expires_at)
           values ($1, $2, $3, $4, $5, $6, $7, now() + make_interval(days => $8::integer)) returning *)
         select s.id, s.user_id, s.kind, s.nonce, s.generation, 0::float8 as rotated_before, s.scopes, s.audience,
                s.client_id, true as is_live, u.email, u.email_verified, u.timezone
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
    .fetch_one(engine)
    .await?)
}

pub(super) async fn by_id(engine: &PgPool, id: SignInId) -> Result<Option<SignInRow>> {
    Ok(sqlx::query_as(
        "select s.id, s.user_id, s.kind, s.nonce, s.generation,
                extract(epoch from clock_timestamp() - s.rotated_at)::float8 as rotated_before, s.scopes, s.audience,
                s.client_id, (s.ended_at is null and s.expires_at > clock_timestamp()) as is_live,
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
