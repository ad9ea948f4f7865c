//! Tool calls: as the caller, in a transaction of their own, whole or not at all.

use std::time::Duration;

use http::Method;
use serde_json::json;

use super::{ERAS, Era, LEGACY, call, message, refused, result, send, structured};
use crate::app::{ADMIN, FOREIGNER, MEMBER, TestApp};

#[tokio::test]
async fn what_a_tool_writes_is_there_for_the_next_call() {
    let app = TestApp::start().await;
    for (number, era) in ERAS.into_iter().enumerate() {
        let title = format!("buy milk {number}");
        let made = call(&app, MEMBER, era, "add_task", &json!({"title": title})).await;
        let made = structured(&made);
        assert_eq!(made["payload"]["title"], title);
        let done = call(&app, MEMBER, era, "complete_task", &json!({"task_id": made["id"]})).await;
        assert_eq!(structured(&done)["payload"]["status"], "done");
        let listed = call(&app, MEMBER, era, "list_tasks", &json!({"status": "completed", "limit": 1})).await;
        assert_eq!(structured(&listed)["items"][0]["uid"], made["uid"]);
    }
    // Another process would answer the same: nothing of this is in the one that was asked.
    let other = api::start(crate::app::config(&app.db, |_| ())).await.unwrap();
    let moved = TestApp { running: other, ..app };
    let listed = call(&moved, MEMBER, Era::Modern, "list_tasks", &json!({"status": "all"})).await;
    assert_eq!(structured(&listed)["items"].as_array().unwrap().len(), ERAS.len());
}

#[tokio::test]
async fn what_a_model_can_mend_is_a_result() {
    let app = TestApp::start().await;
    for era in ERAS {
        for (tool, arguments, word) in [
            ("add_task", json!({}), "title"),
            ("add_task", json!({"title": 3}), "title"),
            ("add_task", json!({"title": "x", "colour": "red"}), "colour"),
            ("list_notes", json!({"limit": 0}), "limit"),
            ("list_notes", json!({"cursor": "x"}), "cursor"),
            ("complete_task", json!({"task_id": 99}), "99"),
            ("delete_note", json!({"uid": "0198c0de-0000-7000-8000-000000000000"}), "note"),
            ("add_task", json!({"title": "x", "user_id": "0198c0de-0000-7000-8000-000000000000"}), "user_id"),
        ] {
            let answered = call(&app, MEMBER, era, tool, &arguments).await;
            assert!(refused(&answered).contains(word), "{tool} {arguments}: {answered}");
        }
        let nothing = send(&app, MEMBER, era, "tools/call", &json!({"name": "add_task"})).await;
        assert!(refused(&result(&nothing)).contains("title"));
    }
    assert_eq!(app.rows().await, [0; 7]);
}

#[tokio::test]
async fn somebody_elses_item_is_unknown() {
    let app = TestApp::start().await;
    let made =
        call(&app, MEMBER, Era::Modern, "create_note", &json!({"title": "mine", "content": "secret"})).await;
    let uid = structured(&made)["uid"].clone();
    let nowhere = json!("0198c0de-0000-7000-8000-000000000000");
    for era in ERAS {
        for (tool, more) in [
            ("get_note", json!({})),
            ("update_note", json!({"title": "x"})),
            ("patch_note", json!({"title": "x"})),
            ("delete_note", json!({})),
        ] {
            let ask = async |uid: &serde_json::Value| {
                let mut arguments = more.clone();
                arguments["uid"] = uid.clone();
                let answered = call(&app, FOREIGNER, era, tool, &arguments).await;
                refused(&answered).replace(uid.as_str().unwrap(), "…")
            };
            assert_eq!(ask(&uid).await, ask(&nowhere).await, "{tool} tells foreign from unknown");
        }
        let listed = call(&app, FOREIGNER, era, "list_notes", &json!({"include_archived": true})).await;
        assert_eq!(structured(&listed)["items"], json!([]));
    }
    let mine = call(&app, MEMBER, Era::Modern, "get_note", &json!({"uid": uid})).await;
    assert_eq!(structured(&mine)["version"], 1);
}

#[tokio::test]
async fn an_admins_denial_holds_over_mcp() {
    let app = TestApp::start().await;
    let deny = json!({"policy": "deny"});
    let denied = app.send_json(ADMIN, Method::PUT, "/admin/tool-policies/add_task", &deny).await;
    assert_eq!(denied.status, 200);
    let answered = call(&app, MEMBER, Era::Modern, "add_task", &json!({"title": "x"})).await;
    assert!(refused(&answered).contains("not allowed"));
    let elsewhere = call(&app, FOREIGNER, Era::Modern, "add_task", &json!({"title": "x"})).await;
    structured(&elsewhere);
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_call_back() {
    let app = TestApp::start().await;
    let made = call(&app, MEMBER, Era::Modern, "add_task", &json!({"title": "x"})).await;
    let id = structured(&made)["id"].clone();
    for era in [Era::Modern, Era::Legacy(LEGACY)] {
        // The call waits for a row that somebody else holds, and its client does not.
        let admin = app.db.admin();
        let mut holding = admin.begin().await.unwrap();
        sqlx::query("select from items for update").execute(&mut *holding).await.unwrap();
        let params = json!({"name": "complete_task", "arguments": {"task_id": id}});
        let calling = tokio::spawn(message(&app, MEMBER, era, "tools/call", &params).send());
        app.until_somebody_waits_for_a_lock().await;
        calling.abort();
        until_cancelled(&app, era).await;
        holding.rollback().await.unwrap();
        app.until("select count(*) = 0 from pg_stat_activity where xact_start is not null and pid <> pg_backend_pid() and datname = current_database()").await;
        let found = call(&app, MEMBER, era, "list_tasks", &json!({"status": "all"})).await;
        let task = &structured(&found)["items"][0];
        assert_eq!((&task["version"], &task["payload"]["status"]), (&json!(1), &json!("todo")), "{era:?}");
    }
}

/// Waits until the server has noticed: it counts the call as cancelled.
async fn until_cancelled(app: &TestApp, era: Era) {
    let wanted = if matches!(era, Era::Modern) { 1 } else { 2 };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        let text = app.get(MEMBER, "/metrics").await.text;
        let line = text.lines().find(|line| {
            line.starts_with("mcp_tool_calls_total")
                && line.contains("complete_task")
                && line.contains("cancelled")
        });
        let count: i64 = line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0);
        if count >= wanted {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "the call was not cancelled: {text}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn many_callers_at_once_get_their_own() {
    let app = TestApp::start().await;
    let calls = (0..40).map(|number| {
        let (app, key) = (&app, if number % 2 == 0 { MEMBER } else { FOREIGNER });
        let era = ERAS[number % ERAS.len()];
        async move {
            let title = format!("{key} {number}");
            let made = call(app, key, era, "add_task", &json!({"title": title})).await;
            assert_eq!(structured(&made)["payload"]["title"], title);
        }
    });
    futures::future::join_all(calls).await;
    for key in [MEMBER, FOREIGNER] {
        let listed = call(&app, key, Era::Modern, "list_tasks", &json!({"limit": 1000})).await;
        let items = structured(&listed)["items"].as_array().unwrap();
        assert_eq!(items.len(), 20);
        assert!(items.iter().all(|item| item["payload"]["title"].as_str().unwrap().starts_with(key)));
    }
}
