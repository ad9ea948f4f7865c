//! One request to the provider for each refresh, whatever happens to whom.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::fakes::oauth::{FakeAuthorization, Mishap};
use secrecy::ExposeSecret as _;

use super::{
    Browser, actor, alfred, alfred_of_processes, an_hour_passes, connection_id, execute, one_text, process,
    until,
};
use crate::run::{ensure_eq, run};

const STATE: &str =
    "select status || ' ' || coalesce(status_reason, '-') || ' ' || token_version from connections";

#[tokio::test]
async fn twenty_calls_in_four_processes_make_one_refresh() -> Result<()> {
    let notion = FakeAuthorization::start().await?;
    run(alfred(&notion), async |stack| {
        Browser::of(stack, 0).connect("notion").await?.is(200, "connected")?;
        let processes: Vec<_> = (0..4).map(|_| process(stack, &notion)).collect::<Result<_>>()?;
        let me = actor(stack, 0);
        for round in 1..=3 {
            an_hour_passes(stack).await?;
            notion.fail_next(Mishap::Late(Duration::from_millis(150)));
            let calls = (0..20).map(|call| processes[call % 4].credential(&me, "notion"));
            let mut tokens = Vec::new();
            for got in futures::future::join_all(calls).await {
                tokens.push(got?.context("connected")?.token.expose_secret().to_owned());
            }
            tokens.dedup();
            ensure_eq!(tokens.len(), 1, "different tokens");
            ensure!(notion.grants(|grants| grants.of_access(&tokens[0]).is_some()), "the newest token");
            ensure_eq!(notion.refreshes(), round, "refreshes");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_refused_token_asks_the_person_and_nobody_else() -> Result<()> {
    let notion = FakeAuthorization::start().await?;
    run(alfred(&notion), async |stack| {
        let mut browser = Browser::of(stack, 0);
        browser.connect("notion").await?.is(200, "connected")?;
        let (connections, me) = (process(stack, &notion)?, actor(stack, 0));
        an_hour_passes(stack).await?;
        notion.grants(|grants| grants.families[0].revoked = true);
        for _ in 0..3 {
            let error = connections.credential(&me, "notion").await.expect_err("revoked");
            ensure_eq!(error.code.as_str(), "OAUTH-REFRESH-FAIL", "the code");
            ensure!(error.details.is_some_and(|details| details.contains_key("connectUrl")), "the link");
        }
        ensure_eq!(notion.refreshes(), 1, "a refused token is not shown again");
        ensure_eq!(one_text(stack, STATE).await?, "invalid refused 1", "the row");
        let kept = "select count(*)::text from connections where access_token_enc is not null or refresh_token_enc is not null";
        ensure_eq!(one_text(stack, kept).await?, "0", "tokens that are good for nothing");
        let list = browser.connections().await?;
        ensure_eq!(list["servers"][0]["state"], "sign_in_again", "state");
        browser.get("/connect").await?.is(200, "needs you to sign in again")?;
        browser.connect("notion").await?.is(200, "connected")?;
        ensure_eq!(connections.credential(&me, "notion").await?.context("healed")?.version, 2, "version");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn troubles_of_the_provider_pass() -> Result<()> {
    let notion = FakeAuthorization::start().await?;
    run(alfred(&notion), async |stack| {
        Browser::of(stack, 0).connect("notion").await?.is(200, "connected")?;
        let (connections, me) = (process(stack, &notion)?, actor(stack, 0));
        // About to end, but still good: it is used while no new one is to be had.
        execute(
            stack,
            "update connections set expires_at = clock_timestamp() + interval '30 seconds', refreshed_at = clock_timestamp() - interval '1 hour'",
        )
        .await?;
        notion.fail_next(Mishap::Status(503, "temporarily_unavailable"));
        ensure_eq!(connections.credential(&me, "notion").await?.context("still good")?.version, 1, "version");
        ensure_eq!(connections.credential(&me, "notion").await?.context("still good")?.version, 1, "version");
        ensure_eq!(notion.refreshes(), 1, "asked again during the pause");
        an_hour_passes(stack).await?;
        let error = connections.credential(&me, "notion").await.expect_err("the pause is not over");
        ensure!(error.details.is_some_and(|details| details["retryAfter"].as_u64().is_some_and(|wait| wait <= 2)), "when");
        for mishap in [Mishap::Status(429, "slow_down"), Mishap::Garbage, Mishap::Silent] {
            execute(stack, "update connections set retry_at = null").await?;
            notion.fail_next(mishap);
            let error = connections.credential(&me, "notion").await.expect_err("a mishap");
            ensure_eq!(error.code.as_str(), "OAUTH-REFRESH-FAIL", "the code");
        }
        ensure_eq!(one_text(stack, "select failures::text from connections").await?, "4", "failures");
        execute(stack, "update connections set retry_at = null").await?;
        ensure_eq!(connections.credential(&me, "notion").await?.context("healed")?.version, 2, "version");
        let quiet = "select (failures = 0 and sent_at is null and lease is null and last_error is null)::text from connections";
        ensure_eq!(one_text(stack, quiet).await?, "true", "nothing is left of the troubles");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_once_more() -> Result<()> {
    let notion = FakeAuthorization::start().await?;
    notion.set(|knobs| knobs.forgives = true);
    run(alfred(&notion), async |stack| {
        Browser::of(stack, 0).connect("notion").await?.is(200, "connected")?;
        let (connections, me) = (process(stack, &notion)?, actor(stack, 0));
        an_hour_passes(stack).await?;
        notion.fail_next(Mishap::Lost);
        ensure!(connections.credential(&me, "notion").await.is_err(), "the answer was lost");
        until("the former token is good once more", async || {
            Ok(matches!(connections.credential(&me, "notion").await, Ok(Some(credential)) if credential.version == 2))
        })
        .await?;
        ensure_eq!(notion.refreshes(), 2, "refreshes");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_answer_that_nobody_has_costs_a_sign_in_after_one_more_lease() -> Result<()> {
    let notion = FakeAuthorization::start().await?;
    run(alfred(&notion), async |stack| {
        Browser::of(stack, 0).connect("notion").await?.is(200, "connected")?;
        let (connections, me) = (process(stack, &notion)?, actor(stack, 0));
        an_hour_passes(stack).await?;
        notion.fail_next(Mishap::Lost);
        ensure!(connections.credential(&me, "notion").await.is_err(), "the answer was lost");
        let doubted = "select (doubted_at is not null)::text || ' ' || status from connections";
        until("the old token is refused", async || {
            connections.credential(&me, "notion").await.err();
            Ok(one_text(stack, doubted).await? == "true active")
        })
        .await?;
        until("one more lease has passed", async || {
            connections.credential(&me, "notion").await.err();
            Ok(one_text(stack, STATE).await? == "invalid answer_lost 1")
        })
        .await?;
        ensure_eq!(notion.refreshes(), 2, "refreshes");
        Ok(())
    })
    .await
}

/// A worker that dies or stands still between the provider's answer and our commit; answers its index.
async fn doomed(stack: &mut harness::stack::Stack, action: &str) -> Result<usize> {
    let variable = format!("connection_refresh_answered={action}");
    stack.start_worker(&[("ALFRED_FAILPOINT", &variable)]).await
}

#[tokio::test]
async fn a_process_that_dies_with_the_answer_is_followed_by_another() -> Result<()> {
    let notion = FakeAuthorization::start().await?;
    notion.set(|knobs| knobs.forgives = true);
    run(alfred_of_processes(&notion), async |stack| {
        Browser::of(stack, 0).connect("notion").await?.is(200, "connected")?;
        an_hour_passes(stack).await?;
        let dead = doomed(stack, "abort").await?;
        stack.workers[dead].real().wait(crate::run::SOON).await?;
        ensure_eq!(notion.refreshes(), 1, "the provider was asked");
        ensure_eq!(one_text(stack, STATE).await?, "active - 1", "nothing was written");
        let (connections, me) = (process(stack, &notion)?, actor(stack, 0));
        let healed = connections.credential(&me, "notion").await?.context("healed")?;
        ensure_eq!(healed.version, 2, "version");
        ensure!(
            notion.grants(|grants| grants.of_access(healed.token.expose_secret()).is_some()),
            "the newest token"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_process_that_stood_still_brings_its_answer_late() -> Result<()> {
    let notion = FakeAuthorization::start().await?;
    run(alfred_of_processes(&notion), async |stack| {
        Browser::of(stack, 0).connect("notion").await?.is(200, "connected")?;
        an_hour_passes(stack).await?;
        // The lease is 3 s: by then another one asks with the old token, is refused, and waits.
        doomed(stack, "pause:4500").await?;
        until("the worker has asked", async || Ok(notion.refreshes() == 1)).await?;
        let (connections, me) = (process(stack, &notion)?, actor(stack, 0));
        // The provider ends the family on reuse; what was given before is what this test is about.
        notion.set(|knobs| knobs.forgives = false);
        until("the late answer is written", async || {
            connections.credential(&me, "notion").await.err();
            Ok(one_text(stack, STATE).await? == "active - 2")
        })
        .await?;
        ensure_eq!(connections.credential(&me, "notion").await?.context("good")?.version, 2, "version");
        ensure_eq!(notion.refreshes(), 2, "the worker's, and one with the old token");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn workers_refresh_by_the_clock_and_show_what_failed() -> Result<()> {
    let notion = FakeAuthorization::start().await?;
    run(alfred(&notion).tenants(2), async |stack| {
        Browser::of(stack, 0).connect("notion").await?.is(200, "connected")?;
        Browser::of(stack, 1).connect("notion").await?.is(200, "connected")?;
        notion.grants(|grants| grants.families[1].revoked = true);
        // Within five minutes of their end. No worker ran when they became due.
        execute(
            stack,
            "update connections set expires_at = clock_timestamp() + interval '4 minutes', refreshed_at = clock_timestamp() - interval '56 minutes'",
        )
        .await?;
        for _ in 0..3 {
            stack.start_worker(&[]).await?;
        }
        let states = "select string_agg(status || ' ' || token_version, ', ' order by status, token_version) from connections";
        until("one is refreshed, the other refused", async || Ok(one_text(stack, states).await? == "active 2, invalid 1")).await?;
        ensure_eq!(notion.refreshes(), 2, "refreshes");
        let failed = "select count(*)::text from apalis.jobs where job_type = 'connection-refresh' and last_result::text like '%OAUTH-REFRESH-FAIL%'";
        until("the queue shows the failure", async || Ok(one_text(stack, failed).await? == "1")).await?;
        // A second tick may begin meanwhile; within one there is one firing.
        let ticks = "select max(fired)::text from (select count(*) fired from apalis.jobs
                     where job_type = 'connection-refresh' and convert_from(job, 'utf8') like '%\"task\"%' group by idempotency_key) f";
        ensure_eq!(one_text(stack, ticks).await?, "1", "firings of a tick");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn tokens_of_a_connection_that_was_ended_meanwhile_are_given_back() -> Result<()> {
    let notion = FakeAuthorization::start().await?;
    run(alfred(&notion), async |stack| {
        let mut browser = Browser::of(stack, 0);
        browser.connect("notion").await?.is(200, "connected")?;
        let id = connection_id(&browser.only().await?)?;
        let (connections, me) = (process(stack, &notion)?, actor(stack, 0));
        an_hour_passes(stack).await?;
        notion.fail_next(Mishap::Late(Duration::from_millis(250)));
        let (refreshing, user) = (connections.clone(), me.clone());
        let refreshing = tokio::spawn(async move { refreshing.credential(&user, "notion").await });
        until("the provider is asked", async || Ok(notion.refreshes() == 1)).await?;
        connections.disconnect(&me, id).await?;
        ensure!(refreshing.await??.is_none(), "a token of a connection that is gone");
        ensure_eq!(one_text(stack, "select count(*)::text from connections").await?, "0", "rows");
        ensure!(
            notion.grants(|grants| grants.families.iter().all(|family| family.revoked)),
            "the new tokens were given back"
        );
        Ok(())
    })
    .await
}
