//! Memberships from a stand-in of the WorkOS API that speaks its wire format and can fail in its ways.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    Json, Router,
    extract::{Query, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use shared::{
    config::WorkosConfig,
    error::{Code, Result},
    identity::{Credential, CredentialTenant, OutsideSubject, Principal, Role, Scopes},
    ids::{ApiKeyId, TenantId, UserId},
    tenancy::{
        memberships::{self, Choice, Directory, Membership},
        workos::WorkOs,
    },
};

use super::{OPERATOR, provision, start};
use crate::app::TestApp;

const API_KEY: &str = "sk_test_of_the_stand_in";

/// What the stand-in answers, and what it was asked.
#[derive(Default)]
struct StandIn {
    /// (user, organisation, role, status)
    memberships: Mutex<Vec<(&'static str, String, &'static str, &'static str)>>,
    /// Answers this status for so many requests.
    failing: Mutex<(usize, StatusCode)>,
    asked: AtomicUsize,
}

#[derive(serde::Deserialize)]
struct Asked {
    user_id: String,
    limit: usize,
    after: Option<String>,
}

async fn answer(
    State(stand_in): State<Arc<StandIn>>,
    headers: HeaderMap,
    Query(asked): Query<Asked>,
) -> Response {
    stand_in.asked.fetch_add(1, Ordering::SeqCst);
    if headers.get("authorization").is_none_or(|value| *value != format!("Bearer {API_KEY}")) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    {
        let mut failing = stand_in.failing.lock().unwrap();
        if failing.0 > 0 {
            failing.0 -= 1;
            return failing.1.into_response();
        }
    }
    // Pages are smaller than what is asked for, as the API may make them.
    let page = asked.limit.min(2);
    let all = stand_in.memberships.lock().unwrap();
    let own: Vec<Value> = all
        .iter()
        .enumerate()
        .filter(|(_, (user, ..))| *user == asked.user_id)
        .map(|(n, (user, organization, role, status))| {
            json!({"object": "organization_membership", "id": format!("om_{n}"), "user_id": user,
                   "organization_id": organization, "status": status, "role": {"slug": role},
                   "created_at": "2026-01-01T00:00:00.000Z", "updated_at": "2026-01-01T00:00:00.000Z"})
        })
        .collect();
    let begin = match &asked.after {
        Some(after) => own.iter().position(|one| one["id"] == **after).unwrap() + 1,
        None => 0,
    };
    let data: Vec<Value> = own.iter().skip(begin).take(page).cloned().collect();
    let after = (begin + data.len() < own.len()).then(|| data.last().unwrap()["id"].clone());
    Json(json!({"object": "list", "data": data, "list_metadata": {"before": null, "after": after}}))
        .into_response()
}

async fn stand_in() -> (Arc<StandIn>, WorkosConfig) {
    let stand_in = Arc::new(StandIn::default());
    let router = Router::new()
        .route("/base/user_management/organization_memberships", get(answer))
        .with_state(Arc::clone(&stand_in));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/base/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (stand_in, WorkosConfig { api_key: API_KEY.into(), api_url: url.parse().unwrap() })
}

/// A user of the outside issuer.
async fn outside_user(app: &TestApp, subject: &str) -> Principal {
    let user = UserId::generate();
    sqlx::query("insert into users (id) values ($1)").bind(user).execute(&app.db.admin()).await.unwrap();
    Principal {
        user,
        email: None,
        email_verified: false,
        timezone: "UTC".to_owned(),
        scopes: Scopes::ALL,
        operator: false,
        tenant: CredentialTenant::Open,
        credential: Credential::OutsideBearer,
        outside: Some(OutsideSubject {
            issuer: "https://issuer.example".to_owned(),
            subject: subject.to_owned(),
        }),
    }
}

/// Five tenants with organisations, by number.
async fn organisations(app: &TestApp) -> Vec<TenantId> {
    let mut tenants = Vec::new();
    for n in 0..5 {
        let made = provision(app, &format!("tenant{n}")).await;
        let body = json!({"externalId": format!("org_{n}")});
        app.send_json(OPERATOR, Method::PATCH, &format!("/admin/tenants/{}", made.id), &body).await;
        tenants.push(made.id);
    }
    tenants
}

fn directory(app: &TestApp, config: &WorkosConfig) -> Directory {
    Directory::new(app.db.app.clone(), Some(WorkOs::new(config).unwrap()))
}

async fn tenants(directory: &Directory, principal: &Principal) -> Result<Vec<(TenantId, Role)>> {
    let mut found: Vec<(TenantId, Role)> = directory
        .memberships(principal)
        .await?
        .iter()
        .map(|Membership { tenant, role, .. }| (*tenant, *role))
        .collect();
    found.sort_by_key(|(tenant, _)| *tenant);
    Ok(found)
}

#[tokio::test]
async fn every_page_is_read_and_only_active_memberships_count() {
    let app = start(|_| ()).await;
    let ids = organisations(&app).await;
    let (workos, config) = stand_in().await;
    for n in 0..5 {
        let status = if n == 3 { "pending" } else { "active" };
        let role = if n == 4 { "admin" } else { "editor" };
        workos.memberships.lock().unwrap().push(("user_ann", format!("org_{n}"), role, status));
    }
    workos.memberships.lock().unwrap().push(("user_ann", "org_elsewhere".to_owned(), "admin", "active"));
    workos.memberships.lock().unwrap().push(("user_bea", "org_3".to_owned(), "admin", "active"));
    let ann = outside_user(&app, "user_ann").await;
    let directory = directory(&app, &config);
    let found = tenants(&directory, &ann).await.unwrap();
    let wanted =
        [(ids[0], Role::Member), (ids[1], Role::Member), (ids[2], Role::Member), (ids[4], Role::Admin)];
    assert_eq!(found, wanted);
    assert_eq!(workos.asked.load(Ordering::SeqCst), 3);
    // Believed for a while, and one look-up for a crowd.
    let bea = outside_user(&app, "user_bea").await;
    let crowd = futures::future::join_all((0..30).map(|_| tenants(&directory, &bea))).await;
    assert!(crowd.into_iter().all(|found| found.unwrap() == [(ids[3], Role::Admin)]));
    assert_eq!(workos.asked.load(Ordering::SeqCst), 4);
    // A token's claim names an organisation; of somebody else's it is refused.
    let (mine, default) = (directory.memberships(&ann).await.unwrap(), TenantId::generate());
    let claim = |organization: &str| Choice { named: vec![], claimed: Some(organization.to_owned()) };
    assert_eq!(memberships::choose(&mine, &claim("org_4"), default).unwrap().tenant, ids[4]);
    for organization in ["org_3", "org_elsewhere"] {
        let refused = memberships::choose(&mine, &claim(organization), default).unwrap_err();
        assert_eq!(refused.code, Code::NotFound);
    }
}

#[tokio::test]
async fn what_ended_at_workos_ends_here() {
    let app = start(|_| ()).await;
    let ids = organisations(&app).await;
    let local = provision(&app, "local").await;
    let (workos, config) = stand_in().await;
    let ann = outside_user(&app, "user_ann").await;
    workos.memberships.lock().unwrap().push(("user_ann", "org_0".to_owned(), "admin", "active"));
    workos.memberships.lock().unwrap().push(("user_ann", "org_1".to_owned(), "member", "active"));
    let add = "insert into memberships (tenant_id, user_id, role) values ($1, $2, 'member')";
    sqlx::query(add).bind(local.id).bind(ann.user).execute(&app.db.admin()).await.unwrap();
    let found = tenants(&directory(&app, &config), &ann).await.unwrap();
    assert_eq!(found, [(ids[0], Role::Admin), (ids[1], Role::Member), (local.id, Role::Member)]);
    let key =
        "insert into api_keys (tenant_id, id, user_id, key_hash) values ($1, gen_random_uuid(), $2, '\\x01')";
    sqlx::query(key).bind(ids[1]).bind(ann.user).execute(&app.db.admin()).await.unwrap();

    workos.memberships.lock().unwrap().retain(|(_, organization, ..)| organization == "org_0");
    workos.memberships.lock().unwrap()[0].2 = "member";
    // As after five minutes, or in another process.
    let found = tenants(&directory(&app, &config), &ann).await.unwrap();
    assert_eq!(found, [(ids[0], Role::Member), (local.id, Role::Member)]);
    let keys: i64 = sqlx::query_scalar("select count(*) from api_keys where user_id = $1")
        .bind(ann.user)
        .fetch_one(&app.db.admin())
        .await
        .unwrap();
    assert_eq!(keys, 0, "a key outlived the membership that it rested on");
}

#[tokio::test]
async fn when_workos_cannot_be_asked_nobody_comes_in() {
    let app = start(|_| ()).await;
    let ids = organisations(&app).await;
    let (workos, config) = stand_in().await;
    workos.memberships.lock().unwrap().push(("user_ann", "org_0".to_owned(), "member", "active"));
    let ann = outside_user(&app, "user_ann").await;
    // One hiccup is tried again.
    *workos.failing.lock().unwrap() = (1, StatusCode::BAD_GATEWAY);
    assert_eq!(tenants(&directory(&app, &config), &ann).await.unwrap(), [(ids[0], Role::Member)]);
    for status in [StatusCode::BAD_GATEWAY, StatusCode::TOO_MANY_REQUESTS, StatusCode::NOT_FOUND] {
        *workos.failing.lock().unwrap() = (100, status);
        let directory = directory(&app, &config);
        let refused = tenants(&directory, &ann).await.unwrap_err();
        assert_eq!(refused.code, Code::Internal);
        assert!(!refused.message.contains("WorkOS"), "{refused}");
        // The failure is shared for a moment, so a crowd does not queue up for it.
        let asked = workos.asked.load(Ordering::SeqCst);
        tenants(&directory, &ann).await.unwrap_err();
        assert_eq!(workos.asked.load(Ordering::SeqCst), asked);
    }
    *workos.failing.lock().unwrap() = (0, StatusCode::OK);
    let wrong = WorkosConfig { api_key: "sk_wrong".into(), ..config.clone() };
    tenants(&directory(&app, &wrong), &ann).await.unwrap_err();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nowhere = WorkosConfig { api_url: format!("http://127.0.0.1:{port}").parse().unwrap(), ..config };
    tenants(&directory(&app, &nowhere), &ann).await.unwrap_err();
    // The same for a key of hers, which says nothing of the issuer; a user of our own is not WorkOS's affair.
    let by_key = Principal { outside: None, credential: Credential::ApiKey(ApiKeyId::generate()), ..ann };
    assert_eq!(tenants(&directory(&app, &nowhere), &by_key).await.unwrap(), [(ids[0], Role::Member)]);
    let known = "insert into outside_identities (issuer, subject, user_id) values ('https://issuer.example', 'user_ann', $1)";
    sqlx::query(known).bind(by_key.user).execute(&app.db.admin()).await.unwrap();
    tenants(&directory(&app, &nowhere), &by_key).await.unwrap_err();
}
