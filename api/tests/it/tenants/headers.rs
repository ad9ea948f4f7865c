//! Signed headers, names in headers and host names: they choose among memberships and grant nothing.

use http::{Method, StatusCode};
use secrecy::SecretString;
use serde_json::json;

use super::{OPERATOR, get_with, now_ms, provision, signed, start};
use crate::{
    app::{ADMIN, MEMBER, TestApp},
    mcp,
};

const DEPLOYMENT: &str = "the-deployments-header-secret";

async fn signing() -> TestApp {
    start(|config| config.tenants.header_secret = Some(DEPLOYMENT.into())).await
}

fn get(app: &TestApp, key: &str) -> reqwest::RequestBuilder {
    app.request(Method::GET, "/sessions").header("X-API-Key", key)
}

fn default_tenant() -> shared::ids::TenantId {
    shared::identity::development::TENANT
}

#[tokio::test]
async fn with_a_secret_every_request_for_tenant_data_is_signed() {
    let app = signing().await;
    let secret = SecretString::from(DEPLOYMENT);
    app.send(get(&app, MEMBER)).await.is_error(401, "APP-401-AUTH");
    let good = app.send(signed(get(&app, MEMBER), &secret, default_tenant(), now_ms())).await;
    assert_eq!(good.status, StatusCode::OK, "{good:?}");
    // A signature is no credential.
    let unnamed = signed(app.request(Method::GET, "/sessions"), &secret, default_tenant(), now_ms());
    app.send(unnamed).await.is_error(401, "APP-401-AUTH");
    for path in ["/healthz", "/readyz", "/metrics", "/openapi.json"] {
        assert_eq!(app.send(app.request(Method::GET, path)).await.status, StatusCode::OK, "{path}");
    }
    // Which tenants there are to choose from is asked before there is one.
    let asked = app.get(MEMBER, "/v1/auth/tenant").await;
    assert_eq!(asked.json()["tenant_id"], default_tenant().to_string(), "{asked:?}");
}

#[tokio::test]
async fn a_signature_has_to_fit() {
    let app = signing().await;
    let secret = SecretString::from(DEPLOYMENT);
    let tenant = default_tenant();
    let now = now_ms();
    for at in [now - 299_000, now + 290_000] {
        let good = app.send(signed(get(&app, MEMBER), &secret, tenant, at)).await;
        assert_eq!(good.status, StatusCode::OK, "{good:?}");
    }
    for at in [now - 301_000, now + 310_000, now / 1000, 0] {
        app.send(signed(get(&app, MEMBER), &secret, tenant, at)).await.is_error(401, "APP-401-AUTH");
    }
    let other = SecretString::from("another-secret-entirely");
    app.send(signed(get(&app, MEMBER), &other, tenant, now)).await.is_error(401, "APP-401-AUTH");
    let signature = shared::tenancy::signature::sign(&secret, tenant, now);
    let (tenant, now) = (tenant.to_string(), now.to_string());
    let whole = [("X-TB-Tenant-ID", &*tenant), ("X-TB-Timestamp", &*now), ("X-TB-Signature", &*signature)];
    for left_out in 0..3 {
        let headers: Vec<_> = whole.iter().copied().enumerate().filter(|(n, _)| *n != left_out).collect();
        let headers: Vec<_> = headers.into_iter().map(|(_, header)| header).collect();
        get_with(&app, MEMBER, "/sessions", &headers).await.is_error(401, "APP-401-AUTH");
    }
    let mut doubled = whole.to_vec();
    doubled.push(("X-TB-Tenant-ID", &tenant));
    get_with(&app, MEMBER, "/sessions", &doubled).await.is_error(400, "APP-4XX-VALIDATION");
}

