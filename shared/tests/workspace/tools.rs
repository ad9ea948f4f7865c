//! Every tool, as a turn calls it: with a transaction and JSON.

use std::collections::HashMap;

use serde_json::{Value, json};
use shared::{
    identity::Actor,
    testing::disguise,
    tools::{Effect, ToolDef, ToolOutput, ToolRun},
    workspace::{self, ENTITIES, items::Item},
};

use crate::world::World;

fn tool(name: &str) -> ToolDef {
    workspace::tools().into_iter().find(|tool| tool.name == name).unwrap_or_else(|| panic!("no tool {name}"))
}

impl World {
    async fn run(&self, actor: &Actor, name: &str, arguments: &Value) -> ToolOutput {
        let ToolRun::Workspace(run) = tool(name).run else { panic!("{name} runs in process") };
        let mut tx = self.begin(actor).await;
        let output = run(&mut tx, arguments).await.unwrap();
        tx.commit().await.unwrap();
        output
    }

    /// A call by Ann that goes well.
    async fn call(&self, name: &str, arguments: Value) -> Value {
        let output = self.run(&self.ann, name, &arguments).await;
        assert!(!output.is_error, "{name} {arguments}: {}", output.content);
        serde_json::from_str(&output.content).unwrap()
    }

    /// A call by Ann that is refused.
    async fn refused(&self, name: &str, arguments: Value) -> String {
        let output = self.run(&self.ann, name, &arguments).await;
        assert!(output.is_error, "{name} {arguments}: {}", output.content);
        output.content
    }

    async fn titles(&self, name: &str, arguments: Value) -> Vec<String> {
        let page = self.call(name, arguments).await;
        let items = page["items"].as_array().unwrap();
        items.iter().map(|item| item["payload"]["title"].as_str().unwrap().to_owned()).collect()
    }
}

#[tokio::test]
async fn a_task_from_beginning_to_end() {
    let world = World::new().await;
    let task = world
        .call(
            "add_task",
            json!({"title": "Buy milk", "due_date": "2031-05-17", "priority": "high", "description": "2 l"}),
        )
        .await;
    assert_eq!((&task["id"], &task["version"]), (&json!(1), &json!(1)));
    let expected = json!({"title": "Buy milk", "dueDate": "2031-05-17", "priority": "high", "description": "2 l",
        "status": "todo", "tags": []});
    assert_eq!(task["payload"], expected);
    world
        .call("add_task", json!({"title": "Bake bread", "description": null, "user_id": world.ann.user}))
        .await;

    let changed = world
        .call(
            "update_task",
            json!({"task_id": 1, "title": "Buy oat milk", "due_date": "", "status": "in_progress"}),
        )
        .await;
    let expected = json!({"title": "Buy oat milk", "priority": "high", "description": "2 l", "status": "in_progress",
        "tags": []});
    assert_eq!(changed["payload"], expected);
    assert_eq!(
        world.titles("list_tasks", json!({"status": "pending"})).await,
        ["Bake bread", "Buy oat milk"]
    );

    let done = world.call("complete_task", json!({"task_id": "1"})).await;
    assert_eq!((&done["payload"]["status"], done.get("note")), (&json!("done"), None));
    let again = world.call("complete_task", json!({"task_id": 1})).await;
    assert_eq!(again["note"], "task 1 was done already; nothing was changed");
    assert_eq!(again["version"], done["version"]);
    assert_eq!(world.titles("list_tasks", json!({"status": "completed"})).await, ["Buy oat milk"]);

    world.call("update_task", json!({"uid": done["uid"], "status": "archived"})).await;
    assert_eq!(
        world.refused("complete_task", json!({"task_id": 1})).await,
        "cannot complete task 1: it is archived"
    );
    assert_eq!(world.titles("list_tasks", json!({})).await, ["Bake bread"]);
    assert_eq!(
        world.titles("list_tasks", json!({"include_archived": true})).await,
        ["Bake bread", "Buy oat milk"]
    );

    let deleted = world.call("delete_task", json!({"task_id": 1})).await;
    assert!(deleted["deletedAt"].is_string());
    for (name, arguments) in [
        ("delete_task", json!({"task_id": 1})),
        ("complete_task", json!({"task_id": 1})),
        ("update_task", json!({"task_id": 1, "title": "x"})),
    ] {
        assert_eq!(world.refused(name, arguments).await, "task 1 was deleted");
    }
}

