//! How often a client may ask, and the headers that pages get [O5].

use http::{Method, StatusCode};
use shared::config::RateLimits;

use crate::app::{ADMIN, Answered, FOREIGNER, MEMBER, TestApp, say};

const NONE: RateLimits = RateLimits {
    per_minute: 0,
    chat_per_minute: 0,
    address_per_minute: 0,
    address_chat_per_minute: 0,
    agent_per_minute: 0,
};

fn is_refused(answered: &Answered) {
    let body = answered.is_error(429, "APP-429-RATE");
    let wait: u64 = answered.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{answered:?}");
    assert_eq!(body["retryAfter"], wait);
}

#[tokio::test]
async fn each_credential_has_a_budget_of_turns() {
    let app =
        TestApp::start_with(|config| config.rate_limits = RateLimits { chat_per_minute: 3, ..NONE }).await;
    let job = app.chat(MEMBER).await["jobId"].as_str().unwrap().to_owned();
    // One turn, however often it is asked for: it counts once.
    for _ in 0..5 {
        let post =
            app.request(Method::POST, "/chat").header("X-API-Key", MEMBER).header("Idempotency-Key", "k");
        assert_eq!(app.send(post.json(&say("hello"))).await.status, StatusCode::ACCEPTED);
    }
    app.chat(MEMBER).await;
    let before = app.rows().await;
    is_refused(&app.post(MEMBER, "/chat", &say("hello")).await);
    // A key that was refused has paid for nothing: sending it again is no way around the limit.
    for _ in 0..2 {
        let post =
            app.request(Method::POST, "/chat").header("X-API-Key", MEMBER).header("Idempotency-Key", "late");
        is_refused(&app.send(post.json(&say("hello"))).await);
    }
    is_refused(&app.post(MEMBER, &format!("/jobs/{job}/retry"), &serde_json::json!({})).await);
    assert_eq!(app.rows().await, before, "a refused post left something");
    // Looking at turns is something else, and so is somebody else.
    assert_eq!(app.get(MEMBER, &format!("/jobs/{job}")).await.status, StatusCode::OK);
    app.chat(ADMIN).await;
    app.chat(FOREIGNER).await;
}

