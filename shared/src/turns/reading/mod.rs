//! Reading turns for people: [T3] and what streams need to begin.

mod store;

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

    /// What a stream of this turn begins with.
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
