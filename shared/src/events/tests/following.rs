//! The reading end.

use rand::RngExt as _;

use super::*;
use crate::bell;

#[tokio::test]
async fn a_follower_gets_everything_in_order_early_or_late() {
    let stage = Stage::new().await;
    let (lease, log) = stage.turn().await;
    let early = tokio::spawn(transcript(stage.follow(lease, 0)));
    append_tokens(&log, 0, 1200).await;
    finish(&log).await;
    let uninterrupted = soon(early).await.unwrap();
    let expected: Vec<u8> = store::log_of(&stage.admin, lease)
        .await
        .iter()
        .flat_map(|(seq, kind, data)| format!("id: 1.{seq}\nevent: {kind}\ndata: {data}\n\n").into_bytes())
        .collect();
    assert_eq!(String::from_utf8(uninterrupted).unwrap(), String::from_utf8(expected.clone()).unwrap());
    assert_eq!(transcript(stage.follow(lease, 0)).await, expected, "a follower after the end");
    assert!(soon(stage.follow(lease, 1202).next()).await.is_empty(), "resuming at the end");
    assert!(soon(stage.follow(lease, 9999).next()).await.is_empty(), "resuming past the end");
}

/// The golden rule: cut anywhere and as often as you like, the bytes are those of the uninterrupted stream.
#[tokio::test]
async fn cut_and_resumed_anywhere_the_bytes_are_the_same() {
    let stage = Stage::new().await;
    let (lease, log) = stage.turn().await;
    let whole = tokio::spawn(transcript(stage.follow(lease, 0)));
    let cutters: Vec<_> = (0..20)
        .map(|_| {
            let hub = stage.hub.clone();
            tokio::spawn(async move {
                let (mut bytes, mut cursor) = (Vec::new(), 0);
                loop {
                    let mut follower = hub.follow(lease.tenant, lease.turn, cursor);
                    let lives = rand::rng().random_range(1..8);
                    for _ in 0..lives {
                        let events = follower.next().await;
                        if events.is_empty() {
                            return bytes;
                        }
                        // What was answered but not sent is lost with the connection.
                        let sent = rand::rng().random_range(0..=events.len());
                        for event in &events[..sent] {
                            bytes.extend_from_slice(&event.frame(1));
                            cursor = event.seq;
                        }
                        if sent < events.len() {
                            break;
                        }
                    }
                }
            })
        })
        .collect();
    let writing = async {
        for n in 0..150 {
            append_tokens(&log, n * 4, rand::rng().random_range(1..12)).await;
            if n % 3 == 0 {
                log.flushed().await.unwrap();
            }
            if n == 70 {
                assert_eq!(bell::tests::store::terminate_listeners(&stage.admin).await, 1);
            }
        }
        finish(&log).await;
    };
    soon(writing).await;
    let whole = String::from_utf8(soon(whole).await.unwrap()).unwrap();
    for cutter in cutters {
        assert_eq!(String::from_utf8(soon(cutter).await.unwrap()).unwrap(), whole);
    }
}

#[tokio::test]
async fn ids_jump_onto_resumed_and_a_late_row_is_not_passed_over() {
    let stage = Stage::new().await;
    let lease = store::running_turn(&stage.admin, stage.tenant).await;
    let mut follower = stage.follow(lease, 0);
    assert_eq!(soon(follower.next()).await[0].seq, 1);
    let ring = |tail| stage.bell.ring(bell::Ring::Events { tenant: lease.tenant, turn: lease.turn, tail });
    // 3 is seen before 2: it waits for it.
    store::append_row(&stage.admin, lease, 3, EventKind::Token).await;
    ring(3);
    let early = timeout(Duration::from_millis(150), follower.next()).await;
    assert!(early.is_err(), "given out of order: {early:?}");
    store::append_row(&stage.admin, lease, 2, EventKind::Token).await;
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.extend(soon(follower.next()).await.iter().map(|event| event.seq));
    }
    assert_eq!(seen, [2, 3]);
    // A jump onto `resumed` is at once; over an id that never comes, the log goes on after a while.
    store::append_row(&stage.admin, lease, 9000, EventKind::Resumed).await;
    ring(9000);
    assert_eq!(soon(follower.next()).await[0].seq, 9000);
    store::append_row(&stage.admin, lease, 9002, EventKind::Done).await;
    ring(9002);
    assert_eq!(soon(follower.next()).await[0].seq, 9002);
    assert!(soon(follower.next()).await.is_empty());
    // The same from the table, across the jump.
    let ids = |events: Vec<std::sync::Arc<Event>>| events.iter().map(|event| event.seq).collect::<Vec<_>>();
    assert_eq!(ids(soon(stage.follow(lease, 2).next()).await), [3, 9000, 9002]);
    assert_eq!(ids(soon(stage.follow(lease, 9000).next()).await), [9002]);
}

