//! Rule (7): what models cost.

use std::collections::BTreeMap;

use super::{Expectations, Picture, TurnRow, Violation};

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

/// Whether a turn's tokens are those of its calls, also of those that were settled after it had ended: settling is not
/// fenced, as the money is spent.
pub(super) fn adds_up(picture: &Picture, turn: &TurnRow) -> bool {
    (turn.input_tokens, turn.output_tokens) == of_calls(picture, turn)
}

fn of_calls(picture: &Picture, turn: &TurnRow) -> (i64, i64) {
    let calls = picture.calls_of(turn.id).iter();
    calls.fold((0, 0), |sum, call| (sum.0 + call.input_tokens, sum.1 + call.output_tokens))
}

/// A turn's tokens are those of its calls, a session's are those of its ended turns.
pub(super) fn totals(picture: &Picture, found: &mut Vec<Violation>) {
    let mut sessions: BTreeMap<_, i64> = BTreeMap::new();
    for turn in picture.turns.iter().filter(|turn| turn.finished_at.is_some()) {
        *sessions.entry((turn.tenant_id, turn.session_id)).or_default() +=
            turn.input_tokens + turn.output_tokens;
        if !adds_up(picture, turn) {
            let says = (turn.input_tokens, turn.output_tokens);
            let sum = of_calls(picture, turn);
            found.push(Violation {
                rule: 7,
                what: format!(
                    "turn {} ({}) says {says:?} tokens, its calls say {sum:?}",
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
