//! What comes back from an authorization server, and which servers are not believed.

use anyhow::{Context, Result, ensure};
use harness::fakes::oauth::{FakeAuthorization, Mishap};
use serde_json::json;

use super::{Browser, MARKER, alfred, connected_to, execute, one_text};
use crate::run::{ensure_eq, here, run};

const UNKNOWN: &str = "Nobody is expected here with this";

#[tokio::test]
async fn only_who_left_comes_back_and_once() -> Result<()> {
    let notion = FakeAuthorization::start().await?;
    run(alfred(&notion), async |stack| {
        let mut browser = Browser::of(stack, 0);
        let back = browser.leave("notion").await?;
        // Another browser has the link, with or without a cookie of its own.
        let mut other = Browser::new(stack);
        other.get(&back).await?.is(400, UNKNOWN)?;
        let mut busy = Browser::of(stack, 0);
        busy.leave("notion").await?;
        busy.get(&back).await?.is(400, UNKNOWN)?;
        ensure_eq!(notion.received("/token").len(), 0, "codes that were redeemed for others");
        browser.get(&back.replace("/notion/", "/notion-self-hosted/")).await?.is(400, UNKNOWN)?;

        let back = browser.leave("notion").await?;
        browser.get(&back).await?.is(200, "Notion is connected")?;
        browser.get(&back).await?.is(400, UNKNOWN)?;
        ensure_eq!(notion.received("/token").len(), 1, "a state is good once");

        let late = browser.leave("notion").await?;
        execute(stack, "update oauth_flows set expires_at = clock_timestamp() - interval '1 second'").await?;
        browser.get(&late).await?.is(400, UNKNOWN)?;
        for invented in ["", "?state=x&code=y", "?code=y", "?state=00000000000000000000000000000000.x&code=y"]
        {
            browser.get(&format!("/oauth/notion/callback{invented}")).await?.is(400, UNKNOWN)?;
        }
        // Two at once: one of them gets it.
        let back = browser.leave("notion").await?;
        let (mut one, mut two) = (browser.clone(), browser.clone());
        let (one, two) = tokio::join!(one.get(&back), two.get(&back));
        let mut both = [one?.status, two?.status];
        both.sort_unstable();
        ensure_eq!(both, [200, 400], "two at once");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_flow_of_a_session_ends_in_that_session() -> Result<()> {
    let notion = FakeAuthorization::start().await?;
    run(alfred(&notion), async |stack| {
        let mut ann = Browser::signed_in(stack, "ann@example.test").await?;
        let back = ann.leave("notion").await?;
        // Somebody else signs in to the same browser before it comes back: nobody gets the other's account.
        let mut mallory = Browser::signed_in(stack, "mallory@example.test").await?;
        mallory.cookies.insert("alfred_connect".to_owned(), ann.cookies["alfred_connect"].clone());
        mallory.get(&back).await?.is(400, UNKNOWN)?;
        let mut gone = ann.clone();
        gone.cookies.retain(|name, _| name == "alfred_connect");
        let back = ann.leave("notion").await?;
        gone.cookies.insert("alfred_connect".to_owned(), ann.cookies["alfred_connect"].clone());
        gone.get(&back).await?.is(400, UNKNOWN)?;
        ensure_eq!(notion.received("/token").len(), 0, "codes that were redeemed");
        ann.connect("notion").await?.is(200, "connected")?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn answers_of_other_servers_and_refusals_are_told() -> Result<()> {
    let notion = FakeAuthorization::start().await?;
    run(alfred(&notion), async |stack| {
        let mut browser = Browser::of(stack, 0);
        notion.set(|knobs| knobs.forged_issuer = Some("https://evil.example".to_owned()));
        browser.connect("notion").await?.is(400, "does not come from where you were sent")?;
        notion.set(|knobs| knobs.forged_issuer = None);
        // It promised to say who it is.
        let back = browser.leave("notion").await?;
        let without = back.split("&iss=").next().context("a reply")?.to_owned();
        browser.get(&without).await?.is(400, "does not come from where you were sent")?;
        ensure_eq!(notion.received("/token").len(), 0, "codes that were redeemed");

        notion.set(|knobs| knobs.denies = true);
        browser.connect("notion").await?.is(403, "You did not allow it")?;
        notion.set(|knobs| knobs.denies = false);
        for mishap in [
            Mishap::Status(400, "invalid_grant"),
            Mishap::Status(500, "server_error"),
            Mishap::Garbage,
            Mishap::Silent,
        ] {
            notion.fail_next(mishap);
            let failed = browser.connect("notion").await?.is(502, "OAUTH-EXCHANGE-FAIL")?;
            ensure!(!failed.body.contains(MARKER), "{failed:?}");
        }
        ensure_eq!(one_text(stack, "select count(*)::text from connections").await?, "0", "connections");
        ensure_eq!(
            one_text(stack, "select count(*)::text from oauth_flows").await?,
            "0",
            "flows that are left"
        );
        browser.connect("notion").await?.is(200, "connected")?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn servers_that_are_not_safe_are_not_connected() -> Result<()> {
    let notion = FakeAuthorization::start().await?;
    run(alfred(&notion), async |stack| {
        let mut browser = Browser::of(stack, 0);
        notion.set(|knobs| knobs.pkce = false);
        browser.get("/connect/notion").await?.is(502, "PKCE")?;
        notion.set(|knobs| knobs.pkce = true);
        for place in [
            "http://evil.example/authorize",
            "javascript:alert(1)",
            "file:///etc/passwd",
            "https://10.0.0.1/",
        ] {
            notion.set(|knobs| knobs.authorization_endpoint = Some(place.to_owned()));
            browser.get("/connect/notion").await?.is(502, "an address that is not asked")?;
        }
        notion.set(|knobs| knobs.authorization_endpoint = None);
        notion.set(|knobs| knobs.resource = Some("https://other.example/mcp".to_owned()));
        browser.get("/connect/notion").await?.is(502, "about another resource")?;
        notion.set(|knobs| (knobs.resource, knobs.registers) = (None, false));
        browser.get("/connect/notion").await?.is(502, "takes no registrations")?;
        let refused = browser.post("/v1/connections", &json!({"server": "notion"})).await?;
        ensure_eq!(refused.json()["error"], "OAUTH-EXCHANGE-FAIL", "for programs");
        browser.post("/v1/connections", &json!({"server": "nobody"})).await?.is(404, "APP-404-NOT-FOUND")?;
        browser.get("/connect/nobody").await?.is(404, "there is no such server")?;
        notion.set(|knobs| knobs.registers = true);
        let left = browser
            .post("/v1/connections", &json!({"server": "notion"}))
            .await?
            .is(201, "authorizationUrl")?;
        let url = left.json()["authorizationUrl"].as_str().context("an address")?.to_owned();
        let back = browser.visit(&url).await?.location;
        let back = url::Url::parse(&back)?;
        let back = format!("{}?{}", back.path(), back.query().unwrap_or_default());
        browser.get(&back).await?.is(200, "connected")?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn clients_have_secrets_or_documents() -> Result<()> {
    let notion = FakeAuthorization::start().await?;
    notion.set(|knobs| knobs.secrets = true);
    run(alfred(&notion), async |stack| {
        let mut browser = Browser::of(stack, 0);
        browser.connect("notion").await?.is(200, "connected")?;
        super::an_hour_passes(stack).await?;
        let connections = super::process(stack, &notion)?;
        let again = connections.credential(&super::actor(stack, 0), "notion").await?.context("refreshed")?;
        ensure_eq!(again.version, 2, "refreshed with the secret");
        ensure_eq!(
            one_text(stack, "select auth_method from oauth_registrations").await?,
            "client_secret_basic",
            "method"
        );
        // Somebody else of the tenant uses the same registration.
        let mut colleague = Browser::signed_in(stack, "colleague@example.test").await?;
        colleague.connect("notion").await?.is(200, "connected")?;
        ensure_eq!(notion.received("/register").len(), 1, "registrations");
        colleague.get("/.well-known/oauth-client/notion").await?.is(404, "APP-404-NOT-FOUND")?;
        Ok(())
    })
    .await?;
    notion.set(|knobs| (knobs.secrets, knobs.documents) = (false, true));
    let builder = connected_to(here().workers(0), &notion).env("PUBLIC_URL", "https://alfred.test");
    run(builder, async |stack| {
        let mut browser = Browser::of(stack, 0);
        notion.set(|knobs| {
            knobs.documents_at = Some(("https://alfred.test".to_owned(), stack.apis[0].base.clone()))
        });
        let document = browser.get("/.well-known/oauth-client/notion").await?.is(200, "")?.json();
        ensure_eq!(
            document["client_id"],
            "https://alfred.test/.well-known/oauth-client/notion",
            "its own address"
        );
        let left = browser.get("/connect/notion").await?;
        let cookie = left.headers["set-cookie"].to_str()?;
        ensure!(
            cookie.starts_with("__Host-alfred_connect=") && cookie.contains("; HttpOnly; Secure"),
            "{cookie}"
        );
        browser.connect("notion").await?.is(200, "connected")?;
        ensure_eq!(notion.received("/register").len(), 1, "registrations");
        browser.get("/.well-known/oauth-client/No%20name").await?.is(404, "")?;
        Ok(())
    })
    .await
}
