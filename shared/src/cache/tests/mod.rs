//! One suite over both backends, and what only several processes over one Postgres can show.

#[path = "store.rs"]
mod rows;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use serde_json::json;
use tokio::{sync::Notify, time::timeout};

use super::*;
use crate::{
    bell::Channel,
    ids::{TenantId, UserId},
    testing::{TestDb, disguise},
};

const SOON: Duration = Duration::from_secs(15);

fn settings(backend: Backend) -> CacheSettings {
    let hour = Duration::from_secs(3600);
    let lifetimes = Lifetimes { default: hour, notion_page: hour * 24, notion_search: hour };
    CacheSettings { backend, lifetimes, memory_bytes: 1 << 20 }
}

/// A process with a cache.
struct Process {
    cache: ToolCache,
    stop: CancellationToken,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn process(db: &TestDb, settings: CacheSettings) -> Process {
    let bell = Bell::start(db.listen(), &db.engine, &[Channel::Cache]);
    let mut hearing = bell.subscribe();
    let stop = CancellationToken::new();
    let cache = ToolCache::start(settings, db.tenants(), db.engine.clone(), bell, stop.clone());
    timeout(SOON, hearing.next()).await.unwrap();
    Process { cache, stop }
}

/// A tool that counts its calls and says their number, or what it is told to.
#[derive(Clone, Default)]
struct Tool {
    calls: Arc<AtomicUsize>,
    says: Option<ToolOutput>,
    /// Each call waits here, after it has told that it was made.
    gate: Option<(Arc<Notify>, Arc<Notify>)>,
}

impl Tool {
    fn saying(output: ToolOutput) -> Self {
        Self { says: Some(output), ..Self::default() }
    }

    fn gated() -> (Self, Arc<Notify>, Arc<Notify>) {
        let (called, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        (Self { gate: Some((called.clone(), go.clone())), ..Self::default() }, called, go)
    }

    fn calls(&self) -> usize {
        self.calls.load(SeqCst)
    }

    fn fetch(&self) -> impl Fn() -> BoxFuture<'static, Result<ToolOutput>> + Send + Sync + use<> {
        let tool = self.clone();
        move || {
            let tool = tool.clone();
            Box::pin(async move {
                let number = tool.calls.fetch_add(1, SeqCst) + 1;
                if let Some((called, go)) = &tool.gate {
                    called.notify_one();
                    go.notified().await;
                }
                Ok(tool
                    .says
                    .clone()
                    .unwrap_or(ToolOutput { content: format!("answer {number}"), ..Default::default() }))
            })
        }
    }
}

fn someone() -> Actor {
    Actor::of_turn(TenantId::generate(), UserId::generate())
}

struct Asking<'a> {
    scope: Scope,
    arguments: &'a Value,
    rules: &'a CacheRules,
    force_refresh: bool,
}

static NO_ARGUMENTS: Value = Value::Null;
static NO_RULES: CacheRules =
    CacheRules { scope: None, default_ttl_seconds: None, tools: std::collections::BTreeMap::new() };

impl Default for Asking<'_> {
    fn default() -> Self {
        Self { scope: Scope::User, arguments: &NO_ARGUMENTS, rules: &NO_RULES, force_refresh: false }
    }
}

async fn ask(process: &Process, actor: &Actor, tool: &Tool, asking: Asking<'_>) -> (String, bool) {
    let read = Read {
        server: "docs",
        tool: "docs.read",
        version: "v1",
        arguments: asking.arguments,
        scope: asking.scope,
        rules: asking.rules,
        force_refresh: asking.force_refresh,
        request_id: "r",
    };
    let fetch = tool.fetch();
    let output = timeout(SOON, process.cache.read(actor, &read, &fetch)).await.unwrap().unwrap();
    (output.content, output.cache.is_some_and(|facts| facts.hit))
}

async fn plainly(process: &Process, actor: &Actor, tool: &Tool) -> (String, bool) {
    ask(process, actor, tool, Asking::default()).await
}

