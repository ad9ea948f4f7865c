//! What people pick for their model: resources and prompts.

use serde_json::{Value, json};

use super::{ERAS, Era, LEGACY, call, result, send, structured};
use crate::app::{FOREIGNER, MEMBER, TestApp};

#[tokio::test]
async fn notes_are_resources_of_their_owner() {
    let app = TestApp::start().await;
    let made = call(
        &app,
        MEMBER,
        Era::Modern,
        "create_note",
        &json!({"title": "Garden", "content": "Plant *beans*."}),
    )
    .await;
    let note = structured(&made).clone();
    let by_id = format!("alfred://note/{}", note["id"]);
    let by_uid = format!("alfred://note/{}", note["uid"].as_str().unwrap());
    for era in ERAS {
        let listed = result(&send(&app, MEMBER, era, "resources/list", &json!({})).await);
        let listed = listed["resources"].as_array().unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(
            (&listed[0]["uri"], &listed[0]["title"], &listed[0]["mimeType"]),
            (&json!(by_id), &json!("Garden"), &json!("text/markdown"))
        );
        for uri in [&by_id, &by_uid] {
            let read = result(&send(&app, MEMBER, era, "resources/read", &json!({"uri": uri})).await);
            let contents =
                json!([{"uri": uri, "mimeType": "text/markdown", "text": "# Garden\n\nPlant *beans*."}]);
            assert_eq!(read["contents"], contents);
        }
        let foreign = result(&send(&app, FOREIGNER, era, "resources/list", &json!({})).await);
        assert_eq!(foreign["resources"], json!([]));
        let templates = result(&send(&app, MEMBER, era, "resources/templates/list", &json!({})).await);
        assert_eq!(templates["resourceTemplates"][0]["uriTemplate"], "alfred://note/{id}");
    }
    for (era, code) in [(Era::Modern, -32602), (Era::Legacy(LEGACY), -32002)] {
        let unknown = async |uri: &str| {
            let answered = send(&app, FOREIGNER, era, "resources/read", &json!({"uri": uri})).await;
            let error = answered.json()["error"].clone();
            assert_eq!((&error["code"], &error["data"]["uri"]), (&json!(code), &json!(uri)), "{answered:?}");
            error["message"].as_str().unwrap().replace(uri.rsplit('/').next().unwrap(), "…")
        };
        // Somebody else's and nobody's look alike.
        assert_eq!(
            unknown(&by_uid).await,
            unknown("alfred://note/0198c0de-0000-7000-8000-000000000000").await
        );
        for uri in [
            "alfred://note/",
            "alfred://note/x",
            "alfred://cake/1",
            "file:///etc/passwd",
            "alfred://note/1/2",
        ] {
            unknown(uri).await;
        }
    }
}

#[tokio::test]
async fn chats_are_read_with_what_was_said_in_them() {
    let app = TestApp::start().await;
    let create = async |tool: &str, arguments: Value| {
        structured(&call(&app, MEMBER, Era::Modern, tool, &arguments).await).clone()
    };
    let chat = create("create_chat", json!({"title": "Fence", "description": "What to do with it"})).await;
    let chat_uid = chat["uid"].as_str().unwrap().to_owned();
    let say = async |role: &str, content: &str| {
        create("create_chat_message", json!({"chat_uid": chat_uid, "role": role, "content": content})).await
    };
    say("user", "Shall we paint *it*?").await;
    say("assistant", "Green, I think.").await;
    let by_id = format!("alfred://chat/{}", chat["id"]);
    for era in ERAS {
        let listed = result(&send(&app, MEMBER, era, "resources/list", &json!({})).await);
        let listed = &listed["resources"][0];
        assert_eq!((&listed["uri"], &listed["title"]), (&json!(by_id), &json!("Fence")));
        let templates = result(&send(&app, MEMBER, era, "resources/templates/list", &json!({})).await);
        assert_eq!(templates["resourceTemplates"][1]["uriTemplate"], "alfred://chat/{id}");
        for uri in [&by_id, &format!("alfred://chat/{chat_uid}")] {
            let read = result(&send(&app, MEMBER, era, "resources/read", &json!({"uri": uri})).await);
            let text = read["contents"][0]["text"].as_str().unwrap();
            assert!(text.starts_with("# Fence\n\nWhat to do with it\n\n**user** ("), "{text}");
            let (question, answer) = (text.find("Shall we paint *it*?"), text.find("Green, I think."));
            assert!(question.is_some() && question < answer, "{text}");
            assert!(!text.contains("only;"), "{text}");
            let foreign = send(&app, FOREIGNER, era, "resources/read", &json!({"uri": uri})).await;
            assert!(foreign.json()["error"].is_object() && !foreign.text.contains("paint"), "{foreign:?}");
        }
    }
    let begun = json!({"ref": {"type": "ref/resource", "uri": "alfred://chat/{id}"},
        "argument": {"name": "id", "value": ""}});
    let completed = result(&send(&app, MEMBER, Era::Modern, "completion/complete", &begun).await);
    assert_eq!(completed["completion"]["values"], json!([chat["id"].to_string()]));

    // The newest ones that fit, and a word about the others.
    for number in 0..5 {
        say("user", &format!("{number} {}", "x".repeat(40_000))).await;
    }
    let read = result(&send(&app, MEMBER, Era::Modern, "resources/read", &json!({"uri": by_id})).await);
    let text = read["contents"][0]["text"].as_str().unwrap();
    assert!(text.contains("_The newest 3 only; list_chat_messages has them._"), "{}", &text[..200]);
    assert!(text.contains(": 2 xx") && text.contains(": 4 xx") && !text.contains(": 1 xx"));
    assert!(text.find(": 2 xx") < text.find(": 4 xx"));

    let gone = json!({"uid": chat_uid});
    call(&app, MEMBER, Era::Modern, "delete_chat", &gone).await;
    let read = send(&app, MEMBER, Era::Modern, "resources/read", &json!({"uri": by_id})).await;
    assert!(read.json()["error"].is_object(), "{read:?}");
}

