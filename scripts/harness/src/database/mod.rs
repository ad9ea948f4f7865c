//! The database that a stack under test runs on: one of many in the shared throwaway cluster, or a cluster of its own
//! when the test means to break Postgres itself.

mod store;

use std::{str::FromStr, time::Duration};

use anyhow::Result;
use shared::{
    db::{self, DbRole},
    ids::TurnId,
    testing::TestDb,
};
use sqlx::{PgPool, postgres::PgConnectOptions};

pub use self::store::{Backend, TurnState};
use crate::postgres::Cluster;

/// A migrated database.
pub struct Database {
    /// As superuser: for the oracle and for faults.
    pub admin: PgPool,
    /// Connection URL as the app role.
    pub app_url: String,
    /// Connection URL as the engine role.
    pub engine_url: String,
    /// Connection URL as the owner.
    pub owner_url: String,
    home: Home,
}

enum Home {
    Shared { _database: Box<TestDb> },
    Own(Cluster),
}

impl Database {
    /// A fresh database in the cluster that all tests share.
    pub async fn shared() -> Self {
        let database = TestDb::new().await;
        Self {
            admin: database.admin(),
            app_url: database.app_url.clone(),
            engine_url: database.engine_url.clone(),
            owner_url: database.owner_url.clone(),
            home: Home::Shared { _database: Box::new(database) },
        }
    }

    /// A cluster of its own.
    ///
    /// # Errors
    /// It cannot be started or migrated.
    pub async fn own() -> Result<Self> {
        let cluster = Cluster::start().await?;
        let owner_url = cluster.url("owner").await?;
        let owner = db::pool(db::options(&owner_url, DbRole::Owner, "test").map_err(anyhow::Error::msg)?, 2);
        db::migrate(&owner).await?;
        owner.close().await;
        Ok(Self {
            admin: db::pool(PgConnectOptions::from_str(&cluster.url("admin").await?)?, 2),
            app_url: cluster.url("app").await?,
            engine_url: cluster.url("engine").await?,
            owner_url,
            home: Home::Own(cluster),
        })
    }

    /// The cluster, when this database has one of its own.
    ///
    /// # Panics
    /// When it has none: a test must not stop the cluster that others use.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        match &self.home {
            Home::Own(cluster) => cluster,
            Home::Shared { .. } => panic!("this test's database is in the shared cluster"),
        }
    }

    /// A pool of the engine role.
    ///
    /// # Errors
    /// The URL cannot be read.
    pub fn engine(&self) -> Result<PgPool> {
        Ok(db::pool(db::options(&self.engine_url, DbRole::Engine, "test").map_err(anyhow::Error::msg)?, 2))
    }

    /// The server's address.
    ///
    /// # Errors
    /// The URL cannot be read.
    pub fn address(&self) -> Result<std::net::SocketAddr> {
        let options = PgConnectOptions::from_str(&self.app_url)?;
        Ok(format!("{}:{}", options.get_host(), options.get_port()).parse()?)
    }

    /// Ends every connection that listens; answers how many.
    ///
    /// # Errors
    /// The database's.
    pub async fn cut_listeners(&self) -> Result<u64> {
        Ok(store::cut_listeners(&self.admin).await?)
    }

    /// Ends every connection but our own; answers how many.
    ///
    /// # Errors
    /// The database's.
    pub async fn cut_everybody(&self) -> Result<u64> {
        Ok(store::cut_everybody(&self.admin).await?)
    }

    /// The connections of this database.
    ///
    /// # Errors
    /// The database's.
    pub async fn backends(&self) -> Result<Vec<Backend>> {
        Ok(store::backends(&self.admin).await?)
    }

    /// A turn's state as stored.
    ///
    /// # Errors
    /// The database's, or no such turn.
    pub async fn turn(&self, job: &str) -> Result<TurnState> {
        Ok(store::turn(&self.admin, TurnId::from_str(job)?).await?)
    }

    /// Polls until the turn is as wanted.
    ///
    /// # Errors
    /// It is not within the time.
    pub async fn until(
        &self,
        job: &str,
        within: Duration,
        mut wanted: impl FnMut(&TurnState) -> bool,
    ) -> Result<TurnState> {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            let state = self.turn(job).await;
            if let Ok(state) = &state
                && wanted(state)
            {
                return Ok(state.clone());
            }
            if tokio::time::Instant::now() > deadline {
                anyhow::bail!("turn {job} is not as wanted after {within:?}: {state:?}");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Makes the policy of a tool for a tenant: `allow`, `ask` or `deny`.
    ///
    /// # Errors
    /// The database's.
    pub async fn set_policy(&self, tenant: shared::ids::TenantId, tool: &str, policy: &str) -> Result<()> {
        Ok(store::set_policy(&self.admin, tenant, tool, policy).await?)
    }

    /// The number of a user.
    ///
    /// # Errors
    /// The database's, or there is no such user.
    pub async fn number_of(&self, user: shared::ids::UserId) -> Result<i64> {
        Ok(store::number_of(&self.admin, user).await?)
    }

    /// Moves an ended turn into the past, as if it had ended so many hours ago.
    ///
    /// # Errors
    /// The database's.
    pub async fn age(&self, job: &str, hours: i64) -> Result<()> {
        Ok(store::age(&self.admin, TurnId::from_str(job)?, hours).await?)
    }

    /// Waits until no summary of old turns is asked for or being written.
    ///
    /// # Errors
    /// The database's, or it takes too long.
    pub async fn summaries_settled(&self) -> Result<()> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            let asked =
                "apalis.jobs where job_type = 'maintenance' and status in ('Pending', 'Queued', 'Running')
                         and position('\"compact\"'::bytea in job) > 0";
            let written = "conversation_summaries where claimed_until > clock_timestamp()";
            if self.count(asked).await? + self.count(written).await? == 0 {
                return Ok(());
            }
            anyhow::ensure!(tokio::time::Instant::now() < deadline, "a summary is not written");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// How many rows a table has.
    ///
    /// # Errors
    /// The database's.
    pub async fn count(&self, table: &'static str) -> Result<i64> {
        Ok(store::count(&self.admin, table).await?)
    }
}