/// What holds for every backend, within one process.
async fn conforms(backend: Backend) {
    let db = TestDb::new().await;
    let process = process(&db, settings(backend)).await;
    let (ada, bob) = (someone(), someone());
    let colleague = Actor { user: UserId::generate(), ..ada.clone() };

    // A repeat is a hit, whatever the spelling of the arguments; another argument is not.
    let tool = Tool::default();
    let (one, same, other) = (json!({"a": 1, "b": [1]}), json!({"b": [1.0], "a": 1}), json!({"a": 2}));
    fn with(arguments: &Value) -> Asking<'_> {
        Asking { arguments, ..Asking::default() }
    }
    assert_eq!(ask(&process, &ada, &tool, with(&one)).await, ("answer 1".into(), false));
    assert_eq!(ask(&process, &ada, &tool, with(&same)).await, ("answer 1".into(), true));
    assert_eq!(ask(&process, &ada, &tool, with(&other)).await, ("answer 2".into(), false));

    // Nobody is given another's, in their own tenant or another.
    let tool = Tool::default();
    assert_eq!(plainly(&process, &ada, &tool).await.0, "answer 1");
    assert_eq!(plainly(&process, &colleague, &tool).await, ("answer 2".into(), false));
    assert_eq!(plainly(&process, &bob, &tool).await, ("answer 3".into(), false));
    assert_eq!(plainly(&process, &ada, &tool).await, ("answer 1".into(), true));

    // What is shared by the tenant, or by all, is shared so far and no further.
    for (scope, colleagues, others) in [(Scope::Tenant, true, false), (Scope::Global, true, true)] {
        let tool = Tool::default();
        let shared = || Asking { scope, ..Asking::default() };
        assert!(!ask(&process, &ada, &tool, shared()).await.1);
        assert_eq!(ask(&process, &colleague, &tool, shared()).await.1, colleagues, "{scope:?}");
        assert_eq!(ask(&process, &bob, &tool, shared()).await.1, others, "{scope:?}");
    }

    // Errors, failures told as results and empty answers are not kept; neither is what a definition says not to keep.
    let text = |content: &str| ToolOutput { content: content.into(), ..ToolOutput::default() };
    let arguments = json!({"never": "kept"});
    for says in [
        ToolOutput::error("no"),
        text("{\"results\":[]}"),
        text("{\"object\":\"error\",\"status\":404}"),
        text(""),
    ] {
        let tool = Tool::saying(says);
        for _ in 0..2 {
            assert!(!ask(&process, &ada, &tool, with(&arguments)).await.1);
        }
        assert_eq!(tool.calls(), 2, "{:?}", tool.says);
    }
    let never: CacheRules = serde_json::from_value(json!({"tools": {"read": 0}})).unwrap();
    let tool = Tool::default();
    for _ in 0..2 {
        let unkept = Asking { rules: &never, arguments: &arguments, ..Asking::default() };
        assert!(!ask(&process, &ada, &tool, unkept).await.1);
    }

    // forceRefresh passes by what is kept, and keeps what it gets.
    let (tool, arguments) = (Tool::default(), json!({"fresh": true}));
    assert_eq!(ask(&process, &ada, &tool, with(&arguments)).await.0, "answer 1");
    let forced = Asking { force_refresh: true, arguments: &arguments, ..Asking::default() };
    assert_eq!(ask(&process, &ada, &tool, forced).await, ("answer 2".into(), false));
    assert_eq!(ask(&process, &ada, &tool, with(&arguments)).await, ("answer 2".into(), true));

    // A write outdates what its owner had read of that server, and nobody else's.
    let tool = Tool::default();
    plainly(&process, &bob, &tool).await;
    process.cache.write(&ada, "elsewhere", Scope::User, async { Ok(()) }).await.unwrap();
    assert!(plainly(&process, &ada, &tool).await.1, "another server's");
    process.cache.write(&ada, "docs", Scope::User, async { Ok(()) }).await.unwrap();
    assert!(!plainly(&process, &ada, &tool).await.1);
    assert!(plainly(&process, &bob, &tool).await.1 && plainly(&process, &colleague, &tool).await.1);

    // A read that began before a write leaves nothing, and whoever asks after the write does not wait for it.
    let (tool, called, go) = Tool::gated();
    let arguments = json!({"slow": 1});
    let early = ask(&process, &ada, &tool, with(&arguments));
    let write = async {
        called.notified().await;
        process.cache.write(&ada, "docs", Scope::User, async { Ok(()) }).await.unwrap();
        let after = Tool::default();
        let late = ask(&process, &ada, &after, with(&arguments)).await;
        go.notify_one();
        (late, after.calls())
    };
    let (early, (late, calls)) = tokio::join!(early, write);
    assert_eq!((early.0.as_str(), late.0.as_str(), calls), ("answer 1", "answer 1", 1));
    let (content, _) = ask(&process, &ada, &Tool::saying(text("later")), with(&arguments)).await;
    assert!(content == "answer 1" || content == "later");

    // Many who ask at once make one call, and an answer that nobody keeps is shared as well.
    for says in [None, Some(ToolOutput::error("down"))] {
        let (gated, called, go) = Tool::gated();
        let tool = Tool { says: says.clone(), ..gated };
        let arguments = json!({"many": says.is_some()});
        let asking: Vec<_> = (0..64).map(|_| ask(&process, &ada, &tool, with(&arguments))).collect();
        let opening = async {
            called.notified().await;
            go.notify_one();
        };
        let (answers, ()) = tokio::join!(futures::future::join_all(asking), opening);
        assert_eq!(tool.calls(), 1);
        assert!(answers.iter().all(|(content, _)| *content == answers[0].0));
    }

    // A leader that goes away leaves its place to one who waits.
    let (tool, called, go) = Tool::gated();
    let arguments = json!({"cancelled": 1});
    let mut leaving = Box::pin(ask(&process, &ada, &tool, with(&arguments)));
    tokio::select! {
        _ = &mut leaving => panic!("the gate is closed"),
        () = called.notified() => {}
    }
    let waiting = ask(&process, &ada, &tool, with(&arguments));
    let going = async {
        drop(leaving);
        called.notified().await;
        go.notify_one();
    };
    let (answered, ()) = tokio::join!(waiting, going);
    assert_eq!(answered, ("answer 2".into(), false));
}

