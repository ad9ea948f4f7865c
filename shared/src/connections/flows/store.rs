//! SQL of flows.

use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    db::{TenantTx, before_tenant},
    error::Result,
    ids::{SignInId, TenantId},
};

pub(super) struct New<'a> {
    pub(super) id: Uuid,
    pub(super) state_hash: Vec<u8>,
    pub(super) browser_hash: Vec<u8>,
    pub(super) sign_in: Option<SignInId>,
    pub(super) provider: &'a str,
    pub(super) plan: String,
    pub(super) verifier_enc: Option<String>,
}

#[derive(sqlx::FromRow)]
pub(super) struct Flow {
    pub(super) id: Uuid,
    pub(super) sign_in: Option<Uuid>,
    pub(super) provider: String,
    pub(super) plan: String,
    pub(super) verifier_enc: Option<String>,
}

/// Beside it, all but the person's newest few go.
pub(super) async fn insert(tx: &mut TenantTx, flow: &New<'_>) -> Result<()> {
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    sqlx::query(
        "delete from oauth_flows where tenant_id = $1 and user_id = $2 and id not in (
           select f.id from oauth_flows f where f.tenant_id = $1 and f.user_id = $2 order by f.id desc limit 19)",
    )
    .bind(tenant)
    .bind(user)
    .execute(tx.connection())
    .await?;
    sqlx::query(
        "insert into oauth_flows (tenant_id, id, user_id, state_hash, browser_hash, sign_in, provider, plan, verifier_enc, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, clock_timestamp() + interval '10 minutes')",
    )
    .bind(tenant)
    .bind(flow.id)
    .bind(user)
    .bind(&flow.state_hash)
    .bind(&flow.browser_hash)
    .bind(flow.sign_in)
    .bind(flow.provider)
    .bind(&flow.plan)
    .bind(flow.verifier_enc.as_ref())
    .execute(tx.connection())
    .await?;
    Ok(())
}

pub(super) async fn owner(
    app: &PgPool,
    tenant: TenantId,
    state: &[u8],
    browser: &[u8],
) -> Result<Option<Uuid>> {
    let mut tx = before_tenant(app).await?;
    let owner = sqlx::query_scalar("select oauth_flow_owner($1, $2, $3)")
        .bind(tenant)
        .bind(state)
        .bind(browser)
        .fetch_one(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(owner)
}

/// Once: of two at the same time, one gets it.
pub(super) async fn take(tx: &mut TenantTx, state: &[u8]) -> Result<Option<Flow>> {
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    Ok(sqlx::query_as(
        "delete from oauth_flows where tenant_id = $1 and state_hash = $2 and user_id = $3 and expires_at > clock_timestamp()
         returning id, sign_in, provider, plan, verifier_enc",
    )
    .bind(tenant)
    .bind(state)
    .bind(user)
    .fetch_optional(tx.connection())
    .await?)
}
