//! Turns that this process has just accepted. Whoever posts a turn opens its stream next, mostly here, and whose turn it
//! is never changes: that stream begins without asking the database. Whatever is not here is asked for there.

use std::{
    collections::HashMap,
    mem,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::StreamStart;
use crate::{
    identity::Actor,
    ids::{TenantId, TurnId, UserId},
    turns::Status,
};

/// A turn is remembered for at least this long, and for twice as long at most.
const KEPT: Duration = Duration::from_secs(30);
/// Turns of one generation at most; beyond that the older generation is dropped early, which costs a look each.
const MOST: usize = 4096;

/// The last turns that this process accepted.
#[derive(Default)]
pub(in crate::turns) struct Posted(Mutex<Generations>);

struct Generations {
    since: Instant,
    young: HashMap<TurnId, Owner>,
    old: HashMap<TurnId, Owner>,
}

#[derive(Clone, Copy)]
struct Owner {
    tenant: TenantId,
    user: UserId,
    turn_no: i64,
}

impl Default for Generations {
    fn default() -> Self {
        Self { since: Instant::now(), young: HashMap::new(), old: HashMap::new() }
    }
}

impl Posted {
    /// Remembers a turn whose post was committed.
    pub(in crate::turns) fn remember(&self, actor: &Actor, turn: TurnId, turn_no: i64) {
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if generations.young.len() >= MOST || generations.since.elapsed() >= KEPT {
            generations.old = mem::take(&mut generations.young);
            generations.since = Instant::now();
        }
        generations.young.insert(turn, Owner { tenant: actor.tenant, user: actor.user, turn_no });
    }

    /// Where the whole stream of a turn begins, if it is remembered and the caller's own.
    pub(super) fn beginning(&self, actor: &Actor, turn: TurnId) -> Option<StreamStart> {
        let generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let owner = generations.young.get(&turn).or_else(|| generations.old.get(&turn))?;
        let is_own = owner.tenant == actor.tenant && owner.user == actor.user;
        is_own.then_some(StreamStart {
            turn,
            turn_no: owner.turn_no,
            status: Status::Queued,
            past_retention: false,
            last_seq: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn only_the_owner_finds_a_turn_and_only_for_two_generations() {
        let owner = Actor::of_turn(TenantId(Uuid::from_u128(1)), UserId(Uuid::from_u128(2)));
        let colleague = Actor { user: UserId(Uuid::from_u128(3)), ..owner.clone() };
        let elsewhere = Actor { tenant: TenantId(Uuid::from_u128(4)), ..owner.clone() };
        let posted = Posted::default();
        let first = TurnId::generate();
        posted.remember(&owner, first, 7);
        assert_eq!(posted.beginning(&owner, first).map(|start| start.turn_no), Some(7));
        assert_eq!(posted.beginning(&colleague, first), None);
        assert_eq!(posted.beginning(&elsewhere, first), None);
        for _ in 0..MOST {
            posted.remember(&owner, TurnId::generate(), 1);
        }
        assert!(posted.beginning(&owner, first).is_some(), "kept for another generation");
        for _ in 0..MOST {
            posted.remember(&owner, TurnId::generate(), 1);
        }
        assert_eq!(posted.beginning(&owner, first), None);
    }
}
