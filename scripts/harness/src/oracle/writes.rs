//! Rules (5) and (6): tool calls, their results and their effects.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Expectations, Picture, Violation};

/// The tools that make one task each time they succeed.
const TASK_MAKERS: &[&str] = &["add_task", "create_task"];
/// The tools that make one note each time they succeed.
const NOTE_MAKERS: &[&str] = &["create_note", "add_note"];

/// (5) Every call of an ended turn has one result, in the log, in the journal and in the history.
pub(super) fn tool_results(picture: &Picture, found: &mut Vec<Violation>) {
    for turn in picture.turns.iter().filter(|turn| turn.finished_at.is_some()) {
        let mut say =
            |what: String| found.push(Violation { rule: 5, what: format!("turn {}: {what}", turn.id) });
        let mut calls: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for event in picture.events_of(turn.id) {
            let data: Value = serde_json::from_str(&event.data).unwrap_or(Value::Null);
            let id = data["id"].as_str().unwrap_or_default().to_owned();
            match event.kind.as_str() {
                "tool_call" => calls.entry(id).or_default().0 += 1,
                "tool_result" => calls.entry(id).or_default().1 += 1,
                _ => {}
            }
        }
        for (id, (called, answered)) in &calls {
            // A turn that was cancelled or died may have been cut between the two.
            let fewest = usize::from(turn.state == "succeeded");
            if *called != 1 || *answered < fewest || *answered > 1 {
                say(format!("{called} call events and {answered} result events of call {id}"));
            }
        }
        let mut wanted = BTreeSet::new();
        let mut had = BTreeSet::new();
        for step in picture.steps_of(turn.id) {
            if step.kind == "model" {
                let view: Value = serde_json::from_str(&step.view).unwrap_or(Value::Null);
                wanted.extend(call_ids(&view));
            } else if step.finished_at.is_some() {
                had.insert(step.call_id.clone());
            }
        }
        if turn.state == "succeeded" && wanted != had {
            say(format!("the journal has calls {wanted:?} and results {had:?}"));
        }
        if !had.is_subset(&wanted) {
            say(format!("the journal has results {had:?} of calls that the model did not make ({wanted:?})"));
        }
        let (mut asked, mut answered) = (Vec::new(), Vec::new());
        for item in
            picture.items.iter().filter(|item| item.turn_id == Some(turn.id) && item.kind == "chat_message")
        {
            match item.payload["role"].as_str() {
                Some("assistant") => asked.extend(call_ids(&item.payload)),
                Some("tool") => answered.extend(result_ids(&item.payload)),
                _ => {}
            }
        }
        asked.sort();
        answered.sort();
        if !answered.is_empty() && asked != answered {
            say(format!("the history has calls {asked:?} and results {answered:?}"));
        }
    }
}

fn call_ids(value: &Value) -> Vec<String> {
    let calls = ["calls", "toolCalls", "tool_calls"].iter().find_map(|name| value[name].as_array());
    calls.into_iter().flatten().filter_map(|call| call["id"].as_str().map(str::to_owned)).collect()
}

fn result_ids(payload: &Value) -> Vec<String> {
    let direct = payload["toolCallId"].as_str().or_else(|| payload["callId"].as_str()).map(str::to_owned);
    direct.into_iter().chain(call_ids(payload)).collect()
}

/// (6) As many tasks and notes exist (deleted ones included) as calls that make one succeeded.
pub(super) fn built_in(picture: &Picture, found: &mut Vec<Violation>) {
    let mut made: BTreeMap<(uuid::Uuid, &str), usize> = BTreeMap::new();
    for turn in &picture.turns {
        for step in picture.steps_of(turn.id).iter().filter(|step| step.kind == "tool" && !step.is_error) {
            let view: Value = serde_json::from_str(&step.view).unwrap_or(Value::Null);
            let name = view["name"].as_str().or_else(|| view["tool"].as_str()).unwrap_or_default();
            let kind = match name {
                name if TASK_MAKERS.contains(&name) => "task",
                name if NOTE_MAKERS.contains(&name) => "note",
                _ => continue,
            };
            if step.finished_at.is_some() {
                *made.entry((turn.tenant_id, kind)).or_default() += 1;
            }
        }
    }
    let mut there: BTreeMap<(uuid::Uuid, &str), usize> = BTreeMap::new();
    for item in &picture.items {
        if let Some(kind) = ["task", "note"].into_iter().find(|kind| *kind == item.kind) {
            *there.entry((item.tenant_id, kind)).or_default() += 1;
        }
    }
    if made != there {
        found.push(Violation {
            rule: 6,
            what: format!("calls that made an item: {made:?}; items: {there:?}"),
        });
    }
}

/// (6) An outside call was received at most once, unless its tool may run again.
pub(super) fn outside(picture: &Picture, expected: &Expectations, found: &mut Vec<Violation>) {
    let mut received: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for call in &expected.outside {
        *received.entry((&call.key, &call.tool)).or_default() += 1;
    }
    for ((key, tool), times) in received {
        if times > 1 && !expected.outside_repeatable.iter().any(|name| name == tool) {
            found.push(Violation { rule: 6, what: format!("{tool} received the call {key} {times} times") });
        }
        let turn = key.split(':').next().unwrap_or_default();
        if !picture.turns.iter().any(|row| row.id.to_string() == turn) {
            found.push(Violation {
                rule: 6,
                what: format!("{tool} received the key {key}, which names no turn"),
            });
        }
    }
}
