//! Tokens that were planted are looked for in everything that the stack wrote.

use anyhow::{Context, Result, ensure};
use harness::fakes::oauth::{FakeAuthorization, Mishap};

use super::{
    Browser, MARKER, alfred_of_processes, an_hour_passes, everything_stored, execute, one_text, until,
};
use crate::run::{ensure_eq, run};

#[tokio::test]
async fn no_token_is_anywhere_in_clear() -> Result<()> {
    let notion = FakeAuthorization::start().await?;
    notion.set(|knobs| knobs.secrets = true);
    run(alfred_of_processes(&notion).tenants(2).env("LOG_LEVEL", "debug,h2=info,hyper=info"), async |stack| {
        let worker = stack.start_worker(&[]).await?;
        let mut written = String::new();
        let mut browser = Browser::of(stack, 0);
        // What goes well, what is refused, what fails, and what is replayed.
        let back = browser.leave("notion").await?;
        written += &browser.get(&back).await?.is(200, "connected")?.body;
        written += &browser.get(&back).await?.body;
        notion.fail_next(Mishap::Status(400, "invalid_grant"));
        written += &browser.connect("notion").await?.body;
        notion.set(|knobs| knobs.forged_issuer = Some("https://evil.example".to_owned()));
        written += &browser.connect("notion").await?.body;
        notion.set(|knobs| knobs.forged_issuer = None);
        written += &browser.connect("notion-self-hosted").await?.body;
        for path in ["/connect", "/v1/connections", "/tools", "/metrics", "/admin/audit"] {
            written += &browser.get(path).await?.body;
        }
        // Refreshed by the worker, then refused.
        an_hour_passes(stack).await?;
        execute(stack, "delete from apalis.jobs where job_type = 'connection-refresh'").await?;
        stack.start_worker(&[]).await?;
        // Written too: what is still under way would take the hour back that passes next.
        let fresh = "select count(*)::text from connections where provider = 'notion' and expires_at > clock_timestamp()";
        until("a refresh", async || Ok(notion.refreshes() > 0 && one_text(stack, fresh).await? == "1")).await?;
        notion.grants(|grants| grants.families.iter_mut().for_each(|family| family.revoked = true));
        an_hour_passes(stack).await?;
        execute(stack, "delete from apalis.jobs where job_type = 'connection-refresh'").await?;
        stack.start_worker(&[]).await?;
        until("a refusal", async || {
            Ok(one_text(stack, "select count(*)::text from connections where status = 'invalid'").await? != "0")
        })
        .await?;
        written += &browser.get("/connect").await?.body;
        browser.connect("notion").await?.is(200, "connected")?;

        written += &stack.apis[0].real().log();
        for worker in 0..=worker + 2 {
            written += &stack.workers[worker].real().log();
        }
        ensure!(written.contains("a connection was made"), "the logs were not read");
        written += &everything_stored(stack).await?;
        for secret in [MARKER, "correct horse"] {
            if let Some(place) = written.find(secret) {
                let start = place.saturating_sub(300);
                anyhow::bail!("a secret is in clear: …{}…", &written.get(start..place + 60).unwrap_or_default());
            }
        }
        let sealed = "select (access_token_enc like '________.gAAAA%')::text from connections where provider = 'notion'";
        ensure_eq!(one_text(stack, sealed).await?, "true", "what is stored");
        // The code, the state and the verifier are not in the log either: the query is not logged.
        let query = back.split_once('?').context("a query")?.1;
        for part in query.split('&').filter(|part| !part.starts_with("iss")) {
            let value = part.split_once('=').context("a parameter")?.1;
            ensure!(!written.contains(value), "{part} is in clear");
        }
        Ok(())
    })
    .await
}