#[tokio::test]
async fn streams_that_are_taken_up_again_are_not_counted() {
    let app = TestApp::start_with(|config| config.rate_limits = RateLimits { per_minute: 4, ..NONE }).await;
    let job = app.chat(MEMBER).await["jobId"].as_str().unwrap().to_owned();
    let stream = |last: Option<&'static str>| {
        let request = app.request(Method::GET, &format!("/jobs/{job}/events")).header("X-API-Key", MEMBER);
        let request = last.map_or_else(
            || request.try_clone().unwrap(),
            |id| request.try_clone().unwrap().header("Last-Event-ID", id),
        );
        async { request.send().await.unwrap().status() }
    };
    for _ in 0..3 {
        assert_eq!(stream(None).await, StatusCode::OK);
    }
    assert_eq!(stream(None).await, StatusCode::TOO_MANY_REQUESTS);
    is_refused(&app.get(MEMBER, &format!("/jobs/{job}")).await);
    for _ in 0..10 {
        assert_eq!(stream(Some("1.1")).await, StatusCode::OK);
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(app.get(MEMBER, path).await.status, StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn a_key_that_is_repeated_is_one_post_and_each_retry_another_turn() {
    let app =
        TestApp::start_with(|config| config.rate_limits = RateLimits { chat_per_minute: 4, ..NONE }).await;
    let job = app.chat(MEMBER).await["jobId"].as_str().unwrap().to_owned();
    let send = |path: String, tenant: Option<String>| {
        let mut request = app.request(Method::POST, &path).header("X-API-Key", MEMBER).json(&say("hello"));
        if let Some(tenant) = tenant {
            request = request.header("X-Tenant-ID", tenant);
        }
        app.send(request.header("Idempotency-Key", "k"))
    };
    let retry = format!("/jobs/{job}/retry");
    send(retry.clone(), None).await.is_error(409, "APP-409-CONFLICT");
    assert_eq!(send("/chat".to_owned(), None).await.status, StatusCode::ACCEPTED);
    assert_eq!(send("/chat".to_owned(), None).await.status, StatusCode::ACCEPTED);
    // The same key in another tenant would be another turn.
    let elsewhere = shared::ids::TenantId::generate().to_string();
    send("/chat".to_owned(), Some(elsewhere)).await.is_error(404, "APP-404-NOT-FOUND");
    is_refused(&send(retry, None).await);
}

#[tokio::test]
async fn a_credential_has_one_budget_however_it_is_spelt() {
    let app = TestApp::start_with(|config| config.rate_limits = RateLimits { per_minute: 3, ..NONE }).await;
    for (name, spellings) in [
        (
            "Cookie",
            [
                "alfred_session=x",
                "a=1; alfred_session=x",
                "alfred_session=x; a=2",
                "b=1;alfred_session=x;a=3",
            ],
        ),
        ("Authorization", ["Bearer x", "bearer x", "BEARER  x", "Bearer  x"]),
    ] {
        for spelling in &spellings[..3] {
            let request = app.request(Method::GET, "/sessions").header(name, *spelling);
            app.send(request).await.is_error(401, "APP-401-AUTH");
        }
        is_refused(&app.send(app.request(Method::GET, "/sessions").header(name, spellings[3])).await);
    }
    // Cookies that are none of ours are no credential: what remains is the address.
    for n in 0..3 {
        let request = app.request(Method::GET, "/sessions").header("Cookie", format!("a={n}"));
        app.send(request).await.is_error(401, "APP-401-AUTH");
    }
    is_refused(&app.send(app.request(Method::GET, "/sessions").header("Cookie", "a=3")).await);
}

#[tokio::test]
async fn a_feed_that_is_taken_up_again_is_not_counted_and_its_pages_are() {
    let app = TestApp::start_with(|config| config.rate_limits = RateLimits { per_minute: 3, ..NONE }).await;
    let page = app.get(MEMBER, "/v1/changes?since=now").await.json();
    let cursor = page["nextCursor"].as_str().unwrap();
    for _ in 0..10 {
        let request = app.request(Method::GET, "/v1/changes").header("X-API-Key", MEMBER);
        let response = request.header("Last-Event-ID", cursor).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
    // A page is a page, whatever else is asked for and however it is spelt.
    for since in ["since", "s%69nce"] {
        let path = format!("/v1/changes?lastEventId=x&{since}={cursor}");
        assert_eq!(app.get(MEMBER, &path).await.status, StatusCode::OK);
    }
    is_refused(&app.get(MEMBER, &format!("/v1/changes?lastEventId=x&since={cursor}")).await);
}

#[tokio::test]
async fn made_up_credentials_cannot_take_up_streams_without_end() {
    let app =
        TestApp::start_with(|config| config.rate_limits = RateLimits { address_per_minute: 4, ..NONE }).await;
    let job = app.chat(MEMBER).await["jobId"].as_str().unwrap().to_owned();
    let guess = |n: u32| {
        let request = app.request(Method::GET, &format!("/jobs/{job}/events?lastEventId=1.1"));
        app.send(request.header("X-API-Key", format!("made-up-key-{n:08}")))
    };
    for n in 0..3 {
        guess(n).await.is_error(401, "APP-401-AUTH");
    }
    is_refused(&guess(3).await);
}

#[tokio::test]
async fn whoever_makes_up_credentials_spends_the_budget_of_his_address() {
    let app = TestApp::start_with(|config| {
        config.rate_limits = RateLimits { address_per_minute: 3, ..NONE };
        config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    let guess = |number: u32, from: &'static str| {
        let request =
            app.request(Method::GET, "/sessions").header("X-API-Key", format!("made-up-key-{number:08}"));
        app.send(request.header("X-Forwarded-For", from))
    };
    for number in 0..3 {
        guess(number, "198.51.100.1").await.is_error(401, "APP-401-AUTH");
    }
    is_refused(&guess(3, "198.51.100.1").await);
    // What the client claims in front of what our proxy saw changes nothing.
    is_refused(&guess(4, "203.0.113.7, 198.51.100.1").await);
    guess(5, "198.51.100.2").await.is_error(401, "APP-401-AUTH");
    // A network of one household.
    for (number, from) in (6..).zip(["2001:db8::1", "2001:db8::2", "2001:db8::3"]) {
        guess(number, from).await.is_error(401, "APP-401-AUTH");
    }
    is_refused(&guess(9, "2001:db8::4").await);
}

#[tokio::test]
async fn a_refusal_can_be_read_by_a_browsers_script() {
    let app = TestApp::start_with(|config| config.rate_limits = RateLimits { per_minute: 1, ..NONE }).await;
    app.get(MEMBER, "/sessions").await;
    let request = app.request(Method::GET, "/sessions").header("X-API-Key", MEMBER);
    let refused = app.send(request.header("Origin", "https://app.example")).await;
    is_refused(&refused);
    assert_eq!(refused.headers["access-control-allow-origin"], "*");
    let exposed = refused.headers["access-control-expose-headers"].to_str().unwrap();
    assert!(exposed.contains("retry-after"), "{exposed}");
}

#[tokio::test]
async fn pages_have_a_policy_and_what_is_no_page_the_one_error_shape() {
    let app =
        TestApp::start_with(|config| config.public_url = "https://alfred.example".parse().unwrap()).await;
    let page = app.get(MEMBER, "/docs/").await;
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!page.text.contains("<script>"), "the policy would stop a script within the page");
    assert_eq!(page.headers["strict-transport-security"], "max-age=31536000");
    assert!(!app.get(MEMBER, "/openapi.json").await.headers.contains_key("content-security-policy"));
    for path in ["/docs/nowhere.js", "/docs/../nowhere", "/nowhere", "/"] {
        app.get(MEMBER, path).await.is_error(404, "APP-404-NOT-FOUND");
    }
    app.send(app.request(Method::DELETE, "/docs/")).await.is_error(405, "APP-4XX-VALIDATION");
}