#[tokio::test]
async fn a_tenants_own_secret_wins_and_none_is_another_tenants() {
    let app = signing().await;
    let secret = SecretString::from(DEPLOYMENT);
    // The control plane is under the same rule.
    let operate = |method, path: &str| {
        let request = app.request(method, path).header("X-API-Key", OPERATOR);
        signed(request, &secret, default_tenant(), now_ms())
    };
    let mut tenants = Vec::new();
    for name in ["acme", "globex"] {
        let body = json!({"name": name, "adminEmail": format!("admin@{name}.example")});
        let answered = app.send(operate(Method::POST, "/admin/tenants").json(&body)).await;
        tenants.push(super::made(&answered.json()));
    }
    let [acme, globex] = tenants.try_into().ok().unwrap();
    let own = app.send(signed(get(&app, &acme.admin_key), &acme.secret, acme.id, now_ms())).await;
    assert_eq!(own.status, StatusCode::OK, "{own:?}");
    for (secret, tenant) in [
        // The deployment's is not good where there is an own one, nor is another tenant's.
        (&secret, acme.id),
        (&globex.secret, acme.id),
        (&acme.secret, globex.id),
        (&acme.secret, default_tenant()),
    ] {
        let request = signed(get(&app, &acme.admin_key), secret, tenant, now_ms());
        app.send(request).await.is_error(401, "APP-401-AUTH");
    }
    // Good headers of another tenant, replayed by somebody who does not belong to it: as if there were no such tenant.
    let replayed = app.send(signed(get(&app, &acme.admin_key), &globex.secret, globex.id, now_ms())).await;
    let replayed = replayed.is_error(404, "APP-404-NOT-FOUND");
    let nowhere = shared::ids::TenantId::generate();
    let unknown = app.send(signed(get(&app, &acme.admin_key), &secret, nowhere, now_ms())).await;
    assert_eq!(unknown.is_error(404, "APP-404-NOT-FOUND")["message"], replayed["message"]);
}

#[tokio::test]
async fn without_a_secret_a_signature_that_is_there_is_still_checked() {
    let app = start(|_| ()).await;
    let acme = provision(&app, "acme").await;
    let good = app.send(signed(get(&app, &acme.admin_key), &acme.secret, acme.id, now_ms())).await;
    assert_eq!(good.status, StatusCode::OK, "{good:?}");
    let wrong = SecretString::from("somebody-elses-secret");
    app.send(signed(get(&app, &acme.admin_key), &wrong, acme.id, now_ms()))
        .await
        .is_error(401, "APP-401-AUTH");
    // The default tenant has no secret here, so nothing can be signed for it.
    app.send(signed(get(&app, MEMBER), &wrong, default_tenant(), now_ms()))
        .await
        .is_error(401, "APP-401-AUTH");
}

#[tokio::test]
async fn a_name_in_a_header_grants_nothing() {
    let app = start(|_| ()).await;
    let (acme, globex) = (provision(&app, "acme").await, provision(&app, "globex").await);
    let (own, foreign) = (acme.id.to_string(), globex.id.to_string());
    let unknown = shared::ids::TenantId::generate().to_string();
    for header in ["X-Tenant-ID", "X-TB-Tenant-ID"] {
        let mine = get_with(&app, &acme.admin_key, "/sessions", &[(header, &own)]).await;
        assert_eq!(mine.status, StatusCode::OK, "{mine:?}");
        let mut messages = Vec::new();
        for name in [&*foreign, &*unknown, "acme", ""] {
            let refused = get_with(&app, &acme.admin_key, "/sessions", &[(header, name)]).await;
            messages.push(refused.is_error(404, "APP-404-NOT-FOUND")["message"].clone());
        }
        assert!(messages.iter().all(|message| *message == messages[0]), "{messages:?}");
    }
    // All that names a tenant has to agree.
    let torn = [("X-Tenant-ID", &*own), ("X-TB-Tenant-ID", &*foreign)];
    get_with(&app, &acme.admin_key, "/sessions", &torn).await.is_error(404, "APP-404-NOT-FOUND");
    let twice = [("X-Tenant-ID", &*own), ("X-Tenant-ID", &*own)];
    get_with(&app, &acme.admin_key, "/sessions", &twice).await.is_error(400, "APP-4XX-VALIDATION");
    // An operator is no member either.
    get_with(&app, OPERATOR, "/sessions", &[("X-Tenant-ID", &own)]).await.is_error(404, "APP-404-NOT-FOUND");
    get_with(&app, ADMIN, "/admin/members", &[("X-Tenant-ID", &own)])
        .await
        .is_error(404, "APP-404-NOT-FOUND");
}

