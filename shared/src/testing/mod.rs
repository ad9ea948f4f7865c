//! A database of its own for every test, cloned from a migrated template. For tests, demos and benches only.
//!
//! `TEST_PG_ADMIN_URL` names a superuser of a throwaway cluster that has the roles alfred_owner, alfred_app and
//! alfred_engine (`scripts/test` sets it). The template is made once per cluster, schema and day (partitions are made
//! by the day), under an advisory lock, so that test processes may start at the same time.

mod store;

use std::{str::FromStr, sync::Arc};

use sha2::{Digest, Sha256};
use sqlx::{PgPool, postgres::PgConnectOptions};

use crate::{
    counters::Counters,
    db::{self, DbRole, TenantDb, TenantTx},
    identity::Actor,
};

/// A migrated database that is dropped with this value.
pub struct TestDb {
    /// As the app role, under row-level security.
    pub app: PgPool,
    /// As the engine role.
    pub engine: PgPool,
    /// The database's name.
    pub name: String,
    /// Superuser of this database: to terminate backends and to look at everything.
    pub admin_url: String,
    /// Connection URL as the owner.
    pub owner_url: String,
    /// Connection URL as the app role.
    pub app_url: String,
    /// Connection URL as the engine role.
    pub engine_url: String,
    cluster_url: String,
}

impl TestDb {
    /// A fresh database.
    ///
    /// # Panics
    /// When `TEST_PG_ADMIN_URL` is not set or the cluster does not answer: a test cannot go on without.
    pub async fn new() -> Self {
        let cluster_url = std::env::var("TEST_PG_ADMIN_URL")
            .expect("TEST_PG_ADMIN_URL must name a superuser of a throwaway cluster; scripts/test sets it");
        let template = template_name();
        let name = format!("t_{}", uuid::Uuid::now_v7().simple());
        store::make(&cluster_url, &template, &name).await.expect("a test database should be made");
        let admin_url = database_url(&cluster_url, &name, None);
        let owner_url = database_url(&cluster_url, &name, Some("alfred_owner"));
        let app_url = database_url(&cluster_url, &name, Some("alfred_app"));
        let engine_url = database_url(&cluster_url, &name, Some("alfred_engine"));
        let app = db::pool(read(&app_url, DbRole::App), 8);
        let engine = db::pool(read(&engine_url, DbRole::Engine), 8);
        Self { app, engine, name, admin_url, owner_url, app_url, engine_url, cluster_url }
    }

    /// Settings of a connection that listens, as the engine role.
    #[must_use]
    pub fn listen(&self) -> PgConnectOptions {
        read(&self.engine_url, DbRole::Engine)
    }

    /// The way to tenant rows, with a counter task of its own.
    #[must_use]
    pub fn tenants(&self) -> TenantDb {
        let relaxed = db::relaxed_pool(read(&self.app_url, DbRole::App));
        TenantDb::new(self.app.clone(), Arc::new(Counters::start(relaxed)))
    }

    /// Makes room for items of a further kind, for an entity that a test defines.
    ///
    /// # Panics
    /// When the kind has room already.
    pub async fn add_kind(&self, kind: &str) {
        store::add_kind(&self.owner_url, kind).await.expect("the kind should be new");
    }

    /// A pool as superuser, past row-level security, for oracles and faults.
    #[must_use]
    pub fn admin(&self) -> PgPool {
        db::pool(PgConnectOptions::from_str(&self.admin_url).expect("the URL was read before"), 2)
    }

    /// A connection to the cluster beside this database, for faults that touch the database as a whole.
    #[must_use]
    pub fn cluster(&self) -> PgPool {
        db::pool(PgConnectOptions::from_str(&self.cluster_url).expect("the URL was read before"), 1)
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        let (url, name) = (self.cluster_url.clone(), self.name.clone());
        // A runtime of its own, because the test's may be ending; joined, so that the process does not end first.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            if let Ok(runtime) = runtime {
                runtime.block_on(store::discard(&url, &name));
            }
        });
        let _ = dropping.join();
    }
}

/// A transaction that Postgres knows as the actor's who began it, while the stores' statements name another: every
/// filter of ours then lets the other's rows through, and row-level security stands alone.
#[must_use]
pub fn disguise(tx: TenantTx, named: &Actor) -> TenantTx {
    tx.disguised(named)
}

/// The same of every transaction that is begun here.
#[must_use]
pub fn disguise_all(db: &TenantDb, named: &Actor) -> TenantDb {
    db.clone().disguised(named)
}

fn read(url: &str, role: DbRole) -> PgConnectOptions {
    db::options(url, role, "test").expect("the cluster's URL was read before")
}

/// The cluster's URL with another database and, if wanted, another role than the login's.
fn database_url(cluster_url: &str, name: &str, role: Option<&str>) -> String {
    let mut url = url::Url::parse(cluster_url).expect("TEST_PG_ADMIN_URL should be a URL");
    url.set_path(name);
    if let Some(role) = role {
        url.query_pairs_mut().append_pair("options[role]", role);
    }
    url.into()
}

fn template_name() -> String {
    let mut hash = Sha256::new();
    for migration in db::MIGRATIONS.iter() {
        hash.update(&*migration.checksum);
    }
    let digest = hash.finalize();
    let short: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("template_{}_{short}", chrono::Utc::now().format("%Y%m%d"))
}
