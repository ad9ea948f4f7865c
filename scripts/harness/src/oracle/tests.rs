//! A judge that never finds anything is no judge: a run that is right, and every way in which it can be wrong.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::client::{Frame, Transcript};

const TENANT: Uuid = Uuid::from_u128(1);
const TURN: Uuid = Uuid::from_u128(2);
const SESSION: Uuid = Uuid::from_u128(3);

fn at(seconds: i64) -> Option<DateTime<Utc>> {
    Some(DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds))
}

fn events(list: &[(i64, &str, &str)]) -> Vec<EventRow> {
    let row = |(seq, kind, data): &(i64, &str, &str)| EventRow {
        turn_id: TURN,
        seq: *seq,
        kind: (*kind).to_owned(),
        data: (*data).to_owned(),
    };
    list.iter().map(row).collect()
}

const LOG: &[(i64, &str, &str)] = &[
    (1, "queued", "{\"jobId\":\"00000000-0000-0000-0000-000000000002\",\"conversationId\":1}"),
    (2, "token", "{\"text\":\"lost\"}"),
    (4097, "resumed", "{\"discardAfter\":\"1.1\"}"),
    (4098, "tool_call", "{\"id\":\"c1\",\"tool\":\"add_task\",\"args\":{}}"),
    (
        4099,
        "tool_result",
        "{\"id\":\"c1\",\"tool\":\"add_task\",\"cacheHit\":false,\"elapsedMs\":1,\"isError\":false}",
    ),
    (4100, "token", "{\"text\":\"done\"}"),
    (4101, "done", "{\"status\":\"succeeded\",\"tokens\":{\"input\":5,\"output\":2}}"),
];

/// A turn that was taken over once, added a task and succeeded.
fn right() -> Picture {
    let step = |step, call_id: &str, kind: &str, view: serde_json::Value| StepRow {
        turn_id: TURN,
        step,
        call_id: call_id.to_owned(),
        kind: kind.to_owned(),
        view: view.to_string(),
        content: None,
        is_error: false,
        finished_at: at(2),
    };
    let item = |kind: &str, payload, turn_id| ItemRow {
        tenant_id: TENANT,
        kind: kind.to_owned(),
        uid: Uuid::from_u128(9),
        id: 1,
        payload,
        turn_id,
    };
    Picture {
        turns: vec![TurnRow {
            tenant_id: TENANT,
            id: TURN,
            conversation_id: 1,
            session_id: SESSION,
            turn_no: 1,
            state: "succeeded".to_owned(),
            slot: None,
            process_id: None,
            attempts: 0,
            takeovers_total: 1,
            reply: Some("done".to_owned()),
            input_tokens: 5,
            output_tokens: 2,
            started_at: at(1),
            finished_at: at(3),
        }],
        events: [(TURN, events(LOG))].into(),
        steps: [(
            TURN,
            vec![
                step(1, "", "model", json!({"text": "", "calls": [{"id": "c1", "tool": "add_task"}]})),
                step(1, "c1", "tool", json!({"id": "c1", "tool": "add_task"})),
            ],
        )]
        .into(),
        calls: [(
            TURN,
            vec![CallRow {
                id: Uuid::from_u128(7),
                turn_id: TURN,
                settled_at: at(2),
                outcome: Some("ok".to_owned()),
                estimated: false,
                input_tokens: 5,
                output_tokens: 2,
            }],
        )]
        .into(),
        slots: vec![SlotRow { tenant_id: TENANT, n: 1, turn_id: None }],
        workers: Vec::new(),
        items: vec![
            item("task", json!({"title": "x"}), None),
            item("chat_message", json!({"role": "assistant", "toolCalls": [{"id": "c1"}]}), Some(TURN)),
            item("chat_message", json!({"role": "tool", "toolCallId": "c1"}), Some(TURN)),
        ],
        sessions: vec![SessionRow { tenant_id: TENANT, id: SESSION, tokens_total: 7 }],
    }
}

fn transcript(log: &[(i64, &str, &str)]) -> Transcript {
    let frame = |(seq, kind, data): &(i64, &str, &str)| Frame {
        id: format!("1.{seq}"),
        event: (*kind).to_owned(),
        data: (*data).to_owned(),
        raw: format!("id: 1.{seq}\nevent: {kind}\ndata: {data}\n\n").into_bytes(),
    };
    Transcript {
        tenant: "a".to_owned(),
        path: format!("/jobs/{TURN}/events"),
        frames: log.iter().map(frame).collect(),
        from_start: true,
        connects: 1,
        strays: Vec::new(),
    }
}

fn expected() -> Expectations {
    Expectations { provider: Some(ProviderLog { reported: vec![(5, 2)] }), ..Expectations::default() }
}

fn ledger() -> Ledger {
    let ledger = Ledger::default();
    ledger.note_accepted("a", &TURN.to_string());
    ledger.note_transcript(transcript(LOG));
    ledger
}

fn rules(picture: &Picture, ledger: &Ledger) -> Vec<u8> {
    let mut rules: Vec<u8> =
        Oracle::judge(picture, ledger, &expected()).iter().map(|found| found.rule).collect();
    rules.dedup();
    rules
}

#[test]
fn a_run_that_is_right_is_found_right() {
    assert_eq!(Oracle::judge(&right(), &ledger(), &expected()), []);
}

/// Changes the picture; the rules that must speak.
fn wrong(rule: u8, change: impl FnOnce(&mut Picture)) {
    let mut picture = right();
    change(&mut picture);
    let found = rules(&picture, &ledger());
    assert!(found.contains(&rule), "rule {rule} is silent: {found:?}");
}