#[tokio::test]
async fn a_note_from_beginning_to_end() {
    let world = World::new().await;
    let note = world
        .call(
            "create_note",
            json!({"title": "Recipe", "content": "Salt", "tags": "[\"food\"]", "additional_fields": {"source": "aunt"}}),
        )
        .await;
    let expected = json!({"title": "Recipe", "content": "Salt", "tags": ["food"], "source": "aunt",
        "pinned": false, "archived": false});
    assert_eq!(note["payload"], expected);
    let (id, uid) = (&note["id"], &note["uid"]);
    assert_eq!(world.call("get_note", json!({"id": id})).await, note);
    assert_eq!(world.call("get_note", json!({"uid": uid})).await, note);

    let patched = world
        .call(
            "patch_note",
            json!({"id": id, "pinned": true, "updates": {"source": null, "page": 7}, "if_match": 1}),
        )
        .await;
    let expected = json!({"title": "Recipe", "content": "Salt", "tags": ["food"], "page": 7,
        "pinned": true, "archived": false});
    assert_eq!(patched["payload"], expected);
    assert_eq!(
        world.refused("patch_note", json!({"id": id, "pinned": true, "if_match": 1})).await,
        format!("note {id} has version 2, not 1: read it again before changing it")
    );

    let updated = world.call("update_note", json!({"uid": uid, "updates": {"title": "New"}})).await;
    assert_eq!(
        updated["payload"],
        json!({"title": "New", "tags": [], "pinned": false, "archived": false}),
        "replaced, not merged"
    );

    let second = world.call("create_note", json!({"title": "Second"})).await;
    let page = world.call("list_notes", json!({"limit": 1})).await;
    assert_eq!(page["items"], json!([second]));
    let page = world.call("list_notes", json!({"limit": 1, "cursor": page["nextCursor"]})).await;
    assert_eq!(page, json!({"items": [updated], "nextCursor": null}));

    let deleted = world.call("delete_note", json!({"id": id, "if_match": 3})).await;
    assert_eq!(world.refused("get_note", json!({"id": id})).await, format!("note {id} was deleted"));
    assert_eq!(world.call("get_note", json!({"id": id, "include_deleted": true})).await, deleted);
    assert_eq!(world.titles("list_notes", json!({})).await, ["Second"]);
    assert_eq!(world.titles("list_notes", json!({"include_deleted": true})).await, ["Second", "New"]);
}

#[tokio::test]
async fn bad_calls_are_answered_with_a_sentence() {
    let world = World::new().await;
    world.call("add_task", json!({"title": "one"})).await;
    let due = "due_date must be a date such as 2031-05-17, or a moment with its offset such as 2031-05-17T09:30:00Z";
    let user = "user_id must be the caller's own id; leave it out";
    for (name, arguments, sentence) in [
        ("add_task", json!({}), "title is required"),
        ("add_task", json!({"title": "  "}), "title must not be empty"),
        ("add_task", json!({"title": ["x"]}), "title must be a string"),
        ("add_task", json!({"title": "x", "due_date": "tomorrow"}), due),
        (
            "add_task",
            json!({"title": "x", "priority": "urgent"}),
            "priority must be one of low, medium, high",
        ),
        ("add_task", json!({"title": "x", "user_id": world.bob.user}), user),
        ("list_tasks", json!({"user_id": world.bob.user}), user),
        ("list_tasks", json!({"limit": 1001}), "limit must be at most 1000"),
        (
            "list_tasks",
            json!({"status": "open"}),
            "status must be one of all, pending, completed, todo, in_progress, done, archived",
        ),
        ("list_tasks", json!({"cursor": "x"}), "cursor must be a nextCursor of an earlier page, unchanged"),
        ("complete_task", json!({}), "task_id is required"),
        ("complete_task", json!({"task_id": "first"}), "task_id must be an integer"),
        ("complete_task", json!({"task_id": 99}), "there is no task 99; list_tasks shows which there are"),
        ("delete_task", json!({}), "task_id is required (or one of id, uid)"),
        ("delete_task", json!({"uid": "1"}), "uid must be a uuid"),
        ("delete_task", json!({"task_id": 99}), "there is no task 99; list_tasks shows which there are"),
        (
            "update_task",
            json!({"task_id": 1}),
            "arguments must change something: description, due_date, priority, status, tags, title",
        ),
        ("update_task", json!({"task_id": 1, "title": ""}), "title must not be empty"),
        ("update_task", json!({"task_id": 1, "due_date": "2031-02-30"}), due),
        ("update_task", json!({"task_id": 1, "updates": {"due_date": "soon"}}), due),
        ("update_task", json!({"task_id": 1, "updates": {"title": null}}), "title is required"),
        ("update_task", json!({"task_id": 1, "updates": [1]}), "updates must be an object"),
        (
            "list_notes",
            json!({"status": "all"}),
            "status is not known here; known are cursor, include_archived, include_deleted, limit, user_id",
        ),
        ("get_note", json!({}), "id is required (or one of uid)"),
        ("get_note", json!({"id": 5}), "there is no note 5; list_notes shows which there are"),
        ("create_note", json!({"pinned": "maybe"}), "pinned must be true or false"),
        ("create_note", json!({"tags": [1]}), "tags[0] must be a string"),
        ("create_note", json!("title"), "arguments must be an object"),
        ("update_note", json!({"id": 5}), "there is no note 5; list_notes shows which there are"),
        ("patch_note", json!({"id": 5, "if_match": 0}), "if_match must be at least 1"),
        (
            "delete_note",
            json!({"id": 5, "force": true}),
            "force is not known here; known are id, if_match, uid, user_id",
        ),
    ] {
        assert_eq!(world.refused(name, arguments.clone()).await, sentence, "{name} {arguments}");
    }
    // None of these wrote anything.
    assert_eq!(world.titles("list_tasks", json!({"include_deleted": true})).await, ["one"]);
    assert!(world.titles("list_notes", json!({"include_deleted": true})).await.is_empty());
}

