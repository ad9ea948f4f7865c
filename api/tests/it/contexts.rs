//! What is known of the caller, as they see it: read, changed, replaced; its versions; who sees it.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use shared::agents::contexts;

use crate::app::{ADMIN, Answered, FOREIGNER, MEMBER, TestApp};

const MINE: &str = "/api/v1/me/context";

impl TestApp {
    async fn patch_context(&self, key: &str, if_match: Option<&str>, body: &Value) -> Answered {
        let mut request = self.request(Method::PATCH, MINE).header("X-API-Key", key).json(body);
        if let Some(tag) = if_match {
            request = request.header("If-Match", tag);
        }
        self.send(request).await
    }
}

fn tag(answered: &Answered) -> &str {
    answered.headers["etag"].to_str().unwrap()
}

#[tokio::test]
async fn a_context_begins_empty_and_every_change_moves_its_version() {
    let app = TestApp::start().await;
    let first = app.get(MEMBER, MINE).await;
    let body = first.json();
    assert_eq!((first.status.as_u16(), tag(&first), &body["version"]), (200, "\"1\"", &json!(1)));
    assert_eq!(body["email"], "member@example.com");
    for (part, empty) in [
        ("preferences", json!({})),
        ("portfolio_settings", json!({})),
        ("active_strategies", json!([])),
        ("risk_profile", json!({})),
        ("agent_permissions", json!({})),
        ("updated_at", Value::Null),
        ("session_id", Value::Null),
        ("is_active", json!(true)),
    ] {
        assert_eq!(body[part], empty, "{part}");
    }

    let changes = json!({
        "preferences": {"trading_style": "moderate", "timezone": "Europe/Berlin"},
        "risk_profile": {"stop_loss_percentage": "7.5"},
    });
    let second = app.patch_context(MEMBER, Some("\"1\""), &changes).await;
    assert_eq!((second.status.as_u16(), tag(&second)), (200, "\"2\""), "{second:?}");
    assert_eq!(second.json()["risk_profile"], json!({"stop_loss_percentage": "7.5"}));
    // What changes nothing is no version.
    let again = app.patch_context(MEMBER, None, &changes).await;
    assert_eq!((again.status.as_u16(), tag(&again)), (200, "\"2\""));
    app.patch_context(MEMBER, Some("\"1\""), &changes).await.is_error(412, "APP-412-PRECONDITION");
    app.patch_context(MEMBER, Some("two"), &changes).await.is_error(400, "APP-4XX-VALIDATION");

    let request = app.request(Method::PUT, "/api/v1/me/preferences").header("X-API-Key", MEMBER);
    let put =
        app.send(request.header("If-Match", "\"2\"").json(&json!({"sectors_of_interest": ["energy"]}))).await;
    assert_eq!((put.status.as_u16(), tag(&put)), (200, "\"3\""), "{put:?}");
    assert_eq!(put.json()["preferences"], json!({"sectors_of_interest": ["energy"]}));
    assert_eq!(app.get(MEMBER, MINE).await.json(), put.json());
    // Somebody else has their own.
    assert_eq!(app.get(ADMIN, MINE).await.json()["version"], 1);
}

#[tokio::test]
async fn what_is_not_acceptable_is_refused_with_its_path_and_changes_nothing() {
    let app = TestApp::start().await;
    for (body, field) in [
        (json!({"preferences": {"trading_style": "reckless"}}), "preferences.trading_style"),
        (json!({"preferences": {"timezone": "Mars/Base"}}), "preferences.timezone"),
        (json!({"portfolio_settings": {"available_cash": 12}}), "portfolio_settings.available_cash"),
        (json!({"user_id": "0198c0de-0000-7000-8000-000000000000"}), "user_id"),
        (json!({"version": 9}), "version"),
        (json!({"agent_permissions": {"risk_management": "all"}}), "agent_permissions.risk_management"),
    ] {
        let refused = app.patch_context(MEMBER, None, &body).await;
        let error = refused.is_error(422, "APP-4XX-VALIDATION");
        assert_eq!(error["field"], field, "{error}");
    }
    let put =
        app.send_json(MEMBER, Method::PUT, "/api/v1/me/preferences", &json!({"risk_tolerance": "low"})).await;
    assert_eq!(put.is_error(422, "APP-4XX-VALIDATION")["field"], "preferences.risk_tolerance");
    app.patch_context(MEMBER, None, &json!(["preferences"])).await.is_error(422, "APP-4XX-VALIDATION");
    let nul = json!({"preferences": {"sectors_of_interest": ["a\u{0}b"]}});
    let stored = app.patch_context(MEMBER, None, &nul).await.json();
    assert_eq!(stored["preferences"]["sectors_of_interest"], json!(["a\u{fffd}b"]));
    assert_eq!(stored["version"], 2);
}

#[tokio::test]
async fn of_two_changes_at_once_of_one_version_one_wins() {
    let app = TestApp::start().await;
    let style = |style: &str| json!({"preferences": {"trading_style": style}});
    let (one, other) = (style("moderate"), style("aggressive"));
    let (first, second) = tokio::join!(
        app.patch_context(MEMBER, Some("\"1\""), &one),
        app.patch_context(MEMBER, Some("\"1\""), &other)
    );
    let mut statuses = [first.status.as_u16(), second.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412]);
    // Without a wish about the version both are made, one after the other.
    let sectors = [
        json!({"preferences": {"sectors_of_interest": ["a"]}}),
        json!({"risk_profile": {"risk_tolerance": "low"}}),
    ];
    let (first, second) = tokio::join!(
        app.patch_context(MEMBER, None, &sectors[0]),
        app.patch_context(MEMBER, None, &sectors[1])
    );
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (200, 200));
    let now = app.get(MEMBER, MINE).await.json();
    assert_eq!((&now["version"], &now["risk_profile"]["risk_tolerance"]), (&json!(4), &json!("low")));
    assert_eq!(now["preferences"]["sectors_of_interest"], json!(["a"]));
}

