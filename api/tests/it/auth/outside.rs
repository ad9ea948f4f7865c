//! Tokens of another issuer.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use aws_lc_rs::{
    encoding::AsDer as _,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use axum::{Router, http::StatusCode, routing::get};
use http::Method;
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use serde_json::{Value, json};
use shared::config::OutsideIssuer;

use super::PASSWORD;
use crate::app::TestApp;

const ISSUER: &str = "https://issuer.example/";
const AUDIENCE: &str = "alfred-tests";
const SECRET: &str = "a secret that two parties share, 32+";

/// An issuer that publishes keys, and can fail to.
#[derive(Clone)]
struct Issuer {
    keys: Arc<Mutex<Vec<Value>>>,
    answers: Arc<Mutex<StatusCode>>,
    asked: Arc<AtomicUsize>,
    url: String,
}

impl Issuer {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = Self {
            keys: Arc::default(),
            answers: Arc::new(Mutex::new(StatusCode::OK)),
            asked: Arc::default(),
            url: format!("http://{}/keys", listener.local_addr().unwrap()),
        };
        let answering = issuer.clone();
        let keys = move || {
            let issuer = answering.clone();
            async move {
                issuer.asked.fetch_add(1, Ordering::SeqCst);
                let keys = issuer.keys.lock().unwrap().clone();
                (*issuer.answers.lock().unwrap(), axum::Json(json!({"keys": keys})))
            }
        };
        let router = Router::new().route("/keys", get(keys));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        issuer
    }

    fn publish(&self, keys: &[&Key]) {
        *self.keys.lock().unwrap() = keys.iter().map(|key| key.published.clone()).collect();
    }

    async fn app(&self) -> TestApp {
        let (url, secret) = (self.url.parse().unwrap(), SECRET.into());
        TestApp::start_with(move |config| {
            config.sign_ins.outside_issuer = Some(OutsideIssuer {
                issuer: ISSUER.to_owned(),
                audience: Some(AUDIENCE.to_owned()),
                jwks_url: Some(url),
                hs256_secret: Some(secret),
                jwks_pause: Duration::from_millis(50),
            });
        })
        .await
    }
}

struct Key {
    kid: String,
    algorithm: Algorithm,
    signs: EncodingKey,
    published: Value,
}

impl Key {
    fn of(kid: &str, algorithm: Algorithm, signs: EncodingKey) -> Self {
        let mut jwk = Jwk::from_encoding_key(&signs, algorithm).unwrap();
        jwk.common.key_id = Some(kid.to_owned());
        Self { kid: kid.to_owned(), algorithm, signs, published: serde_json::to_value(jwk).unwrap() }
    }

    fn es256(kid: &str) -> Self {
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        Self::of(kid, Algorithm::ES256, EncodingKey::from_ec_der(pkcs8.as_ref()))
    }

    fn rs256(kid: &str) -> Self {
        let pair = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
        // PKCS #8 is a frame of 26 bytes around the key for this size; the encoder takes what is inside.
        let der = pair.as_der().unwrap();
        Self::of(kid, Algorithm::RS256, EncodingKey::from_rsa_der(&der.as_ref()[26..]))
    }

    fn sign(&self, claims: &Value) -> Value {
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, claims, &self.signs).unwrap().into()
    }
}

fn in_seconds(seconds: i64) -> i64 {
    chrono::Utc::now().timestamp() + seconds
}

