//! The writing end.

use super::*;

#[tokio::test]
async fn ids_are_dense_and_what_is_flushed_is_in_the_table() {
    let stage = Stage::new().await;
    let (lease, log) = stage.turn().await;
    append_tokens(&log, 0, 500).await;
    assert_eq!(soon(log.flushed()).await.unwrap(), 501);
    let rows = store::log_of(&stage.admin, lease).await;
    assert_eq!(rows.iter().map(|row| row.0).collect::<Vec<_>>(), (1..=501).collect::<Vec<_>>());
    assert_eq!(rows[500].2, r#"{"text":"w499 "}"#);
    // Ids for another transaction: given back after a rollback, told of after a commit.
    let first = log.take(2).await;
    assert_eq!(first, 502);
    log.give_back(first);
    assert_eq!(log.take(1).await, 502);
    store::append_row(&stage.admin, lease, 502, EventKind::Warning).await;
    log.committed(502);
    assert_eq!(log.append(EventKind::Token, data::token("x")).await.unwrap(), 503);
    assert_eq!(soon(log.flushed()).await.unwrap(), 503);
}

#[tokio::test]
async fn a_zombie_inserts_nothing_and_is_told() {
    let stage = Stage::new().await;
    let (lease, zombie) = stage.turn().await;
    append_tokens(&zombie, 0, 3).await;
    soon(zombie.flushed()).await.unwrap();
    let taken = store::take_over(&stage.admin, lease).await;
    let heir = stage.log.open(taken, 6, 10);
    zombie.append(EventKind::Token, data::token("late")).await.unwrap();
    assert!(matches!(soon(zombie.flushed()).await, Err(Stopped::Fenced)));
    assert!(matches!(soon(zombie.stopped()).await, Stopped::Fenced));
    assert!(matches!(zombie.append(EventKind::Token, data::token("later")).await, Err(Stopped::Fenced)));
    heir.append(EventKind::Resumed, data::resumed(1, 4)).await.unwrap();
    assert_eq!(soon(heir.flushed()).await.unwrap(), 6);
    let ids: Vec<i64> = store::log_of(&stage.admin, lease).await.iter().map(|row| row.0).collect();
    assert_eq!(ids, [1, 2, 3, 4, 6]);
}

#[tokio::test]
async fn a_refused_row_stops_its_turn_only() {
    let stage = Stage::new().await;
    // No partition takes the events of this turn, which is what class 23 looks like.
    let lost = Lease::new(stage.tenant, TurnId(uuid::Uuid::max()), uuid::Uuid::new_v4());
    store::insert_turn(&stage.admin, lost).await;
    let culprit = stage.log.open(lost, 1, 0);
    let mut others = Vec::new();
    for _ in 0..12 {
        others.push(stage.turn().await);
    }
    // Holding every row makes all of them wait for one flush.
    let mut locks = Vec::new();
    for (n, (lease, log)) in others.iter().enumerate() {
        if n == 0 {
            locks.push(store::lock(&stage.admin, *lease).await);
        }
        append_tokens(log, 0, 4).await;
        if n == 6 {
            append_tokens(&culprit, 0, 2).await;
        }
    }
    for lock in locks {
        lock.commit().await.unwrap();
    }
    assert!(matches!(soon(culprit.flushed()).await, Err(Stopped::Refused(_))));
    for (lease, log) in &others {
        assert_eq!(soon(log.flushed()).await.unwrap(), 5);
        assert_eq!(store::log_of(&stage.admin, *lease).await.len(), 5);
    }
    // A NUL and a line break are made harmless at the door; what is too large is refused without ending the turn.
    let (lease, log) = &others[0];
    log.append(EventKind::Warning, "{\"code\":\"a\0b\",\n\"detail\":\"c\"}".to_owned()).await.unwrap();
    let large = log.append(EventKind::Token, data::token(&"x".repeat(MAX_DATA_BYTES))).await;
    assert!(matches!(large, Err(Stopped::Refused(_))));
    soon(log.flushed()).await.unwrap();
    let rows = store::log_of(&stage.admin, *lease).await;
    assert_eq!(rows.last().unwrap().2, "{\"code\":\"a\u{fffd}b\", \"detail\":\"c\"}");
}

#[tokio::test]
async fn a_locked_turn_waits_while_the_others_go_on() {
    let stage = Stage::new().await;
    let (locked, log) = stage.turn().await;
    let (_, other) = stage.turn().await;
    let held = store::lock(&stage.admin, locked).await;
    append_tokens(&log, 0, 2).await;
    append_tokens(&other, 0, 2).await;
    assert_eq!(soon(other.flushed()).await.unwrap(), 3);
    assert_eq!(store::log_of(&stage.admin, locked).await.len(), 1);
    append_tokens(&log, 2, 1).await;
    held.commit().await.unwrap();
    assert_eq!(soon(log.flushed()).await.unwrap(), 4);
    let rows = store::log_of(&stage.admin, locked).await;
    assert_eq!(rows.iter().map(|row| row.0).collect::<Vec<_>>(), [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_cancel_is_seen_by_bell_and_by_flush() {
    let stage = Stage::new().await;
    let (lease, log) = stage.turn().await;
    assert!(!log.is_cancelled());
    store::ask_to_cancel(&stage.admin, lease).await;
    log.append(EventKind::Token, data::token("x")).await.unwrap();
    soon(log.cancelled()).await;
    assert!(log.is_cancelled());
    let (lease, log) = stage.turn().await;
    // The bell may not listen yet; it says so when it does, and the log then looks for itself.
    store::ask_to_cancel(&stage.admin, lease).await;
    stage.bell.ring(crate::bell::Ring::Cancel(lease.turn));
    soon(log.cancelled()).await;
}

#[tokio::test]
async fn a_full_turn_waits_and_an_outage_loses_nothing() {
    let stage = Stage::new().await;
    let (lease, log) = stage.turn().await;
    append_tokens(&log, 0, 1).await;
    soon(log.flushed()).await.unwrap();
    let outage = store::refuse_connections_for(&stage.db, Duration::from_millis(600));
    let writing = async {
        // Twice what may wait: the writer is held up, not the memory.
        for n in 0..64 {
            log.append(EventKind::Token, data::token(&format!("{n:0>8000}"))).await.unwrap();
        }
        log.flushed().await.unwrap()
    };
    let (last, ()) = soon(async { tokio::join!(writing, outage) }).await;
    assert_eq!(last, 66);
    let rows = store::log_of(&stage.admin, lease).await;
    assert_eq!(rows.iter().map(|row| row.0).collect::<Vec<_>>(), (1..=66).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_attempt_never_gets_ahead_of_its_clock() {
    let stage = Stage::new().await;
    let (_, first) = stage.turn().await;
    drop(first);
    let lease = store::running_turn(&stage.admin, stage.tenant).await;
    let elapsed_ms = 1000;
    let opened = std::time::Instant::now();
    let log = stage.log.open(lease, (elapsed_ms << 12) + 1, elapsed_ms);
    let mut last = 0;
    for _ in 0..3 {
        // More ids than two milliseconds hold; rows are small, so that memory is not what holds them up.
        let first = log.take(4000).await;
        last = first + 3999;
        let now = elapsed_ms + i64::try_from(opened.elapsed().as_millis()).unwrap();
        assert!(last <= (now + 1) << 12, "{last} was given out at {now} ms");
    }
    assert!(last > elapsed_ms << 12);
}

#[tokio::test]
async fn the_end_of_the_process_ends_every_log() {
    let Stage { db, admin, log, tenant, .. } = Stage::new().await;
    let lease = store::running_turn(&admin, tenant).await;
    let turn = log.open(lease, 2, 0);
    drop(log);
    assert!(matches!(turn.append(EventKind::Token, data::token("x")).await, Err(Stopped::Closed)));
    drop(db);
}

#[tokio::test]
async fn a_new_database_gets_its_statistics_with_its_first_rows() {
    let stage = Stage::new().await;
    let _turn = stage.turn().await;
    assert!(crate::db::measure_tables(&stage.db.engine).await.unwrap() >= 2, "turns and the day's events");
    assert_eq!(crate::db::measure_tables(&stage.db.engine).await.unwrap(), 0);
}
