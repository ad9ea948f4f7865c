//! SQL of users of the outside issuer, on the engine's pool: nobody is anybody yet.

use sqlx::{PgConnection, PgPool};

use crate::{db, error::Result, ids::UserId};

#[derive(sqlx::FromRow)]
pub(super) struct SeenUser {
    pub(super) id: UserId,
    pub(super) email: Option<String>,
    pub(super) email_verified: bool,
    pub(super) timezone: String,
}

pub(super) struct NewUser<'a> {
    pub(super) id: UserId,
    pub(super) issuer: &'a str,
    pub(super) subject: &'a str,
    pub(super) claimed_email: Option<&'a str>,
    pub(super) trusted_email: Option<&'a str>,
}

pub(super) async fn find(engine: &PgPool, issuer: &str, subject: &str) -> Result<Option<SeenUser>> {
    let mut connection = engine.acquire().await?;
    find_in(&mut connection, issuer, subject).await
}

async fn find_in(connection: &mut PgConnection, issuer: &str, subject: &str) -> Result<Option<SeenUser>> {
    Ok(sqlx::query_as(
        "select u.id, u.email, u.email_verified, u.timezone
         from outside_identities o join users u on u.id = o.user_id where o.issuer = $1 and o.subject = $2",
    )
    .bind(issuer)
    .bind(subject)
    .fetch_optional(connection)
    .await?)
}

/// Makes the user, unless another request has. An address that somebody has stays theirs.
pub(super) async fn make(engine: &PgPool, new: &NewUser<'_>) -> Result<SeenUser> {
    let mut tx = db::begin(engine).await?;
    sqlx::query("select pg_advisory_xact_lock(hashtextextended($1 || ' ' || $2, 7044))")
        .bind(new.issuer)
        .bind(new.subject)
        .execute(&mut *tx)
        .await?;
    if let Some(user) = find_in(&mut tx, new.issuer, new.subject).await? {
        return Ok(user);
    }
    let with_email = sqlx::query(
        "insert into users (id, email, email_verified) select $1, $2, true where $2::text is not null
         on conflict ((lower(email))) do nothing",
    )
    .bind(new.id)
    .bind(new.trusted_email)
    .execute(&mut *tx)
    .await?;
    if with_email.rows_affected() == 0 {
        sqlx::query("insert into users (id, email) values ($1, null)").bind(new.id).execute(&mut *tx).await?;
    }
    sqlx::query(
        "insert into outside_identities (issuer, subject, user_id, claimed_email) values ($1, $2, $3, $4)",
    )
    .bind(new.issuer)
    .bind(new.subject)
    .bind(new.id)
    .bind(new.claimed_email)
    .execute(&mut *tx)
    .await?;
    let user = sqlx::query_as("select id, email, email_verified, timezone from users where id = $1")
        .bind(new.id)
        .fetch_one(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(user)
}
