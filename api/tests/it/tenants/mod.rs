//! Tenants: whose requests are whose, and what operators and admins do.

mod control;
mod headers;
mod invitations;
mod members;
mod pooler;
mod readers;
mod secrets;
mod signed_in;
mod walk;
mod workos;

use std::time::{SystemTime, UNIX_EPOCH};

use http::{Method, StatusCode};
use secrecy::SecretString;
use serde_json::{Value, json};
use shared::{
    config::Config,
    identity::{
        Role,
        development::{self, Identity},
    },
    ids::{TenantId, UserId},
    tenancy::signature,
};

use crate::app::{Answered, TestApp};

pub(super) const OPERATOR: &str = "operator-key-of-the-deployment";

/// An app with an operator.
pub(super) async fn start(change: impl FnOnce(&mut Config)) -> TestApp {
    let mut default = None;
    let app = TestApp::start_with(|config| {
        default = Some(config.default_tenant);
        change(config);
    })
    .await;
    let key = SecretString::from(OPERATOR);
    let identity = Identity {
        tenant: default.unwrap(),
        user: UserId::generate(),
        email: "operator@example.com",
        role: Role::Admin,
        operator: true,
        key: &key,
        running_turns: 4,
    };
    development::ensure(&app.db.engine, &identity).await.unwrap();
    app
}

/// A tenant with what opens it.
pub(super) struct Made {
    pub(super) id: TenantId,
    pub(super) admin_key: String,
    pub(super) admin_user: String,
    pub(super) invitation: String,
    pub(super) secret: SecretString,
    pub(super) secret_id: String,
}

/// Provisions a tenant through the control plane.
pub(super) async fn provision(app: &TestApp, name: &str) -> Made {
    let body =
        json!({"name": name, "adminEmail": format!("admin@{name}.example"), "limits": {"runningTurns": 3}});
    let answered = app.post(OPERATOR, "/admin/tenants", &body).await;
    assert_eq!(answered.status, StatusCode::CREATED, "{answered:?}");
    made(&answered.json())
}

pub(super) fn made(body: &Value) -> Made {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    Made {
        id: text(&body["tenant"]["id"]).parse().unwrap(),
        admin_key: text(&body["adminKey"]),
        admin_user: text(&body["adminUserId"]),
        invitation: text(&body["invitation"]["code"]),
        secret: text(&body["headerSecret"]["secret"]).into(),
        secret_id: text(&body["headerSecret"]["id"]),
    }
}

pub(super) fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// The three headers.
pub(super) fn signed(
    request: reqwest::RequestBuilder,
    secret: &SecretString,
    tenant: TenantId,
    at: u64,
) -> reqwest::RequestBuilder {
    request
        .header("X-TB-Tenant-ID", tenant.to_string())
        .header("X-TB-Timestamp", at.to_string())
        .header("X-TB-Signature", signature::sign(secret, tenant, at))
}

/// GET with a key and headers.
pub(super) async fn get_with(app: &TestApp, key: &str, path: &str, headers: &[(&str, &str)]) -> Answered {
    let mut request = app.request(Method::GET, path).header("X-API-Key", key);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    app.send(request).await
}
