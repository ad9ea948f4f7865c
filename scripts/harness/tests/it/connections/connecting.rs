//! From the button to a connection, and what becomes of it.

use anyhow::{Context, Result, ensure};
use harness::fakes::oauth::FakeAuthorization;
use serde_json::json;

use super::{Browser, MARKER, actor, alfred, connection_id, one_text, process};
use crate::run::{ensure_eq, run};

#[tokio::test]
async fn a_person_connects_two_workspaces_and_chooses() -> Result<()> {
    let notion = FakeAuthorization::start().await?;
    run(alfred(&notion), async |stack| {
        let mut browser = Browser::of(stack, 0);
        let page = browser.get("/connect").await?.is(200, "Connect Notion")?;
        ensure!(page.body.contains("Not connected") && !page.body.contains("<script"), "{page:?}");
        let policy = page.headers["content-security-policy"].to_str()?;
        ensure!(policy.starts_with("default-src 'none'"), "{policy}");

        let done = browser.connect("notion").await?.is(200, "Notion is connected")?;
        ensure!(done.body.contains("Acme") && !done.body.contains(MARKER), "{done:?}");
        notion.set(|knobs| knobs.workspace = ("w-2".to_owned(), "Globex <b>".to_owned()));
        browser.connect("notion").await?.is(200, "Globex &lt;b&gt;")?;

        // What was said on the way.
        let registered = notion.received("/register");
        ensure_eq!(registered.len(), 1, "registrations");
        let said: serde_json::Value = serde_json::from_str(&registered[0]["body"])?;
        ensure_eq!(said["application_type"], "web", "application_type");
        ensure_eq!(
            said["redirect_uris"],
            json!(["http://localhost:0/oauth/notion/callback"]),
            "redirect_uris"
        );
        for asked in notion.received("/authorize").iter().chain(&notion.received("/token")) {
            ensure_eq!(asked["resource"], format!("{}/mcp", notion.url), "resource");
        }

        let list = browser.connections().await?;
        ensure!(!list.to_string().contains(MARKER), "{list}");
        let server =
            list["servers"].as_array().context("servers")?.iter().find(|server| server["server"] == "notion");
        ensure_eq!(server.context("notion")?["state"], "connected", "state");
        let found = list["connections"].as_array().context("connections")?;
        ensure_eq!(found.len(), 2, "connections");
        let (acme, globex) = (&found[0], &found[1]);
        ensure!(acme["active"] == false && globex["active"] == true, "the newest is used: {list}");

        let connections = process(stack, &notion)?;
        let me = actor(stack, 0);
        let used = connections.credential(&me, "notion").await?.context("connected")?;
        ensure_eq!(used.workspace, "w-2", "the workspace in use");
        ensure_eq!(used.server_url, format!("{}/mcp", notion.url), "where it goes");
        let named = connections.credential_in(&me, "notion", Some("Acme")).await?.context("named")?;
        ensure_eq!(named.workspace, "w-1", "a named workspace");
        ensure!(
            connections.credential_in(&me, "notion", Some("nowhere")).await?.is_none(),
            "an unknown workspace"
        );

        // A session's own choice wins over the person's.
        let session = browser.post("/sessions", &json!({})).await?.is(201, "")?.json();
        let session = session["id"].as_str().context("a session")?;
        let place = format!("{}/sessions/{session}", browser.base);
        browser
            .send(browser.http.patch(&place).json(&json!({"activeNotionWorkspace": "Acme"})))
            .await?
            .is(200, "")?;
        let of_session =
            connections.credential_for(&me, "notion", Some(session.parse()?)).await?.context("connected")?;
        ensure_eq!(of_session.workspace, "w-1", "the session's workspace");
        browser
            .send(browser.http.patch(&place).json(&json!({"activeNotionWorkspace": "Gone"})))
            .await?
            .is(200, "")?;
        let of_session = connections.credential_for(&me, "notion", Some(session.parse()?)).await?;
        ensure!(of_session.is_none(), "another workspace than the session's");

        let id = acme["id"].as_str().context("id")?;
        let place = format!("{}/v1/connections/{id}", browser.base);
        let chosen =
            browser.send(browser.http.patch(&place).json(&json!({"active": true}))).await?.is(200, "")?;
        ensure_eq!(chosen.json()["active"], true, "chosen");
        ensure_eq!(
            connections.credential(&me, "notion").await?.context("connected")?.workspace,
            "w-1",
            "after choosing"
        );
        browser
            .send(browser.http.patch(&place).json(&json!({"active": false})))
            .await?
            .is(422, "APP-4XX-VALIDATION")?;

        let ended = browser.send(browser.http.delete(&place)).await?.is(200, "")?;
        ensure_eq!(ended.json(), json!({"revoked": true}), "revoked");
        ensure_eq!(
            connections.credential(&me, "notion").await?.context("the other")?.workspace,
            "w-2",
            "what is left"
        );
        browser.send(browser.http.delete(&place)).await?.is(404, "APP-404-NOT-FOUND")?;
        ensure!(
            notion.grants(|grants| grants.families[0].revoked && !grants.families[1].revoked),
            "the right one"
        );
        // The same workspace again is the same connection.
        browser.connect("notion").await?.is(200, "connected")?;
        browser.only().await?;
        ensure_eq!(
            one_text(stack, "select count(*)::text from notion_connections").await?,
            "1",
            "rows of the view"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_browser_session_connects_and_disconnects_on_the_page() -> Result<()> {
    let notion = FakeAuthorization::start().await?;
    run(alfred(&notion), async |stack| {
        let mut nobody = Browser::new(stack);
        nobody.get("/connect").await?.is(401, "Sign in to Alfred")?;
        nobody.get("/connect/notion").await?.is(401, "Sign in to Alfred")?;
        let request = nobody.http.get(format!("{}/connect", nobody.base));
        nobody.send(request).await?.is(401, "APP-401-AUTH")?;

        let mut ann = Browser::signed_in(stack, "ann@example.test").await?;
        // The page's own sign-in leads back to it.
        let mut fresh = Browser::new(stack);
        let form = [
            ("email", "ann@example.test"),
            ("password", "correct horse battery staple"),
            ("query", "/connect/notion"),
        ];
        let signed = fresh.form("/oauth/sign-in", &form).await?;
        ensure_eq!((signed.status, signed.location.as_str()), (303, "/connect/notion"), "after the sign-in");
        let evil = [
            ("email", "ann@example.test"),
            ("password", "correct horse battery staple"),
            ("query", "//evil.example"),
        ];
        let signed = fresh.form("/oauth/sign-in", &evil).await?;
        ensure!(signed.location.starts_with("/oauth/authorize?"), "sent to {}", signed.location);

        ann.connect("notion").await?.is(200, "Notion is connected")?;
        notion.set(|knobs| knobs.workspace = ("w-2".to_owned(), "Globex".to_owned()));
        ann.connect("notion").await?.is(200, "Globex")?;
        let page = ann.get("/connect").await?.is(200, "in use")?;
        let field = |name: &str| -> Result<String> {
            let start = format!("name=\"{name}\" value=\"");
            let rest = page.body.split(&start).nth(1).context("a field")?;
            Ok(rest.split('"').next().unwrap_or_default().to_owned())
        };
        let (csrf, id) = (field("csrf")?, field("connection")?);
        let fields = |csrf: &'static str| [("csrf", csrf), ("connection", "x"), ("action", "disconnect")];
        ann.form("/connect/notion", &fields("nothing")).await?.is(403, "not of this session")?;
        ann.form("/connect/notion", &[("connection", &id), ("action", "disconnect")]).await?.is(403, "")?;
        let mut bob = Browser::signed_in(stack, "bob@example.test").await?;
        let bobs = bob.get("/connect").await?.is(200, "Not connected")?;
        ensure!(!bobs.body.contains("Acme"), "somebody else's: {bobs:?}");
        ann.form("/connect/notion", &[("csrf", &csrf), ("connection", &id), ("action", "choose")])
            .await?
            .is(303, "")?;
        ann.form("/connect/notion", &[("csrf", &csrf), ("connection", &id), ("action", "disconnect")])
            .await?
            .is(303, "")?;
        let page = ann.get("/connect").await?;
        ensure!(page.body.contains("Globex") && !page.body.contains("Acme"), "{page:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_registered_integration_is_a_connection_of_its_own() -> Result<()> {
    let notion = FakeAuthorization::start().await?;
    notion.set(|knobs| {
        (knobs.expires_in, knobs.says_issuer, knobs.userinfo) = (None, false, false);
    });
    run(alfred(&notion), async |stack| {
        let mut browser = Browser::of(stack, 0);
        browser.connect("notion-self-hosted").await?.is(200, "Notion (self-hosted) is connected")?;
        let (connections, me) = (process(stack, &notion)?, actor(stack, 0));
        ensure!(
            connections.credential(&me, "notion").await?.is_none(),
            "the hosted one is not connected by it"
        );
        let first = connections.credential(&me, "notion-self-hosted").await?.context("connected")?;
        ensure_eq!((first.version, first.workspace.as_str()), (1, "w-1"), "what came back");
        // Nothing says when it ends: it is used until it is refused, then refreshed once, however many were refused.
        let refused = futures::future::join_all((0..10).map(|_| connections.refused(&me, &first))).await;
        for newer in refused {
            ensure_eq!(newer?.context("newer")?.version, 2, "a newer one");
        }
        ensure_eq!(notion.refreshes(), 1, "refreshes");
        let id = browser.only().await?;
        let ended =
            browser.send(browser.http.delete(format!("{}/v1/connections/{id}", browser.base))).await?;
        ensure_eq!(ended.json(), json!({"revoked": true}), "revoked");
        ensure_eq!(notion.received("/v1/oauth/revoke").len(), 2, "both tokens were given back");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn without_a_refresh_token_a_person_signs_in_again_at_the_end() -> Result<()> {
    let notion = FakeAuthorization::start().await?;
    notion.set(|knobs| knobs.gives_refresh = false);
    run(alfred(&notion), async |stack| {
        let mut browser = Browser::of(stack, 0);
        browser.connect("notion").await?.is(200, "connected")?;
        let (connections, me) = (process(stack, &notion)?, actor(stack, 0));
        connections.credential(&me, "notion").await?.context("good")?;
        super::an_hour_passes(stack).await?;
        let error = connections.credential(&me, "notion").await.expect_err("it has ended");
        ensure_eq!(error.code.as_str(), "OAUTH-REFRESH-FAIL", "the code");
        ensure!(
            error.details.is_some_and(|details| details["connectUrl"] == "http://localhost:0/connect/notion"),
            "the link"
        );
        browser.get("/connect").await?.is(200, "Sign in to Notion again")?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_disconnect_deletes_the_tokens_whatever_the_provider_does() -> Result<()> {
    let notion = FakeAuthorization::start().await?;
    notion.set(|knobs| knobs.revocation_is_down = true);
    run(alfred(&notion), async |stack| {
        let mut browser = Browser::of(stack, 0);
        browser.connect("notion").await?.is(200, "connected")?;
        let id = browser.only().await?;
        let ended =
            browser.send(browser.http.delete(format!("{}/v1/connections/{id}", browser.base))).await?;
        ensure_eq!((ended.status, ended.json()), (200, json!({"revoked": false})), "ended");
        ensure_eq!(one_text(stack, "select count(*)::text from connections").await?, "0", "rows");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn nobody_sees_or_uses_somebody_elses_connection() -> Result<()> {
    let notion = FakeAuthorization::start().await?;
    run(alfred(&notion).tenants(2), async |stack| {
        let mut mine = Browser::of(stack, 0);
        mine.connect("notion").await?.is(200, "connected")?;
        let id = mine.only().await?;
        // Another tenant's, and another user of the same one.
        let colleague = Browser::signed_in(stack, "colleague@example.test").await?;
        for mut other in [Browser::of(stack, 1), colleague] {
            let list = other.connections().await?;
            ensure_eq!(list["connections"], json!([]), "connections");
            let place = format!("{}/v1/connections/{id}", other.base);
            let csrf = other.cookies.get("alfred_csrf").cloned().unwrap_or_default();
            let request = other.http.delete(&place).header("X-CSRF-Token", &csrf);
            other.send(request).await?.is(404, "there is no such connection")?;
            let request =
                other.http.patch(&place).header("X-CSRF-Token", &csrf).json(&json!({"active": true}));
            other.send(request).await?.is(404, "there is no such connection")?;
        }
        let connections = process(stack, &notion)?;
        ensure!(
            connections.credential(&actor(stack, 1), "notion").await?.is_none(),
            "another tenant has a token"
        );
        let strangers = shared::identity::Actor {
            user: shared::ids::UserId::generate(),
            role: shared::identity::Role::Admin,
            ..actor(stack, 0)
        };
        ensure!(
            connections.credential(&strangers, "notion").await?.is_none(),
            "an admin has somebody's token"
        );
        ensure!(connections.choose(&strangers, connection_id(&id)?).await.is_err(), "an admin chose");
        connections.credential(&actor(stack, 0), "notion").await?.context("still mine")?;
        Ok(())
    })
    .await
}
