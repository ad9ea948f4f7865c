//! Row-level security beyond the workspace: turns, approvals, sessions, usage, policies, members, keys, the audit log and queues,
//! asked for by statements that name somebody else than Postgres knows. Our own filters let the other's rows through then.

use chrono::Utc;
use secrecy::SecretString;
use serde_json::json;
use shared::{
    Code,
    agents::{
        breaker,
        contexts::{self, Change, ChangedBy},
    },
    bell::Bell,
    config::DEFAULT_TENANT,
    identity::{
        Actor, Role, Scopes,
        api_keys::{self, NewApiKey},
    },
    ids::TurnId,
    queues::{self, Action, Batch, Filter, Queues, Viewer},
    sessions::{Sessions, TokenKeys},
    tenancy::{
        self, AdminActor, Policy,
        audit::{self, Entry},
        people,
    },
    testing::{disguise, disguise_all},
    turns::{Accepted, Decision, MessageRole, NewMessage, NewTurn, OnBusy, TurnSettings, Turns},
    usage,
};

use crate::world::World;

/// Turns over this database of ours.
fn turns_over(world: &World, db: shared::db::TenantDb) -> Turns {
    let engine = world.database.engine.clone();
    let bell = Bell::start(world.database.listen(), &engine, &[]);
    let sessions = Sessions::new(db.clone(), TokenKeys::new(&["a key of a test".into()]).unwrap(), 7);
    let settings = TurnSettings {
        max_attempts: 3,
        lease: std::time::Duration::from_secs(10),
        retry_base: std::time::Duration::from_secs(1),
        approval_timeout: std::time::Duration::from_secs(60),
    };
    Turns::new(db, engine, bell, None, sessions, settings)
}

fn saying(session: Option<SecretString>) -> NewTurn {
    NewTurn {
        id: TurnId::generate(),
        messages: vec![NewMessage { role: MessageRole::User, content: "hello".to_owned() }],
        session,
        force_refresh: false,
        on_busy: OnBusy::Enqueue,
        idempotency: None,
        request_id: "r".to_owned(),
    }
}

async fn rows(world: &World) -> Vec<i64> {
    let mut counts = Vec::new();
    for table in [
        "turns",
        "turn_events",
        "items",
        "user_sessions",
        "conversations",
        "audit_log",
        "tool_policies",
        "api_keys",
        "user_contexts",
        "user_context_history",
        "authentication_events",
        "agent_notification_events",
    ] {
        let count = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("select count(*) from {table}")));
        counts.push(count.fetch_one(&world.database.admin()).await.unwrap());
    }
    counts
}

async fn is_hidden(turns: &Turns, other: &Actor, posted: &Accepted) {
    let turn = posted.turn;
    for error in [
        turns.get(other, turn).await.unwrap_err(),
        turns.cancel(other, turn, "not theirs").await.unwrap_err(),
        turns.retry(other, turn, TurnId::generate(), "r").await.unwrap_err(),
        turns.decide(other, turn, "c", Decision::Approve, None, None).await.unwrap_err(),
        turns.stream_start(other, turn).await.map(drop).unwrap_err(),
        turns.stream_beginning(other, turn).await.map(drop).unwrap_err(),
        turns.post(other, &saying(Some(posted.session_token.clone()))).await.unwrap_err(),
    ] {
        assert_eq!(error.code, Code::NotFound, "{error:?}");
    }
    assert!(turns.stream_of(other, posted.conversation, None).await.unwrap().is_none());
    assert_eq!(turns.newest_turn_no(other, posted.conversation).await.unwrap(), 0);
    // A conversation in somebody else's name.
    assert!(turns.post(other, &saying(None)).await.is_err());

    let sessions = turns.sessions();
    for error in [
        sessions.get(other, posted.session).await.unwrap_err(),
        sessions.by_token(other, &posted.session_token).await.unwrap_err(),
        sessions.of_conversation(other, posted.conversation).await.map(drop).unwrap_err(),
        sessions.set_workspace(other, posted.session, Some("w")).await.unwrap_err(),
        sessions.delete(other, posted.session).await.unwrap_err(),
    ] {
        assert_eq!(error.code, Code::NotFound, "{error:?}");
    }
    assert!(sessions.list(other, None, 10).await.unwrap().is_empty());
    assert!(sessions.create(other).await.is_err(), "a session in somebody else's name");
}

