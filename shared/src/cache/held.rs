//! A read that is under way, and its place in front of those of other processes.

use uuid::Uuid;

use super::{
    FLIGHT, Read, ToolCache, store,
    tier::{Epoch, Slot},
};
use crate::{bell::CachePlace, identity::Actor};

/// A read that is under way.
pub(super) struct Flight<'a> {
    pub(super) actor: &'a Actor,
    pub(super) read: &'a Read<'a>,
    pub(super) slot: &'a Slot,
    pub(super) server: CachePlace,
    /// Of before the first look: what is read is kept in memory only while it is current.
    pub(super) epoch: Epoch,
}

/// A flight that other processes see; let go of when this is dropped, also when its caller went away.
pub(super) struct Held<'a> {
    pub(super) cache: &'a ToolCache,
    pub(super) flight: &'a Flight<'a>,
    pub(super) holder: Option<Uuid>,
}

impl Held<'_> {
    pub(super) async fn renew(&self) {
        let Some(holder) = self.holder else { return };
        let renewed = async {
            let mut tx = self.cache.tenants.begin(self.flight.actor).await?;
            store::renew_flight(&mut tx, self.flight.slot, holder, FLIGHT).await?;
            tx.commit().await
        };
        if let Err(error) = renewed.await {
            tracing::debug!(error = %error, "a flight was not renewed; another process may ask the tool too");
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let Some(holder) = self.holder.take() else { return };
        let (tenants, actor, slot) =
            (self.cache.tenants.clone(), self.flight.actor.clone(), self.flight.slot.clone());
        tokio::spawn(async move {
            let ended = async {
                let mut tx = tenants.begin(&actor).await?;
                store::end_flight(&mut tx, &slot, holder).await?;
                tx.commit().await
            };
            if let Err(error) = ended.await {
                tracing::debug!(error = %error, "a flight was not ended; it runs out by itself");
            }
        });
    }
}
