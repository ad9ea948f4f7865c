//! The golden rule [S1]-[S6]: whatever the moment of a reconnect, on whichever API process, the bytes before and after
//! equal the uninterrupted stream.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use harness::{
    client::{Chat, Ending},
    load::busy_text,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::run::{SOON, ensure_eq, here, processes, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_cut_at_every_event_is_the_uninterrupted_one() -> Result<()> {
    run(processes().apis(2), async |stack| {
        let client = stack.client(0);
        let bases = stack.bases();
        let posted = client.accept(&Chat::new(&busy_text(0, 0))).await?;
        // Live: one that is never cut, one that is cut after every event, some that are cut at random.
        let mut random = StdRng::seed_from_u64(7);
        let mut readers =
            vec![client.follow(&posted.job), client.follow(&posted.job).over(&bases).cut_when(|_| true)];
        for _ in 0..6 {
            let mut own = StdRng::seed_from_u64(random.random());
            let mut order = bases.clone();
            if own.random_bool(0.5) {
                order.reverse();
            }
            readers.push(client.follow(&posted.job).over(&order).cut_when(move |_| own.random_bool(0.3)));
        }
        let seen = try_join_all(readers.into_iter().map(|reader| reader.to_done())).await?;
        let whole = seen[0].bytes();
        ensure!(seen[0].frames.len() > 25, "a short stream: {:?}", seen[0].kinds());
        for other in &seen {
            ensure!(other.bytes() == whole, "after {} connections: {:?}", other.connects, other.kinds());
        }
        // Afterwards: from every event on, by header, on both processes.
        for (position, frame) in seen[0].frames.iter().enumerate().take(seen[0].frames.len() - 1) {
            let base = &bases[position % 2];
            let rest = client.at(base).follow(&posted.job).after(&frame.id).to_done().await?;
            let expected: Vec<u8> =
                seen[0].frames[position + 1..].iter().flat_map(|frame| frame.raw.clone()).collect();
            ensure!(rest.bytes() == expected, "after {}: {:?}", frame.id, rest.kinds());
        }
        stack.check().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_job_and_the_session_stream_are_the_same_bytes() -> Result<()> {
    run(here(), async |stack| {
        let client = stack.client(0);
        let posted = client.accept(&Chat::new("[[tokens:6]][[gate:go]]")).await?;
        let job = tokio::spawn(client.follow(&posted.job).to_done());
        let session = tokio::spawn(client.follow_session(&posted.session, false).to_done());
        stack.model().gate("go").release();
        let (job, session) = (job.await??, session.await??);
        ensure!(job.bytes() == session.bytes(), "{:?} and {:?}", job.kinds(), session.kinds());
        stack.check().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_stream_that_follows_carries_turn_after_turn() -> Result<()> {
    run(processes().apis(2).workers(2), async |stack| {
        let client = stack.client(0);
        let bases = stack.bases();
        let first = client.accept(&Chat::new("one [[gate:go]]")).await?;
        let three_done = |frames: &[harness::client::Frame]| {
            frames.iter().filter(|frame| frame.event == "done").count() == 3
        };
        let whole = tokio::spawn(client.follow_session(&first.session, true).until(three_done));
        let mut random = StdRng::seed_from_u64(11);
        let cut = tokio::spawn(
            client
                .at(&bases[1])
                .follow_session(&first.session, true)
                .over(&bases)
                .cut_when(move |_| random.random_bool(0.3))
                .until(three_done),
        );
        let second = client.accept(&Chat::new("two").session(&first.session)).await?;
        stack.model().gate("go").release();
        client.until(&second.job, &["succeeded"], SOON).await?;
        client.accept(&Chat::new("three").session(&first.session)).await?;
        let (whole, cut) = (whole.await??, cut.await??);
        ensure_eq!(whole.turns().len(), 3, "turns in {:?}", whole.kinds());
        ensure!(whole.bytes() == cut.bytes(), "{:?} and {:?}", whole.kinds(), cut.kinds());
        stack.check().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answers_that_are_no_streams() -> Result<()> {
    run(here().apis(2), async |stack| {
        let client = stack.client(0);
        let posted = client.accept(&Chat::new("hello").wait(10)).await?;
        let seen = client.follow(&posted.job).to_done().await?;
        let last = seen.frames.last().unwrap().id.clone();
        let path = format!("/jobs/{}/events", posted.job);
        ensure_eq!(client.get(&format!("{path}?lastEventId={last}")).await?.status, 204, "past the end");
        let by_header = client.send(client.request("GET", &path).header("last-event-id", &last)).await?;
        ensure_eq!(by_header.status, 204, "past the end, by header");
        for wrong in ["nonsense", "1", "1.", "1.-1", "x.1", "1.1.1", "99999999999999999999.1"] {
            let answer = client.get(&format!("{path}?lastEventId={wrong}")).await?;
            ensure_eq!(answer.status, 400, "lastEventId={wrong}: {}", answer.body);
        }
        ensure_eq!(
            client.get(&format!("/jobs/{}/events", uuid::Uuid::now_v7())).await?.status,
            404,
            "unknown"
        );
        stack.check().await?;
        stack.database.age(&posted.job, 25).await?;
        // On the other process: the one that accepted the turn seconds ago does not look whether a day has passed.
        let gone = stack.client(0).at(&stack.apis[1].base).get(&path).await?;
        ensure_eq!(gone.status, 410, "a day later: {}", gone.body);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_has_its_headers_its_retry_and_its_keepalives() -> Result<()> {
    run(here().env("STREAM_KEEPALIVE_SECONDS", "1"), async |stack| {
        let client = stack.client(0);
        let posted = client.accept(&Chat::new("[[gate:go]]")).await?;
        let response = client.request("GET", &format!("/jobs/{}/events", posted.job)).send().await?;
        let header = |name: &str| response.headers()[name].to_str().unwrap_or_default().to_owned();
        ensure!(header("content-type").starts_with("text/event-stream"), "{:?}", response.headers());
        ensure_eq!(header("cache-control"), "no-cache", "Cache-Control");
        ensure_eq!(header("x-accel-buffering"), "no", "X-Accel-Buffering");
        drop(response);
        let gate = stack.model().gate("go");
        let release = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(2500)).await;
            gate.release();
        });
        let mut reader = client.follow(&posted.job);
        let ending = reader.connect_once().await?;
        release.await?;
        ensure_eq!(ending, Ending::Closed, "the end of the stream");
        ensure!(reader.comments >= 1, "no keepalive");
        ensure_eq!(reader.retries.len(), 1, "retry fields");
        ensure!((1000..=5000).contains(&reader.retries[0]), "retry: {}", reader.retries[0]);
        let seen = reader.finish();
        ensure_eq!(seen.kinds().last(), Some(&"done"), "{:?}", seen.kinds());
        stack.check().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_leaves_cancels_nothing() -> Result<()> {
    run(here(), async |stack| {
        let client = stack.client(0);
        let posted = client.accept(&Chat::new("[[gate:go]]")).await?;
        let mut reader = client.follow(&posted.job).cut_when(|_| true);
        ensure_eq!(reader.connect_once().await?, Ending::Cut, "the reader");
        let _ = reader.finish();
        stack.model().gate("go").release();
        client.until(&posted.job, &["succeeded"], SOON).await?;
        stack.check().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_arrives_when_it_is_written() -> Result<()> {
    run(here(), async |stack| {
        let client = stack.client(0);
        let posted = client.accept(&Chat::new("[[tokens:10]][[gate:go]]")).await?;
        let five =
            |frames: &[harness::client::Frame]| frames.iter().filter(|f| f.event == "token").count() == 5;
        // Half of the reply is to be seen while the model is still held.
        client.follow(&posted.job).within(Duration::from_secs(3)).until(five).await?;
        let before = Instant::now();
        stack.model().gate("go").release();
        client.follow(&posted.job).to_done().await?;
        ensure!(before.elapsed() < Duration::from_secs(2), "the rest took {:?}", before.elapsed());
        stack.check().await
    })
    .await
}