#[tokio::test]
async fn a_host_name_stands_for_its_tenant() {
    let app = start(|_| ()).await;
    let (acme, globex) = (provision(&app, "acme").await, provision(&app, "globex").await);
    let patched = app
        .send_json(
            OPERATOR,
            Method::PATCH,
            &format!("/admin/tenants/{}", acme.id),
            &json!({"hosts": ["Acme.Example.com"]}),
        )
        .await;
    assert_eq!(patched.json()["hosts"], json!(["acme.example.com"]), "{patched:?}");
    let host = [("Host", "acme.example.com:8443")];
    assert_eq!(get_with(&app, &acme.admin_key, "/sessions", &host).await.status, StatusCode::OK);
    for key in [&*globex.admin_key, MEMBER] {
        get_with(&app, key, "/sessions", &host).await.is_error(404, "APP-404-NOT-FOUND");
    }
    let other = [("Host", "globex.example.com")];
    assert_eq!(get_with(&app, &acme.admin_key, "/sessions", &other).await.status, StatusCode::OK);
    // One host, one tenant.
    let path = format!("/admin/tenants/{}", globex.id);
    let taken = json!({"hosts": ["acme.example.com"]});
    app.send_json(OPERATOR, Method::PATCH, &path, &taken).await.is_error(409, "APP-409-CONFLICT");
    for wrong in ["localhost", "10.0.0.1", "a b.example", "-x.example"] {
        let body = json!({"hosts": [wrong]});
        app.send_json(OPERATOR, Method::PATCH, &path, &body).await.is_error(422, "APP-4XX-VALIDATION");
    }
}

/// The guard of /mcp against names of others lets the names of tenants in.
#[tokio::test]
async fn a_mapped_host_name_is_a_name_of_the_mcp_server() {
    let app = start(|config| config.public_url = "https://alfred.example/".parse().unwrap()).await;
    let acme = provision(&app, "acme").await;
    let path = format!("/admin/tenants/{}", acme.id);
    app.send_json(OPERATOR, Method::PATCH, &path, &json!({"hosts": ["acme.example.com"]})).await;
    let list = async |host: &'static str, origin: Option<&'static str>| {
        let mut request = mcp::message(&app, &acme.admin_key, mcp::Era::Modern, "tools/list", &json!({}));
        request = request.header("Host", host);
        if let Some(origin) = origin {
            request = request.header("Origin", origin);
        }
        app.send(request).await
    };
    for host in ["acme.example.com", "ACME.example.com:443"] {
        mcp::result(&list(host, None).await);
    }
    mcp::result(&list("acme.example.com", Some("https://acme.example.com")).await);
    for (host, origin) in [
        ("globex.example.com", None),
        ("acme.example.com:8080", None),
        ("acme.example.com.evil.example", None),
        ("acme.example.com", Some("https://evil.example")),
        ("acme.example.com", Some("http://acme.example.com")),
        // A page of one tenant is none of another name.
        ("alfred.example", Some("https://acme.example.com")),
    ] {
        list(host, origin).await.is_error(403, "APP-403-FORBIDDEN");
    }
    // A client that comes by this name is told of this name.
    let place = "/.well-known/oauth-protected-resource/mcp";
    let described = app.send(app.request(Method::GET, place).header("Host", "acme.example.com")).await;
    assert_eq!(described.json()["resource"], "https://acme.example.com/mcp");
    let stranger = app.request(Method::POST, "/mcp").header("Host", "acme.example.com");
    let challenge = app.send(stranger).await.headers["www-authenticate"].to_str().unwrap().to_owned();
    assert!(challenge.contains("https://acme.example.com/.well-known/"), "{challenge}");
    // Unmapped, it is nobody's.
    app.send_json(OPERATOR, Method::PATCH, &path, &json!({"hosts": []})).await;
    list("acme.example.com", None).await.is_error(403, "APP-403-FORBIDDEN");
}
