//! Pools, migrations and [`TenantTx`], the only way to a tenant's rows.
//!
//! Invariant: whatever reads or writes tenant rows for a person does so on a `TenantTx`, whose first statement tells
//! Postgres the tenant, user and role, so that row-level security holds even for a query that forgot its WHERE. The
//! engine's pool is for scheduling across tenants; it has no right on items.

use std::{
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, PgPool, Postgres, Transaction,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::{
    counters::Counters,
    error::{Error, Result},
    identity::Actor,
    ids::TenantId,
};

/// Which of the three roles a pool acts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DbRole {
    /// Runs migrations.
    Owner,
    /// Serves requests, under row-level security.
    App,
    /// Schedules across tenants.
    Engine,
}

impl DbRole {
    fn name(self) -> Option<&'static str> {
        match self {
            Self::Owner => None,
            Self::App => Some("alfred_app"),
            Self::Engine => Some("alfred_engine"),
        }
    }
}

/// Connection settings out of a URL. `postgresql+driver://` is accepted, as other ecosystems write it. When the login
/// is not the wanted role itself, the connection takes the role on.
///
/// # Errors
/// A sentence that names no secret, when the URL cannot be read.
pub fn options(url: &str, role: DbRole, application: &str) -> Result<PgConnectOptions, String> {
    let plain = match url.split_once("://") {
        Some((scheme, rest)) => match scheme.split('+').next() {
            Some("postgresql" | "postgres") => format!("postgresql://{rest}"),
            _ => return Err("is not a postgresql:// URL".to_owned()),
        },
        None => return Err("is not a postgresql:// URL".to_owned()),
    };
    // The parser's own message may quote the URL and with it the password.
    let options =
        PgConnectOptions::from_str(&plain).map_err(|_| "is not a readable postgresql:// URL".to_owned())?;
    let login = options.get_username().to_owned();
    let options = options.application_name(application);
    Ok(match role.name() {
        Some(name) if login != name => options.options([("role", name)]),
        _ => options,
    })
}

/// Every statement of ours reads by index, whatever the statistics of a young table say, and is planned once a
/// connection: planning cost more than running [measured], and a sequential scan's penalty would start the compiler.
const BY_INDEX: [(&str, &str); 3] =
    [("plan_cache_mode", "force_generic_plan"), ("enable_seqscan", "off"), ("jit", "off")];

/// A pool with the time-outs that keep one stuck statement from slowing everybody down.
#[must_use]
pub fn pool(options: PgConnectOptions, max: u32) -> PgPool {
    let options = options.options([
        ("idle_in_transaction_session_timeout", "10s"),
        ("statement_timeout", "15s"),
        ("lock_timeout", "5s"),
    ]);
    let options = options.options(BY_INDEX);
    PgPoolOptions::new()
        .max_connections(max)
        .min_connections(1)
        .acquire_timeout(Duration::from_secs(5))
        // A ping before each use costs a round trip a transaction; a dead connection shows at its first statement
        // and every caller retries or answers for that.
        .test_before_acquire(false)
        .idle_timeout(Duration::from_secs(300))
        .connect_lazy_with(options)
}

/// The one-connection pool for writes whose loss costs nothing: short-id counters and heartbeats.
#[must_use]
pub fn relaxed_pool(options: PgConnectOptions) -> PgPool {
    let options = options.options([("synchronous_commit", "off"), ("statement_timeout", "5s")]);
    PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(Duration::from_secs(5))
        .test_before_acquire(false)
        .connect_lazy_with(options)
}

/// The pool that migrations run on: long statements are fine there.
#[must_use]
pub fn migration_pool(options: PgConnectOptions) -> PgPool {
    PgPoolOptions::new()
        .max_connections(2)
        .acquire_timeout(Duration::from_secs(10))
        .connect_lazy_with(options)
}

/// A transaction for one statement that is asked before there is a tenant. By itself the statement would be two round
/// trips, which a pooler in transaction mode may send to two servers.
///
/// # Errors
/// The database's.
pub async fn before_tenant(app: &PgPool) -> Result<Transaction<'static, Postgres>> {
    Ok(app.begin_with(begin_of(app)).await?)
}

/// How a transaction on this pool begins. Behind a pooler in transaction mode, which `statement-cache-capacity=0` in the
/// URL tells of, a server's connection still has statements of its former clients, under the names that ours will get.
fn begin_of(pool: &PgPool) -> &'static str {
    let is_pooled = pool
        .connect_options()
        .to_url_lossy()
        .query_pairs()
        .any(|(name, value)| name == "statement-cache-capacity" && value == "0");
    if is_pooled { "begin; deallocate all" } else { "begin" }
}

