//! SQL of clients and codes, on the engine's pool.

use sqlx::PgPool;

use super::{Client, Granted, Redeemed};
use crate::{
    error::Result,
    identity::Scopes,
    ids::{SignInId, TenantId, UserId},
};

pub(super) async fn client(engine: &PgPool, id: &str) -> Result<Option<Client>> {
    let row: Option<(String, String, Vec<String>)> =
        sqlx::query_as("select id, name, redirect_uris from oauth_clients where id = $1")
            .bind(id)
            .fetch_optional(engine)
            .await?;
    Ok(row.map(|(id, name, redirect_uris)| Client { id, name, redirect_uris, host: None }))
}

pub(super) async fn register(engine: &PgPool, client: &Client) -> Result<()> {
    sqlx::query("insert into oauth_clients (id, name, redirect_uris) values ($1, $2, $3)")
        .bind(&client.id)
        .bind(&client.name)
        .bind(&client.redirect_uris)
        .execute(engine)
        .await?;
    Ok(())
}

/// Programs that nobody has let in for ninety days are forgotten, a few at a time; one that nobody ever let in after a day.
pub(super) async fn forget_unused(engine: &PgPool) -> Result<()> {
    sqlx::query(
        "delete from oauth_clients where id in (
           select id from oauth_clients
           where last_used_at < now() - interval '90 days'
              or (last_used_at = created_at and created_at < now() - interval '1 day')
           order by last_used_at limit 100 for update skip locked)",
    )
    .execute(engine)
    .await?;
    Ok(())
}

/// Stores a code, notes that its client was let in, and removes codes that nobody can show any more.
pub(super) async fn issue(engine: &PgPool, hash: &[u8; 32], granted: &Granted) -> Result<()> {
    sqlx::query(
        "with used as (
           update oauth_clients set last_used_at = clock_timestamp() where id = $2),
         old as (
           delete from oauth_codes where code_hash in (
             select code_hash from oauth_codes where expires_at < now() - interval '1 day' limit 100))
         insert into oauth_codes
           (code_hash, client_id, user_id, redirect_uri, challenge, scopes, audience, chosen_tenant, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, now() + interval '60 seconds')",
    )
    .bind(hash.as_slice())
    .bind(&granted.client)
    .bind(granted.user)
    .bind(&granted.redirect_uri)
    .bind(&granted.challenge)
    .bind(granted.scopes.words())
    .bind(&granted.audience)
    .bind(granted.tenant)
    .execute(engine)
    .await?;
    Ok(())
}

#[derive(sqlx::FromRow)]
struct CodeRow {
    client_id: String,
    user_id: UserId,
    redirect_uri: String,
    challenge: String,
    scopes: Vec<String>,
    audience: String,
    chosen_tenant: Option<TenantId>,
}

pub(super) async fn redeem(engine: &PgPool, hash: &[u8; 32]) -> Result<Redeemed> {
    let row: Option<CodeRow> = sqlx::query_as(
        "update oauth_codes set used_at = clock_timestamp()
         where code_hash = $1 and used_at is null and expires_at > clock_timestamp()
         returning client_id, user_id, redirect_uri, challenge, scopes, audience, chosen_tenant",
    )
    .bind(hash.as_slice())
    .fetch_optional(engine)
    .await?;
    if let Some(row) = row {
        return Ok(Redeemed::Good(Granted {
            client: row.client_id,
            user: row.user_id,
            redirect_uri: row.redirect_uri,
            challenge: row.challenge,
            scopes: Scopes::of_words(row.scopes.iter().map(String::as_str)),
            audience: row.audience,
            tenant: row.chosen_tenant,
        }));
    }
    let shown: Option<Option<SignInId>> = sqlx::query_scalar(
        "update oauth_codes set shown_again = true where code_hash = $1 and used_at is not null returning sign_in",
    )
    .bind(hash.as_slice())
    .fetch_optional(engine)
    .await?;
    Ok(shown.map_or(Redeemed::Refused, Redeemed::ShownAgain))
}

pub(super) async fn became(engine: &PgPool, hash: &[u8; 32], sign_in: SignInId) -> Result<bool> {
    let done = sqlx::query("update oauth_codes set sign_in = $2 where code_hash = $1 and not shown_again")
        .bind(hash.as_slice())
        .bind(sign_in)
        .execute(engine)
        .await?;
    Ok(done.rows_affected() > 0)
}