#[tokio::test]
async fn memory_conforms() {
    conforms(Backend::Memory).await;
}

#[tokio::test]
async fn postgres_conforms() {
    conforms(Backend::Postgres).await;
}

/// A backend's own memory does not hide what Postgres does: the same with a tier that holds nothing.
#[tokio::test]
async fn postgres_alone_gives_what_it_was_given() {
    let db = TestDb::new().await;
    let process = process(&db, CacheSettings { memory_bytes: 0, ..settings(Backend::Postgres) }).await;
    let (ada, tool) = (someone(), Tool::default());
    assert_eq!(plainly(&process, &ada, &tool).await, ("answer 1".into(), false));
    assert_eq!(plainly(&process, &ada, &tool).await, ("answer 1".into(), true));
    process.cache.write(&ada, "docs", Scope::User, async { Ok(()) }).await.unwrap();
    assert_eq!(plainly(&process, &ada, &tool).await, ("answer 2".into(), false));
    process.cache.settle().await;
    assert_eq!(rows::answers(&db.admin()).await, [("answer 2".to_owned(), 1, true)]);
    assert_eq!(rows::counted(&db.admin()).await, (1, 2));
}

/// Asks until the answer is not the one before.
async fn until_changed(process: &Process, actor: &Actor, tool: &Tool, before: &str) -> (String, bool) {
    timeout(SOON, async {
        loop {
            let answered = plainly(process, actor, tool).await;
            if answered.0 != before {
                return answered;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn a_write_in_one_process_outdates_every_process() {
    for backend in [Backend::Postgres, Backend::Memory] {
        let db = TestDb::new().await;
        let (one, other) = (process(&db, settings(backend)).await, process(&db, settings(backend)).await);
        let (ada, tool) = (someone(), Tool::default());
        let first = plainly(&other, &ada, &tool).await.0;
        assert_eq!(plainly(&other, &ada, &tool).await, (first.clone(), true));
        one.cache.write(&ada, "docs", Scope::User, async { Ok(()) }).await.unwrap();
        let (next, _) = until_changed(&other, &ada, &tool, &first).await;
        assert_ne!(next, first);
    }
}

#[tokio::test]
async fn two_processes_make_one_call() {
    let db = TestDb::new().await;
    let (one, other) =
        (process(&db, settings(Backend::Postgres)).await, process(&db, settings(Backend::Postgres)).await);
    let ada = someone();
    let (tool, called, go) = Tool::gated();
    let asking = (0..64).map(|number| plainly(if number % 2 == 0 { &one } else { &other }, &ada, &tool));
    let opening = async {
        called.notified().await;
        // The other process has had time to see that the flight is taken, and still makes no call of its own.
        tokio::time::sleep(Duration::from_millis(300)).await;
        go.notify_one();
    };
    let (answers, ()) = tokio::join!(futures::future::join_all(asking), opening);
    assert_eq!(tool.calls(), 1);
    assert!(answers.iter().all(|(content, _)| content == "answer 1"));
}

#[tokio::test]
async fn a_flight_outlives_neither_its_holder_nor_its_patience() {
    let db = TestDb::new().await;
    let process = process(&db, settings(Backend::Postgres)).await;
    let (ada, tool) = (someone(), Tool::default());
    let arguments = Value::Null;
    // What a process that was killed in the middle leaves behind: a flight that nobody renews.
    let slot =
        Slot { place: Place::of(&ada, Scope::User), key: key::key("docs.read", "v1", &arguments).into() };
    let tenants = db.tenants();
    let mut tx = tenants.begin(&ada).await.unwrap();
    assert!(store::take_flight(&mut tx, &slot, Uuid::new_v4(), 0, Duration::from_millis(700)).await.unwrap());
    tx.commit().await.unwrap();
    let mut tx = tenants.begin(&ada).await.unwrap();
    assert!(!store::take_flight(&mut tx, &slot, Uuid::new_v4(), 0, FLIGHT).await.unwrap(), "it is taken");
    tx.commit().await.unwrap();
    let begun = Instant::now();
    assert_eq!(plainly(&process, &ada, &tool).await, ("answer 1".into(), false));
    assert!(begun.elapsed() >= Duration::from_millis(500), "it waited for the flight to run out");
    assert_eq!(tool.calls(), 1);
}

#[tokio::test]
async fn a_slow_fetch_keeps_its_flight() {
    let db = TestDb::new().await;
    let (one, other) =
        (process(&db, settings(Backend::Postgres)).await, process(&db, settings(Backend::Postgres)).await);
    let ada = someone();
    let (tool, called, go) = Tool::gated();
    let opening = async {
        called.notified().await;
        // Longer than a flight lives without a sign of its holder.
        tokio::time::sleep(FLIGHT + Duration::from_millis(700)).await;
        go.notify_one();
    };
    let (first, second, ()) = tokio::join!(plainly(&one, &ada, &tool), plainly(&other, &ada, &tool), opening);
    assert_eq!((tool.calls(), first.0), (1, second.0));
}

#[tokio::test]
async fn what_a_write_left_open_is_not_kept_until_it_is_over() {
    let db = TestDb::new().await;
    let process = process(&db, settings(Backend::Postgres)).await;
    let (ada, tool) = (someone(), Tool::default());
    // A process that dies in the middle of a write.
    let mut tx = db.tenants().begin(&ada).await.unwrap();
    let place = Place::of(&ada, Scope::User);
    store::begin_write(&mut tx, place, "docs", Duration::from_secs(60)).await.unwrap();
    tx.commit().await.unwrap();
    assert!(!plainly(&process, &ada, &tool).await.1);
    assert_eq!(plainly(&process, &ada, &tool).await, ("answer 2".into(), false));
    // A write that ends in good order outdates whatever came before it.
    process.cache.write(&ada, "docs", Scope::User, async { Ok(()) }).await.unwrap();
    plainly(&process, &ada, &tool).await;
    assert!(plainly(&process, &ada, &tool).await.1);
}

#[tokio::test]
async fn a_person_who_disconnects_leaves_nothing() {
    let db = TestDb::new().await;
    let process = process(&db, settings(Backend::Postgres)).await;
    let (ada, bob, tool) = (someone(), someone(), Tool::default());
    for actor in [&ada, &bob] {
        plainly(&process, actor, &tool).await;
    }
    let mut tx = db.tenants().begin(&ada).await.unwrap();
    assert_eq!(ToolCache::drop_server(&mut tx, "docs").await.unwrap(), 1);
    tx.commit().await.unwrap();
    ToolCache::dropped(&process.cache.bell, &ada, "docs");
    assert_eq!(rows::answers(&db.admin()).await.len(), 1, "only the other person's is left");
    assert_eq!(until_changed(&process, &ada, &tool, "answer 1").await.0, "answer 3");
    assert!(plainly(&process, &bob, &tool).await.1);
}

#[tokio::test]
async fn row_level_security_alone_keeps_answers_apart() {
    let db = TestDb::new().await;
    let process = process(&db, settings(Backend::Postgres)).await;
    let (ada, bob, tool) = (someone(), someone(), Tool::default());
    let colleague = Actor { user: UserId::generate(), role: crate::identity::Role::Admin, ..ada.clone() };
    plainly(&process, &ada, &tool).await;
    let slot =
        Slot { place: Place::of(&ada, Scope::User), key: key::key("docs.read", "v1", &Value::Null).into() };
    for (stranger, sees) in [(&ada, true), (&bob, false), (&colleague, false)] {
        // Every filter of ours names Ada's row.
        let mut tx = disguise(db.tenants().begin(stranger).await.unwrap(), &ada);
        let look = store::look(&mut tx, &slot, "docs").await.unwrap();
        assert_eq!(look.found.is_some(), sees);
        tx.commit().await.unwrap();
    }
    assert!(!rows::may_read(&db.engine).await && rows::may_read(&db.admin()).await);
}
