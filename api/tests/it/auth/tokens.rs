//! Access and refresh tokens.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use aws_lc_rs::signature::Ed25519KeyPair;
use http::Method;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, jwk::JwkSet};
use serde_json::{Value, json};

use super::PASSWORD;
use crate::app::{MEMBER, TestApp};

fn header_and_claims(token: &Value) -> (Header, Value) {
    let text = token.as_str().unwrap();
    (
        jsonwebtoken::decode_header(text).unwrap(),
        jsonwebtoken::dangerous::insecure_decode::<Value>(text).unwrap().claims,
    )
}

async fn key_set(app: &TestApp) -> JwkSet {
    let answered = app.send(app.request(Method::GET, "/.well-known/jwks.json")).await;
    assert_eq!(answered.headers["cache-control"], "public, max-age=300");
    serde_json::from_str(&answered.text).unwrap()
}

#[tokio::test]
async fn anybody_can_check_a_token_with_the_published_keys() {
    let app = TestApp::start().await;
    let signed_in = app.sign_up("ann@example.com").await;
    let keys = key_set(&app).await;
    let (header, claims) = header_and_claims(&signed_in["access_token"]);
    assert_eq!((header.alg, header.typ.as_deref()), (Algorithm::EdDSA, Some("at+jwt")));
    assert_eq!(claims["sub"], signed_in["user"]["id"]);
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 900);
    let key = DecodingKey::from_jwk(keys.find(header.kid.as_deref().unwrap()).unwrap()).unwrap();
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_audience(&[claims["aud"].as_str().unwrap()]);
    validation.set_issuer(&[claims["iss"].as_str().unwrap()]);
    let token = signed_in["access_token"].as_str().unwrap();
    jsonwebtoken::decode::<Value>(token, &key, &validation).unwrap();
    assert!(!keys.keys.is_empty());
}

#[tokio::test]
async fn only_tokens_that_we_signed_are_good() {
    let app = TestApp::start().await;
    let signed_in = app.sign_up("ann@example.com").await;
    let token = signed_in["access_token"].as_str().unwrap();
    let (header, claims) = header_and_claims(&signed_in["access_token"]);
    let keys = key_set(&app).await;
    let public = DecodingKey::from_jwk(&keys.keys[0]).unwrap();
    let mut bad: Vec<(&str, String)> = Vec::new();

    let parts: Vec<&str> = token.split('.').collect();
    let none = jsonwebtoken::encode(
        &Header { kid: header.kid.clone(), ..Header::new(Algorithm::HS256) },
        &claims,
        &EncodingKey::from_secret(b"x"),
    )
    .unwrap();
    bad.push((
        "another signature",
        format!("{}.{}.{}", parts[0], parts[1], none.split('.').next_back().unwrap()),
    ));
    bad.push(("no signature", format!("{}.{}.", parts[0], parts[1])));
    let mut changed = claims.clone();
    changed["sub"] = "0a1f0000-0000-7000-8000-000000000002".into();
    let body = jsonwebtoken::encode(&Header::default(), &changed, &EncodingKey::from_secret(b"x")).unwrap();
    bad.push(("changed claims", format!("{}.{}.{}", parts[0], body.split('.').nth(1).unwrap(), parts[2])));

    // The public key as a shared secret, and `alg: none`.
    let secret = EncodingKey::from_secret(public.try_get_as_bytes().unwrap());
    let confused =
        Header { kid: header.kid.clone(), typ: header.typ.clone(), ..Header::new(Algorithm::HS256) };
    bad.push(("HS256 with the public key", jsonwebtoken::encode(&confused, &claims, &secret).unwrap()));
    // {"alg":"none","typ":"at+jwt"}
    bad.push(("none", format!("eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0.{}.", parts[1])));

    // A key of somebody else, under our key's id and under its own.
    let pkcs8 = Ed25519KeyPair::generate_pkcs8v1(&aws_lc_rs::rand::SystemRandom::new()).unwrap();
    let theirs = EncodingKey::from_ed_der(pkcs8.as_ref());
    for kid in [header.kid.clone(), Some("theirs".to_owned()), None] {
        let header = Header { kid, typ: header.typ.clone(), ..Header::new(Algorithm::EdDSA) };
        bad.push(("somebody else's key", jsonwebtoken::encode(&header, &claims, &theirs).unwrap()));
    }
    for text in ["", ".", "..", "a.b.c", "Bearer", &"x".repeat(9000)] {
        bad.push(("no token", text.to_owned()));
    }
    bad.push(("a refresh token", signed_in["refresh_token"].as_str().unwrap().to_owned()));
    for (what, text) in &bad {
        assert!(!app.opens(&json!(text)).await, "{what}: {text}");
    }
    let basic = app.request(Method::GET, "/api/v1/auth/me").basic_auth("ann@example.com", Some(PASSWORD));
    app.send(basic).await.is_error(401, "APP-401-AUTH");
    assert!(app.opens(&json!(token)).await);
}

