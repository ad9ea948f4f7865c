//! Sessions: a user's handle on one conversation. The token is opaque, made by us, stored as a hash and never
//! authenticates by itself: the caller must also be its user [N3].

mod store;
mod token;
mod touch;

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use serde_json::Value;

pub use self::{token::TokenKeys, touch::LastAccessed};
use crate::{
    db::{TenantDb, TenantTx},
    error::{Code, Error, Result},
    identity::Actor,
    ids::{ConversationId, ItemUid, SessionId, TurnId},
};

/// A session as its user sees it.
#[derive(Debug, Clone)]
pub struct Session {
    /// Names it in paths; the token never does.
    pub id: SessionId,
    /// The conversation it is bound to.
    pub conversation: ConversationId,
    /// Tool-relevant state.
    pub conversation_context: Value,
    /// The Notion workspace that tools use, when the user has several.
    pub active_notion_workspace: Option<String>,
    /// Tokens used by the turns of this session.
    pub tokens_total: i64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last used, within ten seconds.
    pub last_accessed: DateTime<Utc>,
    /// When it ends unless it is used.
    pub expires_at: DateTime<Utc>,
    /// The conversation's active turn, if there is one.
    pub running: Option<RunningTurn>,
    /// Number and last event of the conversation's newest turn, from which a page can follow on.
    pub last_event: Option<LastEvent>,
}

/// The turn that a conversation is busy with.
#[derive(Debug, Clone)]
pub struct RunningTurn {
    /// The job's id.
    pub turn: TurnId,
    /// In the words of the contract.
    pub status: &'static str,
}

/// Where the conversation's log stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastEvent {
    /// The turn's number within the conversation.
    pub turn_no: i64,
    /// The event's number within the turn.
    pub seq: i64,
}

/// Makes and reads sessions.
#[derive(Clone)]
pub struct Sessions {
    tenants: TenantDb,
    keys: TokenKeys,
    idle_days: i64,
}

impl Sessions {
    /// `idle_days`: how long a session lives unused.
    #[must_use]
    pub fn new(tenants: TenantDb, keys: TokenKeys, idle_days: i64) -> Self {
        Self { tenants, keys, idle_days }
    }

    /// The token of a session that was just made.
    pub(crate) fn token(&self, id: SessionId) -> SecretString {
        self.keys.token(id)
    }

    /// The token that a session was given. Of a session that is gone, or whose key is, one that opens nothing.
    pub(crate) async fn token_in(&self, tx: &mut TenantTx, id: SessionId) -> Result<SecretString> {
        let given = store::token_hash(tx, id).await?.and_then(|hash| self.keys.given(id, &hash));
        Ok(given.unwrap_or_else(|| self.keys.token(id)))
    }

    /// A new session with a new, empty conversation.
    ///
    /// # Errors
    /// The database's.
    pub async fn create(&self, actor: &Actor) -> Result<(Session, SecretString)> {
        let mut tx = self.tenants.begin(actor).await?;
        // Within the transaction: see `counters` for what a crash does to ids.
        let conversation = ConversationId(tx.next_id("chat").await?);
        let new = self.new_session(conversation, "New conversation");
        store::create(&mut tx, &new).await?;
        let session = store::by_id(&mut tx, new.id)
            .await?
            .ok_or_else(|| Error::internal("a session just made is gone"))?;
        tx.commit().await?;
        Ok((session, self.keys.token(new.id)))
    }

    pub(crate) fn new_session(&self, conversation: ConversationId, title: &str) -> NewSession {
        let id = SessionId::generate();
        NewSession {
            id,
            conversation,
            chat: ItemUid::generate(),
            title: title.to_owned(),
            token_hash: self.keys.hash_of(id),
            idle_days: self.idle_days,
            next_turn_no: 1,
        }
    }

    /// The caller's sessions, newest first; `before` continues a list. Expired ones are left out.
    ///
    /// # Errors
    /// The database's.
    pub async fn list(&self, actor: &Actor, before: Option<SessionId>, limit: i64) -> Result<Vec<Session>> {
        let mut tx = self.tenants.begin(actor).await?;
        let sessions = store::list(&mut tx, before, limit).await?;
        tx.commit().await?;
        Ok(sessions)
    }