fn claims(subject: &str) -> Value {
    json!({"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "exp": in_seconds(300)})
}

fn with(mut claims: Value, name: &str, value: Value) -> Value {
    claims[name] = value;
    claims
}

async fn me(app: &TestApp, token: &Value) -> Value {
    let answered = app.as_bearer(token, Method::GET, "/api/v1/auth/me").await;
    assert_eq!(answered.status, 200, "{answered:?}");
    answered.json()
}

#[tokio::test]
async fn users_of_another_issuer_appear_on_first_sight() {
    let issuer = Issuer::start().await;
    let (es, rs) = (Key::es256("es"), Key::rs256("rs"));
    issuer.publish(&[&es, &rs]);
    let app = issuer.app().await;
    let users = futures::future::join_all((0..20).map(|n| {
        // Different tokens of one person, all at once.
        let token = es.sign(&with(claims("ann"), "jti", n.into()));
        let app = &app;
        async move { me(app, &token).await["id"].clone() }
    }))
    .await;
    assert!(users.iter().all(|user| *user == users[0]));
    assert_eq!(me(&app, &rs.sign(&claims("ann"))).await["id"], users[0]);
    let secret = EncodingKey::from_secret(SECRET.as_bytes());
    let shared = jsonwebtoken::encode(&Header::default(), &claims("ann"), &secret).unwrap();
    assert_eq!(me(&app, &json!(shared)).await["id"], users[0]);
    assert_ne!(me(&app, &es.sign(&claims("bob"))).await["id"], users[0]);
    // She is a user like any other.
    let token = es.sign(&claims("ann"));
    let session = app.request(Method::POST, "/sessions").bearer_auth(token.as_str().unwrap());
    assert_eq!(app.send(session).await.status, 201);
}

#[tokio::test]
async fn an_address_takes_nobody_over() {
    let issuer = Issuer::start().await;
    let key = Key::es256("k");
    issuer.publish(&[&key]);
    let app = issuer.app().await;
    let ann = app.sign_up("ann@example.com").await;
    let with_email = |subject: &str, email: &str, verified: Value| {
        key.sign(&with(with(claims(subject), "email", email.into()), "email_verified", verified))
    };
    // Verified or not: the address has a local user, and stays theirs.
    for (subject, verified) in [("one", json!(true)), ("two", json!(false)), ("three", Value::Null)] {
        let stranger = me(&app, &with_email(subject, "ANN@example.com", verified)).await;
        assert_ne!(stranger["id"], ann["user"]["id"]);
        assert_eq!((&stranger["email"], &stranger["email_verified"]), (&Value::Null, &json!(false)));
    }
    let bob = me(&app, &with_email("four", "bob@example.com", json!("true"))).await;
    assert_eq!((&bob["email"], &bob["email_verified"]), (&json!("bob@example.com"), &json!(true)));
    let unverified = me(&app, &with_email("five", "eve@example.com", json!(false))).await;
    assert_eq!(unverified["email"], Value::Null);
    // And nobody registers an account over bob's.
    let body = json!({"email": "bob@example.com", "password": PASSWORD});
    assert_eq!(app.auth("register", &body).await.status, 202);
    app.log_in("bob@example.com", PASSWORD).await.is_error(401, "APP-401-AUTH");
}

#[tokio::test]
async fn tokens_that_are_not_for_us_are_refused() {
    let issuer = Issuer::start().await;
    let (key, rs) = (Key::es256("k"), Key::rs256("rs"));
    issuer.publish(&[&key, &rs]);
    let app = issuer.app().await;
    assert!(app.opens(&key.sign(&claims("ann"))).await);
    // Within the leeway for clocks that differ.
    assert!(app.opens(&key.sign(&with(claims("ann"), "exp", in_seconds(-30).into()))).await);
    assert!(app.opens(&key.sign(&with(claims("ann"), "nbf", in_seconds(30).into()))).await);
    assert!(app.opens(&key.sign(&with(claims("ann"), "aud", json!(["others", AUDIENCE])))).await);

    let signed_by = |key: &EncodingKey, header: Header, claims: &Value| {
        json!(jsonwebtoken::encode(&header, claims, key).unwrap())
    };
    let mut bad: Vec<(&str, Value)> = Vec::new();
    for (what, name, value) in [
        ("expired", "exp", json!(in_seconds(-90))),
        ("not yet", "nbf", json!(in_seconds(90))),
        ("no end", "exp", Value::Null),
        ("another audience", "aud", json!("others")),
        ("no audience", "aud", Value::Null),
        ("another issuer", "iss", json!("https://evil.example")),
        ("issuer without its slash", "iss", json!("https://issuer.example")),
        ("no subject", "sub", Value::Null),
        ("an empty subject", "sub", json!("")),
        ("a long subject", "sub", json!("x".repeat(256))),
    ] {
        bad.push((what, key.sign(&with(claims("ann"), name, value))));
    }
    let theirs = Key::es256("k");
    bad.push(("somebody else's key under the id", theirs.sign(&claims("ann"))));
    bad.push(("an unknown key", Key::es256("unknown").sign(&claims("ann"))));
    // The public key, as everybody can fetch it, as a shared secret.
    let public = serde_json::to_vec(&rs.published).unwrap();
    let modulus = jsonwebtoken::DecodingKey::from_jwk(&serde_json::from_value(rs.published.clone()).unwrap());
    for secret in [public.as_slice(), b"", rs.published["n"].as_str().unwrap().as_bytes()] {
        let header = Header { kid: Some("rs".to_owned()), ..Header::new(Algorithm::HS256) };
        bad.push((
            "HS256 with a public key",
            signed_by(&EncodingKey::from_secret(secret), header, &claims("ann")),
        ));
    }
    assert!(modulus.is_ok());
    let secret = EncodingKey::from_secret(SECRET.as_bytes());
    for algorithm in [Algorithm::HS384, Algorithm::HS512] {
        bad.push(("another HMAC", signed_by(&secret, Header::new(algorithm), &claims("ann"))));
    }
    // One key's id with another's algorithm.
    let header = Header { kid: Some("rs".to_owned()), ..Header::new(Algorithm::ES256) };
    bad.push(("the wrong kind of key", signed_by(&key.signs, header, &claims("ann"))));
    let header = Header {
        crit: Some(vec!["exp".to_owned()]),
        kid: Some("k".to_owned()),
        ..Header::new(Algorithm::ES256)
    };
    bad.push(("an extension that must be understood", signed_by(&key.signs, header, &claims("ann"))));
    // Without an id there are two to choose from, but one of this kind.
    let header = Header::new(Algorithm::ES256);
    assert!(app.opens(&signed_by(&key.signs, header.clone(), &claims("ann"))).await);
    let good = key.sign(&claims("ann"));
    let parts: Vec<&str> = good.as_str().unwrap().split('.').collect();
    bad.push(("none", json!(format!("eyJhbGciOiJub25lIn0.{}.", parts[1]))));
    bad.push(("no signature", json!(format!("{}.{}.", parts[0], parts[1]))));
    for (what, token) in &bad {
        assert!(!app.opens(token).await, "{what}: {token}");
    }
    issuer.publish(&[&key, &Key::es256("second"), &rs]);
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        // An unknown id makes it look.
        app.opens(&Key::es256("another").sign(&claims("ann"))).await;
        let fresh = with(claims("ann"), "jti", json!(uuid::Uuid::now_v7()));
        if !app.opens(&signed_by(&key.signs, header.clone(), &fresh)).await {
            break;
        }
        assert!(Instant::now() < deadline, "a choice without an id was made");
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
}

#[tokio::test]
async fn keys_change_and_outlive_their_issuers_troubles() {
    let issuer = Issuer::start().await;
    let (old, new) = (Key::es256("old"), Key::es256("new"));
    issuer.publish(&[&old]);
    let app = issuer.app().await;
    assert!(app.opens(&old.sign(&claims("ann"))).await);
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 1);

    // Down: the known key is good on, an unknown one is not, and the issuer is not flooded.
    *issuer.answers.lock().unwrap() = StatusCode::SERVICE_UNAVAILABLE;
    issuer.publish(&[&new]);
    let began = Instant::now();
    let unknown = (0..60).map(|n| new.sign(&with(claims("ann"), "jti", n.into()))).collect::<Vec<_>>();
    let opened = futures::future::join_all(unknown.iter().map(|token| app.opens(token))).await;
    assert!(opened.iter().all(|opened| !opened));
    let pauses = began.elapsed().as_millis() / 50 + 2;
    assert!(
        issuer.asked.load(Ordering::SeqCst) as u128 <= 1 + pauses,
        "{} in {pauses} pauses",
        issuer.asked.load(Ordering::SeqCst)
    );
    assert!(app.opens(&old.sign(&claims("bob"))).await);

    // Up again with other keys: the new one is found by its id, the old one is gone.
    *issuer.answers.lock().unwrap() = StatusCode::OK;
    let deadline = Instant::now() + Duration::from_secs(10);
    while !app.opens(&new.sign(&with(claims("ann"), "jti", json!(uuid::Uuid::now_v7())))).await {
        assert!(Instant::now() < deadline, "the new key stays unknown");
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    assert!(!app.opens(&old.sign(&claims("carol"))).await);

    // A redirect is not followed.
    *issuer.answers.lock().unwrap() = StatusCode::FOUND;
    assert!(app.opens(&new.sign(&claims("dora"))).await);
}

#[tokio::test]
async fn our_own_tokens_are_good_beside_theirs() {
    let issuer = Issuer::start().await;
    let key = Key::es256("k");
    issuer.publish(&[&key]);
    let app = issuer.app().await;
    let ann = app.sign_up("ann@example.com").await;
    assert!(app.opens(&ann["access_token"]).await);
    // Their key does not sign in our name.
    let claims = json!({
        "iss": "http://localhost:0", "aud": "http://localhost:0", "sub": ann["user"]["id"], "exp": in_seconds(300),
        "sid": uuid::Uuid::now_v7(), "scope": "read", "iat": in_seconds(0), "jti": uuid::Uuid::now_v7(),
    });
    assert!(!app.opens(&key.sign(&claims)).await);
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 0);
}