#[tokio::test]
async fn a_model_reaches_its_users_items_only() {
    let world = World::new().await;
    world.call("add_task", json!({"title": "Ann's"})).await;
    for other in [&world.bob, &world.stranger] {
        for (name, arguments) in [
            ("complete_task", json!({"task_id": 1})),
            ("delete_task", json!({"task_id": 1})),
            ("update_task", json!({"task_id": 1, "title": "mine now"})),
        ] {
            let output = world.run(other, name, &arguments).await;
            assert!(output.is_error);
            assert_eq!(output.content, "there is no task 1; list_tasks shows which there are");
        }
        let output = world.run(other, "list_tasks", &json!({})).await;
        assert_eq!(output.content, json!({"items": [], "nextCursor": null}).to_string());
    }
    assert_eq!(world.titles("list_tasks", json!({"status": "todo"})).await, ["Ann's"]);
}

#[test]
fn effects_and_resources_are_truthful() {
    let uid = "0a1f0000-0000-7000-8000-000000000007";
    for tool in workspace::tools() {
        let (verb, kind) = tool.name.split_once('_').unwrap();
        let effect = match verb {
            "list" | "get" | "search" | "workspace" => Effect::Read,
            "add" | "create" => Effect::Write,
            "delete" | "batch" => Effect::Destructive,
            _ => Effect::IdempotentWrite,
        };
        assert_eq!(tool.effect, effect, "{}", tool.name);
        let resource = |arguments: Value| tool.resource.as_ref().and_then(|resource| resource(&arguments));
        if ["list", "add", "create", "search", "workspace", "batch"].contains(&verb) {
            assert_eq!(resource(json!({"id": 3, "title": "x"})), None);
        } else {
            for id in [json!(3), json!("3")] {
                assert_eq!(resource(json!({"id": id})), Some(format!("{kind}:3")));
            }
            assert_eq!(resource(json!({"uid": uid})), Some(format!("{kind}:{uid}")));
            assert_eq!(resource(json!({})), None);
        }
    }
    let complete = tool("complete_task").resource.unwrap();
    assert_eq!(complete(&json!({"task_id": 3})).as_deref(), Some("task:3"));
}

#[tokio::test]
async fn what_works_across_kinds() {
    let world = World::new().await;
    let operations = json!([
        {"op": "create", "entity": "task", "payload": {"title": "Oil the gate"}},
        {"op": "process", "entity": "task", "uid": "$0", "action": "complete"},
        {"op": "create", "entity": "note", "payload": {"content": "The gate squeaks"}},
    ]);
    let done = world.call("batch_workspace", json!({"operations": operations})).await;
    assert_eq!(done["results"][1]["item"]["payload"]["status"], "done");
    let found =
        world.call("search_workspace", json!({"query": "gate", "kinds": ["task"], "limit": "5"})).await;
    assert!(found["results"][0]["snippet"].as_str().unwrap().contains("<mark>gate</mark>"), "{found}");
    assert_eq!(found["results"].as_array().unwrap().len(), 1);
    let stats = world.call("workspace_stats", json!({})).await;
    assert_eq!(stats["kinds"]["task"]["byStatus"], json!({"done": 1}));
    for (tool, arguments, sentence) in [
        ("search_workspace", json!({}), "query is required"),
        ("search_workspace", json!({"query": "x", "kinds": ["dog"]}), "kinds[0] must be one of"),
        ("workspace_stats", json!({"x": 1}), "x is not"),
        ("batch_workspace", json!({"operations": []}), "operations must be 1 to 500"),
        (
            "batch_workspace",
            json!({"operations": [{"op": "fly", "entity": "note"}]}),
            "operations[0].op must be one of",
        ),
        (
            "batch_workspace",
            json!({"operations": [
                {"op": "create", "entity": "note", "payload": {"title": "never"}},
                {"op": "delete", "entity": "task", "id": 77},
            ]}),
            "there is no task 77 (operation 1; nothing was carried out)",
        ),
    ] {
        let refused = world.refused(tool, arguments).await;
        assert!(refused.starts_with(sentence), "{tool}: {refused}");
    }
    let stats = world.call("workspace_stats", json!({})).await;
    assert_eq!(stats["kinds"]["note"]["total"], 1);
}

