//! Posting: idempotency record, message, turn, first event and, when the turn may run at once, its ticket, in one
//! transaction. Nothing is enqueued that is not stored and nothing is stored that is not enqueued.

mod store;

use std::time::{Duration, Instant};

use secrecy::SecretString;

use super::{Accepted, Status, Turns, Warning, cancel, ending::Ending, store as turn_store};
use crate::{
    bell::Ring,
    db::TenantTx,
    error::{Code, Error, Result},
    events::data,
    idempotency::IdempotencyKey,
    identity::Actor,
    ids::{ConversationId, ItemUid, SessionId, TurnId},
    jobs, sessions,
};

/// How long after its start a post is tried again when the connection broke.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who said a message that comes with a post.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageRole {
    User,
    Assistant,
}

impl MessageRole {
    fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// A message that comes with a post; its content is not empty and holds no U+0000.
#[derive(Debug, Clone)]
pub struct NewMessage {
    pub role: MessageRole,
    pub content: String,
}

/// What to do when the conversation is busy [T6].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnBusy {
    /// Wait in line.
    #[default]
    Enqueue,
    /// Refuse with 409.
    Reject,
    /// Cancel the running turn, then run.
    Interrupt,
}

/// A turn to be posted. The id is chosen first, so that a waiter can register before the commit.
#[derive(Debug, Clone)]
pub struct NewTurn {
    pub id: TurnId,
    /// At least one; the last is the user's. Earlier ones only open a conversation.
    pub messages: Vec<NewMessage>,
    pub session: Option<SecretString>,
    pub force_refresh: bool,
    pub on_busy: OnBusy,
    pub idempotency: Option<IdempotencyKey>,
    pub request_id: String,
}

/// What the big insert of a post writes.
struct Posting<'a> {
    id: TurnId,
    turn_no: i64,
    conversation: ConversationId,
    chat: ItemUid,
    session: SessionId,
    messages: Vec<PostedMessage<'a>>,
    /// Behind another turn: takes no slot. None: the insert looks for itself.
    behind: Option<bool>,
    force_refresh: bool,
    request_id: &'a str,
    retry_of: Option<TurnId>,
    max_attempts: i64,
    first_event: String,
}

struct PostedMessage<'a> {
    id: i64,
    role: &'static str,
    content: &'a str,
}

/// The dead turn that a new one is made from. Its session may have expired since.
struct Retry {
    of: TurnId,
    session: SessionId,
    session_token: SecretString,
    conversation: ConversationId,
}

/// What has to be rung after the commit.
#[derive(Default)]
struct After {
    ready: bool,
    waiting: bool,
    cancel: Option<TurnId>,
    ended: Vec<(TurnId, i64)>,
}

impl Turns {
    /// Posts a turn.
    ///
    /// # Errors
    /// 404 and 410 for the session, 410 for a conversation whose chat was deleted, 409 for a busy conversation with `reject` or a used idempotency key, 422 for earlier
    /// messages with a session, or the database's. Nothing is stored then.
    pub async fn post(&self, actor: &Actor, new: &NewTurn) -> Result<Accepted> {
        self.post_as(actor, new, None).await
    }

    /// Makes a new turn, at the end of its conversation's line, out of a dead one [T8].
    ///
    /// # Errors
    /// 404 when there is no such turn, 409 when it is not dead, 410 when its conversation's chat was deleted.
    pub async fn retry(&self, actor: &Actor, dead: TurnId, id: TurnId, request_id: &str) -> Result<Accepted> {
        let mut tx = self.tenants.begin(actor).await?;
        let row = store::turn_for_retry(&mut tx, dead).await?;
        let Some((state, owner, session, conversation, content)) = row else {
            return Err(super::reading::unknown());
        };
        let session_token = self.sessions.token_in(&mut tx, session).await?;
        tx.commit().await?;
        // An admin's retry is still its owner's turn: nobody else may write to that conversation.
        let owner = Actor::of_turn(actor.tenant, owner);
        if state != "dead" {
            return Err(Error::conflict("only a dead turn can be retried")
                .with_detail("status", Status::of_state(&state).as_str()));
        }
        let new = NewTurn {
            id,
            messages: vec![NewMessage { role: MessageRole::User, content }],
            session: None,
            force_refresh: false,
            on_busy: OnBusy::Enqueue,
            idempotency: None,
            request_id: request_id.to_owned(),
        };
        self.post_as(&owner, &new, Some(&Retry { of: dead, session, session_token, conversation })).await
    }

