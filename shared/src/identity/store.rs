//! SQL of identity.

use std::time::Duration;

use sqlx::PgPool;

use super::{Credential, CredentialTenant, Principal, Role, Scopes};
use crate::{
    error::Result,
    ids::{ApiKeyId, TenantId, UserId},
};

#[derive(sqlx::FromRow)]
struct KeyRow {
    key_id: ApiKeyId,
    tenant_id: TenantId,
    user_id: UserId,
    role: Option<String>,
    operator: bool,
    scopes: Option<Vec<String>>,
    email: Option<String>,
    email_verified: bool,
    timezone: String,
    /// Seconds until the key expires; none when it does not.
    good_for: Option<f64>,
}

impl From<KeyRow> for Principal {
    fn from(row: KeyRow) -> Self {
        Self {
            user: row.user_id,
            email: row.email,
            email_verified: row.email_verified,
            timezone: row.timezone,
            scopes: row
                .scopes
                .map_or(Scopes::ALL, |words| Scopes::of_words(words.iter().map(String::as_str))),
            operator: row.operator,
            tenant: CredentialTenant::Bound {
                tenant: row.tenant_id,
                role: row.role.as_deref().and_then(Role::from_word),
            },
            credential: Credential::ApiKey(row.key_id),
            outside: None,
        }
    }
}

/// The owner of a key, and for how long it is good if it expires.
pub(super) async fn by_key_hash(
    app: &PgPool,
    hash: &[u8; 32],
) -> Result<Option<(Principal, Option<Duration>)>> {
    let mut tx = crate::db::before_tenant(app).await?;
    let row: Option<KeyRow> = sqlx::query_as(
        "select key_id, tenant_id, user_id, role, operator, scopes, email, email_verified, timezone,
                extract(epoch from expires_at - clock_timestamp())::float8 as good_for
         from identity_by_key_hash($1)",
    )
    .bind(hash.as_slice())
    .fetch_optional(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(row.map(|row| {
        let good_for = row.good_for.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default());
        (row.into(), good_for)
    }))
}

/// Ends the user's operator keys but the one with this hash; answers how many there were. Not marked but deleted, so that
/// a deployment that goes back to a former key makes it anew.
pub(super) async fn end_operator_keys(engine: &PgPool, user: UserId, but: Option<&[u8; 32]>) -> Result<u64> {
    let done =
        sqlx::query("delete from api_keys where user_id = $1 and operator and key_hash is distinct from $2")
            .bind(user)
            .bind(but.map(<[u8; 32]>::as_slice))
            .execute(engine)
            .await?;
    Ok(done.rows_affected())
}

pub(super) struct NewIdentity<'a> {
    pub(super) tenant: TenantId,
    pub(super) tenant_name: &'a str,
    pub(super) user: UserId,
    pub(super) email: &'a str,
    pub(super) role: Role,
    pub(super) operator: bool,
    pub(super) key_hash: [u8; 32],
    pub(super) running_turns: i64,
}

/// Makes tenant, user, membership, slots and key; each only when it is not there yet.
pub(super) async fn ensure(engine: &PgPool, new: &NewIdentity<'_>) -> Result<()> {
    let mut tx = crate::db::begin(engine).await?;
    sqlx::query("insert into tenants (id, name) values ($1, $2) on conflict (id) do nothing")
        .bind(new.tenant)
        .bind(new.tenant_name)
        .execute(&mut *tx)
        .await?;
    sqlx::query("insert into users (id, email) values ($1, $2) on conflict do nothing")
        .bind(new.user)
        .bind(new.email)
        .execute(&mut *tx)
        .await?;
    sqlx::query(
        "insert into memberships (tenant_id, user_id, role) values ($1, $2, $3)
         on conflict (tenant_id, user_id) do nothing",
    )
    .bind(new.tenant)
    .bind(new.user)
    .bind(new.role.as_str())
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "select tenant_slots_resize($1, coalesce((select running_turns from tenants where id = $1), $2))",
    )
    .bind(new.tenant)
    .bind(new.running_turns)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "insert into api_keys (tenant_id, id, user_id, key_hash, operator) values ($1, $2, $3, $4, $5)
         on conflict (key_hash) do nothing",
    )
    .bind(new.tenant)
    .bind(uuid::Uuid::now_v7())
    .bind(new.user)
    .bind(new.key_hash.as_slice())
    .bind(new.operator)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(())
}