#[tokio::test]
async fn a_token_ends_by_itself() {
    let app = TestApp::start_with(|config| config.sign_ins.access_life = Duration::from_secs(1)).await;
    let signed_in = app.sign_up("ann@example.com").await;
    let deadline = Instant::now() + Duration::from_secs(10);
    while app.opens(&signed_in["access_token"]).await {
        assert!(Instant::now() < deadline, "the token still opens");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let refreshed = app.refresh(&signed_in["refresh_token"]).await.json();
    assert!(app.opens(&refreshed["access_token"]).await);
}

#[tokio::test]
async fn a_token_for_a_resource_opens_nothing_else() {
    let app = TestApp::start().await;
    let signed_in = app.sign_up("ann@example.com").await;
    app.execute("update sign_ins set audience = 'http://localhost:0/mcp', scopes = '{read}'").await;
    let refreshed = app.refresh(&signed_in["refresh_token"]).await.json();
    let (_, claims) = header_and_claims(&refreshed["access_token"]);
    assert_eq!((&claims["aud"], &claims["scope"]), (&json!("http://localhost:0/mcp"), &json!("read")));
    assert!(!app.opens(&refreshed["access_token"]).await);
}

#[tokio::test]
async fn a_hundred_refreshes_at_once_make_one_family() {
    let app = TestApp::start().await;
    let signed_in = app.sign_up("ann@example.com").await;
    let all = futures::future::join_all((0..100).map(|_| app.refresh(&signed_in["refresh_token"]))).await;
    let next: HashSet<String> =
        all.iter().map(|one| one.json()["refresh_token"].as_str().unwrap().to_owned()).collect();
    assert_eq!(next.len(), 1);
    assert!(!next.contains(signed_in["refresh_token"].as_str().unwrap()));
    let generation: i64 =
        sqlx::query_scalar("select generation from sign_ins").fetch_one(&app.db.admin()).await.unwrap();
    assert_eq!(generation, 2);
    // Also on another process, and also when the answer was lost.
    let other = app.beside(|_| ()).await;
    let again = other.refresh(&signed_in["refresh_token"]).await.json();
    assert_eq!(next.into_iter().next().as_deref(), again["refresh_token"].as_str());
    assert!(app.opens(&again["access_token"]).await && other.opens(&signed_in["access_token"]).await);
}

#[tokio::test]
async fn using_a_replaced_refresh_token_ends_the_family() {
    let app = TestApp::start().await;
    let first = app.sign_up("ann@example.com").await;
    let other = app.log_in("ann@example.com", PASSWORD).await.json();
    let second = app.refresh(&first["refresh_token"]).await.json();
    app.execute("update sign_ins set rotated_at = rotated_at - interval '1 minute'").await;
    app.refresh(&first["refresh_token"]).await.is_error(401, "APP-401-AUTH");
    // Neither thief nor user goes on, and the access token is worth nothing either.
    app.refresh(&second["refresh_token"]).await.is_error(401, "APP-401-AUTH");
    assert!(!app.opens(&second["access_token"]).await);
    let because: Vec<Option<String>> = sqlx::query_scalar("select ended_because from sign_ins order by id")
        .fetch_all(&app.db.admin())
        .await
        .unwrap();
    assert_eq!(because, [Some("reuse".to_owned()), None]);
    assert!(app.opens(&other["access_token"]).await);
}

#[tokio::test]
async fn invented_refresh_tokens_end_nothing() {
    let app = TestApp::start().await;
    let signed_in = app.sign_up("ann@example.com").await;
    let good = signed_in["refresh_token"].as_str().unwrap();
    // The id is in every access token; somebody who knows it can still not end the sign-in.
    let mut forged = good.to_owned();
    let last = forged.pop().unwrap();
    forged.push(if last == 'A' { 'E' } else { 'A' });
    for token in [forged.as_str(), "ar_", "", "x", &good.replace("ar_", "ac_")] {
        app.refresh(&json!(token)).await.is_error(401, "APP-401-AUTH");
    }
    app.auth("logout", &json!({"refresh_token": forged})).await;
    app.auth("refresh", &json!({})).await.is_error(401, "APP-401-AUTH");
    assert_eq!(app.refresh(&json!(good)).await.status, 200);
}

#[tokio::test]
async fn logout_by_refresh_token_and_everywhere() {
    let app = TestApp::start().await;
    let one = app.sign_up("ann@example.com").await;
    let two = app.log_in("ann@example.com", PASSWORD).await.json();
    let three = app.log_in("ann@example.com", PASSWORD).await.json();
    assert_eq!(app.auth("logout", &json!({"refresh_token": one["refresh_token"]})).await.status, 204);
    // Twice is as good as once.
    assert_eq!(app.auth("logout", &json!({"refresh_token": one["refresh_token"]})).await.status, 204);
    assert!(!app.opens(&one["access_token"]).await && app.opens(&two["access_token"]).await);
    let everywhere =
        app.request(Method::POST, "/api/v1/auth/logout").bearer_auth(two["access_token"].as_str().unwrap());
    assert_eq!(app.send(everywhere.json(&json!({"everywhere": true}))).await.status, 204);
    assert!(!app.opens(&two["access_token"]).await && !app.opens(&three["access_token"]).await);
    app.auth("logout", &json!({})).await.is_error(401, "APP-401-AUTH");
    // A key has nothing to sign out of.
    let key = app.request(Method::POST, "/api/v1/auth/logout").header("X-API-Key", MEMBER);
    assert_eq!(app.send(key).await.status, 204);
    assert_eq!(app.get(MEMBER, "/api/v1/auth/me").await.status, 200);
}

#[tokio::test]
async fn processes_share_keys_and_rotate_them() {
    let app = TestApp::start().await;
    let signed_in = app.sign_up("ann@example.com").await;
    let first = header_and_claims(&signed_in["access_token"]).0.kid.unwrap();
    let other = app.beside(|_| ()).await;
    assert!(other.opens(&signed_in["access_token"]).await);
    let there = other.log_in("ann@example.com", PASSWORD).await.json();
    assert_eq!(header_and_claims(&there["access_token"]).0.kid.as_ref(), Some(&first));

    // A month later a process makes the next key, which is published and does not sign yet.
    app.execute("update signing_keys set signs_from = signs_from - interval '31 days'").await;
    let later = app.beside(|_| ()).await;
    let published = key_set(&later).await;
    assert_eq!(published.keys.len(), 2);
    let still = later.log_in("ann@example.com", PASSWORD).await.json();
    assert_eq!(header_and_claims(&still["access_token"]).0.kid.as_ref(), Some(&first));

    // An hour after that it signs. The process that has run all along does not know it and looks; the former key's
    // tokens are good on.
    app.execute("update signing_keys set signs_from = signs_from - interval '1 hour'").await;
    let newest = app.beside(|_| ()).await;
    let new = newest.log_in("ann@example.com", PASSWORD).await.json();
    assert_ne!(header_and_claims(&new["access_token"]).0.kid.as_ref(), Some(&first));
    let deadline = Instant::now() + Duration::from_secs(15);
    while !app.opens(&new["access_token"]).await {
        assert!(Instant::now() < deadline, "the new key stays unknown");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(newest.opens(&signed_in["access_token"]).await);

    // Nothing in the table signs without the deployment's key.
    let sealed: Vec<String> = sqlx::query_scalar("select sealed_private_key from signing_keys")
        .fetch_all(&app.db.admin())
        .await
        .unwrap();
    assert_eq!(sealed.len(), 2);
    assert!(sealed.iter().all(|sealed| sealed.len() > 100));
}