/// What a call of this tool needs to be about this item of Ann's, and whether it names it.
fn about(tool: &ToolDef, anns: &HashMap<&str, Item>) -> (Value, bool) {
    let Some((verb, rest)) = tool.name.split_once('_') else { panic!("{} has no verb", tool.name) };
    let chat = anns["chat"].uid;
    let def = ENTITIES.iter().find(|def| def.kind == rest || def.plural == rest);
    let item = def.map(|def| &anns[def.kind]);
    let mut arguments = match rest {
        _ if ["create", "update"].contains(&verb) && rest == "comment" => {
            json!({"content": "x", "parent_type": "chat", "parent_uid": chat})
        }
        _ if ["create", "update"].contains(&verb) && rest == "chat_message" => {
            json!({"chat_uid": chat, "content": "x"})
        }
        _ if ["add", "create", "update"].contains(&verb) => json!({"title": "x"}),
        _ => json!({}),
    };
    match verb {
        "search" => arguments["query"] = SECRET.into(),
        "batch" => {
            let of = |item: &Item| json!({"op": "archive", "entity": "task", "id": item.id});
            arguments["operations"] = json!([of(&anns["task"])]);
        }
        "list" => {
            arguments["include_archived"] = true.into();
            arguments["include_deleted"] = true.into();
        }
        "complete" => arguments["task_id"] = anns["task"].id.into(),
        "get" | "update" | "patch" | "delete" | "archive" | "process" => {
            arguments["uid"] = item.unwrap().uid.to_string().into();
            if verb == "patch" {
                arguments["updates"] = json!({"tags": ["x"]});
            }
            if verb == "process" {
                arguments["action"] = def.unwrap().actions[0].into();
            }
        }
        _ => {}
    }
    let names = !["add", "create", "list", "search", "workspace"].contains(&verb)
        || ["create_comment", "create_chat_message"].contains(&&*tool.name);
    (arguments, names)
}

const SECRET: &str = "zanzibar";

#[tokio::test]
async fn no_tool_gives_or_changes_what_is_somebody_elses() {
    let world = World::new().await;
    let mut anns = HashMap::new();
    for def in &*ENTITIES {
        let mut payload = world.sample(&world.ann, def, 1).await;
        payload["secret"] = SECRET.into();
        anns.insert(def.kind, world.make(&world.ann, def, payload).await);
    }
    let all = async || {
        let mut all = Vec::new();
        for def in &*ENTITIES {
            all.extend(world.all(&world.ann, def).await);
        }
        all
    };
    let before = all().await;
    for other in [&world.bob, &world.stranger] {
        for tool in workspace::tools() {
            let ToolRun::Workspace(run) = &tool.run else { panic!("{} runs in process", tool.name) };
            let (arguments, names) = about(&tool, &anns);
            // As they are, and with every filter of ours naming Ann.
            for is_disguised in [false, true] {
                let mut tx = world.begin(other).await;
                if is_disguised {
                    tx = disguise(tx, &world.ann);
                }
                // Postgres refuses what is written in somebody else's name; that transaction is over.
                let Ok(output) = run(&mut tx, &arguments).await else {
                    assert!(is_disguised, "{} fails", tool.name);
                    continue;
                };
                // Kept, unless it made something of the other's own, which the next call could take for Ann's by its short id.
                if names {
                    tx.commit().await.unwrap();
                }
                assert!(!output.content.contains(SECRET), "{}: {}", tool.name, output.content);
                if names {
                    let told = &output.content;
                    assert!(output.is_error, "{}: {told}", tool.name);
                    assert!(
                        told.contains("there is no ") || told.contains("that is there"),
                        "{}: {told}",
                        tool.name
                    );
                }
            }
        }
    }
    assert_eq!(all().await, before);
    let found = world.call("search_workspace", json!({"query": SECRET})).await;
    assert!(!found["results"].as_array().unwrap().is_empty(), "the secret can be found by its owner");
}
