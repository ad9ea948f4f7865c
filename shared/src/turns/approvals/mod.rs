//! A person decides on a parked turn's calls [M8]. The decision binds the arguments that were shown: they are kept with
//! the approval and are what is run.

mod store;

use super::{IdempotencyKey, Status, Turn, Turns, store as turn_store};
use crate::{
    bell::Ring,
    db::TenantTx,
    error::{Error, Result},
    identity::Actor,
    ids::{TurnId, UserId},
    jobs,
};

/// What a person, or the passing of time, decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Approve,
    Deny,
    /// Nobody answered in time: a denial that the model is told of.
    Expired,
}

impl Decision {
    /// As stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Deny => "deny",
            Self::Expired => "expired",
        }
    }
}

/// What is written for a decision.
pub(super) struct Decided<'a> {
    pub(super) decision: Decision,
    pub(super) reason: Option<&'a str>,
    pub(super) by: Option<UserId>,
}

impl Turns {
    /// Decides on one call of a parked turn; the last decision lets the turn go on. Deciding the same again changes
    /// nothing.
    ///
    /// # Errors
    /// 404 when the caller has no such turn or call, 409 when it was decided otherwise, has expired, or the
    /// idempotency key was used with another body.
    pub async fn decide(
        &self,
        actor: &Actor,
        turn: TurnId,
        call_id: &str,
        decision: Decision,
        reason: Option<&str>,
        idempotency: Option<&IdempotencyKey>,
    ) -> Result<Turn> {
        let decided = Decided { decision, reason, by: Some(actor.user) };
        let decided = &decided;
        let state = super::run_again(|| self.try_decide(actor, turn, call_id, decided, idempotency)).await?;
        self.ring_decided(actor, state.as_deref());
        self.get(actor, turn).await
    }

    /// Answers the turn's new state, if this let it go on.
    async fn try_decide(
        &self,
        actor: &Actor,
        turn: TurnId,
        call_id: &str,
        decided: &Decided<'_>,
        idempotency: Option<&IdempotencyKey>,
    ) -> Result<Option<String>> {
        let decision = decided.decision;
        let mut tx = self.tenants.begin(actor).await?;
        if let Some(key) = idempotency
            && !turn_store::claim_key(&mut tx, key, turn).await?
        {
            let former = turn_store::key_owner(&mut tx, key).await?;
            tx.rollback().await?;
            return match former {
                Some((_, hash)) if hash == key.body_hash => Ok(None),
                _ => Err(Error::conflict("this Idempotency-Key was used with another body")),
            };
        }
        let conversation =
            turn_store::conversation_of(&mut tx, turn).await?.ok_or_else(super::reading::unknown)?;
        turn_store::lock_conversation(&mut tx, conversation).await?;
        let state = turn_store::lock_state(&mut tx, turn).await?.ok_or_else(super::reading::unknown)?;
        let Some(approval) = store::approval(&mut tx, turn, call_id).await? else {
            return Err(Error::not_found("the turn has no such call to approve"));
        };
        if let Some(former) = approval.decision {
            if former == decision.as_str() {
                tx.commit().await?;
                return Ok(None);
            }
            // Rolled back with its idempotency key: a refusal is not what a repetition gets instead of an answer.
            return Err(Error::conflict(format!("the call was decided already: {former}")));
        }
        if Status::of_state(&state) != Status::AwaitingApproval {
            return Err(Error::conflict("the turn does not wait for an approval any more")
                .with_detail("status", Status::of_state(&state).as_str()));
        }
        if approval.expired {
            return Err(Error::conflict("the time for this approval has passed; it counts as a denial"));
        }
        store::decide(&mut tx, turn, call_id, decided).await?;
        let state = self.go_on(&mut tx, turn).await?;
        tx.commit().await?;
        Ok(state)
    }

    /// Denies every open call of a parked turn, whose conversation the transaction holds; answers its new state.
    pub(super) async fn deny_open(
        &self,
        tx: &mut TenantTx,
        turn: TurnId,
        reason: &str,
    ) -> Result<Option<String>> {
        let decided = Decided { decision: Decision::Deny, reason: Some(reason), by: Some(tx.actor().user) };
        store::decide_all(tx, turn, &decided).await?;
        self.go_on(tx, turn).await
    }

    /// Lets approvals whose time has passed count as denials.
    pub(super) async fn expire(&self, actor: &Actor, turn: TurnId) -> Result<()> {
        let state = super::run_again(|| self.try_expire(actor, turn)).await?;
        self.ring_decided(actor, state.as_deref());
        Ok(())
    }

    async fn try_expire(&self, actor: &Actor, turn: TurnId) -> Result<Option<String>> {
        let mut tx = self.tenants.begin(actor).await?;
        let Some(conversation) = turn_store::conversation_of(&mut tx, turn).await? else { return Ok(None) };
        turn_store::lock_conversation(&mut tx, conversation).await?;
        if turn_store::lock_state(&mut tx, turn).await?.as_deref() != Some("awaiting_approval") {
            return Ok(None);
        }
        store::expire(&mut tx, turn).await?;
        let state = self.go_on(&mut tx, turn).await?;
        tx.commit().await?;
        Ok(state)
    }

    /// Unparks the turn when nothing is open any more; answers its new state.
    async fn go_on(&self, tx: &mut TenantTx, turn: TurnId) -> Result<Option<String>> {
        let state = store::unpark(tx, turn).await?;
        if state.as_deref() == Some("ready") {
            jobs::push_turn(tx.connection(), turn).await?;
        }
        Ok(state)
    }

    fn ring_decided(&self, actor: &Actor, state: Option<&str>) {
        match state {
            Some("ready") => self.bell.ring(Ring::Work),
            Some(_) => self.second_look.ask(actor.tenant),
            None => {}
        }
    }
}