    async fn post_as(&self, actor: &Actor, new: &NewTurn, retry: Option<&Retry>) -> Result<Accepted> {
        let mut left = 3_u32;
        let begun = Instant::now();
        loop {
            match self.try_post(actor, new, retry).await {
                Err(error) if super::asks_to_run_again(&error) && left > 0 => left -= 1,
                // The connection broke, or it broke before and this is the second try of a post that was stored. The
                // commit may have happened; the turn's id tells. While the database is away, each look waits for
                // seconds, and the caller is better served with an answer.
                Err(error)
                    if (error.is_transient() || is_duplicate(&error))
                        && left > 0
                        && begun.elapsed() < PATIENCE =>
                {
                    left -= 1;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    if let Ok(Some(accepted)) = self.accepted(actor, new.id).await {
                        self.bell.ring(Ring::Work);
                        return Ok(accepted);
                    }
                }
                other => return other,
            }
        }
    }

    async fn try_post(&self, actor: &Actor, new: &NewTurn, retry: Option<&Retry>) -> Result<Accepted> {
        let count = i64::try_from(new.messages.len()).map_err(Error::internal)?;
        let counters = self.tenants.counters();
        let first_message = counters.next_many(actor.tenant, "chat_message", count);
        let (first_message, conversation) = match (&new.session, retry) {
            (Some(_), _) | (_, Some(_)) => (first_message.await?, None),
            (None, None) => {
                let (first, chat) = tokio::try_join!(first_message, counters.next(actor.tenant, "chat"))?;
                (first, Some(ConversationId(chat)))
            }
        };

        let mut tx = self.tenants.begin(actor).await?;
        if let Some(key) = &new.idempotency
            && !turn_store::claim_key(&mut tx, key, new.id).await?
        {
            let former = turn_store::key_owner(&mut tx, key).await?;
            tx.rollback().await?;
            return match former {
                Some((turn, hash)) if hash == key.body_hash => {
                    self.accepted(actor, turn).await?.ok_or_else(super::reading::unknown)
                }
                Some(_) => Err(Error::conflict("this Idempotency-Key was used with another body")),
                // Its transaction rolled back between our two statements.
                None => Err(Error::new(
                    Code::Conflict,
                    "a request with this Idempotency-Key just failed; send it again",
                )),
            };
        }

        let mut after = After::default();
        let (session, conversation, chat, turn_no, behind) = match (&new.session, retry, conversation) {
            (_, Some(retry), _) => {
                let (turn_no, chat, is_deleted) = store::next_turn_no(&mut tx, retry.conversation).await?;
                if is_deleted {
                    return Err(deleted(retry.conversation));
                }
                (retry.session, retry.conversation, chat, turn_no, None)
            }
            (Some(token), None, _) => {
                if new.messages.len() > 1 {
                    return Err(Error::unacceptable(
                        "messages: earlier messages are only accepted when the turn opens a conversation, not with a session",
                    ));
                }
                let hash = sessions::hash_of(token);
                let Some(taken) = store::next_turn_no_of_session(&mut tx, &hash).await? else {
                    return sessions::refuse(&mut tx, token).await;
                };
                if taken.is_deleted {
                    return Err(deleted(taken.conversation_id));
                }
                let behind = match new.on_busy {
                    OnBusy::Enqueue => None,
                    on_busy => {
                        Some(self.meet_active(&mut tx, taken.conversation_id, on_busy, &mut after).await?)
                    }
                };
                (taken.session_id, taken.conversation_id, taken.chat_uid, taken.turn_no, behind)
            }
            (None, None, Some(conversation)) => {
                let opening = new.messages.first().map_or("", |message| message.content.as_str());
                let mut made = self.sessions.new_session(conversation, &title(opening));
                // Its first turn takes its number here.
                made.next_turn_no = 2;
                sessions::create(&mut tx, &made).await?;
                (made.id, conversation, made.chat, 1, Some(false))
            }
            (None, None, None) => return Err(Error::internal("a conversation id was not counted")),
        };

        let messages = new.messages.iter().zip(first_message..).map(|(message, id)| PostedMessage {
            id,
            role: message.role.as_str(),
            content: &message.content,
        });
        let posting = Posting {
            id: new.id,
            turn_no,
            conversation,
            chat,
            session,
            messages: messages.collect(),
            behind,
            force_refresh: new.force_refresh,
            request_id: &new.request_id,
            retry_of: retry.map(|retry| retry.of),
            max_attempts: self.settings.max_attempts,
            first_event: data::queued(new.id, conversation),
        };
        let state = store::insert_turn(&mut tx, &posting).await?;
        let mut warnings = Vec::new();
        if state == "queued" {
            warnings.extend(self.waits_for_approval(&mut tx, conversation).await?);
            if !warnings.is_empty() {
                store::warn(&mut tx, new.id, &warnings).await?;
            }
        }
        after.ready |= state == "ready";
        after.waiting |= state == "waiting";
        if state == "ready" {
            jobs::push_turn(tx.connection(), new.id).await?;
        }
        tx.commit().await?;
        let session_token = match (&new.session, retry) {
            (Some(token), _) => token.clone(),
            (None, Some(retry)) => retry.session_token.clone(),
            (None, None) => self.sessions.token(session),
        };

        self.ring_after(actor, conversation, turn_no, &after);
        self.posted.remember(actor, new.id, turn_no);
        Ok(Accepted {
            turn: new.id,
            turn_no,
            session,
            session_token,
            conversation,
            status: Status::Queued,
            warnings,
            retry_of: retry.map(|retry| retry.of),
        })
    }

