//! Reading turns for people: [T3] and what streams need to begin.

mod posted;
mod store;

pub(super) use self::posted::Posted;
use super::{Status, Turn, Turns};
use crate::{
    error::{Error, Result},
    identity::Actor,
    ids::{ConversationId, TurnId},
};

/// Where a turn's stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamStart {
    pub turn: TurnId,
    pub turn_no: i64,
    pub status: Status,
    /// Ended so long ago that its events may be gone.
    pub past_retention: bool,
    /// The last event in the log; 0 when there is none (any more).
    pub last_seq: i64,
}

impl Turns {
    /// One of the caller's turns.
    ///
    /// # Errors
    /// 404 when there is none.
    pub async fn get(&self, actor: &Actor, turn: TurnId) -> Result<Turn> {
        let mut tx = self.tenants.begin(actor).await?;
        let found = store::turn(&mut tx, turn).await?;
        tx.commit().await?;
        found.ok_or_else(unknown)
    }

    /// What the whole stream of a turn begins with; `status` and `last_seq` are as of its post when this process has
    /// just accepted it.
    ///
    /// # Errors
    /// 404 when the caller has no such turn.
    pub async fn stream_beginning(&self, actor: &Actor, turn: TurnId) -> Result<StreamStart> {
        match self.posted.beginning(actor, turn) {
            Some(start) => Ok(start),
            None => self.stream_start(actor, turn).await,
        }
    }

    /// What a stream of this turn begins with, and where its log stands.
    ///
    /// # Errors
    /// 404 when the caller has no such turn.
    pub async fn stream_start(&self, actor: &Actor, turn: TurnId) -> Result<StreamStart> {
        let mut tx = self.tenants.begin(actor).await?;
        let found = store::stream_start(&mut tx, turn).await?;
        tx.commit().await?;
        found.ok_or_else(unknown)
    }

    /// The conversation's turn of this number, or without one its active (or else next queued) turn, if there is one.
    ///
    /// # Errors
    /// The database's.
    pub async fn stream_of(
        &self,
        actor: &Actor,
        conversation: ConversationId,
        turn_no: Option<i64>,
    ) -> Result<Option<StreamStart>> {
        let mut tx = self.tenants.begin(actor).await?;
        let found = store::stream_of(&mut tx, conversation, turn_no).await?;
        tx.commit().await?;
        Ok(found)
    }

    /// The number of the conversation's newest turn; 0 when it has none.
    ///
    /// # Errors
    /// The database's.
    pub async fn newest_turn_no(&self, actor: &Actor, conversation: ConversationId) -> Result<i64> {
        let mut tx = self.tenants.begin(actor).await?;
        let newest = store::newest_turn_no(&mut tx, conversation).await?;
        tx.commit().await?;
        Ok(newest)
    }
}

/// Unknown, and somebody else's, look alike.
pub(super) fn unknown() -> Error {
    Error::not_found("there is no such job")
}
