//! What admins see of the tool cache, and emptying it.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::app::{ADMIN, FOREIGNER, MEMBER, TestApp};

/// Answers of two people in every tenant, and what was asked for in the last weeks.
async fn fill(app: &TestApp) {
    app.execute(
        "insert into agent_cache (tenant_id, scope, owner_id, cache_key, server, tool, content, content_hash, generation,
                                  read_at, expires_at, hit_count)
         select t.id, 'user', gen_random_uuid(), tool || ':v:' || n, 'wiki', tool, 'a secret of somebody', 'h', 0, now(),
                now() + interval '1 hour', 5
         from tenants t, generate_series(1, 2) n, unnest(array['wiki.get_page', 'wiki.search']) tool",
    )
    .await;
    app.execute(
        "insert into agent_cache_days (tenant_id, day, server, tool, hits, misses, refreshes, passed_by)
         select t.id, d.day, 'wiki', 'wiki.get_page', d.hits, d.misses, 1, 2
         from tenants t, (values (now() - interval '20 days', 1000, 0), (now() - interval '2 days', 60, 8),
                                 (now(), 35, 2)) d (day, hits, misses)",
    )
    .await;
}

fn tool<'a>(view: &'a Value, name: &str) -> &'a Value {
    view["tools"].as_array().unwrap().iter().find(|tool| tool["tool"] == name).unwrap()
}

#[tokio::test]
async fn admins_see_hit_rates_and_no_content() {
    let app = TestApp::start().await;
    fill(&app).await;
    let answered = app.get(ADMIN, "/admin/cache").await;
    assert!(!answered.text.contains("secret"), "{}", answered.text);
    let view = answered.json();
    let page = tool(&view, "wiki.get_page");
    assert_eq!(
        (&page["hits"], &page["misses"], &page["hitRate"]),
        (&json!(95), &json!(10), &json!(95.0 / 105.0))
    );
    assert_eq!((&page["entries"], &page["entryHits"], &page["passedBy"]), (&json!(2), &json!(10), &json!(4)));
    assert_eq!(tool(&view, "wiki.search")["hitRate"], Value::Null);
    assert_eq!((&view["days"], &view["hitRate"]), (&json!(7), &json!(95.0 / 105.0)));
    let month = app.get(ADMIN, "/admin/cache?days=30").await.json();
    assert_eq!(tool(&month, "wiki.get_page")["hits"], 1095);
    app.get(ADMIN, "/admin/cache?days=0").await.is_error(400, "APP-4XX-VALIDATION");
    app.get(MEMBER, "/admin/cache").await.is_error(403, "APP-403-FORBIDDEN");
}

#[tokio::test]
async fn emptying_it_reaches_the_own_tenant_alone_and_is_told() {
    let app = TestApp::start().await;
    fill(&app).await;
    let empty = async |key: &str, path: &str| {
        app.send(app.request(Method::DELETE, path).header("x-api-key", key)).await
    };
    empty(MEMBER, "/admin/cache").await.is_error(403, "APP-403-FORBIDDEN");
    let removed = empty(ADMIN, "/admin/cache?tool=wiki.search").await;
    assert_eq!((removed.status, removed.json()), (StatusCode::OK, json!({"removed": 2})));
    assert_eq!(empty(ADMIN, "/admin/cache?server=elsewhere").await.json(), json!({"removed": 0}));
    assert_eq!(empty(ADMIN, "/admin/cache").await.json(), json!({"removed": 2}));
    let left = app.get(FOREIGNER, "/admin/cache").await.json();
    assert_eq!(tool(&left, "wiki.search")["entries"], 2);
    let log = app.get(ADMIN, "/admin/audit").await.json();
    let purges = log["items"].as_array().unwrap().iter().filter(|row| row["action"] == "cache.purged");
    let targets: Vec<&str> = purges.map(|row| row["target"].as_str().unwrap()).collect();
    assert_eq!(targets, ["", "elsewhere", "wiki.search"]);
}