#[tokio::test]
async fn the_list_of_resources_has_pages() {
    let app = TestApp::start().await;
    for number in 0..103 {
        call(&app, MEMBER, Era::Modern, "create_note", &json!({"title": format!("n{number}")})).await;
    }
    let mut seen = Vec::new();
    let mut cursor = Value::Null;
    loop {
        let params = if cursor.is_null() { json!({}) } else { json!({"cursor": cursor}) };
        let page = result(&send(&app, MEMBER, Era::Modern, "resources/list", &params).await);
        seen.extend(page["resources"].as_array().unwrap().iter().map(|found| found["uri"].clone()));
        match page.get("nextCursor") {
            Some(next) => cursor = next.clone(),
            None => break,
        }
    }
    assert_eq!(seen.len(), 103);
    seen.sort_by_key(Value::to_string);
    seen.dedup();
    assert_eq!(seen.len(), 103, "a resource was listed twice");
    let wrong = send(&app, MEMBER, Era::Modern, "resources/list", &json!({"cursor": "note.x"})).await;
    assert_eq!(wrong.json()["error"]["code"], -32602);
}

#[tokio::test]
async fn prompts_are_filled_in() {
    let app = TestApp::start().await;
    let made = call(&app, MEMBER, Era::Modern, "add_task", &json!({"title": "Paint the fence"})).await;
    let id = structured(&made)["id"].to_string();
    for era in ERAS {
        let listed = result(&send(&app, MEMBER, era, "prompts/list", &json!({})).await);
        let names: Vec<&str> = listed["prompts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|prompt| prompt["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["daily_review", "plan_task", "summarise_chat"]);
        let params = json!({"name": "plan_task", "arguments": {"task_id": id}});
        let got = result(&send(&app, MEMBER, era, "prompts/get", &params).await);
        let message = &got["messages"][0];
        assert_eq!(message["role"], "user");
        assert!(message["content"]["text"].as_str().unwrap().contains(&format!("plan task {id}.")), "{got}");
        for params in [
            json!({"name": "plan_task"}),
            json!({"name": "plan_task", "arguments": {"task_id": " "}}),
            json!({"name": "plan_task", "arguments": {"task_id": "1", "colour": "red"}}),
            json!({"name": "daily_review", "arguments": {"focus": "x".repeat(3000)}}),
            json!({"name": "bake_cake"}),
        ] {
            let wrong = send(&app, MEMBER, era, "prompts/get", &params).await;
            assert_eq!(wrong.json()["error"]["code"], -32602, "{wrong:?}");
        }
        let ask = async |key: &str, reference: Value, argument: Value| {
            let params = json!({"ref": reference, "argument": argument});
            result(&send(&app, key, era, "completion/complete", &params).await)["completion"]["values"]
                .clone()
        };
        let prompt = json!({"type": "ref/prompt", "name": "plan_task"});
        assert_eq!(ask(MEMBER, prompt.clone(), json!({"name": "task_id", "value": ""})).await, json!([id]));
        assert_eq!(ask(MEMBER, prompt.clone(), json!({"name": "task_id", "value": "x"})).await, json!([]));
        assert_eq!(ask(FOREIGNER, prompt, json!({"name": "task_id", "value": ""})).await, json!([]));
        let template = json!({"type": "ref/resource", "uri": "alfred://note/{id}"});
        assert_eq!(ask(MEMBER, template, json!({"name": "id", "value": ""})).await, json!([]));
    }
}
