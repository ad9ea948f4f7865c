//! Flags about agents: whoever is told of a change is who may see it, whatever a flag says.

use http::Method;
use serde_json::{Value, json};

use crate::{
    agent_side::context_of,
    app::{ADMIN, MEMBER, TestApp},
    tenants::{OPERATOR, start},
};

/// The version of a context that a delivery is about that waits for the agent.
async fn told_of(app: &TestApp, agent: &str) -> Option<i64> {
    let newest = "select (payload ->> 'version')::bigint from agent_notification_events
                  where target_agent = $1 and event_type = 'context_update' order by seq desc limit 1";
    sqlx::query_scalar(newest).bind(agent).fetch_optional(&app.db.admin()).await.unwrap()
}

#[tokio::test]
async fn while_optional_permissions_are_off_nobody_hears_of_what_only_they_would_show() {
    let app = start(|_| ()).await;
    let read = |part: &str| json!([format!("read:{part}")]);
    let agents = [
        ("optional", json!({"permissions": {"optional": read("preferences")}})),
        ("required", json!({"permissions": {"required": read("preferences")}})),
        ("both", json!({"permissions": {"required": read("risk_profile"), "optional": read("preferences")}})),
        ("blind", json!({})),
    ];
    let mut tokens = Vec::new();
    for (name, matrix) in agents {
        let agent = app.register_agent(ADMIN, name, matrix).await;
        tokens.push((name, app.agent_token(&agent).await));
    }
    let user = app.user_of(MEMBER).await;
    let mut version = 1;
    let (few, many): (&[&str], &[&str]) = (&["required"], &["both", "optional", "required"]);
    for (percent, seeing) in [(100, many), (0, few), (100, many)] {
        let flag = "/admin/flags/ADVANCED_AGENT_PERMISSIONS";
        let set =
            app.send_json(OPERATOR, Method::PUT, flag, &json!({"enabled": true, "percent": percent})).await;
        assert_eq!(set.status, 200, "{set:?}");
        version += 1;
        app.set_context(MEMBER, &json!({"preferences": {"sectors_of_interest": [version.to_string()]}}))
            .await;
        for (name, token) in &tokens {
            let seen: Value = app.as_agent(token, Method::GET, &context_of(&user)).await.json();
            let (sees, is_told) =
                (seen.get("preferences").is_some(), told_of(&app, name).await == Some(version));
            let wanted = seeing.contains(name);
            assert_eq!((sees, is_told), (wanted, wanted), "{name} at {percent} %: {seen}");
        }
    }
    // Of what is required they hear in any case.
    app.send_json(
        OPERATOR,
        Method::PUT,
        "/admin/flags/ADVANCED_AGENT_PERMISSIONS",
        &json!({"enabled": false}),
    )
    .await;
    app.set_context(MEMBER, &json!({"risk_profile": {"risk_tolerance": "low"}})).await;
    assert_eq!(told_of(&app, "both").await, Some(version + 1));
    assert_eq!(told_of(&app, "optional").await, Some(version));
}
