//! Compaction: old turns of a long conversation become a summary, in what a model is sent and nowhere else.
//!
//! Writing one takes a model's time, so it is a job of its own that no reply waits for. Whoever writes claims the row
//! first; a writer that dies lets the claim run out, and the next long turn asks again.

mod store;

use std::time::Duration;

use super::{HistoryMessage, Settled, Turns};
use crate::{
    error::Result,
    identity::Actor,
    ids::{ConversationId, ModelCallId, TurnId},
    jobs,
};

/// The newest turns that are always sent as they are.
const KEPT_TURNS: i64 = 4;
/// Bytes of conversation that one summary takes in; what is more waits for the next.
const MOST_BYTES: usize = 96 * 1024;
/// Messages that one summary takes in.
const MOST_MESSAGES: i64 = 400;
/// How long a writer may take.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// A summary that somebody may write now.
#[derive(Debug, Clone)]
pub struct Compaction {
    pub actor: Actor,
    pub conversation: ConversationId,
    /// Stands for the ledger as a turn of its own: no turn's tokens grow by it.
    pub job: TurnId,
    /// The summary so far; empty for the first.
    pub summary: String,
    /// What is to become part of it, oldest first.
    pub messages: Vec<HistoryMessage>,
    /// The last turn of those messages.
    pub up_to_turn: i64,
}

impl Turns {
    /// Asks for a summary of the conversation's old turns, written some time later. `turn_no` is the turn that was long:
    /// it asks once.
    ///
    /// # Errors
    /// The database's.
    pub async fn ask_for_compaction(
        &self,
        actor: &Actor,
        conversation: ConversationId,
        turn_no: i64,
    ) -> Result<bool> {
        let mut connection = self.engine.acquire().await?;
        let ticket = jobs::CompactionTicket { tenant: actor.tenant, user: actor.user, conversation };
        jobs::push_compaction(&mut connection, &ticket, turn_no).await
    }

    /// What a ticket asks for, claimed; none when somebody else is at it or there is nothing to do.
    ///
    /// # Errors
    /// The database's.
    pub async fn begin_compaction(&self, ticket: &jobs::CompactionTicket) -> Result<Option<Compaction>> {
        let actor = Actor::of_turn(ticket.tenant, ticket.user);
        let mut tx = self.tenants.begin(&actor).await?;
        let Some((summary, after)) = store::claim(&mut tx, ticket.conversation, PATIENCE).await? else {
            tx.rollback().await?;
            return Ok(None);
        };
        let found = store::messages(&mut tx, ticket.conversation, after, KEPT_TURNS, MOST_MESSAGES).await?;
        let (messages, up_to_turn) = whole_turns(found);
        if messages.is_empty() {
            tx.rollback().await?;
            return Ok(None);
        }
        tx.commit().await?;
        let (conversation, job) = (ticket.conversation, TurnId::generate());
        Ok(Some(Compaction { actor, conversation, job, summary, messages, up_to_turn }))
    }

    /// Puts the new summary in the place of the old.
    ///
    /// # Errors
    /// The database's.
    pub async fn finish_compaction(&self, compaction: &Compaction, summary: &str) -> Result<()> {
        let mut tx = self.tenants.begin(&compaction.actor).await?;
        store::finish(&mut tx, compaction.conversation, compaction.up_to_turn, summary).await?;
        tx.commit().await
    }

    /// Gives up: the next long turn asks again.
    ///
    /// # Errors
    /// The database's.
    pub async fn abandon_compaction(&self, compaction: &Compaction) -> Result<()> {
        let mut tx = self.tenants.begin(&compaction.actor).await?;
        store::abandon(&mut tx, compaction.conversation).await?;
        tx.commit().await
    }

    /// Writes down the model call of a compaction before it is sent.
    ///
    /// # Errors
    /// The database's.
    pub async fn open_compaction_call(
        &self,
        compaction: &Compaction,
        id: ModelCallId,
        provider: &str,
        model: &str,
        input_tokens: i64,
    ) -> Result<()> {
        self.open_call(&compaction.actor, compaction.job, id, provider, model, input_tokens).await
    }

    /// Settles it.
    ///
    /// # Errors
    /// The database's.
    pub async fn settle_compaction_call(
        &self,
        compaction: &Compaction,
        id: ModelCallId,
        settled: Settled,
    ) -> Result<()> {
        self.settle_call(compaction.actor.tenant, id, settled).await
    }
}

/// As many whole turns as one summary takes, with the number of the last. A single turn that is longer goes in alone.
fn whole_turns(found: Vec<(i64, HistoryMessage)>) -> (Vec<HistoryMessage>, i64) {
    let most = usize::try_from(MOST_MESSAGES).unwrap_or(usize::MAX);
    // The last turn may not be all there.
    let cut = (found.len() >= most).then(|| found.last().map_or(0, |(turn, _)| *turn));
    let only = found.first().map_or(0, |(turn, _)| *turn);
    let (mut bytes, mut taken, mut last) = (0, 0, 0);
    for (index, (turn, message)) in found.iter().enumerate() {
        let begins = index == 0 || found[index - 1].0 != *turn;
        if begins && *turn != only && (bytes >= MOST_BYTES || cut == Some(*turn)) {
            break;
        }
        bytes += message.content.len();
        (taken, last) = (index + 1, *turn);
    }
    (found.into_iter().take(taken).map(|(_, message)| message).collect(), last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: usize) -> HistoryMessage {
        HistoryMessage {
            role: "user".into(),
            content: "x".repeat(bytes),
            tool_calls: Vec::new(),
            tool_call_id: None,
            is_error: false,
        }
    }

    #[test]
    fn a_summary_takes_whole_turns_and_at_least_one() {
        let found = vec![(1, message(10)), (1, message(10)), (2, message(10))];
        let (taken, last) = whole_turns(found);
        assert_eq!((taken.len(), last), (3, 2));
        let found = vec![(1, message(MOST_BYTES)), (1, message(10)), (2, message(10))];
        let (taken, last) = whole_turns(found);
        assert_eq!((taken.len(), last), (2, 1));
        let many: Vec<_> = (0..MOST_MESSAGES).map(|n| (n / 300, message(1))).collect();
        let (taken, last) = whole_turns(many);
        assert_eq!((taken.len(), last), (300, 0), "a turn that may be cut off waits");
        assert_eq!(whole_turns(Vec::new()).1, 0);
    }
}
