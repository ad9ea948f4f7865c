//! The processes under measurement: a durable Postgres of its own, one API process, workers, and the model stand-in in a
//! process apart, so that its processor time is not taken for anybody else's.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use sqlx::PgPool;
use tokio::net::TcpStream;

use super::{Plan, client::Connection, procfs, store};
use crate::{
    folder::Folder,
    postgres::{Cluster, Stop},
    process::{Process, binary, free_port},
};

/// The API key of the run; its database lives as long as the run.
pub(super) const KEY: &str = "a-key-of-the-bench-that-opens-nothing-else";

/// Everything that runs. Dropping it ends all of it.
pub(super) struct Stack {
    pub(super) api: Process,
    pub(super) workers: Vec<Process>,
    model: Process,
    model_url: String,
    /// As superuser, for reading statistics.
    pub(super) admin: PgPool,
    /// A database of the same cluster for the floor.
    pub(super) floor_url: String,
    pub(super) address: SocketAddr,
    postmaster: u32,
    variables: BTreeMap<String, String>,
    started: usize,
    folder: Folder,
    // Last, so that it is dropped after its clients.
    _cluster: Cluster,
}

/// Processor time so far, by part.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Spent {
    pub(super) api: Duration,
    pub(super) workers: Duration,
    pub(super) postgres: Duration,
    pub(super) model: Duration,
    pub(super) own: Duration,
}

impl Spent {
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            api: self.api.saturating_sub(before.api),
            workers: self.workers.saturating_sub(before.workers),
            postgres: self.postgres.saturating_sub(before.postgres),
            model: self.model.saturating_sub(before.model),
            own: self.own.saturating_sub(before.own),
        }
    }
}

/// Resident bytes, by part.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    pub(super) api: i64,
    /// One worker, on average.
    pub(super) worker: i64,
}