/// Whether Postgres answers on this pool.
///
/// # Errors
/// The database's.
pub async fn answers(pool: &PgPool) -> Result<()> {
    sqlx::raw_sql("select 1").execute(pool).await?;
    Ok(())
}

/// Whether the queue's tables and ours can be read.
///
/// # Errors
/// The database's.
pub async fn queue_answers(engine: &PgPool) -> Result<()> {
    sqlx::query("select from apalis.jobs, turns limit 0").execute(engine).await?;
    Ok(())
}

/// A transaction outside of any tenant, for engine work.
///
/// # Errors
/// The database's.
pub async fn begin(pool: &PgPool) -> Result<Transaction<'static, Postgres>> {
    Ok(pool.begin().await?)
}

/// How long whoever wants to migrate waits before asking again whether somebody else still does.
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// Runs apalis's migrations, then ours. Safe to run twice and at the same time.
///
/// # Errors
/// The database's, or a migration that was changed after it ran.
pub async fn migrate(owner: &PgPool) -> Result<()> {
    let mut guard = owner.acquire().await?;
    // sqlx locks each history by itself; this lock covers the two together. Kept on its own connection. Who finds it taken asks
    // again: a statement that waits has a snapshot, which an index that is made concurrently would wait for in turn.
    let try_lock = || sqlx::query_scalar::<_, bool>("select pg_try_advisory_lock(7041)");
    while !try_lock().fetch_one(&mut *guard).await? {
        tokio::time::sleep(LOCK_PAUSE).await;
    }
    let outcome = async {
        apalis_sql::PostgresStorage::setup(owner).await.map_err(Error::internal)?;
        MIGRATIONS.run(owner).await.map_err(Error::internal)?;
        with_vectors(&mut guard).await
    }
    .await;
    sqlx::query("select pg_advisory_unlock(7041)").execute(&mut *guard).await?;
    outcome
}

/// Asks for the extension that compares vectors, each time, as a server may get it later. Without it, or without the right
/// to have it, search by meaning does with less.
async fn with_vectors(owner: &mut PgConnection) -> Result<()> {
    sqlx::raw_sql(
        "do $$ begin
           if exists (select from pg_available_extensions where name = 'vector') then
             create extension if not exists vector schema public;
           end if;
         exception when insufficient_privilege then
           raise notice 'the extension vector is there, but this role may not create it';
         end $$",
    )
    .execute(owner)
    .await?;
    Ok(())
}

/// Our migrations, embedded.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../migrations");

/// The app-role pool and what a transaction on tenant rows needs beside it.
#[derive(Clone)]
pub struct TenantDb {
    app: PgPool,
    begin: &'static str,
    counters: Arc<Counters>,
    announce: Announce,
    named: Option<Box<Actor>>,
}

/// Tells the other processes that items of a tenant changed.
type Announce = Arc<dyn Fn(TenantId) + Send + Sync>;

impl TenantDb {
    /// Over the pool of the app role.
    #[must_use]
    pub fn new(app: PgPool, counters: Arc<Counters>) -> Self {
        Self { begin: begin_of(&app), app, counters, announce: Arc::new(|_| ()), named: None }
    }

    /// The same, and after each commit that changed items `announce` is called with the tenant.
    #[must_use]
    pub fn announcing(self, announce: impl Fn(TenantId) + Send + Sync + 'static) -> Self {
        Self { announce: Arc::new(announce), ..self }
    }

    /// The same, with every transaction disguised: see [`TenantTx::disguised`].
    pub(crate) fn disguised(self, named: &Actor) -> Self {
        Self { named: Some(Box::new(named.clone())), ..self }
    }

    /// Short ids.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The pool itself: for health checks and for finding out who a credential belongs to, before there is a tenant.
    #[must_use]
    pub fn app(&self) -> &PgPool {
        &self.app
    }

    /// Begins a transaction as this actor.
    ///
    /// # Errors
    /// The database's.
    pub async fn begin(&self, actor: &Actor) -> Result<TenantTx> {
        // One round trip: the ids are uuids and the role is one of two words, so nothing needs quoting. SET LOCAL is what
        // set_config(.., true) does, without the planner [measured: 34 us of Postgres against 57].
        let begin = format!(
            "{}; set local app.tenant_id = '{}'; set local app.user_id = '{}'; set local app.role = '{}'",
            self.begin,
            actor.tenant,
            actor.user,
            actor.role.as_str()
        );
        let tx = self.app.begin_with(AssertSqlSafe(begin)).await?;
        Ok(TenantTx {
            tx,
            actor: self.named.as_deref().unwrap_or(actor).clone(),
            counters: Arc::clone(&self.counters),
            changed_items: false,
            announce: Arc::clone(&self.announce),
            brought: http::Extensions::new(),
        })
    }
}

