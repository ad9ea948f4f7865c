//! SQL of users and their passwords, on the engine's pool: nobody is anybody yet.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};

use super::User;
use crate::{
    db,
    error::{Error, Result},
    ids::UserId,
};

#[derive(sqlx::FromRow)]
struct UserRow {
    id: UserId,
    number: i64,
    email: Option<String>,
    email_verified: bool,
    timezone: String,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

#[derive(sqlx::FromRow)]
struct PasswordRow {
    #[sqlx(flatten)]
    user: UserRow,
    hash: Option<String>,
}

impl From<UserRow> for User {
    fn from(row: UserRow) -> Self {
        Self {
            id: row.id,
            number: row.number,
            email: row.email,
            email_verified: row.email_verified,
            timezone: row.timezone,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// None when the address has an account.
pub(super) async fn insert(engine: &PgPool, id: UserId, email: &str, hash: &str) -> Result<Option<UserId>> {
    let mut tx = db::begin(engine).await?;
    let made = insert_in(&mut tx, id, email, hash).await?;
    if made.is_none() {
        // Ends as the other way does, with a row written and a commit: time would tell which it was.
        sqlx::query(
            "update user_passwords set hash = hash where user_id = (select id from users where lower(email) = lower($1))",
        )
        .bind(email)
        .execute(&mut *tx)
        .await?;
    }
    tx.commit().await?;
    Ok(made)
}

/// The same within a transaction.
pub(super) async fn insert_in(
    connection: &mut PgConnection,
    id: UserId,
    email: &str,
    hash: &str,
) -> Result<Option<UserId>> {
    let made =
        sqlx::query("insert into users (id, email) values ($1, $2) on conflict ((lower(email))) do nothing")
            .bind(id)
            .bind(email)
            .execute(&mut *connection)
            .await?;
    if made.rows_affected() == 0 {
        return Ok(None);
    }
    insert_password(connection, id, hash).await?;
    Ok(Some(id))
}

/// A user that was made for an invitation has an address and a password from now on; none when the address has an account.
pub(super) async fn become_somebody(
    connection: &mut PgConnection,
    nobody: UserId,
    email: &str,
    hash: &str,
) -> Result<Option<UserId>> {
    // The key on the address decides between two at the same moment.
    let done = sqlx::query(
        "update users set email = $2, updated_at = now()
         where id = $1 and email is null and not exists (select from users where lower(email) = lower($2))",
    )
    .bind(nobody)
    .bind(email)
    .execute(&mut *connection)
    .await;
    match done.map_err(Error::from) {
        Ok(done) if done.rows_affected() == 0 => return Ok(None),
        Ok(_) => {}
        Err(error) if is_taken(&error) => return Ok(None),
        Err(error) => return Err(error),
    }
    insert_password(connection, nobody, hash).await?;
    Ok(Some(nobody))
}

async fn insert_password(connection: &mut PgConnection, id: UserId, hash: &str) -> Result<()> {
    sqlx::query("insert into user_passwords (user_id, hash) values ($1, $2)")
        .bind(id)
        .bind(hash)
        .execute(connection)
        .await?;
    Ok(())
}

fn is_taken(error: &Error) -> bool {
    let error = error.database().and_then(sqlx::Error::as_database_error);
    error.and_then(|error| error.constraint()) == Some("users_email_key")
}

pub(super) async fn by_email(engine: &PgPool, email: &str) -> Result<Option<(User, Option<String>)>> {
    let row: Option<PasswordRow> = sqlx::query_as(
        "select u.id, u.number, u.email, u.email_verified, u.timezone, u.created_at, u.updated_at, p.hash
         from users u left join user_passwords p on p.user_id = u.id where lower(u.email) = lower($1)",
    )
    .bind(email)
    .fetch_optional(engine)
    .await?;
    Ok(row.map(|row| (row.user.into(), row.hash)))
}

pub(super) async fn by_id(engine: &PgPool, id: UserId) -> Result<Option<User>> {
    let row: Option<UserRow> = sqlx::query_as(
        "select id, number, email, email_verified, timezone, created_at, updated_at from users where id = $1",
    )
    .bind(id)
    .fetch_optional(engine)
    .await?;
    Ok(row.map(User::from))
}

/// Only while the hash is the one that was checked: a password that was changed meanwhile stays changed. Answers whether it
/// was that one.
pub(super) async fn replace_hash(engine: &PgPool, id: UserId, old: &str, new: &str) -> Result<bool> {
    let done = sqlx::query(
        "update user_passwords set hash = $3, updated_at = now() where user_id = $1 and hash = $2",
    )
    .bind(id)
    .bind(old)
    .bind(new)
    .execute(engine)
    .await?;
    Ok(done.rows_affected() > 0)
}
