//! From a 401 to a tool call, and what codes and tokens are good for.

use http::{Method, StatusCode};
use serde_json::json;

use super::{
    Browser, CALLBACK, PASSWORD, VERIFIER, call, client, exchange, fields, parameter, query, refused,
    sent_to, token,
};
use crate::app::TestApp;

#[tokio::test]
async fn from_a_refusal_to_a_tool_call() {
    let app = TestApp::start().await;
    // Where a client is led by the 401.
    let resource =
        app.send(app.request(Method::GET, "/.well-known/oauth-protected-resource/mcp")).await.json();
    let issuer = resource["authorization_servers"][0].as_str().unwrap().to_owned();
    let metadata = app.send(app.request(Method::GET, "/.well-known/oauth-authorization-server")).await.json();
    assert_eq!(metadata["issuer"], issuer);
    assert_eq!(metadata["token_endpoint"], format!("{issuer}/oauth/token"));
    assert_eq!(metadata["code_challenge_methods_supported"], json!(["S256"]));
    for member in ["authorization_response_iss_parameter_supported", "client_id_metadata_document_supported"]
    {
        assert_eq!(metadata[member], true);
    }

    let client = client(&app).await;
    let mut browser = Browser::new(&app, "ann@example.com").await;
    let asking = query(&client, &[("resource", &app.url("/mcp")), ("scope", "read write chat admin")]);
    let page = browser.get(&format!("/oauth/authorize?{asking}")).await;
    assert!(page.status == 200 && page.text.contains("Sign in to Alfred"), "{page:?}");
    let kept = fields(&page.text).into_iter().find(|(name, _)| name == "query").unwrap().1;
    let wrong = browser.sign_in("ann@example.com", "not her password", &kept).await;
    assert!(wrong.status == 401 && wrong.text.contains("is wrong"), "{wrong:?}");
    let signed_in = browser.sign_in("ann@example.com", PASSWORD, &kept).await;
    assert_eq!(signed_in.headers["location"].to_str().unwrap(), format!("/oauth/authorize?{asking}"));
    browser.keep(&signed_in);

    let page = browser.get(&format!("/oauth/authorize?{asking}")).await;
    assert!(
        page.text.contains("Let Desk &lt;b&gt; into your workspace?")
            && page.text.contains("ann@example.com")
    );
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(
        policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
    assert!(policy.contains("form-action 'self' http://127.0.0.1:4711;"), "{policy}");

    let back = browser.decide(&asking, "allow").await;
    assert_eq!(back.as_str().split('?').next().unwrap(), CALLBACK);
    assert_eq!(parameter(&back, "state").unwrap(), "xyz & \"co\"");
    assert_eq!(parameter(&back, "iss").unwrap(), issuer);
    let code = parameter(&back, "code").unwrap();
    let answered = exchange(&app, &client, &code).await;
    assert_eq!(answered.status, StatusCode::OK, "{answered:?}");
    assert_eq!(answered.headers["cache-control"], "no-store");
    let tokens = answered.json();
    assert_eq!((&tokens["token_type"], &tokens["scope"]), (&json!("Bearer"), &json!("read write")));

    let access = tokens["access_token"].as_str().unwrap();
    let made = call(&app, access, "add_task", &json!({"title": "from the desk"})).await.json();
    assert_eq!(made["result"]["structuredContent"]["payload"]["title"], "from the desk");
    // The token is good at /mcp alone.
    for path in ["/tools", "/api/v1/auth/me", "/sessions"] {
        let request = app.request(Method::GET, path).header("Authorization", format!("Bearer {access}"));
        app.send(request).await.is_error(401, "APP-401-AUTH");
    }

    let refresh = tokens["refresh_token"].as_str().unwrap();
    let form = |client: &str| {
        let (client, refresh) = (client.to_owned(), refresh.to_owned());
        [("grant_type", "refresh_token".to_owned()), ("client_id", client), ("refresh_token", refresh)]
    };
    let ask = async |client: &str| {
        let form = form(client);
        let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
        token(&app, &form).await
    };
    refused(&ask("mcp_somebody_else").await, "invalid_grant");
    let renewed = ask(&client).await.json();
    assert_ne!(renewed["refresh_token"], refresh);
    let renewed_access = renewed["access_token"].as_str().unwrap();
    assert_eq!(call(&app, renewed_access, "list_tasks", &json!({})).await.status, 200);

    let body = format!("token={}", renewed["refresh_token"].as_str().unwrap());
    let revoke = app.request(Method::POST, "/oauth/revoke").body(body);
    let revoked = app.send(revoke.header("Content-Type", "application/x-www-form-urlencoded")).await;
    assert_eq!(revoked.status, StatusCode::OK);
    call(&app, renewed_access, "list_tasks", &json!({})).await.is_error(401, "APP-401-AUTH");

    // An access token is as good to end the sign-in with; what is no token of ours is answered the same.
    let code = browser.code(&query(&client, &[])).await;
    let tokens = exchange(&app, &client, &code).await.json();
    let access = tokens["access_token"].as_str().unwrap();
    assert_eq!(call(&app, access, "list_tasks", &json!({})).await.status, 200);
    for token in [access, "made.up.token"] {
        let body = format!("token={token}&token_type_hint=access_token");
        let revoke = app.request(Method::POST, "/oauth/revoke").body(body);
        let revoked = app.send(revoke.header("Content-Type", "application/x-www-form-urlencoded")).await;
        assert_eq!(revoked.status, StatusCode::OK);
    }
    call(&app, access, "list_tasks", &json!({})).await.is_error(401, "APP-401-AUTH");
    let form = [
        ("grant_type", "refresh_token"),
        ("client_id", client.as_str()),
        ("refresh_token", tokens["refresh_token"].as_str().unwrap()),
    ];
    refused(&token(&app, &form).await, "invalid_grant");
}

#[tokio::test]
async fn a_code_is_for_one_client_and_one_use() {
    let app = TestApp::start().await;
    let (client_id, other) = (client(&app).await, client(&app).await);
    let browser = Browser::signed_in(&app, "ann@example.com").await;
    let asking = query(&client_id, &[]);
    let good = [
        ("grant_type", "authorization_code"),
        ("client_id", client_id.as_str()),
        ("code_verifier", VERIFIER),
        ("redirect_uri", CALLBACK),
    ];
    for wrong in [
        ("client_id", other.as_str()),
        ("code_verifier", "another-verifier-that-is-long-enough-0123456789"),
        ("code_verifier", "short"),
        ("redirect_uri", "https://app.example/cb"),
    ] {
        let code = browser.code(&asking).await;
        let mut form: Vec<(&str, &str)> = good.into_iter().filter(|(name, _)| *name != wrong.0).collect();
        form.extend([wrong, ("code", code.as_str())]);
        refused(&token(&app, &form).await, "invalid_grant");
        // Nobody tries again with the same code.
        refused(&exchange(&app, &client_id, &code).await, "invalid_grant");
    }
    refused(&exchange(&app, &client_id, "no-code-of-ours").await, "invalid_grant");
    let code = browser.code(&asking).await;
    app.execute("update oauth_codes set expires_at = now() - interval '1 second'").await;
    refused(&exchange(&app, &client_id, &code).await, "invalid_grant");

    // Shown twice, a code takes back what it gave.
    let code = browser.code(&asking).await;
    let access = exchange(&app, &client_id, &code).await.json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(call(&app, &access, "list_tasks", &json!({})).await.status, 200);
    refused(&exchange(&app, &client_id, &code).await, "invalid_grant");
    call(&app, &access, "list_tasks", &json!({})).await.is_error(401, "APP-401-AUTH");

    refused(
        &token(&app, &[("grant_type", "password"), ("client_id", &client_id)]).await,
        "unsupported_grant_type",
    );
    refused(&token(&app, &[("client_id", &client_id)]).await, "invalid_request");
    let twice =
        [("grant_type", "authorization_code"), ("client_id", &client_id), ("code", "a"), ("code", "b")];
    refused(&token(&app, &twice).await, "invalid_request");
}

#[tokio::test]
async fn only_what_was_granted_is_given() {
    let app = TestApp::start().await;
    let client = client(&app).await;
    let browser = Browser::signed_in(&app, "ann@example.com").await;
    let code = browser.code(&query(&client, &[("scope", "read")])).await;
    let tokens = exchange(&app, &client, &code).await.json();
    assert_eq!(tokens["scope"], "read");
    let access = tokens["access_token"].as_str().unwrap();
    assert_eq!(call(&app, access, "list_tasks", &json!({})).await.json()["result"]["isError"], false);
    let refused = call(&app, access, "add_task", &json!({"title": "x"})).await.json();
    assert_eq!(refused["result"]["isError"], true);
    assert!(refused["result"]["content"][0]["text"].as_str().unwrap().contains("scope write"), "{refused}");

    let denied = browser.decide(&query(&client, &[]), "deny").await;
    assert_eq!(parameter(&denied, "error").unwrap(), "access_denied");
    assert!(parameter(&denied, "code").is_none());
}

#[tokio::test]
async fn who_belongs_to_several_tenants_chooses_the_programs() {
    let app = TestApp::start().await;
    let client = client(&app).await;
    let browser = Browser::signed_in(&app, "ann@example.com").await;
    app.execute(
        "with made as (
           insert into tenants (id, name) values ('0a1f0000-0000-7000-8000-00000000aaaa', 'Acme & co'),
                                                 ('0a1f0000-0000-7000-8000-00000000bbbb', 'Globex') returning id)
         insert into memberships (tenant_id, user_id, role)
         select made.id, users.id, 'member' from made, users where lower(email) = 'ann@example.com'",
    )
    .await;
    let globex = "0a1f0000-0000-7000-8000-00000000bbbb";
    let asking = query(&client, &[]);
    let page = browser.get(&format!("/oauth/authorize?{asking}")).await;
    assert!(page.text.contains("Acme &amp; co") && page.text.contains(globex), "{page:?}");
    let fields = fields(&page.text);
    let decide = async |chosen: &[(&str, &str)]| {
        let mut form: Vec<(&str, &str)> =
            fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        form.push(("decision", "allow"));
        form.extend(chosen);
        browser.post("/oauth/authorize", &form).await
    };
    // None, somebody else's, and two: nothing is granted.
    let default = shared::identity::development::TENANT.to_string();
    for wrong in [&[][..], &[("tenant", default.as_str())], &[("tenant", globex), ("tenant", globex)]] {
        assert_eq!(decide(wrong).await.status, StatusCode::BAD_REQUEST, "{wrong:?}");
    }
    let code = parameter(&sent_to(&decide(&[("tenant", globex)]).await), "code").unwrap();
    let tokens = exchange(&app, &client, &code).await.json();
    let access = tokens["access_token"].as_str().unwrap();
    // No header says where: the program's tokens do, also those that a refresh brings.
    let made = call(&app, access, "add_task", &json!({"title": "there"})).await.json();
    assert_eq!(made["result"]["structuredContent"]["payload"]["title"], "there");
    let refresh = tokens["refresh_token"].as_str().unwrap();
    let form = [("grant_type", "refresh_token"), ("client_id", client.as_str()), ("refresh_token", refresh)];
    let again = token(&app, &form).await.json();
    let listed = call(&app, again["access_token"].as_str().unwrap(), "list_tasks", &json!({})).await.json();
    assert_eq!(listed["result"]["structuredContent"]["items"][0]["payload"]["title"], "there");
    app.execute("delete from memberships where tenant_id = '0a1f0000-0000-7000-8000-00000000bbbb'").await;
    // What was chosen is no right: another process, which remembers no memberships, refuses at once.
    let beside = app.beside(|_| ()).await;
    let refused = call(&beside, again["access_token"].as_str().unwrap(), "list_tasks", &json!({})).await;
    assert_eq!(refused.status, StatusCode::NOT_FOUND, "{refused:?}");
}