#[tokio::test]
async fn a_slow_reader_falls_behind_the_tail_and_loses_nothing() {
    let stage = Stage::new().await;
    let (lease, log) = stage.turn().await;
    let mut slow = stage.follow(lease, 0);
    let first = soon(slow.next()).await;
    assert_eq!(first.last().unwrap().seq, 1);
    let mut quick = stage.follow(lease, 0);
    // About 1 MB: four times what the tail holds.
    for n in 0..1000 {
        log.append(EventKind::Token, data::token(&format!("{n:0>1000}"))).await.unwrap();
    }
    finish(&log).await;
    while soon(quick.next()).await.last().is_some() {}
    assert!(stage.hub.tail_bytes() <= 256 * 1024, "the tail is bounded");
    let (mut next, mut largest) = (2, 0);
    loop {
        let events = soon(slow.next()).await;
        if events.is_empty() {
            break;
        }
        largest = largest.max(events.len());
        for event in &events {
            assert_eq!(event.seq, next);
            next += 1;
        }
    }
    assert_eq!(next, 1003);
    assert!(largest <= 512, "{largest} events at once");
    drop((slow, quick));
    assert_eq!(stage.hub.tail_bytes(), 0, "nothing is kept for nobody");
}

#[tokio::test]
async fn a_thousand_followers_cost_one_read() {
    let stage = Stage::new().await;
    let (lease, log) = stage.turn().await;
    append_tokens(&log, 0, 100).await;
    soon(log.flushed()).await.unwrap();
    let followers: Vec<_> = (0..1000).map(|_| tokio::spawn(transcript(stage.follow(lease, 0)))).collect();
    finish(&log).await;
    let mut bytes = Vec::new();
    for follower in followers {
        let transcript = soon(follower).await.unwrap();
        if bytes.is_empty() {
            bytes = transcript;
        } else {
            assert_eq!(bytes, transcript);
        }
    }
    // One for the first look, one for the bell of `done`, and a few by chance; not a thousand.
    let looks = stage.hub.reads();
    assert!(looks <= 10, "{looks} reads for a thousand followers");
}

#[tokio::test]
async fn a_herd_that_is_behind_shares_its_reads() {
    let stage = Stage::new().await;
    let (lease, log) = stage.turn().await;
    for n in 0..1000 {
        log.append(EventKind::Token, data::token(&format!("{n:0>1000}"))).await.unwrap();
    }
    finish(&log).await;
    // The first follower begins at the end, so all others are behind the tail.
    let mut last = stage.follow(lease, 1000);
    soon(last.next()).await;
    let before = stage.hub.reads();
    let herd: Vec<_> = (0..200).map(|n| tokio::spawn(transcript(stage.follow(lease, n % 7)))).collect();
    for (n, follower) in herd.into_iter().enumerate() {
        let transcript = soon(follower).await.unwrap();
        assert!(transcript.starts_with(format!("id: 1.{}\n", n % 7 + 1).as_bytes()));
    }
    let looks = stage.hub.reads() - before;
    assert!(looks < 100, "{looks} reads for 200 followers of four chunks");
}

#[tokio::test]
async fn a_lost_bell_costs_a_delay_only() {
    let stage = Stage::new().await;
    let lease = store::running_turn(&stage.admin, stage.tenant).await;
    let mut follower = stage.follow(lease, 0);
    soon(follower.next()).await;
    store::append_row(&stage.admin, lease, 2, EventKind::Token).await;
    // Nobody rings.
    let found =
        timeout(Duration::from_secs(12), follower.next()).await.expect("the slow timer should find it");
    assert_eq!(found[0].seq, 2);
}

#[tokio::test]
async fn an_outage_is_trouble_and_then_a_delay() {
    let stage = Stage::new().await;
    let (lease, log) = stage.turn().await;
    let mut follower = stage.follow(lease, 0);
    soon(follower.next()).await;
    assert!(stage.hub.trouble_since().is_none());
    let outage = store::refuse_connections_for(&stage.db, Duration::from_millis(800));
    let during = async {
        // Another turn makes the hub look.
        let mut other = stage.follow(lease, 0);
        let _ = other.next().await;
        let blocked = stage.hub.follow(lease.tenant, TurnId::generate(), 0);
        while stage.hub.trouble_since().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(blocked);
    };
    soon(async { tokio::join!(outage, during) }).await;
    append_tokens(&log, 0, 1).await;
    soon(log.flushed()).await.unwrap();
    assert_eq!(soon(follower.next()).await[0].seq, 2);
    assert!(stage.hub.trouble_since().is_none());
}

#[tokio::test]
async fn a_conversations_next_turn_is_heard_of() {
    let stage = Stage::new().await;
    let conversation = crate::ids::ConversationId(7);
    let mut posted = stage.hub.turn_posted(stage.tenant, conversation);
    assert_eq!(posted.latest(), 0);
    // Rung again and again, as the bell may not listen yet; the latest number wins.
    let ringing = async {
        loop {
            for turn_no in [3, 2] {
                stage.bell.ring(bell::Ring::Turn { tenant: stage.tenant, conversation, turn_no });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let heard = tokio::select! { heard = soon(posted.after(0)) => heard, () = ringing => 0 };
    assert_eq!(heard, 3);
    assert_eq!(posted.latest(), 3);
    let _also = stage.hub.turn_posted(stage.tenant, conversation);
    drop(posted);
}
