//! Queues that stand still and go on, on real workers [Q2].

use anyhow::{Context, Result, ensure};
use harness::{
    client::{Chat, Client},
    stack::Stack,
};
use secrecy::SecretString;
use serde_json::{Value, json};
use shared::{
    identity::{Role, development},
    ids::UserId,
};

use crate::run::{SOON, ensure_eq, offline, run};

/// Somebody who operates the deployment.
async fn operator(stack: &Stack) -> Result<Client> {
    let engine = stack.database.engine()?;
    let (key, user) = (format!("operator-key-{}", uuid::Uuid::new_v4().simple()), UserId::generate());
    let identity = development::Identity {
        tenant: stack.tenants[0].id,
        user,
        email: &format!("{user}@example.test"),
        role: Role::Admin,
        operator: true,
        key: &SecretString::from(key.clone()),
        running_turns: 64,
    };
    development::ensure(&engine, &identity).await?;
    engine.close().await;
    Ok(stack.client(0).with_key(&key))
}

async fn done(client: &Client, place: &str) -> Result<Value> {
    let answer = client.post(place, &json!({})).await?;
    ensure!(answer.status == 200, "{place}: {} {}", answer.status, answer.body);
    Ok(answer.json())
}

async fn read(client: &Client, place: &str) -> Result<Value> {
    let answer = client.get(place).await?;
    ensure!(answer.status == 200, "{place}: {} {}", answer.status, answer.body);
    Ok(answer.json())
}

/// Reads until it is as wanted.
async fn read_until(client: &Client, place: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        let found = read(client, place).await?;
        if wanted(&found) {
            return Ok(found);
        }
        ensure!(tokio::time::Instant::now() < deadline, "{place} stays {found:#}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_queue_takes_up_nothing_until_it_goes_on() -> Result<()> {
    run(offline().workers(2), async |stack| {
        let client = stack.client(0);
        let operator = operator(stack).await?;
        client.accept(&Chat::new("hello").wait(10)).await?;

        done(&operator, "/admin/queues/chat-turns/pause").await?;
        // Both workers hear the bell of each post, and leave it.
        let posted = client.accept(&Chat::new("hello again").wait(1)).await?;
        let place = format!("/admin/queues/chat-turns/jobs/{}", posted.job);
        let waiting = read(&operator, &place).await?;
        ensure_eq!(waiting["status"], json!("queued"), "a turn of a paused queue");
        ensure_eq!(waiting["waiting"]["reason"], json!("paused"), "why it waits");
        done(&operator, "/admin/queues/chat-turns/resume").await?;
        client.until(&posted.job, &["succeeded"], SOON).await?;

        // A queue whose tickets are its jobs: one that failed is taken up again, but not while the queue is paused.
        let schedules = "/admin/queues";
        read_until(&operator, schedules, |seen| ran(seen, "retention") && ran(seen, "tickets")).await?;
        done(&operator, "/admin/queues/maintenance/pause").await?;
        let seen = read(&operator, schedules).await?;
        let paused = task(&seen, "retention")?;
        ensure_eq!(paused["nextRun"], Value::Null, "the next run of a paused queue's schedule");
        let failed = fail_one(stack).await?;
        let job = format!("/admin/queues/maintenance/jobs/{failed}");
        ensure_eq!(
            read(&operator, &job).await?["error"]["message"],
            json!("it is only a test"),
            "the failure"
        );
        done(&operator, &format!("{job}/retry")).await?;
        client.accept(&Chat::new("time passes").wait(10)).await?;
        ensure_eq!(read(&operator, &job).await?["waiting"]["reason"], json!("paused"), "why it waits");
        done(&operator, "/admin/queues/maintenance/resume").await?;
        let ended = read_until(&operator, &job, |job| job["status"] == "succeeded").await?;
        ensure!(!ended["tries"].as_array().context("tries")?.is_empty(), "{ended:#}");
        stack.check().await
    })
    .await
}

fn task<'a>(seen: &'a Value, name: &str) -> Result<&'a Value> {
    let schedules = seen["schedules"].as_array().context("schedules")?;
    schedules.iter().find(|schedule| schedule["task"] == name).context("the schedule")
}

fn ran(seen: &Value, name: &str) -> bool {
    task(seen, name)
        .is_ok_and(|task| task["lastRun"]["finishedAt"].is_string() && task["lastRun"]["error"].is_null())
}

/// Makes a ticket that is done look as if it had failed; answers its id.
async fn fail_one(stack: &Stack) -> Result<uuid::Uuid> {
    let engine = stack.database.engine()?;
    let failed = sqlx::query_scalar(
        "update apalis.jobs set status = 'Killed', last_result = '{\"Err\": \"it is only a test\"}'
         where id = (select max(id) from apalis.jobs where job_type = 'maintenance' and status = 'Done')
         returning ulid_uuid(id)",
    )
    .fetch_one(&engine)
    .await?;
    engine.close().await;
    Ok(failed)
}