#[tokio::test]
async fn turns_and_sessions_are_hidden_by_postgres_alone() {
    let world = World::new().await;
    let real = turns_over(&world, world.db.clone());
    let posted = real.post(&world.ann, &saying(None)).await.unwrap();
    sqlx::query(
        "insert into usage_days (tenant_id, user_id, day, provider, model, calls, input_tokens, output_tokens,
                                 cache_read_tokens, cache_write_tokens, cost_micros)
         values ($1, $2, date_trunc('day', now(), 'UTC'), 'p', 'm', 1, 1, 1, 0, 0, 1)",
    )
    .bind(world.ann.tenant)
    .bind(world.ann.user)
    .execute(&world.database.admin())
    .await
    .unwrap();
    let today = Utc::now().date_naive();
    let days = async |db: &shared::db::TenantDb, actor: &Actor| {
        usage::by_day(db, actor, today - chrono::Days::new(1), today + chrono::Days::new(1)).await.unwrap()
    };
    assert_eq!(days(&world.db, &world.ann).await.len(), 1);
    let before = rows(&world).await;
    for other in [&world.bob, &world.stranger] {
        // Every filter of ours names Ann; only Postgres knows better.
        let db = disguise_all(&world.db, &world.ann);
        is_hidden(&turns_over(&world, db.clone()), other, &posted).await;
        assert!(days(&db, other).await.is_empty());
    }
    assert_eq!(rows(&world).await, before);
    assert_eq!(real.get(&world.ann, posted.turn).await.unwrap().status.as_str(), "queued");
    assert!(real.sessions().get(&world.ann, posted.session).await.is_ok());
}

#[tokio::test]
async fn what_admins_decide_is_kept_by_postgres_alone() {
    let world = World::new().await;
    let admin = AdminActor::of(world.admin.clone()).unwrap();
    let mut tx = world.begin(&world.admin).await;
    tenancy::set_policy(&mut tx, &admin, "add_task", Policy::Deny).await.unwrap();
    tenancy::set_system_prompt(&mut tx, &admin, Some("Be brief.")).await.unwrap();
    let new = || NewApiKey { name: "n".to_owned(), scopes: Scopes::ALL, expires_at: None };
    let (key, _) = api_keys::create(&mut tx, new()).await.unwrap();
    tx.commit().await.unwrap();
    let before = rows(&world).await;

    for other in [&world.bob, &world.stranger] {
        let is_stranger = other.tenant != world.admin.tenant;
        // A transaction each: one that Postgres has refused is over.
        let begin = async || disguise(world.begin(other).await, &world.admin);
        let mut tx = begin().await;
        assert_eq!(tenancy::policies(&mut tx).await.unwrap().is_empty(), is_stranger);
        assert_eq!(tenancy::name(&mut tx).await.unwrap().is_none(), is_stranger);
        let members = people::list(&mut tx, &admin, None, 100).await.unwrap();
        assert!(members.iter().all(|member| member.user == other.user), "members are shown to {other:?}");
        assert!(audit::list(&mut tx, &admin, None, 100).await.unwrap().is_empty());
        let keys = api_keys::list(&mut tx, None, 100).await.unwrap();
        assert!(keys.iter().all(|listed| listed.user == other.user), "keys are shown to {other:?}");
        assert_eq!(api_keys::revoke(&mut tx, key.id).await.unwrap_err().code, Code::NotFound);
        assert!(!tenancy::clear_policy(&mut tx, &admin, "add_task").await.unwrap());
        tx.commit().await.unwrap();
        if is_stranger {
            let mut tx = begin().await;
            assert!(tenancy::system_prompt(&mut tx).await.is_err());
            let mut tx = begin().await;
            let entry = Entry::new("member.invited", "x").with(json!({}));
            assert!(audit::record(&mut tx, &admin, entry).await.is_err());
        }
        let mut tx = begin().await;
        assert!(tenancy::set_policy(&mut tx, &admin, "add_task", Policy::Allow).await.is_err());
        let mut tx = begin().await;
        assert!(people::set_role(&mut tx, &admin, world.ann.user, Role::Admin).await.is_err());
        let mut tx = begin().await;
        assert!(people::remove(&mut tx, &admin, world.ann.user).await.is_err());
        let mut tx = begin().await;
        assert!(api_keys::create(&mut tx, new()).await.is_err(), "a key in somebody else's name");
        let mut tx = begin().await;
        let _ = tenancy::set_system_prompt(&mut tx, &admin, Some("Be rude.")).await;
    }
    assert_eq!(rows(&world).await, before);
    let mut tx = world.begin(&world.admin).await;
    assert_eq!(tenancy::policies(&mut tx).await.unwrap()["add_task"], Policy::Deny);
    assert_eq!(tenancy::system_prompt(&mut tx).await.unwrap().as_deref(), Some("Be brief."));
    assert_eq!(people::list(&mut tx, &admin, None, 100).await.unwrap().len(), 3);
    assert_eq!(
        api_keys::list(&mut tx, None, 100).await.unwrap().iter().filter(|listed| listed.id == key.id).count(),
        1
    );
}

/// A change that would be seen.
fn styled(style: &str) -> Change {
    let changes = json!({"preferences": {"trading_style": style}});
    Change::Merge(changes.as_object().unwrap().clone())
}