/// A transaction that Postgres knows the tenant, user and role of. No `TenantTx` lives across a call to a model, a
/// remote tool or anything else beyond the database.
pub struct TenantTx {
    tx: Transaction<'static, Postgres>,
    actor: Actor,
    counters: Arc<Counters>,
    changed_items: bool,
    announce: Announce,
    brought: http::Extensions,
}

impl TenantTx {
    /// Whose transaction this is.
    #[must_use]
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// The same transaction, whose statements name this actor while Postgres knows the other: for tests that row-level
    /// security holds by itself.
    pub(crate) fn disguised(self, actor: &Actor) -> Self {
        Self { actor: actor.clone(), ..self }
    }

    /// What was fetched from beyond the database before this transaction began, for whoever runs in it; by type.
    #[must_use]
    pub fn brought(&self) -> &http::Extensions {
        &self.brought
    }

    /// Brings such a thing along.
    pub fn bring<T: Clone + Send + Sync + 'static>(&mut self, thing: T) {
        self.brought.insert(thing);
    }

    /// The connection, for stores.
    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.tx
    }

    /// The next short id of this kind in the actor's tenant (counted outside of this transaction).
    ///
    /// # Errors
    /// The database's.
    pub async fn next_id(&self, kind: &'static str) -> Result<i64> {
        self.counters.next(self.actor.tenant, kind).await
    }

    /// Commits.
    ///
    /// # Errors
    /// The database's. After a lost connection the outcome is unknown: the caller must look.
    pub async fn commit(self) -> Result<()> {
        self.tx.commit().await?;
        if self.changed_items {
            (self.announce)(self.actor.tenant);
        }
        Ok(())
    }

    /// Has the commit tell followers of the change feed to look. They would find the change without it, only later.
    pub(crate) fn note_changed_items(&mut self) {
        self.changed_items = true;
    }

    /// Rolls back.
    ///
    /// # Errors
    /// The database's.
    pub async fn rollback(self) -> Result<()> {
        Ok(self.tx.rollback().await?)
    }
}

/// Has Postgres measure tables that have rows but no statistics yet; answers how many. Until then it may read all of a
/// tenant's rows to find one.
///
/// # Errors
/// The database's.
pub(crate) async fn measure_tables(engine: &PgPool) -> Result<i64> {
    Ok(sqlx::query_scalar("select tables_measure()").fetch_one(engine).await?)
}

/// A connection that one task keeps for its statements, made anew when it breaks. Beside a pool's it saves the task a
/// hand-over for each statement, and its plans are made once: with parameters that change with every call, Postgres
/// would plan each execution anew, which costs more than the execution (1.2 ms against 0.1 ms for a read of the log).
///
/// A plan made while the tables were empty may use the wrong index when they are not, so plans are made again after
/// a second, then after twice as long each time.
pub(crate) struct OwnConnection {
    options: PgConnectOptions,
    connection: Option<PgConnection>,
    replan_at: Instant,
    replan_after: Duration,
}

impl OwnConnection {
    const FIRST_REPLAN: Duration = Duration::from_secs(1);
    const LAST_REPLAN: Duration = Duration::from_secs(600);

    /// As the pool connects, but for statements whose best plan is by index whatever the tables' statistics say.
    pub(crate) fn like(pool: &PgPool) -> Self {
        let options = (*pool.connect_options()).clone();
        let options = options.options(BY_INDEX);
        Self { options, connection: None, replan_at: Instant::now(), replan_after: Self::FIRST_REPLAN }
    }

    /// The connection, for one statement. Whoever got an answer keeps it for the next; after an error, or when the
    /// wait for an answer was given up, it is not used again.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn take(&mut self) -> Result<PgConnection> {
        let now = Instant::now();
        let Some(mut connection) = self.connection.take() else {
            let connection = PgConnection::connect_with(&self.options).await?;
            self.replan_after = Self::FIRST_REPLAN;
            self.replan_at = now + self.replan_after;
            return Ok(connection);
        };
        if self.replan_at <= now {
            sqlx::raw_sql("discard plans").execute(&mut connection).await?;
            self.replan_after = (self.replan_after * 2).min(Self::LAST_REPLAN);
            self.replan_at = now + self.replan_after;
        }
        Ok(connection)
    }

    /// The statement was answered: the next one may have the connection.
    pub(crate) fn keep(&mut self, connection: PgConnection) {
        self.connection = Some(connection);
    }
}
