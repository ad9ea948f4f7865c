//! The second look: whoever found no slot, and whoever left one free, looks once more after its own commit; without it,
//! a post and a finish that do not see each other strand a turn. Looks that are asked for while one is under way share
//! the next. One that is lost is made up for by the sweeper.

use std::collections::BTreeSet;

use sqlx::PgPool;
use tokio::sync::mpsc;

use super::store;
use crate::{
    bell::{Bell, Ring},
    db::TenantDb,
    error::Result,
    identity::Actor,
    ids::{TenantId, UserId},
    jobs,
};

/// Asks for second looks.
#[derive(Clone)]
pub(super) struct SecondLook(mpsc::UnboundedSender<TenantId>);

impl SecondLook {
    pub(super) fn start(tenants: TenantDb, engine: PgPool, bell: Bell) -> Self {
        let (asked, mut inbox) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut batch = Vec::new();
            while inbox.recv_many(&mut batch, 1024).await > 0 {
                let wanted: BTreeSet<TenantId> = batch.drain(..).collect();
                if let Err(error) = look(&tenants, &engine, &bell, &wanted).await {
                    tracing::warn!(error = %error, "a second look for slots was lost; the sweeper makes it");
                }
            }
        });
        Self(asked)
    }

    /// For this tenant, soon; after the commit that found or left a slot free.
    pub(super) fn ask(&self, tenant: TenantId) {
        // The task ends with the last sender only.
        let _ = self.0.send(tenant);
    }
}

async fn look(tenants: &TenantDb, engine: &PgPool, bell: &Bell, wanted: &BTreeSet<TenantId>) -> Result<()> {
    let wanted: Vec<TenantId> = wanted.iter().copied().collect();
    for tenant in store::with_waiting(engine, &wanted).await? {
        admit(tenants, bell, tenant).await?;
    }
    Ok(())
}

/// Gives the tenant's free slots to its waiting turns.
pub(super) async fn admit(tenants: &TenantDb, bell: &Bell, tenant: TenantId) -> Result<()> {
    let nobody = Actor::of_turn(tenant, UserId(uuid::Uuid::nil()));
    let mut tx = tenants.begin(&nobody).await?;
    let admitted = store::admit_waiting(&mut tx).await?;
    for turn in &admitted {
        jobs::push_turn(tx.connection(), *turn).await?;
    }
    tx.commit().await?;
    if !admitted.is_empty() {
        bell.ring(Ring::Work);
    }
    Ok(())
}