#[tokio::test]
async fn what_is_known_of_people_is_hidden_by_postgres_alone() {
    let world = World::new().await;
    let mut tx = world.begin(&world.ann).await;
    contexts::change(&mut tx, ChangedBy::User, styled("moderate"), None, "r").await.unwrap();
    tx.commit().await.unwrap();
    let before = rows(&world).await;
    let admin = AdminActor::of(world.admin.clone()).unwrap();
    for other in [&world.bob, &world.stranger] {
        let begin = async || disguise(world.begin(other).await, &world.ann);
        let mut tx = begin().await;
        let seen = contexts::get(&mut tx).await.unwrap();
        assert_eq!((seen.email, seen.version, seen.updated_at), (None, 1, None), "{other:?} sees Ann's");
        let of = contexts::of(&mut tx, &admin, world.ann.user, DEFAULT_TENANT).await;
        assert!(of.is_err(), "{other:?} sees Ann's");
        let mut tx = begin().await;
        let changed = contexts::change(&mut tx, ChangedBy::User, styled("aggressive"), None, "r").await;
        assert!(changed.is_err(), "{other:?} changed Ann's");
    }
    assert_eq!(rows(&world).await, before);
    // The tenant's admin reads it, and cannot write it.
    let mut tx = world.begin(&world.admin).await;
    assert_eq!(contexts::of(&mut tx, &admin, world.ann.user, DEFAULT_TENANT).await.unwrap().version, 2);
    let history = contexts::history(&mut tx, &admin, world.ann.user, DEFAULT_TENANT, None, 10).await.unwrap();
    assert_eq!(history.len(), 1);
    let mut tx = disguise(world.begin(&world.admin).await, &world.ann);
    assert!(contexts::change(&mut tx, ChangedBy::User, styled("aggressive"), None, "r").await.is_err());
    assert_eq!(rows(&world).await, before);
}

#[tokio::test]
async fn queues_and_breakers_are_kept_by_postgres_alone() {
    let world = World::new().await;
    let real = turns_over(&world, world.db.clone());
    let posted = real.post(&world.ann, &saying(None)).await.unwrap();
    sqlx::query("insert into agents (tenant_id, name, endpoint) values ($1, 'risk', 'http://127.0.0.1:9')")
        .bind(world.ann.tenant)
        .execute(&world.database.admin())
        .await
        .unwrap();
    let engine = world.database.engine.clone();
    let over = |db: &shared::db::TenantDb| {
        let bell = Bell::start(world.database.listen(), &engine, &[]);
        Queues::new(engine.clone(), db.clone(), turns_over(&world, db.clone()), bell, true)
    };
    let queue = queues::queue("chat-turns").unwrap();
    let viewer = |actor: &Actor| Viewer::Admin(AdminActor::of(actor.clone()).unwrap());
    let own = over(&world.db).jobs(&viewer(&world.admin), queue, &Filter::default(), None, 10).await.unwrap();
    assert_eq!(own.iter().map(|job| job.id).collect::<Vec<_>>(), [posted.turn.0]);

    let stranger = Actor { role: Role::Admin, ..world.stranger.clone() };
    let disguised = over(&disguise_all(&world.db, &world.admin));
    let theirs = viewer(&stranger);
    // The filter asks for the other tenant's jobs.
    let filter = Filter { tenant: Some(world.ann.tenant), ..Filter::default() };
    for filter in [&filter, &Filter::default()] {
        assert!(disguised.jobs(&theirs, queue, filter, None, 10).await.unwrap().is_empty());
        let batch = Batch { action: Action::Cancel, limit: 10, after: None, is_dry: false };
        let done = disguised.act_on_all(&theirs, queue, filter, batch, "r").await.unwrap();
        assert_eq!((done.matched, done.touched.len()), (0, 0));
    }
    for action in [Action::Retry, Action::Cancel, Action::Discard] {
        let error = disguised.act(&theirs, queue, posted.turn.0, action, "r").await.unwrap_err();
        assert_eq!(error.code, Code::NotFound);
    }
    assert_eq!(disguised.job(&theirs, queue, posted.turn.0).await.unwrap_err().code, Code::NotFound);
    let (_, lines) = disguised.figures(&theirs, Some(world.ann.tenant)).await.unwrap();
    assert!(lines.iter().all(|line| line.levels.due == 0 && line.totals.month.all() == 0), "{lines:?}");
    assert_eq!(real.get(&world.ann, posted.turn).await.unwrap().status.as_str(), "queued");

    let admin = AdminActor::of(world.admin.clone()).unwrap();
    let mut tx = disguise(world.begin(&stranger).await, &world.admin);
    let error = breaker::reset(&mut tx, &admin, &"risk".parse().unwrap()).await.unwrap_err();
    assert_eq!(error.code, Code::NotFound);
}
