//! The control plane: provision, limits, suspend, resume, export, delete, audit.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use serde_json::{Value, json};
use shared::tenancy::control;

use super::{OPERATOR, provision, start};
use crate::app::{ADMIN, FOREIGNER, MEMBER, TestApp};

async fn actions(app: &TestApp, tenant: impl std::fmt::Display) -> Vec<String> {
    let log = app.get(OPERATOR, &format!("/admin/tenants/{tenant}/audit")).await.json();
    log["items"].as_array().unwrap().iter().map(|row| row["action"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn one_call_makes_a_tenant_that_works() {
    let app = start(|_| ()).await;
    let begun = Instant::now();
    let acme = provision(&app, "acme").await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    let place = format!("/admin/tenants/{}", acme.id);
    let seen = app.get(OPERATOR, &place).await.json();
    assert_eq!((&seen["name"], &seen["state"]), (&json!("acme"), &json!("active")), "{seen}");
    assert_eq!(seen["limits"], json!({"runningTurns": 3}));
    // Its admin can chat, and has the slots to run it.
    app.chat(&acme.admin_key).await;
    let slots = "select count(*) from tenant_slots where tenant_id = $1";
    let slots: i64 = sqlx::query_scalar(slots).bind(acme.id).fetch_one(&app.db.admin()).await.unwrap();
    assert_eq!(slots, 3);
    let patch = json!({"name": "Acme Ltd", "limits": {"runningTurns": 5}, "externalId": "org_acme"});
    let patched = app.send_json(OPERATOR, Method::PATCH, &place, &patch).await.json();
    assert_eq!((&patched["name"], &patched["externalId"]), (&json!("Acme Ltd"), &json!("org_acme")));
    assert_eq!(patched["limits"], json!({"runningTurns": 5}));
    let null = app.send_json(OPERATOR, Method::PATCH, &place, &json!({"externalId": null})).await.json();
    assert_eq!((&null["name"], &null["externalId"]), (&json!("Acme Ltd"), &Value::Null));
    assert_eq!(actions(&app, acme.id).await, ["tenant.changed", "tenant.changed", "tenant.provisioned"]);
    // What it was given is not to be read again.
    for path in [&*place, "/admin/tenants", &format!("{place}/secrets"), &format!("{place}/audit")] {
        let text = app.get(OPERATOR, path).await.text;
        for given in [&*acme.admin_key, secrecy::ExposeSecret::expose_secret(&acme.secret)] {
            assert!(!text.contains(given), "{path}");
        }
    }
    let mut seen = Vec::new();
    let mut next = "/admin/tenants?limit=1".to_owned();
    loop {
        let page = app.get(OPERATOR, &next).await.json();
        seen.extend(page["items"].as_array().unwrap().iter().map(|tenant| tenant["id"].clone()));
        match page["nextCursor"].as_str() {
            Some(cursor) => next = format!("/admin/tenants?limit=1&cursor={cursor}"),
            None => break,
        }
    }
    // The default one, the foreigner's, and this one.
    assert_eq!(seen.len(), 3, "{seen:?}");
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    let app = start(|_| ()).await;
    for body in [
        json!({"name": " ", "adminEmail": "a@b.example"}),
        json!({"name": "x", "adminEmail": "nobody"}),
        json!({"name": "x", "adminEmail": "a@b.example", "limits": {"runningTurns": 0}}),
        json!({"name": "x", "adminEmail": "a@b.example", "limits": {"walls": 4}}),
        json!({"name": "x", "adminEmail": "a@b.example", "externalId": "a b"}),
        json!({"name": "x"}),
    ] {
        app.post(OPERATOR, "/admin/tenants", &body).await.is_error(422, "APP-4XX-VALIDATION");
    }
    for query in ["limit=0", "limit=1001", "limit=x", "cursor=x"] {
        let path = format!("/admin/tenants?{query}");
        app.get(OPERATOR, &path).await.is_error(400, "APP-4XX-VALIDATION");
    }
    let of = |external: &str| json!({"name": "x", "adminEmail": "a@b.example", "externalId": external});
    assert_eq!(app.post(OPERATOR, "/admin/tenants", &of("org_1")).await.status, StatusCode::CREATED);
    app.post(OPERATOR, "/admin/tenants", &of("org_1")).await.is_error(409, "APP-409-CONFLICT");
    // A refused one leaves nothing behind.
    assert_eq!(app.get(OPERATOR, "/admin/tenants").await.json()["items"].as_array().unwrap().len(), 3);
    let nowhere = shared::ids::TenantId::generate();
    for path in ["", "/secrets", "/export"] {
        let path = format!("/admin/tenants/{nowhere}{path}");
        app.get(OPERATOR, &path).await.is_error(404, "APP-404-NOT-FOUND");
    }
    for action in ["suspend", "resume", "secrets"] {
        let path = format!("/admin/tenants/{nowhere}/{action}");
        app.post(OPERATOR, &path, &json!({})).await.is_error(404, "APP-404-NOT-FOUND");
    }
    let default = shared::identity::development::TENANT;
    let path = format!("/admin/tenants/{default}");
    app.send_json(OPERATOR, Method::DELETE, &path, &json!({})).await.is_error(409, "APP-409-CONFLICT");
    app.post(OPERATOR, &format!("{path}/suspend"), &json!({})).await.is_error(409, "APP-409-CONFLICT");
}

#[tokio::test]
async fn a_suspended_tenant_is_told_so_until_it_is_resumed() {
    let app = start(|_| ()).await;
    let acme = provision(&app, "acme").await;
    let place = format!("/admin/tenants/{}", acme.id);
    assert_eq!(app.get(&acme.admin_key, "/sessions").await.status, StatusCode::OK);
    let suspended = app.post(OPERATOR, &format!("{place}/suspend"), &json!({})).await;
    assert_eq!(suspended.json()["state"], "suspended");
    for path in ["/sessions", "/v1/auth/tenant", "/admin/members"] {
        let refused = app.get(&acme.admin_key, path).await.is_error(403, "APP-403-FORBIDDEN");
        assert!(refused["message"].as_str().unwrap().contains("suspended"), "{refused}");
    }
    assert_eq!(app.get(MEMBER, "/sessions").await.status, StatusCode::OK);
    app.post(OPERATOR, &format!("{place}/suspend"), &json!({})).await;
    app.post(OPERATOR, &format!("{place}/resume"), &json!({})).await;
    assert_eq!(app.get(&acme.admin_key, "/sessions").await.status, StatusCode::OK);
    // Doing it twice did nothing.
    assert_eq!(actions(&app, acme.id).await, ["tenant.resumed", "tenant.suspended", "tenant.provisioned"]);
}

#[tokio::test]
async fn a_tenant_is_taken_along_and_erased() {
    let app = start(|_| ()).await;
    let (acme, globex) = (provision(&app, "acme").await, provision(&app, "globex").await);
    for tenant in [&acme, &globex] {
        app.chat(&tenant.admin_key).await;
        let policy = json!({"policy": "deny"});
        app.send_json(&tenant.admin_key, Method::PUT, "/admin/tool-policies/add_task", &policy).await;
    }
    let place = format!("/admin/tenants/{}", acme.id);
    let exported = app.get(OPERATOR, &format!("{place}/export")).await;
    assert_eq!(exported.headers["content-type"], "application/x-ndjson");
    let lines: Vec<Value> = exported.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.last(), Some(&json!({"end": true})));
    for line in &lines[..lines.len() - 1] {
        assert_eq!(line["row"]["tenant_id"], acme.id.to_string(), "{line}");
    }
    let tables: std::collections::BTreeSet<&str> =
        lines.iter().filter_map(|line| line["table"].as_str()).collect();
    for table in [
        "api_keys",
        "audit_log",
        "conversations",
        "items",
        "memberships",
        "tool_policies",
        "turns",
        "user_sessions",
    ] {
        assert!(tables.contains(table), "{table} is not in {tables:?}");
    }
    let text = exported.text;
    for secret in ["key_hash", "token_hash", "secret_enc", &*acme.admin_key, &globex.id.to_string()] {
        assert!(!text.contains(secret), "{secret} is in the export");
    }

    let deleted = app.send(app.request(Method::DELETE, &place).header("X-API-Key", OPERATOR)).await;
    assert_eq!((deleted.status, &deleted.json()["state"]), (StatusCode::ACCEPTED, &json!("deleting")));
    app.get(&acme.admin_key, "/sessions").await.is_error(404, "APP-404-NOT-FOUND");
    app.post(OPERATOR, &format!("{place}/resume"), &json!({})).await.is_error(409, "APP-409-CONFLICT");
    // In chunks that are smaller than what there is.
    control::erase_deleted(&app.db.engine, 3).await.unwrap();
    assert_eq!(control::erase_deleted(&app.db.engine, 3).await.unwrap(), 0);
    let tables = "select c.relname::text from pg_class c join pg_attribute a on a.attrelid = c.oid
                  where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
                    and a.attname = 'tenant_id' and c.relname <> 'audit_log'";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&app.db.admin()).await.unwrap();
    assert!(tables.len() > 15);
    for table in tables {
        let count = format!("select count(*) from {table} where tenant_id = $1");
        let left: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(count))
            .bind(acme.id)
            .fetch_one(&app.db.admin())
            .await
            .unwrap();
        assert_eq!(left, 0, "{table}");
    }
    for path in ["", "/export", "/secrets"] {
        app.get(OPERATOR, &format!("{place}{path}")).await.is_error(404, "APP-404-NOT-FOUND");
    }
    // What was done to it is still known.
    assert_eq!(actions(&app, acme.id).await[..2], ["tenant.erased", "tenant.deleted"]);
    // The other tenant is whole.
    assert_eq!(app.get(&globex.admin_key, "/sessions").await.json()["sessions"].as_array().unwrap().len(), 1);
    let refused = sqlx::query("select tenant_erase($1, 10)").bind(globex.id).execute(&app.db.engine).await;
    assert!(refused.unwrap_err().to_string().contains("not being deleted"));
}

#[tokio::test]
async fn the_key_of_the_environment_is_the_present_one_alone() {
    let app = start(|_| ()).await;
    let (first, second) = ("alfred-development-key", "another-key-of-the-environment");
    let restart = async |key: Option<&str>| {
        let config = crate::app::config(&app.db, |config| config.api_key = key.map(Into::into));
        shared::provision::ensure_first_identity(&config).await.unwrap();
        // A process that has not seen the keys before.
        let fresh = app.beside(|_| ()).await;
        let mut good = Vec::new();
        for key in [first, second, OPERATOR] {
            good.push(fresh.get(key, "/admin/tenants").await.status == StatusCode::OK);
        }
        good
    };
    assert_eq!(restart(Some(first)).await, [true, false, true]);
    assert_eq!(restart(Some(first)).await, [true, false, true]);
    assert_eq!(restart(Some(second)).await, [false, true, true]);
    assert_eq!(restart(Some(first)).await, [true, false, true]);
    // As in production, which has no key unless it is given one.
    assert_eq!(restart(None).await, [false, false, true]);
    // What is no operator's key is its user's affair.
    assert_eq!(app.get(ADMIN, "/admin/members").await.status, StatusCode::OK);
    let default = shared::identity::development::TENANT;
    let ended = actions(&app, default).await.into_iter().filter(|action| action == "operator_key.ended");
    assert_eq!(ended.count(), 3);
}

#[tokio::test]
async fn tenants_are_the_operators_affair() {
    let app = start(|_| ()).await;
    let acme = provision(&app, "acme").await;
    let body = json!({"name": "x", "adminEmail": "a@b.example"});
    // Whether the tenant is there makes no difference.
    for key in [ADMIN, MEMBER, FOREIGNER, &*acme.admin_key] {
        app.post(key, "/admin/tenants", &body).await.is_error(403, "APP-403-FORBIDDEN");
        for id in [acme.id, shared::ids::TenantId::generate()] {
            for path in ["", "/secrets", "/export", "/audit"] {
                let path = format!("/admin/tenants/{id}{path}");
                app.get(key, &path).await.is_error(403, "APP-403-FORBIDDEN");
            }
        }
    }
}

#[tokio::test]
async fn the_audit_log_tells_of_every_change_and_cannot_be_changed() {
    let app = start(|_| ()).await;
    let acme = provision(&app, "acme").await;
    let policy = json!({"policy": "ask"});
    let set = app.send_json(&acme.admin_key, Method::PUT, "/admin/tool-policies/add_task", &policy).await;
    app.send(
        app.request(Method::DELETE, "/admin/tool-policies/add_task").header("X-API-Key", &acme.admin_key),
    )
    .await;
    let prompt = json!({"systemPrompt": "You are a pirate"});
    app.send_json(&acme.admin_key, Method::PUT, "/admin/settings", &prompt).await;
    let log = app.get(&acme.admin_key, "/admin/audit").await.json();
    let rows = log["items"].as_array().unwrap();
    let actions: Vec<&str> = rows.iter().map(|row| row["action"].as_str().unwrap()).collect();
    assert_eq!(
        actions,
        ["system_prompt.set", "tool_policy.cleared", "tool_policy.set", "tenant.provisioned"]
    );
    let row = &rows[2];
    assert_eq!((&row["target"], &row["details"]), (&json!("add_task"), &policy));
    assert_eq!((&row["actedAs"], &row["userId"]), (&json!("admin"), &json!(acme.admin_user)));
    assert_eq!(row["requestId"], set.headers["x-request-id"].to_str().unwrap());
    let mut paged = Vec::new();
    let mut next = "/admin/audit?limit=3".to_owned();
    loop {
        let page = app.get(&acme.admin_key, &next).await.json();
        paged.extend(page["items"].as_array().unwrap().clone());
        let Some(cursor) = page["nextCursor"].as_str() else { break };
        next = format!("/admin/audit?limit=3&cursor={cursor}");
    }
    assert_eq!(&paged, rows);
    // Another tenant's admin sees nothing of it, a member nothing at all.
    assert_eq!(app.get(FOREIGNER, "/admin/audit").await.json()["items"], json!([]));
    app.get(MEMBER, "/admin/audit").await.is_error(403, "APP-403-FORBIDDEN");
    for pool in [&app.db.app, &app.db.engine] {
        for statement in
            ["update audit_log set action = 'nothing'", "delete from audit_log", "truncate audit_log"]
        {
            let refused = sqlx::query(statement).execute(pool).await.unwrap_err();
            assert!(refused.to_string().contains("permission denied"), "{statement}: {refused}");
        }
    }
}