impl Stack {
    /// Starts all of it, with the product's default settings where the plan has no others.
    ///
    /// # Errors
    /// Something does not start.
    pub(super) async fn start(plan: &Plan) -> Result<Self> {
        let cluster = Cluster::start().await?;
        let admin_url = cluster.url("admin").await?;
        let admin = store::connect(&admin_url).await?;
        // Loaded and silent, until a section asks for it.
        store::load_statement_statistics(&admin).await?;
        for (name, value) in &plan.settings {
            store::change_setting(&admin, name, value)
                .await
                .with_context(|| format!("--set {name}={value}"))?;
        }
        admin.close().await;
        cluster.restart(Stop::Fast).await?;
        let admin = store::connect(&admin_url).await?;
        store::make_floor_database(&admin).await?;
        let floor_url = admin_url.rsplit_once('/').context("a URL names a database")?.0.to_owned() + "/floor";
        let backend = store::backend(&admin).await?;
        let postmaster = procfs::parent(u32::try_from(backend)?)?;

        let folder = Folder::new("bench")?;
        let model_port = free_port()?;
        let own = std::env::current_exe().context("no path of the running program")?;
        let model = Process::start("model", &own, &["model", &model_port.to_string()], [], folder.path())?;
        let app = cluster.url("app").await?;
        let engine = cluster.url("engine").await?;
        let owner = cluster.url("owner").await?;
        let model_url = format!("http://127.0.0.1:{model_port}");
        let mut variables: BTreeMap<String, String> = [
            ("APP_ENV", "dev"),
            ("DB_URL", &app),
            ("DB_ENGINE_URL", &engine),
            ("DB_LISTEN_URL", &engine),
            ("DB_OWNER_URL", &owner),
            ("API_KEY", KEY),
            ("MODEL_PROVIDER", "anthropic"),
            ("ANTHROPIC_API_KEY", "x"),
            ("MODEL_BASE_URL", &model_url),
            ("RATE_LIMIT_PER_MINUTE", "0"),
            ("RATE_LIMIT_CHAT_PER_MINUTE", "0"),
            ("RATE_LIMIT_ADDRESS_PER_MINUTE", "0"),
            ("RATE_LIMIT_ADDRESS_CHAT_PER_MINUTE", "0"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
        variables.extend(plan.variables.iter().cloned());
        let mut migration =
            Process::start("migrate", &binary("api")?, &["migrate"], pairs(&variables), folder.path())?;
        if !migration.wait(Duration::from_secs(60)).await?.success() {
            bail!("the migration failed\n{}", migration.log_tail());
        }
        store::track_statements(&admin, false).await?;
        let (api, address) = start_api(&variables, "api-1", folder.path()).await?;
        let mut stack = Self {
            api,
            workers: Vec::new(),
            model,
            model_url,
            admin,
            floor_url,
            address,
            postmaster,
            variables,
            started: 1,
            folder,
            _cluster: cluster,
        };
        for _ in 0..plan.workers {
            stack.start_worker()?;
        }
        // The stack works as a whole when a turn does.
        let (mut post, mut events) = (stack.connect().await?, stack.connect().await?);
        let posted = post.post("[[tokens:1]]", None).await?;
        events.follow(&format!("/jobs/{}/events", posted.job)).await?;
        events.until_done().await.with_context(|| stack.logs())?;
        Ok(stack)
    }

    /// A connection to the API.
    ///
    /// # Errors
    /// Refused.
    pub(super) async fn connect(&self) -> Result<Connection> {
        Connection::open(self.address, KEY).await
    }

    /// One worker more.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn start_worker(&mut self) -> Result<()> {
        self.started += 1;
        let name = format!("worker-{}", self.started);
        let worker =
            Process::start(&name, &binary("worker")?, &[], pairs(&self.variables), self.folder.path())?;
        self.workers.push(worker);
        Ok(())
    }

    /// Ends all workers in an orderly way.
    ///
    /// # Errors
    /// One does not end.
    pub(super) async fn stop_workers(&mut self) -> Result<()> {
        for worker in &mut self.workers {
            worker.signal("TERM")?;
        }
        for mut worker in self.workers.drain(..) {
            worker.wait(Duration::from_secs(30)).await?;
        }
        Ok(())
    }

    /// An API process that has served nobody yet, in place of the former.
    ///
    /// # Errors
    /// One does not end, or the other does not start.
    pub(super) async fn fresh_api(&mut self) -> Result<()> {
        self.api.signal("TERM")?;
        self.api.wait(Duration::from_secs(30)).await?;
        self.started += 1;
        let name = format!("api-{}", self.started);
        (self.api, self.address) = start_api(&self.variables, &name, self.folder.path()).await?;
        Ok(())
    }

    /// One API process more, with other settings; it ends when it is dropped.
    ///
    /// # Errors
    /// It does not start.
    pub(super) async fn another_api(&mut self, more: &[(&str, &str)]) -> Result<(Process, SocketAddr)> {
        self.started += 1;
        let mut variables = self.variables.clone();
        variables.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        start_api(&variables, &format!("api-{}", self.started), self.folder.path()).await
    }

    /// Opens a gate of the model.
    ///
    /// # Errors
    /// The model does not answer.
    pub(super) async fn release(&self, gate: &str) -> Result<()> {
        let url = format!("{}/gates/{gate}/release", self.model_url);
        crate::client::http().post(url).send().await?.error_for_status()?;
        Ok(())
    }

    /// Processor time so far.
    ///
    /// # Errors
    /// A process has died.
    pub(super) fn spent(&self) -> Result<Spent> {
        let mut workers = Duration::ZERO;
        for worker in &self.workers {
            workers += procfs::processor_time(worker.pid()).with_context(|| worker.log_tail())?;
        }
        Ok(Spent {
            api: procfs::processor_time(self.api.pid()).with_context(|| self.api.log_tail())?,
            workers,
            postgres: procfs::processor_time_of_tree(self.postmaster)?,
            model: procfs::processor_time(self.model.pid())?,
            own: procfs::processor_time(std::process::id())?,
        })
    }

    /// Resident bytes now.
    ///
    /// # Errors
    /// A process has died.
    pub(super) fn memory(&self) -> Result<Memory> {
        let mut workers = 0;
        for worker in &self.workers {
            workers += procfs::resident_bytes(worker.pid())?;
        }
        let count = i64::try_from(self.workers.len().max(1))?;
        Ok(Memory { api: procfs::resident_bytes(self.api.pid())?, worker: workers / count })
    }

    /// The ends of all logs, for messages.
    pub(super) fn logs(&self) -> String {
        let all = std::iter::once(&self.api).chain(&self.workers).chain([&self.model]);
        all.map(|process| format!("--- {}\n{}", process.name(), process.log_tail()))
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// Ends everything in an orderly way.
    pub(super) async fn stop(mut self) {
        self.stop_workers().await.ok();
        self.api.signal("TERM").ok();
        self.api.wait(Duration::from_secs(30)).await.ok();
        self.admin.close().await;
    }
}

async fn start_api(
    variables: &BTreeMap<String, String>,
    name: &str,
    folder: &Path,
) -> Result<(Process, SocketAddr)> {
    let port = free_port()?;
    let port_text = port.to_string();
    let all = pairs(variables).chain([("APP_PORT", port_text.as_str())]);
    let mut api = Process::start(name, &binary("api")?, &[], all, folder)?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(address).await.is_err() {
        if api.ended().is_some() || tokio::time::Instant::now() > deadline {
            bail!("the api does not start\n{}", api.log_tail());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok((api, address))
}

fn pairs(variables: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    variables.iter().map(|(name, value)| (name.as_str(), value.as_str()))
}
