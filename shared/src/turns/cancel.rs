//! Cancelling, and ending a turn without holding its lease.
//!
//! Nobody writes to a turn without a lease: whoever ends one from outside locks conversation and turn, takes the lease
//! (which fences the holder), takes event ids as every new holder does, and ends it in the same transaction.

use std::time::Duration;

use super::{
    Ending, NewEvent, Status, Turn, Turns,
    ending::FinishedUsage,
    journal::{self, Place},
    store,
    transcript::Transcript,
};
use crate::{
    bell::Ring,
    db::TenantTx,
    error::Result,
    events::{EventKind, data},
    identity::Actor,
    ids::{ConversationId, TurnId},
    jobs,
};

/// How long the running worker has to end a cancelled turn by itself.
const WORKER_GRACE: Duration = Duration::from_millis(700);

/// What ending a turn from outside leads to.
pub(super) struct Ended {
    /// The id of its `done`.
    pub(super) tail: i64,
    /// A turn that became ready through it.
    pub(super) ready: bool,
    /// There may be a free slot and somebody who waits for one.
    pub(super) freed: bool,
}

/// What asking a turn to stop came to.
enum Cancelling {
    IsOver,
    /// A worker has to be told.
    Runs(ConversationId),
    Ended(Option<Ended>),
}

impl Turns {
    /// Stops a queued, running or parked turn within a second; a finished one is answered unchanged [T4].
    ///
    /// # Errors
    /// 404 when the caller has no such turn.
    pub async fn cancel(&self, actor: &Actor, turn: TurnId, reason: &str) -> Result<Turn> {
        match super::run_again(|| self.try_cancel(actor, turn, reason)).await? {
            Cancelling::IsOver => {}
            Cancelling::Runs(conversation) => {
                self.bell.ring(Ring::Cancel(turn));
                if !self.ended_within(actor, turn, WORKER_GRACE).await {
                    self.end(actor, conversation, turn, Ending::cancelled(reason)).await?;
                }
            }
            Cancelling::Ended(ended) => self.after_end(actor, turn, ended).await,
        }
        self.get(actor, turn).await
    }

    async fn try_cancel(&self, actor: &Actor, turn: TurnId, reason: &str) -> Result<Cancelling> {
        let mut tx = self.tenants.begin(actor).await?;
        let conversation =
            store::conversation_of(&mut tx, turn).await?.ok_or_else(super::reading::unknown)?;
        store::lock_conversation(&mut tx, conversation).await?;
        let state = store::lock_state(&mut tx, turn).await?.ok_or_else(super::reading::unknown)?;
        let done = if Status::of_state(&state).is_terminal() {
            Cancelling::IsOver
        } else if state == "running" {
            store::request_cancel(&mut tx, turn, reason).await?;
            Cancelling::Runs(conversation)
        } else {
            Cancelling::Ended(end_unleased(&mut tx, turn, Ending::cancelled(reason)).await?)
        };
        tx.commit().await?;
        Ok(done)
    }

    /// Ends a turn whoever holds it; false when it had ended already.
    ///
    /// # Errors
    /// The database's.
    pub(super) async fn end(
        &self,
        actor: &Actor,
        conversation: ConversationId,
        turn: TurnId,
        ending: Ending,
    ) -> Result<bool> {
        let ending = &ending;
        let ended = super::run_again(|| async move {
            let mut tx = self.tenants.begin(actor).await?;
            store::lock_conversation(&mut tx, conversation).await?;
            let ended = end_unleased(&mut tx, turn, ending.clone()).await?;
            tx.commit().await?;
            Ok(ended)
        });
        let ended = ended.await?;
        let written = ended.is_some();
        self.after_end(actor, turn, ended).await;
        Ok(written)
    }

