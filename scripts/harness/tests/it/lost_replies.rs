//! The connection to Postgres is cut after a COMMIT and before its reply, goes silent, or answers slowly.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::{
    client::Chat,
    load::{busy_text, crowd, fresh_key},
    oracle::Expectations,
    proxy::Mode,
    stack::Through,
};

use crate::run::{SOON, ensure_eq, processes, run};

#[tokio::test]
async fn of_a_post() -> Result<()> {
    run(processes().proxy(Through::Apis), async |stack| {
        let client = stack.client(0);
        for number in 0..4 {
            stack.proxy().lose_replies_to("commit", 1);
            let chat = Chat::new(&format!("number {number}")).idempotency(&fresh_key());
            let posted = client.accept_stubbornly(&chat, SOON).await?;
            client.follow(&posted.job).to_done().await?;
        }
        ensure_eq!(stack.proxy().lost(), 4, "lost replies");
        ensure_eq!(stack.database.count("turns").await?, 4, "turns");
        stack.check().await
    })
    .await
}

#[tokio::test]
async fn of_every_kind_of_write_of_a_worker() -> Result<()> {
    run(processes().proxy(Through::Workers), async |stack| {
        let client = stack.client(0);
        let bases = stack.bases();
        for statement in [
            "commit",
            "insert into turn_events",
            "set state = 'running'",
            "insert into turn_steps",
            "update turns",
        ] {
            let before = stack.proxy().lost();
            stack.proxy().lose_replies_to(statement, 2);
            crowd(std::slice::from_ref(&client), &bases, 2, 2, busy_text, Duration::from_secs(20)).await?;
            ensure!(stack.proxy().lost() > before, "no reply to {statement:?} was lost");
        }
        let expected = Expectations { takeovers_at_most: Some(0), ..Expectations::default() };
        stack.check_as(expected).await
    })
    .await
}

#[tokio::test]
async fn a_worker_that_cannot_reach_postgres_loses_its_turns_and_writes_nothing_more() -> Result<()> {
    run(processes().workers(0).proxy(Through::Workers), async |stack| {
        let cut_off = stack.start_worker(&[]).await?;
        let client = stack.client(0);
        let posted = client
            .accept(&Chat::new("[[tool:add_task {\"title\":\"one\"}]][[tokens:30]][[delay:50]]"))
            .await?;
        stack.database.until(&posted.job, SOON, |turn| turn.tokens > 3).await?;
        stack.proxy().mode(Mode::BlackHole);
        // The other one reaches it directly.
        let url = stack.database.app_url.clone();
        let engine = stack.database.engine_url.clone();
        let owner = stack.database.owner_url.clone();
        stack
            .start_worker(&[
                ("DB_URL", &url),
                ("DB_ENGINE_URL", &engine),
                ("DB_LISTEN_URL", &engine),
                ("DB_OWNER_URL", &owner),
            ])
            .await?;
        client.until(&posted.job, &["succeeded"], SOON).await?;
        stack.proxy().mode(Mode::Pass);
        ensure!(stack.workers[cut_off].real().ended().is_none(), "the worker that was cut off ended");
        for _ in 0..4 {
            client.accept(&Chat::new("on").session(&posted.session).wait(10)).await?;
        }
        client.follow(&posted.job).to_done().await?;
        stack.check_as(Expectations { takeovers_at_least: 1, ..Expectations::default() }).await
    })
    .await
}

#[tokio::test]
async fn a_slow_database_slows_and_breaks_nothing() -> Result<()> {
    run(processes().workers(2).proxy(Through::All), async |stack| {
        let client = stack.client(0);
        stack.proxy().mode(Mode::Delay(Duration::from_millis(20)));
        crowd(&[client], &stack.bases(), 3, 1, busy_text, Duration::from_secs(20)).await?;
        stack.proxy().cut_all();
        stack.proxy().mode(Mode::Pass);
        let client = stack.client(0);
        crowd(&[client], &stack.bases(), 3, 1, busy_text, Duration::from_secs(20)).await?;
        let expected = Expectations { takeovers_at_most: Some(0), ..Expectations::default() };
        stack.check_as(expected).await
    })
    .await
}
