//! Conversations with a small world of tasks and notes behind the tools.

use std::sync::Arc;

use super::*;
use crate::model::{ToolResult, ToolSpec};

#[derive(Default)]
struct World {
    items: Vec<(Kind, i64, Map<String, Value>)>,
    messages: Vec<ModelMessage>,
    broken: Option<&'static str>,
}

fn spec(name: &str, properties: &[&str]) -> ToolSpec {
    let properties: Map<String, Value> =
        properties.iter().map(|name| ((*name).to_owned(), json!({"type": "string"}))).collect();
    ToolSpec {
        name: name.into(),
        description: String::new(),
        input_schema: json!({"type": "object", "properties": properties}),
    }
}

fn tools() -> Arc<[ToolSpec]> {
    Arc::from([
        spec("add_task", &["title", "description", "due_date"]),
        spec("list_tasks", &["status"]),
        spec("complete_task", &["task_id"]),
        spec("update_task", &["task_id", "title", "description", "due_date", "status"]),
        spec("delete_task", &["task_id"]),
        spec("list_notes", &["limit"]),
        spec("get_note", &["id"]),
        spec("create_note", &["title", "content"]),
        spec("patch_note", &["id", "updates"]),
        spec("delete_note", &["id"]),
        spec("notion__search", &["query"]),
    ])
}

impl World {
    fn item(&self, kind: Kind, id: i64) -> Result<Value, String> {
        let found = self.items.iter().find(|item| (item.0, item.1) == (kind, id));
        let (_, id, payload) = found.ok_or_else(|| format!("there is no {} {id}", kind.name()))?;
        Ok(json!({"uid": "u", "id": id, "version": 1, "createdAt": "", "updatedAt": "", "deletedAt": null,
                  "payload": payload}))
    }

    fn change(&mut self, kind: Kind, id: i64, fields: Map<String, Value>) -> Result<Value, String> {
        if let Some(item) = self.items.iter_mut().find(|item| (item.0, item.1) == (kind, id)) {
            item.2.extend(fields);
        }
        self.item(kind, id)
    }