    pub(super) async fn after_end(&self, actor: &Actor, turn: TurnId, ended: Option<Ended>) {
        let Some(ended) = ended else { return };
        self.ring_events(actor.tenant, turn, ended.tail);
        self.ledger.correct(actor.tenant, turn);
        if ended.ready {
            self.bell.ring(Ring::Work);
        }
        if ended.freed {
            self.second_look.ask(actor.tenant);
        }
    }

    /// Whether the turn's `done` came within the time.
    async fn ended_within(&self, actor: &Actor, turn: TurnId, time: Duration) -> bool {
        let Some(hub) = &self.hub else { return false };
        let mut follower = hub.follow(actor.tenant, turn, 0);
        let done = async {
            loop {
                let events = follower.next().await;
                if events.is_empty() || events.iter().any(|event| event.kind == EventKind::Done) {
                    return;
                }
            }
        };
        tokio::time::timeout(time, done).await.is_ok()
    }
}

/// Ends a turn within a transaction that holds its conversation's row. None: it had ended already.
pub(super) async fn end_unleased(tx: &mut TenantTx, turn: TurnId, ending: Ending) -> Result<Option<Ended>> {
    match store::take_lease(tx, turn).await? {
        Some(held) => end_held(tx, held, ending).await.map(Some),
        None => Ok(None),
    }
}

/// The same by the turn's own holder, whose events are all in the log: there is nothing to jump over.
pub(super) async fn end_given_up(tx: &mut TenantTx, turn: TurnId, ending: Ending) -> Result<Option<Ended>> {
    match store::take_lease(tx, turn).await? {
        Some(held) => end_held(tx, store::Held { was_leased: false, ..held }, ending).await.map(Some),
        None => Ok(None),
    }
}

async fn end_held(tx: &mut TenantTx, held: store::Held, ending: Ending) -> Result<Ended> {
    let turn = held.id;
    let log = store::events(tx, turn).await?;
    let last = log.last().map_or(0, |event| event.seq);
    let transcript = Transcript::of(&log);
    let unfinished = transcript.text_after(held.last_step_seq);
    // Somebody may hold ids above the log's tail that never arrive; a jump over them is only legal onto `resumed`.
    let mut seq = if held.was_leased { (last + 1).max((held.elapsed_ms << 12) + 1) } else { last + 1 };
    let keeps_text = ending.status == Status::Cancelled;
    let discard_after = if keeps_text { last } else { held.last_step_seq };
    let mut events = Vec::with_capacity(3);
    if held.was_leased || (!keeps_text && !unfinished.is_empty()) {
        let text = data::resumed(held.turn_no, discard_after);
        events.push(NewEvent { seq, kind: EventKind::Resumed, data: text });
        seq += 1;
    }
    let usage = FinishedUsage { input: held.input_tokens, output: held.output_tokens };
    events.extend(ending.events(seq, &held.request_id, usage));
    let reply = if keeps_text { transcript.text() } else { transcript.text_until(held.last_step_seq) };
    let message = if keeps_text { unfinished } else { String::new() };
    // What parts it from the text of the step before is no part of the message.
    let message = match transcript.text_until(held.last_step_seq).is_empty() {
        true => message.as_str(),
        false => message.strip_prefix("\n\n").unwrap_or(&message),
    };
    let message_id = match message.is_empty() {
        true => 0,
        false => tx.next_id("chat_message").await?,
    };
    let tail = events.last().map_or(0, |event| event.seq);
    store::end(tx, &held, &ending, &reply, message, message_id, &events).await?;
    let chat = store::lock_conversation(tx, held.conversation).await?;
    let place = Place { chat, turn_no: held.turn_no, user: held.user_id };
    journal::close_open_calls(tx, turn, &place).await?;
    let next = store::hand_over(tx, held.conversation, held.slot).await?;
    if let Some(ready) = next.ready_turn {
        jobs::push_turn(tx.connection(), ready).await?;
    }
    // Without a slot of its own to pass on, the turn that was promoted in its place has to be given a free one.
    let freed = next.freed || held.slot.is_none();
    Ok(Ended { tail, ready: next.ready_turn.is_some(), freed })
}
