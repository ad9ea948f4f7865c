//! The bell over a real Postgres.

pub(crate) mod store;

use std::time::Duration;

use tokio::time::timeout;

use super::*;
use crate::testing::TestDb;

const ALL: &[Channel] = &[
    Channel::Events,
    Channel::Turns,
    Channel::Work,
    Channel::Cancel,
    Channel::Changes,
    Channel::Cache,
    Channel::Contexts,
];

async fn heard(hearing: &mut Hearing) -> Heard {
    timeout(Duration::from_secs(10), hearing.next()).await.unwrap()
}

/// A bell that is known to listen.
async fn listening(db: &TestDb, channels: &[Channel]) -> (Bell, Hearing) {
    let bell = Bell::start(db.listen(), &db.engine, channels);
    let mut hearing = bell.subscribe();
    assert!(matches!(heard(&mut hearing).await, Heard::Reconnected));
    (bell, hearing)
}

#[tokio::test]
async fn what_one_process_rings_another_hears() {
    let db = TestDb::new().await;
    let (ringing, _) = listening(&db, &[]).await;
    let (_bell, mut hearing) = listening(&db, ALL).await;
    let (tenant, turn) = (TenantId::generate(), TurnId::generate());
    // More than one payload holds, and two tails of one turn.
    let others: Vec<TurnId> = (0..300).map(|_| TurnId::generate()).collect();
    ringing.ring_all(others.iter().map(|turn| Ring::Events { tenant, turn: *turn, tail: 1 }));
    ringing.ring_all([7, 9, 8].map(|tail| Ring::Events { tenant, turn, tail }));
    ringing.ring(Ring::Turn { tenant, conversation: ConversationId(4), turn_no: 12 });
    ringing.ring(Ring::Cancel(turn));
    ringing.ring(Ring::Changes(tenant));
    let place = CachePlace { tenant, owner: turn.0, server: -5 };
    ringing.ring_all([Ring::Cache(place), Ring::Cache(CachePlace::EVERYTHING)]);
    let user = UserId(turn.0);
    ringing.ring_all([3, 5, 4].map(|version| Ring::Context { tenant, user, version }));
    ringing.ring(Ring::Work);
    let (mut tails, mut turns, mut cancels, mut changes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut work, mut outdated, mut contexts) = (false, Vec::new(), Vec::new());
    while tails.len() < 301
        || turns.is_empty()
        || cancels.is_empty()
        || changes.is_empty()
        || outdated.len() < 2
        || contexts.is_empty()
        || !work
    {
        match heard(&mut hearing).await {
            Heard::Events(list) => tails.extend(list.iter().copied()),
            Heard::Turns(list) => turns.extend(list.iter().copied()),
            Heard::Cancel(list) => cancels.extend(list.iter().copied()),
            Heard::Changes(list) => changes.extend(list.iter().copied()),
            Heard::Cache(list) => outdated.extend(list.iter().copied()),
            Heard::Work => work = true,
            Heard::Contexts(list) => contexts.extend(list.iter().copied()),
            Heard::Reconnected | Heard::Deliveries | Heard::Switches => {}
        }
    }
    assert!(tails.contains(&(tenant, turn, 9)), "the latest tail wins");
    assert!(others.iter().all(|other| tails.contains(&(tenant, *other, 1))));
    assert_eq!(turns, [(tenant, ConversationId(4), 12)]);
    assert_eq!(cancels, [turn]);
    assert_eq!(changes, [tenant]);
    assert_eq!(contexts, [(tenant, user, 5)]);
    assert!(outdated.contains(&place) && outdated.contains(&CachePlace::EVERYTHING), "{outdated:?}");
    timeout(Duration::from_secs(5), ringing.settled()).await.unwrap();
}

#[tokio::test]
async fn a_killed_listener_heals_and_says_so() {
    let db = TestDb::new().await;
    let (bell, mut hearing) = listening(&db, &[Channel::Work]).await;
    let admin = db.admin();
    let killed = store::terminate_listeners(&admin).await;
    assert_eq!(killed, 1);
    let since = std::time::Instant::now();
    assert!(matches!(heard(&mut hearing).await, Heard::Reconnected));
    assert!(since.elapsed() < Duration::from_secs(2), "healed after {:?}", since.elapsed());
    bell.ring(Ring::Work);
    assert!(matches!(heard(&mut hearing).await, Heard::Work));
}

#[tokio::test]
async fn rings_survive_the_loss_of_the_pools_connections() {
    let db = TestDb::new().await;
    let (bell, mut hearing) = listening(&db, &[Channel::Cancel]).await;
    let turn = TurnId::generate();
    // Every connection of the engine's pool is dead when the bell is rung.
    store::terminate_others(&db.admin()).await;
    bell.ring(Ring::Cancel(turn));
    loop {
        if let Heard::Cancel(turns) = heard(&mut hearing).await {
            assert_eq!(&*turns, [turn]);
            break;
        }
    }
}