fn log(picture: &mut Picture) -> &mut Vec<EventRow> {
    picture.events.get_mut(&TURN).unwrap()
}

#[test]
fn ends_that_are_missing_doubled_or_not_last_are_found() {
    wrong(1, |picture| picture.turns.clear());
    wrong(1, |picture| picture.turns[0].finished_at = None);
    wrong(1, |picture| {
        log(picture).pop();
    });
    wrong(1, |picture| log(picture).extend(events(&[(4102, "done", "{\"status\":\"succeeded\"}")])));
    wrong(1, |picture| log(picture).extend(events(&[(4102, "token", "{\"text\":\"late\"}")])));
    wrong(1, |picture| picture.turns[0].state = "cancelled".to_owned());
    wrong(1, |picture| log(picture).insert(6, events(&[(4100, "error", "{}")]).remove(0)));
}

#[test]
fn gaps_in_ids_are_found() {
    wrong(2, |picture| {
        log(picture).remove(5);
    });
    wrong(2, |picture| log(picture)[2].kind = "warning".to_owned());
    wrong(2, |picture| log(picture)[2].data = "{\"discardAfter\":\"1.9999\"}".to_owned());
}

#[test]
fn what_clients_saw_is_compared_byte_for_byte() {
    wrong(3, |picture| log(picture)[5].data = "{\"text\": \"done\"}".to_owned());
    wrong(3, |picture| picture.turns[0].reply = Some("lostdone".to_owned()));
    for change in [
        |seen: &mut Transcript| {
            seen.frames.remove(3);
        },
        |seen: &mut Transcript| {
            let twice = seen.frames[3].clone();
            seen.frames.insert(3, twice);
        },
        |seen: &mut Transcript| seen.frames[0].raw.push(b'\n'),
        |seen: &mut Transcript| seen.strays.push("junk".to_owned()),
        |seen: &mut Transcript| seen.frames.swap(3, 4),
    ] {
        let ledger = Ledger::default();
        let mut seen = transcript(LOG);
        change(&mut seen);
        ledger.note_transcript(seen);
        assert_eq!(rules(&right(), &ledger), [3]);
    }
    let part = Ledger::default();
    part.note_transcript(Transcript { from_start: false, ..transcript(&LOG[2..5]) });
    assert_eq!(rules(&right(), &part), [0_u8; 0], "a stretch of the log is right");
}

#[test]
fn turns_of_a_conversation_at_the_same_time_are_found() {
    wrong(4, |picture| {
        let mut second = picture.turns[0].clone();
        (second.id, second.turn_no) = (Uuid::from_u128(22), 2);
        (second.started_at, second.finished_at) = (at(2), at(4));
        picture.turns.push(second);
    });
    wrong(4, |picture| picture.turns[0].turn_no = 2);
}

#[test]
fn calls_without_their_one_result_are_found() {
    wrong(5, |picture| {
        log(picture).remove(4);
    });
    wrong(5, |picture| {
        picture.steps.get_mut(&TURN).unwrap().pop();
    });
    wrong(5, |picture| picture.items.push(picture.items[2].clone()));
}

#[test]
fn writes_that_happened_twice_or_not_at_all_are_found() {
    wrong(6, |picture| picture.items.push(picture.items[0].clone()));
    wrong(6, |picture| {
        picture.items.remove(0);
    });
    let call = OutsideCall { key: format!("{TURN}:c1"), tool: "ring".to_owned() };
    let twice = Expectations { outside: vec![call.clone(), call], ..expected() };
    let found = Oracle::judge(&right(), &ledger(), &twice);
    assert!(found.iter().any(|found| found.rule == 6), "{found:?}");
    let allowed = Expectations { outside_repeatable: vec!["ring".to_owned()], ..twice };
    assert_eq!(Oracle::judge(&right(), &ledger(), &allowed), []);
}

#[test]
fn tokens_that_nobody_reported_are_found() {
    wrong(7, |picture| picture.calls.get_mut(&TURN).unwrap()[0].input_tokens = 6);
    wrong(7, |picture| picture.calls.get_mut(&TURN).unwrap()[0].settled_at = None);
    wrong(7, |picture| picture.sessions[0].tokens_total = 8);
}

#[test]
fn too_little_progress_is_found() {
    wrong(8, |picture| picture.turns[0].state = "dead".to_owned());
    let found =
        Oracle::judge(&right(), &ledger(), &Expectations { takeovers_at_most: Some(0), ..expected() });
    assert!(found.iter().any(|found| found.rule == 8), "{found:?}");
}

#[test]
fn words_of_another_tenant_are_found() {
    let ledger = ledger();
    ledger.note_accepted("tenant-b", &Uuid::from_u128(99).to_string());
    ledger.note_answer("tenant-b", "fine");
    ledger.note_answer("a", "hello tenant-b");
    assert!(rules(&right(), &ledger).contains(&9));
    ledger.note_answer("tenant-b", &format!("{{\"jobId\":\"{TURN}\"}}"));
    let found = Oracle::judge(&right(), &ledger, &expected());
    assert_eq!(found.iter().filter(|found| found.rule == 9).count(), 2, "{found:?}");
}

#[test]
fn what_is_left_behind_is_found() {
    wrong(10, |picture| picture.slots[0].turn_id = Some(TURN));
    wrong(10, |picture| {
        picture.turns[0].state = "running".to_owned();
        picture.turns[0].process_id = Some(Uuid::from_u128(5));
    });
    wrong(10, |picture| picture.turns[0].state = "waiting".to_owned());
}
