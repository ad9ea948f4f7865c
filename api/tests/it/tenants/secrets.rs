//! Header secrets: rotation with two valid, delivery, and that every reading is known.

use http::{Method, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use shared::{
    tenancy::secrets::{self, Folder, Rotated},
    vault::Vault,
};

use super::{Made, OPERATOR, now_ms, provision, signed, start};
use crate::app::TestApp;

async fn is_good(app: &TestApp, tenant: &Made, secret: &SecretString) -> bool {
    let request = app.request(Method::GET, "/sessions").header("X-API-Key", &tenant.admin_key);
    match app.send(signed(request, secret, tenant.id, now_ms())).await {
        answered if answered.status == StatusCode::OK => true,
        answered => {
            answered.is_error(401, "APP-401-AUTH");
            false
        }
    }
}

async fn rotate(app: &TestApp, tenant: &Made) -> SecretString {
    let answered = app.post(OPERATOR, &format!("/admin/tenants/{}/secrets", tenant.id), &json!({})).await;
    assert_eq!(answered.status, StatusCode::CREATED, "{answered:?}");
    answered.json()["secret"].as_str().unwrap().into()
}

async fn list(app: &TestApp, tenant: &Made) -> Vec<Value> {
    let list = app.get(OPERATOR, &format!("/admin/tenants/{}/secrets", tenant.id)).await.json();
    list["items"].as_array().unwrap().clone()
}

#[tokio::test]
async fn two_are_good_at_once() {
    let app = start(|_| ()).await;
    let acme = provision(&app, "acme").await;
    let second = rotate(&app, &acme).await;
    assert!(is_good(&app, &acme, &acme.secret).await && is_good(&app, &acme, &second).await);
    let listed = list(&app, &acme).await;
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert_eq!((&listed[0]["expiresAt"], &listed[1]["id"]), (&Value::Null, &json!(acme.secret_id)));
    let ends = listed[1]["expiresAt"].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    let days = (ends - chrono::Utc::now()).num_hours();
    assert!((166..=168).contains(&days), "{days} hours");
    // A third ends the first at once.
    let third = rotate(&app, &acme).await;
    assert!(!is_good(&app, &acme, &acme.secret).await);
    assert!(is_good(&app, &acme, &second).await && is_good(&app, &acme, &third).await);
    assert_eq!(list(&app, &acme).await.len(), 2);
    // Stored sealed.
    let stored: Vec<String> = sqlx::query_scalar("select secret_enc from tenant_header_secrets")
        .fetch_all(&app.db.admin())
        .await
        .unwrap();
    assert!(stored.iter().all(|sealed| !sealed.contains(third.expose_secret())));
}

#[tokio::test]
async fn every_reading_is_known() {
    let app = start(|_| ()).await;
    let acme = provision(&app, "acme").await;
    let place = format!("/admin/tenants/{}/secrets/{}", acme.id, acme.secret_id);
    let read = app.get(OPERATOR, &place).await.json();
    assert_eq!(read["secret"], acme.secret.expose_secret());
    for _ in 0..3 {
        assert!(is_good(&app, &acme, &acme.secret).await);
    }
    let log = app.get(&acme.admin_key, "/admin/audit").await.json();
    let rows: Vec<(&str, &str, &str)> = log["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let text = |name: &str| row[name].as_str().unwrap();
            (text("action"), text("actedAs"), text("target"))
        })
        .collect();
    // The process that checks signatures is told of once.
    assert_eq!(
        rows[..2],
        [
            ("header_secret.loaded", "system", &*acme.secret_id),
            ("header_secret.read", "operator", &*acme.secret_id),
        ]
    );
    let unknown = format!("/admin/tenants/{}/secrets/{}", acme.id, uuid::Uuid::now_v7());
    for path in [&*unknown, &format!("/admin/tenants/{}/secrets/x", acme.id)] {
        app.get(OPERATOR, path).await.is_error(404, "APP-404-NOT-FOUND");
    }
    app.get(&acme.admin_key, &place).await.is_error(403, "APP-403-FORBIDDEN");
}

