//! Events about users in a Redis stream [A6]: each once, in order, and nobody waits for a Redis that is in trouble.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Result, ensure};
use harness::{
    client::Client,
    redis_server::RedisServer,
    stack::{Builder, Stack},
};
use serde_json::json;
use shared::redis_stream::STREAM;
use tokio::time::Instant;

use crate::run::{SOON, ensure_eq, here, run};

const PASSWORD: &str = "a long enough password";
/// What a sign-in may take although Redis does not answer: less than Redis is given.
const AT_ONCE: Duration = Duration::from_millis(1500);

fn streaming(builder: Builder, redis: &RedisServer) -> Builder {
    builder
        .env("REDIS_STREAMS_ENABLED", "true")
        .env("REDIS_URL", &redis.url())
        .env("REDIS_CONSUMER_GROUP", "readers")
        .env("PASSWORD_HASH_MEMORY_KIB", "64")
        .env("PASSWORD_HASH_PASSES", "1")
}

/// None, with a line that says so, where Redis is not installed; CI installs it.
#[expect(clippy::print_stderr, reason = "a test that is left out says so")]
async fn redis() -> Result<Option<RedisServer>> {
    let redis = RedisServer::start().await?;
    if redis.is_none() {
        ensure!(std::env::var_os("ALFRED_CI").is_none(), "redis-server is not installed");
        eprintln!("left out: redis-server is not installed");
    }
    Ok(redis)
}

async fn register(client: &Client, name: &str) -> Result<()> {
    let body = json!({"email": format!("{name}@example.test"), "password": PASSWORD});
    let made = client.post("/api/v1/auth/register", &body).await?;
    ensure!(made.status == 202, "{} {}", made.status, made.body);
    Ok(())
}

/// Signs in; answers the person's id.
async fn sign_in(client: &Client, name: &str) -> Result<String> {
    let body = json!({"email": format!("{name}@example.test"), "password": PASSWORD});
    let begun = Instant::now();
    let answer = client.post("/api/v1/auth/login", &body).await?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.body);
    ensure!(begun.elapsed() < AT_ONCE, "a sign-in took {:?}", begun.elapsed());
    Ok(answer.json()["user"]["id"].as_str().unwrap_or_default().to_owned())
}

/// Waits until the stream tells of so many different events; answers whom they are about, in order.
async fn until(redis: &RedisServer, count: usize) -> Result<Vec<String>> {
    let deadline = Instant::now() + SOON * 2;
    loop {
        let entries = redis.entries(STREAM).await?;
        let ids: BTreeSet<&String> = entries.iter().filter_map(|entry| entry.get("event_id")).collect();
        if ids.len() >= count {
            ensure_eq!(ids.len(), entries.len(), "events that are there twice");
            return Ok(entries.iter().filter_map(|entry| entry.get("user_id").cloned()).collect());
        }
        ensure!(Instant::now() < deadline, "{count} events were expected: {entries:#?}");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

async fn sign_in_many(stack: &Stack, names: std::ops::Range<usize>) -> Result<Vec<String>> {
    let mut users = Vec::new();
    for number in names {
        users.push(sign_in(&stack.client(0), &format!("user{number}")).await?);
    }
    Ok(users)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_is_in_the_stream_once_whatever_becomes_of_redis() -> Result<()> {
    let Some(mut redis) = redis().await? else { return Ok(()) };
    run(streaming(here(), &redis), async |stack| {
        for number in 0..3 {
            register(&stack.client(0), &format!("user{number}")).await?;
        }
        let first = sign_in_many(stack, 0..3).await?;
        ensure_eq!(until(&redis, 3).await?, first, "who signed in, in order");
        let entries = redis.entries(STREAM).await?;
        ensure_eq!(entries[0]["event_type"], "user_login", "{entries:?}");
        ensure!(!format!("{entries:?}").contains("example.test"), "an address is in the stream: {entries:?}");
        // Its readers have a group.
        let mut connection = redis.connect().await?;
        let groups: String = redis::cmd("XINFO")
            .arg("GROUPS")
            .arg(STREAM)
            .query_async(&mut connection)
            .await
            .map(|groups: redis::Value| format!("{groups:?}"))?;
        ensure!(groups.contains("readers"), "{groups}");

        // Two workers fill one stream.
        stack
            .start_worker(&[
                ("REDIS_URL", &redis.url()),
                ("REDIS_STREAMS_ENABLED", "true"),
                ("REDIS_CONSUMER_GROUP", "readers"),
            ])
            .await?;
        let second = sign_in_many(stack, 0..3).await?;
        ensure_eq!(until(&redis, 6).await?[3..], second, "with two workers");

        // Dead: what it held is gone, what comes meanwhile is not.
        redis.kill();
        let third = sign_in_many(stack, 0..3).await?;
        redis.restart().await?;
        ensure_eq!(until(&redis, 3).await?, third, "after Redis was down");

        // Silent.
        redis.pause(true)?;
        let fourth = sign_in_many(stack, 0..3).await?;
        redis.pause(false)?;
        // What was sent before the pause may be taken twice then: the event's id tells.
        let deadline = Instant::now() + SOON * 2;
        loop {
            let entries = redis.entries(STREAM).await?;
            let users: Vec<&String> = entries.iter().filter_map(|entry| entry.get("user_id")).collect();
            if fourth.iter().all(|user| users.iter().skip(3).any(|one| *one == user)) {
                break;
            }
            ensure!(Instant::now() < deadline, "after Redis was silent: {entries:#?}");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_full_costs_nothing_and_gets_all_of_it_later() -> Result<()> {
    let Some(redis) = redis().await? else { return Ok(()) };
    run(streaming(here(), &redis), async |stack| {
        let limit = async |bytes: &str| -> Result<()> {
            let mut connection = redis.connect().await?;
            let () = redis::cmd("CONFIG")
                .arg("SET")
                .arg("maxmemory")
                .arg(bytes)
                .query_async(&mut connection)
                .await?;
            Ok(())
        };
        register(&stack.client(0), "user0").await?;
        let mut users = sign_in_many(stack, 0..1).await?;
        until(&redis, 1).await?;
        limit("1").await?;
        users.extend(sign_in_many(stack, 0..1).await?);
        users.extend(sign_in_many(stack, 0..1).await?);
        ensure_eq!(redis.entries(STREAM).await?.len(), 1, "a full Redis takes nothing");
        limit("0").await?;
        ensure_eq!(until(&redis, 3).await?, users, "all of it");
        Ok(())
    })
    .await
}