    fn run(&mut self, call: &ToolCall) -> Result<Value, String> {
        if self.broken == Some(call.name.as_str()) {
            return Err(r#"{"error":"APP-5XX","message":"the roof is on fire"}"#.into());
        }
        let mut arguments = call.arguments.clone().unwrap().as_object().unwrap().clone();
        let id = ["task_id", "id"].iter().find_map(|name| arguments.remove(*name)).and_then(|id| id.as_i64());
        let kind = if call.name.contains("task") { Kind::Task } else { Kind::Note };
        if let Some(due) = arguments.remove("due_date") {
            arguments.insert("dueDate".into(), due);
        }
        match call.name.as_str() {
            "add_task" | "create_note" => {
                let id = 11 + i64::try_from(self.items.len()).unwrap();
                if kind == Kind::Task {
                    arguments.insert("status".into(), json!("todo"));
                }
                self.items.push((kind, id, arguments));
                self.item(kind, id)
            }
            "list_tasks" | "list_notes" => {
                let status = arguments.get("status").and_then(Value::as_str).unwrap_or("all").to_owned();
                let wanted = |done: bool| match status.as_str() {
                    "pending" => !done,
                    "completed" => done,
                    _ => true,
                };
                let ids =
                    self.items.iter().rev().filter(|item| {
                        item.0 == kind && wanted(item.2.get("status") == Some(&json!("done")))
                    });
                let items: Vec<Value> = ids.map(|item| self.item(kind, item.1).unwrap()).collect();
                Ok(json!({"items": items, "nextCursor": null}))
            }
            "complete_task" => {
                self.change(kind, id.unwrap(), Map::from_iter([("status".into(), json!("done"))]))
            }
            "update_task" => self.change(kind, id.unwrap(), arguments),
            "patch_note" => {
                let updates = arguments["updates"].as_object().unwrap().clone();
                self.change(kind, id.unwrap(), updates)
            }
            "get_note" => self.item(kind, id.unwrap()),
            "delete_task" | "delete_note" => {
                let gone = self.item(kind, id.unwrap());
                self.items.retain(|item| (item.0, Some(item.1)) != (kind, id));
                gone
            }
            "notion__search" => Ok(json!({"results": ["Roadmap 2027"]})),
            other => Err(format!("unknown tool {other}")),
        }
    }

    /// One turn: the calls in the order they were made, a `|` between steps, and the reply.
    fn turn(&mut self, text: &str) -> (String, String) {
        self.messages.push(ModelMessage::User { text: text.into() });
        let mut made = Vec::new();
        for _ in 0..8 {
            let request = ModelRequest {
                system: "You are Alfred. Today is 2026-11-06.".into(),
                messages: self.messages.clone(),
                tools: tools(),
                max_output_tokens: 1000,
                ..ModelRequest::default()
            };
            let answer = answer(&request);
            assert_eq!(super::answer(&request), answer);
            let Answer { text, calls } = answer;
            self.messages.push(ModelMessage::Assistant {
                text: text.clone(),
                calls: calls.clone(),
                native: None,
            });
            if calls.is_empty() {
                assert!(!text.is_empty());
                return (made.join(" | "), text);
            }
            let results = calls.iter().map(|call| {
                let (content, is_error) = match self.run(call) {
                    Ok(value) => (value.to_string(), false),
                    Err(text) => (text, true),
                };
                ToolResult { call_id: call.id.clone(), content, is_error }
            });
            let results = results.collect();
            self.messages.push(ModelMessage::ToolResults(results));
            let step = calls.iter().map(|call| format!("{} {}", call.name, call.arguments.clone().unwrap()));
            made.push(step.collect::<Vec<_>>().join(", "));
        }
        panic!("{text:?} does not end: {made:?}");
    }

    /// Turns and what each must call and say.
    fn plays(&mut self, turns: &[(&str, &str, &str)]) {
        for (text, calls, reply) in turns {
            let (made, said) = self.turn(text);
            assert_eq!((made.as_str(), said.as_str()), (*calls, *reply), "{text}");
        }
    }
}

#[test]
fn the_first_five_minutes() {
    let mut world = World::default();
    world.plays(&[
        (
            "add a task to buy milk tomorrow",
            r#"add_task {"due_date":"2026-11-07","title":"Buy milk"}"#,
            r#"Added "Buy milk" (#11), due 2026-11-07."#,
        ),
        (
            "add a task to call mom and remind me to pay the rent",
            r#"add_task {"title":"Call mom"}, add_task {"title":"Pay the rent"}"#,
            "Added \"Call mom\" (#12).\nAdded \"Pay the rent\" (#13).",
        ),
        (
            "what is left to do?",
            r#"list_tasks {"status":"pending"}"#,
            "You have 3 open tasks:\n1. Buy milk (#11, due 2026-11-07)\n2. Call mom (#12)\n3. Pay the rent (#13)",
        ),
        (
            "complete the milk task",
            r#"list_tasks {"status":"pending"} | complete_task {"task_id":11}"#,
            r#"Done: "Buy milk" (#11)."#,
        ),
        ("complete the second one", r#"complete_task {"task_id":12}"#, r#"Done: "Call mom" (#12)."#),
        ("reopen it", r#"update_task {"status":"todo","task_id":12}"#, r#""Call mom" (#12) is open again."#),
        (
            "I've paid the rent. What's left to do?",
            r#"list_tasks {"status":"pending"} | complete_task {"task_id":13} | list_tasks {"status":"pending"}"#,
            "Done: \"Pay the rent\" (#13).\nYou have one open task:\n1. Call mom (#12)",
        ),
        (
            "rename it to call dad",
            r#"update_task {"task_id":13,"title":"Call dad"}"#,
            r#"It is now called "Call dad" (#13)."#,
        ),
        (
            "delete all completed tasks",
            r#"list_tasks {"status":"completed"} | delete_task {"task_id":11}, delete_task {"task_id":13}"#,
            "Deleted the task \"Buy milk\" (#11).\nDeleted the task \"Call dad\" (#13).",
        ),
        ("show my done tasks", r#"list_tasks {"status":"completed"}"#, "No task is done yet."),
        ("thanks", "", say::THANKS),
        ("who are you?", "", say::ABOUT),
    ]);
}

#[test]
fn what_is_unclear_is_asked() {
    let mut world = World::default();
    world.turn("add tasks: buy milk, milk the cow");
    world.plays(&[
        (
            "delete the milk task",
            r#"list_tasks {"status":"all"}"#,
            "Which one do you mean?\n1. Buy milk (#11)\n2. Milk the cow (#12)",
        ),
        ("the second one", r#"delete_task {"task_id":12}"#, r#"Deleted the task "Milk the cow" (#12)."#),
        (
            "complete the bread task",
            r#"list_tasks {"status":"pending"}"#,
            r#"I found no open task about "the bread task"."#,
        ),
        ("complete task 99", r#"complete_task {"task_id":99}"#, "That did not work: there is no task 99"),
    ]);
    world.broken = Some("add_task");
    let (_, said) = world.turn("add a task to sleep");
    assert_eq!(said, "That did not work: the roof is on fire");
    assert_eq!(
        World::default().turn("complete it").1,
        "Which one do you mean? Tell me the task's number or a word of its title."
    );
}

#[test]
fn a_later_wish_may_mean_what_an_earlier_one_made() {
    let mut world = World::default();
    world.plays(&[
        (
            "add a task to buy milk and complete it",
            r#"add_task {"title":"Buy milk"} | complete_task {"task_id":11}"#,
            "Added \"Buy milk\" (#11).\nDone: \"Buy milk\" (#11).",
        ),
        (
            "add a task to buy milk and complete the milk task",
            r#"add_task {"title":"Buy milk"} | list_tasks {"status":"pending"} | complete_task {"task_id":12}"#,
            "Added \"Buy milk\" (#12).\nDone: \"Buy milk\" (#12).",
        ),
    ]);
}

#[test]
fn notes_are_kept() {
    let mut world = World::default();
    world.plays(&[
        (
            "note: the wifi password is hunter2",
            r#"create_note {"content":"The wifi password is hunter2","title":"The wifi password is hunter2"}"#,
            r#"Noted as "The wifi password is hunter2" (#11)."#,
        ),
        (
            "create a note about groceries: milk",
            r#"create_note {"content":"Milk","title":"Groceries"}"#,
            r#"Noted as "Groceries" (#12)."#,
        ),
        (
            "add bread to my note about groceries",
            r#"list_notes {} | get_note {"id":12} | patch_note {"id":12,"updates":{"content":"Milk\nbread"}}"#,
            r#"Added to "Groceries" (#12)."#,
        ),
        (
            "read my note about groceries",
            r#"list_notes {} | get_note {"id":12}"#,
            "\"Groceries\" (#12):\nMilk\nbread",
        ),
        ("read it", r#"get_note {"id":12}"#, "\"Groceries\" (#12):\nMilk\nbread"),
        (
            "list my notes",
            "list_notes {}",
            "You have 2 notes:\n1. The wifi password is hunter2 (#11)\n2. Groceries (#12)",
        ),
        ("delete the first one", r#"delete_note {"id":11}"#, r#"Deleted the note "The wifi password is hunter2" (#11)."#),
        ("delete my note about groceries", r#"list_notes {} | delete_note {"id":12}"#, r#"Deleted the note "Groceries" (#12)."#),
        ("list my notes", "list_notes {}", "There are no notes yet."),
        (
            "search notion for the roadmap",
            r#"notion__search {"query":"the roadmap"}"#,
            "notion__search answered:\n{\"results\":[\"Roadmap 2027\"]}",
        ),
    ]);
}

#[test]
fn without_tools_it_says_so() {
    let request = ModelRequest {
        system: String::new(),
        messages: vec![ModelMessage::User { text: "add a task to buy milk".into() }],
        tools: Arc::from([]),
        max_output_tokens: 10,
        ..ModelRequest::default()
    };
    assert_eq!(answer(&request), Answer { text: say::NO_TOOL.into(), calls: vec![] });
}

#[test]
fn a_call_without_a_result_is_not_repeated() {
    let mut world = World::default();
    world.turn("hi");
    let call = ToolCall {
        id: "call_1".into(),
        name: "add_task".into(),
        arguments: Ok(json!({"title": "Buy milk"})),
    };
    world.messages.push(ModelMessage::User { text: "add a task to buy milk".into() });
    world.messages.push(ModelMessage::Assistant { text: String::new(), calls: vec![call], native: None });
    world.messages.push(ModelMessage::ToolResults(vec![]));
    let request = ModelRequest {
        system: String::new(),
        messages: world.messages,
        tools: tools(),
        max_output_tokens: 10,
        ..ModelRequest::default()
    };
    assert_eq!(answer(&request).text, "That did not work: it was interrupted");
}