#[tokio::test]
async fn a_folder_gets_what_is_made_by_hand_too() {
    let folder = std::env::temp_dir().join(format!("secrets-{}", uuid::Uuid::now_v7()));
    std::fs::create_dir(&folder).unwrap();
    let app = start(|config| config.tenants.secrets_folder = Some(folder.clone())).await;
    let vault = Vault::new(&crate::app::config(&app.db, |_| ()).fernet_keys).unwrap();
    let acme = provision(&app, "acme").await;
    let file = folder.join(format!("{}.json", acme.id));
    let told = || serde_json::from_slice::<Value>(&std::fs::read(&file).unwrap()).unwrap();
    let delivered = Rotated { delivered: 1, ..Rotated::default() };
    let store = Folder(folder.clone());
    // Having read it is not having delivered it: whoever signs reads the folder.
    let place = format!("/admin/tenants/{}/secrets/{}", acme.id, acme.secret_id);
    assert_eq!(app.get(OPERATOR, &place).await.status, StatusCode::OK);
    assert_eq!(list(&app, &acme).await[0]["deliveredAt"], Value::Null);
    assert_eq!(secrets::rotate_due(&app.db.engine, &vault, Some(&store)).await.unwrap(), delivered);
    assert_eq!(told()["secret"], acme.secret.expose_secret());
    let second = rotate(&app, &acme).await;
    let listed = list(&app, &acme).await;
    assert_eq!((&listed[0]["deliveredAt"], &listed[1]["expiresAt"]), (&Value::Null, &Value::Null));
    assert_eq!(secrets::rotate_due(&app.db.engine, &vault, Some(&store)).await.unwrap(), delivered);
    assert_eq!(told()["secret"], second.expose_secret());
    assert!(list(&app, &acme).await[1]["expiresAt"].is_string());
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn the_clock_rotates_and_nobody_is_cut_off() {
    let app = start(|_| ()).await;
    let (acme, globex) = (provision(&app, "acme").await, provision(&app, "globex").await);
    let key = SecretString::from("YWJjZGVmZ2hpamFiY2RlZmdoaWphYmNkZWZnaGlqYWI=");
    let config = crate::app::config(&app.db, |_| ());
    let vault = Vault::new(&config.fernet_keys).unwrap();
    let engine = &app.db.engine;
    assert_eq!(secrets::rotate_due(engine, &vault, None).await.unwrap(), Rotated::default());
    sqlx::query(
        "update tenant_header_secrets set created_at = now() - interval '91 days' where tenant_id = $1",
    )
    .bind(acme.id)
    .execute(&app.db.admin())
    .await
    .unwrap();
    let made = Rotated { made: 1, ..Rotated::default() };
    assert_eq!(secrets::rotate_due(engine, &vault, None).await.unwrap(), made);
    // Nobody was given it, so the old one has no end, and there is no third, however long it takes.
    assert_eq!(secrets::rotate_due(engine, &vault, None).await.unwrap(), Rotated::default());
    let listed = list(&app, &acme).await;
    assert_eq!((listed.len(), &listed[0]["deliveredAt"]), (2, &Value::Null));
    assert_eq!(listed[1]["expiresAt"], Value::Null);
    assert!(is_good(&app, &acme, &acme.secret).await);
    assert_eq!(list(&app, &globex).await.len(), 1);

    let folder = std::env::temp_dir().join(format!("secrets-{}", uuid::Uuid::now_v7()));
    let nowhere = Folder(folder.join("missing"));
    secrets::rotate_due(engine, &vault, Some(&nowhere)).await.unwrap_err();
    assert_eq!(list(&app, &acme).await[0]["deliveredAt"], Value::Null);
    std::fs::create_dir(&folder).unwrap();
    let delivered = Rotated { delivered: 1, ..Rotated::default() };
    assert_eq!(secrets::rotate_due(engine, &vault, Some(&Folder(folder.clone()))).await.unwrap(), delivered);
    let file = folder.join(format!("{}.json", acme.id));
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let told: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let new = SecretString::from(told["secret"].as_str().unwrap());
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(list(&app, &acme).await[1]["expiresAt"].is_string());

    // Five seconds of belief are this process's; another one looks for itself.
    let fresh = app.beside(|_| ()).await;
    assert!(is_good(&fresh, &acme, &new).await && is_good(&fresh, &acme, &acme.secret).await);
    sqlx::query("update tenant_header_secrets set expires_at = now() - interval '1 second' where id = $1")
        .bind(uuid::Uuid::parse_str(&acme.secret_id).unwrap())
        .execute(&app.db.admin())
        .await
        .unwrap();
    let fresh = app.beside(|_| ()).await;
    assert!(is_good(&fresh, &acme, &new).await && !is_good(&fresh, &acme, &acme.secret).await);

    // A new key of the deployment takes the place of the old one without anybody noticing.
    let mut keys = vec![key];
    keys.extend(config.fernet_keys.clone());
    let rotated = Vault::new(&keys).unwrap();
    let sealed = secrets::rotate_due(engine, &rotated, None).await.unwrap();
    assert_eq!(sealed, Rotated { sealed_again: 2, ..Rotated::default() });
    let stored: Vec<String> =
        sqlx::query_scalar("select secret_enc from tenant_header_secrets where expires_at is null")
            .fetch_all(&app.db.admin())
            .await
            .unwrap();
    assert!(stored.len() == 2 && stored.iter().all(|sealed| sealed.starts_with(rotated.first_id())));
    let fresh = app.beside(|config| config.fernet_keys = keys.clone()).await;
    assert!(is_good(&fresh, &acme, &new).await);
}