#[tokio::test]
async fn every_process_forgets_what_another_one_changed() {
    let app = TestApp::start().await;
    let beside = app.beside(|_| ()).await;
    for round in 0..5 {
        let wanted = json!({"preferences": {"sectors_of_interest": [format!("sector {round}")]}});
        // Both remember the version before.
        app.get(MEMBER, MINE).await;
        beside.get(MEMBER, MINE).await;
        let changed = app.patch_context(MEMBER, None, &wanted).await.json();
        assert_eq!(app.get(MEMBER, MINE).await.json(), changed, "the process that changed it");
        let deadline = tokio::time::Instant::now() + Duration::from_secs(1);
        while beside.get(MEMBER, MINE).await.json() != changed {
            assert!(tokio::time::Instant::now() < deadline, "the other process still remembers");
        }
    }
    let hits = |text: &str| {
        let line =
            text.lines().find(|line| line.starts_with("context_cache_requests_total{outcome=\"hit\"}"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    let before = hits(&app.send(app.request(Method::GET, "/metrics")).await.text);
    app.get(MEMBER, MINE).await;
    app.get(MEMBER, MINE).await;
    let after = hits(&app.send(app.request(Method::GET, "/metrics")).await.text);
    assert!(after > before, "nothing was remembered: {before}, {after}");
    beside.running.stop().await;
}

#[tokio::test]
async fn admins_see_what_is_and_was_known_of_their_own_users_only() {
    let app = TestApp::start().await;
    for style in ["moderate", "aggressive", "conservative"] {
        app.patch_context(MEMBER, None, &json!({"preferences": {"trading_style": style}})).await;
    }
    let user = app.get(MEMBER, MINE).await.json()["user_id"].as_str().unwrap().to_owned();
    let place = format!("/admin/contexts/{user}");
    let seen = app.get(ADMIN, &place).await.json();
    assert_eq!(
        (&seen["version"], &seen["preferences"]),
        (&json!(4), &json!({"trading_style": "conservative"}))
    );
    assert_eq!(seen["is_active"], false, "a key is no sign-in");
    let page = app.get(ADMIN, &format!("{place}/history?limit=2")).await.json();
    let versions: Vec<_> =
        page["items"].as_array().unwrap().iter().map(|item| item["version"].clone()).collect();
    assert_eq!(versions, [4, 3]);
    assert_eq!(page["items"][0]["changedParts"], json!(["preferences"]));
    assert_eq!(page["items"][0]["changedBy"], "user");
    let rest =
        app.get(ADMIN, &format!("{place}/history?cursor={}", page["nextCursor"].as_str().unwrap())).await;
    assert_eq!(rest.json()["items"][0]["context"], json!({"preferences": {"trading_style": "moderate"}}));
    assert_eq!(rest.json()["nextCursor"], Value::Null);
    for place in [place.clone(), format!("{place}/history"), "/admin/contexts/nobody".to_owned()] {
        app.get(FOREIGNER, &place).await.is_error(404, "APP-404-NOT-FOUND");
        app.get(MEMBER, &place).await.is_error(403, "APP-403-FORBIDDEN");
    }
    app.get(ADMIN, &format!("{place}/history?limit=0")).await.is_error(400, "APP-4XX-VALIDATION");
}

#[tokio::test]
async fn what_is_known_of_who_is_away_for_long_is_forgotten_and_versions_go_on() {
    let app = TestApp::start().await;
    for key in [MEMBER, ADMIN, FOREIGNER] {
        for style in ["moderate", "aggressive"] {
            app.patch_context(key, None, &json!({"preferences": {"trading_style": style}})).await;
        }
    }
    // The member was away for half a year; the others only did not change it for so long.
    app.execute(
        "update user_contexts set updated_at = now() - interval '200 days';
         update authentication_events set created_at = now() - interval '200 days'
           where user_id = (select id from users where email = 'member@example.com');
         update api_keys set last_used_at = now() - interval '200 days'
           where user_id = (select id from users where email = 'member@example.com');",
    )
    .await;
    assert_eq!(contexts::forget_inactive(&app.db.engine, 180, 100).await.unwrap(), 1);
    assert_eq!(contexts::forget_inactive(&app.db.engine, 180, 100).await.unwrap(), 0);
    let beside = app.beside(|_| ()).await;
    let emptied = beside.get(MEMBER, MINE).await.json();
    assert_eq!((&emptied["version"], &emptied["preferences"]), (&json!(4), &json!({})));
    assert_eq!(beside.get(ADMIN, MINE).await.json()["preferences"], json!({"trading_style": "aggressive"}));
    let user = emptied["user_id"].as_str().unwrap();
    let history = beside.get(ADMIN, &format!("/admin/contexts/{user}/history")).await;
    assert!(!history.text.contains("moderate") && history.text.contains("system"), "{history:?}");
    beside.running.stop().await;
}