    /// One of the caller's sessions.
    ///
    /// # Errors
    /// 404 when there is none, 410 when it has expired.
    pub async fn get(&self, actor: &Actor, id: SessionId) -> Result<Session> {
        let mut tx = self.tenants.begin(actor).await?;
        let session = store::by_id(&mut tx, id).await?;
        tx.commit().await?;
        alive(session)
    }

    /// The caller's session of this token.
    ///
    /// # Errors
    /// 404 when there is none, 410 when it has expired.
    pub async fn by_token(&self, actor: &Actor, token: &SecretString) -> Result<Session> {
        let mut tx = self.tenants.begin(actor).await?;
        let session = store::by_token(&mut tx, &token::hash(token)).await?;
        tx.commit().await?;
        alive(session)
    }

    /// The token of the caller's newest session of a conversation of theirs; made when none is alive.
    ///
    /// # Errors
    /// 404 when the caller has no such conversation.
    pub async fn of_conversation(&self, actor: &Actor, conversation: ConversationId) -> Result<SecretString> {
        let mut tx = self.tenants.begin(actor).await?;
        let Some(newest) = store::newest_of(&mut tx, conversation).await? else {
            return Err(Error::not_found("there is no such conversation"));
        };
        // A session whose key is gone is its holder's alone: here it gets another beside it.
        let given = newest.and_then(|(id, hash)| self.keys.given(id, &hash));
        let token = match given {
            Some(token) => token,
            None => {
                let id = SessionId::generate();
                store::add(&mut tx, id, &self.keys.hash_of(id), conversation, self.idle_days).await?;
                self.keys.token(id)
            }
        };
        tx.commit().await?;
        Ok(token)
    }

    /// Whether this is the caller's number, which names them where a uuid is too long.
    ///
    /// # Errors
    /// The database's.
    pub async fn is_number_of(&self, actor: &Actor, number: i64) -> Result<bool> {
        let mut tx = self.tenants.begin(actor).await?;
        let is_theirs = store::is_number_of(&mut tx, number).await?;
        tx.commit().await?;
        Ok(is_theirs)
    }

    /// Sets the active Notion workspace.
    ///
    /// # Errors
    /// 404 when there is no such session.
    pub async fn set_workspace(
        &self,
        actor: &Actor,
        id: SessionId,
        workspace: Option<&str>,
    ) -> Result<Session> {
        let mut tx = self.tenants.begin(actor).await?;
        store::set_workspace(&mut tx, id, workspace).await?;
        let session = store::by_id(&mut tx, id).await?;
        tx.commit().await?;
        alive(session)
    }

    /// Ends a session; its conversation stays.
    ///
    /// # Errors
    /// 404 when there is no such session.
    pub async fn delete(&self, actor: &Actor, id: SessionId) -> Result<()> {
        let mut tx = self.tenants.begin(actor).await?;
        let gone = store::delete(&mut tx, id).await?;
        tx.commit().await?;
        if gone { Ok(()) } else { Err(unknown()) }
    }
}

/// What is written for a new session and its conversation.
pub(crate) struct NewSession {
    pub(crate) id: SessionId,
    pub(crate) conversation: ConversationId,
    pub(crate) chat: ItemUid,
    pub(crate) title: String,
    pub(crate) token_hash: [u8; 32],
    pub(crate) idle_days: i64,
    /// The number of the conversation's next turn.
    pub(crate) next_turn_no: i64,
}

/// What is stored of a session's token.
pub(crate) fn hash_of(token: &SecretString) -> [u8; 32] {
    token::hash(token)
}

/// Why a token that finds no living session of the caller is refused.
///
/// # Errors
/// Always: 404 when there is no such session, 410 when it has expired, or the database's.
pub(crate) async fn refuse<T>(tx: &mut TenantTx, token: &SecretString) -> Result<T> {
    match store::resolve(tx, &token::hash(token)).await? {
        None => Err(unknown()),
        Some(_) => Err(expired()),
    }
}

/// Writes a new session with its conversation and chat.
pub(crate) async fn create(tx: &mut TenantTx, new: &NewSession) -> Result<()> {
    store::create(tx, new).await
}

fn alive(session: Option<Session>) -> Result<Session> {
    let session = session.ok_or_else(unknown)?;
    if session.expires_at <= Utc::now() { Err(expired()) } else { Ok(session) }
}

fn unknown() -> Error {
    Error::not_found("there is no such session")
}

fn expired() -> Error {
    Error::new(Code::Gone, "the session has expired; post without a session to begin a new one")
}
