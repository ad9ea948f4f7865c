//! Rule (7): what models cost.

use std::collections::BTreeMap;

use super::{CallRow, Expectations, Picture, Violation};

/// A settled call says what the provider said; every other call is marked as an estimate once its turn has ended.
pub(super) fn calls(picture: &Picture, expected: &Expectations, found: &mut Vec<Violation>) {
    let mut say = |what: String| found.push(Violation { rule: 7, what });
    let mut reported: BTreeMap<(i64, i64), usize> = BTreeMap::new();
    if let Some(provider) = &expected.provider {
        for usage in &provider.reported {
            *reported.entry(*usage).or_default() += 1;
        }
    }
    for turn in &picture.turns {
        for call in picture.calls_of(turn.id) {
            if call.settled_at.is_none() && !call.estimated && turn.finished_at.is_some() {
                say(format!("call {} of turn {} is neither settled nor an estimate", call.id, turn.id));
            }
            // What a broken reply had reported before it broke is not in the provider's log of whole replies.
            let whole = call.outcome.as_deref() == Some("ok") && !call.estimated;
            if expected.provider.is_none() || !whole {
                continue;
            }
            let usage = (call.input_tokens, call.output_tokens);
            match reported.get_mut(&usage) {
                Some(left) if *left > 0 => *left -= 1,
                _ => say(format!(
                    "call {} of turn {} was settled with {usage:?}, which the provider did not report (it reported {:?})",
                    call.id,
                    turn.id,
                    expected.provider.as_ref().map(|provider| &provider.reported)
                )),
            }
        }
    }
}

/// A turn's tokens are those of its calls, a session's are those of its ended turns.
pub(super) fn totals(picture: &Picture, found: &mut Vec<Violation>) {
    let mut sessions: BTreeMap<_, i64> = BTreeMap::new();
    for turn in picture.turns.iter().filter(|turn| turn.finished_at.is_some()) {
        *sessions.entry((turn.tenant_id, turn.session_id)).or_default() +=
            turn.input_tokens + turn.output_tokens;
        let calls = picture.calls_of(turn.id);
        let sum = |counts: &dyn Fn(&&CallRow) -> bool| {
            calls
                .iter()
                .filter(counts)
                .fold((0, 0), |sum: (i64, i64), call| (sum.0 + call.input_tokens, sum.1 + call.output_tokens))
        };
        // Settling is not fenced: a call of a worker that lost the turn may be settled after the turn has ended.
        let known =
            sum(&|call| call.settled_at <= turn.finished_at && call.settled_at.is_some() && !call.estimated);
        let all = sum(&|_| true);
        let says = (turn.input_tokens, turn.output_tokens);
        if says.0 < known.0 || says.1 < known.1 || (known == all && says != all) {
            found.push(Violation {
                rule: 7,
                what: format!(
                    "turn {} ({}) says {says:?} tokens, its calls say {known:?} when it ended and {all:?} now",
                    turn.id, turn.state
                ),
            });
        }
    }
    for session in &picture.sessions {
        let turns = sessions.get(&(session.tenant_id, session.id)).copied().unwrap_or(0);
        if turns != session.tokens_total {
            found.push(Violation {
                rule: 7,
                what: format!(
                    "session {} says {} tokens, its turns say {turns}",
                    session.id, session.tokens_total
                ),
            });
        }
    }
}