    /// The warning that the conversation's head waits for a person [T6].
    async fn waits_for_approval(
        &self,
        tx: &mut TenantTx,
        conversation: ConversationId,
    ) -> Result<Option<Warning>> {
        let line = store::line(tx, conversation).await?;
        let head = line.iter().find(|(_, state)| state == "awaiting_approval");
        Ok(head.map(|(head, _)| Warning {
            code: "AWAITING_APPROVAL".to_owned(),
            detail: format!("the turn waits behind job {head}, which waits for an approval"),
        }))
    }

    /// Refuses or interrupts the conversation's active turn; answers whether the new one stands behind another.
    async fn meet_active(
        &self,
        tx: &mut TenantTx,
        conversation: ConversationId,
        on_busy: OnBusy,
        after: &mut After,
    ) -> Result<bool> {
        let line = store::line(tx, conversation).await?;
        let Some((head, state)) = line.iter().find(|(_, state)| state != "queued").or(line.first()).cloned()
        else {
            return Ok(false);
        };
        match (on_busy, state.as_str()) {
            (OnBusy::Reject, _) => {
                return Err(Error::conflict("the conversation is busy with another turn")
                    .with_detail("jobId", head.to_string())
                    .with_detail("status", Status::of_state(&state).as_str()));
            }
            (OnBusy::Interrupt, "running") => {
                turn_store::request_cancel(tx, head, "interrupted").await?;
                after.cancel = Some(head);
            }
            (OnBusy::Interrupt, "awaiting_approval") => {
                let unparked = self.deny_open(tx, head, "interrupted").await?;
                after.ready |= unparked.as_deref() == Some("ready");
                after.waiting |= unparked.as_deref() == Some("waiting");
            }
            (OnBusy::Interrupt, "waiting" | "ready") => {
                let ended = cancel::end_unleased(tx, head, Ending::cancelled("interrupted")).await?;
                if let Some(ended) = ended {
                    after.ready |= ended.ready;
                    after.ended.push((head, ended.tail));
                }
                return Ok(store::line(tx, conversation).await?.iter().any(|(turn, _)| *turn != head));
            }
            _ => {}
        }
        Ok(true)
    }

    fn ring_after(&self, actor: &Actor, conversation: ConversationId, turn_no: i64, after: &After) {
        if after.ready {
            self.bell.ring(Ring::Work);
        }
        self.bell.ring(Ring::Turn { tenant: actor.tenant, conversation, turn_no });
        if let Some(running) = after.cancel {
            self.bell.ring(Ring::Cancel(running));
        }
        for (ended, tail) in &after.ended {
            self.ring_events(actor.tenant, *ended, *tail);
            self.ledger.correct(actor.tenant, *ended);
        }
        if after.waiting || !after.ended.is_empty() {
            self.second_look.ask(actor.tenant);
        }
    }

    /// What a post of this turn answers now, if it was stored.
    async fn accepted(&self, actor: &Actor, turn: TurnId) -> Result<Option<Accepted>> {
        let mut tx = self.tenants.begin(actor).await?;
        let Some(row) = store::accepted(&mut tx, turn).await? else { return Ok(None) };
        let session_token = self.sessions.token_in(&mut tx, row.session_id).await?;
        tx.commit().await?;
        Ok(Some(Accepted {
            turn,
            turn_no: row.turn_no,
            session: row.session_id,
            session_token,
            conversation: row.conversation_id,
            status: Status::of_state(&row.state),
            warnings: row.warnings.0,
            retry_of: row.retry_of,
        }))
    }
}

/// Messages of a deleted chat are hidden: nobody would see what a turn says there.
fn deleted(conversation: ConversationId) -> Error {
    Error::new(
        Code::Gone,
        format!("chat {conversation} was deleted; post without a session to begin another"),
    )
}

fn is_duplicate(error: &Error) -> bool {
    matches!(error.database(), Some(sqlx::Error::Database(database)) if database.is_unique_violation())
}

/// The first line of the opening message, at most 80 characters.
fn title(message: &str) -> String {
    let line = message.lines().find(|line| !line.trim().is_empty()).unwrap_or("New conversation").trim();
    match line.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", line[..end].trim_end()),
        None => line.to_owned(),
    }
}
