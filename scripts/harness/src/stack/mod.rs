//! A whole Alfred for one test: a database, a model, tenants with keys, API processes and workers, and the clients that
//! use them. Everything it starts ends with it.

mod build;
mod nodes;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use shared::ids::{TenantId, UserId};

pub use self::{
    build::{Builder, MakeTools, ModelChoice, Through},
    nodes::{ApiNode, WorkerNode},
};
use crate::{
    client::{Client, Ledger},
    database::Database,
    fakes::model::{FakeModel, Outcome},
    folder::Folder,
    oracle::{Expectations, Oracle, ProviderLog},
    proxy::Proxy,
};

/// How long an API process may take to be ready.
const READY: Duration = Duration::from_secs(30);

/// A tenant with one user and their key.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// Unique in the run; the tenant's messages carry it.
    pub name: String,
    /// Its id.
    pub id: TenantId,
    /// Its user.
    pub user: UserId,
    /// The user's API key.
    pub key: String,
}

/// A running Alfred.
pub struct Stack {
    /// The API processes.
    pub apis: Vec<ApiNode>,
    /// The workers.
    pub workers: Vec<WorkerNode>,
    /// The tenants, in the order of their making.
    pub tenants: Vec<Tenant>,
    /// Its database.
    pub database: Database,
    /// The model stand-in, unless the offline model was chosen.
    pub model: Option<FakeModel>,
    /// The proxy between some of its processes and Postgres, if one was asked for.
    pub proxy: Option<Proxy>,
    /// What clients were told.
    pub ledger: Arc<Ledger>,
    variables: BTreeMap<String, String>,
    through: Option<Through>,
    worker_binary: Option<std::path::PathBuf>,
    tools: Option<MakeTools>,
    in_process: bool,
    started: usize,
    folder: Folder,
}

impl Stack {
    /// Describes one.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A client of this tenant's user, at the first API process.
    #[must_use]
    pub fn client(&self, tenant: usize) -> Client {
        let tenant = &self.tenants[tenant];
        Client::new(&self.apis[0].base, &tenant.key, &tenant.name, &self.ledger)
    }

    /// The addresses of the API processes.
    #[must_use]
    pub fn bases(&self) -> Vec<String> {
        self.apis.iter().map(|api| api.base.clone()).collect()
    }

    /// The model stand-in.
    ///
    /// # Panics
    /// When the offline model was chosen.
    #[must_use]
    pub fn model(&self) -> &FakeModel {
        self.model.as_ref().expect("the stack was built with a model stand-in")
    }

    /// The proxy.
    ///
    /// # Panics
    /// When none was asked for.
    #[must_use]
    pub fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("the stack was built with a proxy")
    }

    /// Starts one more worker, with these variables on top; answers its index.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start_worker(&mut self, more: &[(&str, &str)]) -> Result<usize> {
        let variables =
            self.variables_for(matches!(self.through, Some(Through::Workers | Through::All)), more)?;
        let name = format!("worker-{}", self.started);
        self.started += 1;
        let node = if self.in_process {
            WorkerNode::in_process(&variables, self.tools.clone()).await?
        } else {
            WorkerNode::process(&name, self.worker_binary.as_deref(), &variables, self.folder.path())?
        };
        self.workers.push(node);
        Ok(self.workers.len() - 1)
    }

    /// Starts one more API process, with these variables on top; answers its index once it is ready.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start_api(&mut self, more: &[(&str, &str)]) -> Result<usize> {
        let variables =
            self.variables_for(matches!(self.through, Some(Through::Apis | Through::All)), more)?;
        let name = format!("api-{}", self.started);
        self.started += 1;
        let node = if self.in_process {
            ApiNode::in_process(&variables).await?
        } else {
            ApiNode::process(&name, &variables, self.folder.path())?
        };
        self.apis.push(node);
        let index = self.apis.len() - 1;
        self.apis[index].until_ready(READY).await?;
        Ok(index)
    }

    /// Starts an API process again at the address that it had; answers once it is ready.
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart_api(&mut self, index: usize) -> Result<()> {
        let base = self.apis[index].base.clone();
        let port = base.rsplit(':').next().context("a base has a port")?.to_owned();
        let variables = self.variables_for(
            matches!(self.through, Some(Through::Apis | Through::All)),
            &[("APP_PORT", &port)],
        )?;
        let name = format!("api-{}", self.started);
        self.started += 1;
        self.apis[index] = ApiNode::process(&name, &variables, self.folder.path())?;
        self.apis[index].until_ready(READY).await
    }

    fn variables_for(&self, through_proxy: bool, more: &[(&str, &str)]) -> Result<BTreeMap<String, String>> {
        let mut variables = self.variables.clone();
        if let (true, Some(proxy)) = (through_proxy, &self.proxy) {
            for name in ["DB_URL", "DB_ENGINE_URL", "DB_LISTEN_URL", "DB_OWNER_URL"] {
                if let Some(url) = variables.get_mut(name) {
                    *url = proxy.url(url)?;
                }
            }
        }
        variables.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Ok(variables)
    }

    /// The index of the worker process with this pid.
    #[must_use]
    pub fn worker_with_pid(&self, pid: i64) -> Option<usize> {
        self.workers.iter().position(|worker| worker.pid() == u32::try_from(pid).ok())
    }

    /// Waits until this turn runs in a process; answers the index of its worker.
    ///
    /// # Errors
    /// It does not within the time.
    pub async fn runner_of(&self, job: &str, within: Duration) -> Result<usize> {
        let state = self.database.until(job, within, |turn| turn.state == "running").await?;
        let pid = state.pid.context("a running turn has a process")?;
        self.worker_with_pid(pid)
            .with_context(|| format!("the turn runs in process {pid}, which is none of ours"))
    }

    /// What the model stand-in reported.
    #[must_use]
    pub fn provider_log(&self) -> Option<ProviderLog> {
        let model = self.model.as_ref()?;
        let complete = model.served().into_iter().filter(|served| served.outcome == Outcome::Complete);
        Some(ProviderLog {
            reported: complete.map(|served| (served.usage.input, served.usage.output)).collect(),
        })
    }

    /// Judges the run, everything having gone well.
    ///
    /// # Errors
    /// What the oracle found.
    pub async fn check(&mut self) -> Result<()> {
        self.check_as(Expectations::default()).await
    }

    /// Judges the run by these expectations.
    ///
    /// # Errors
    /// What the oracle found.
    pub async fn check_as(&mut self, mut expected: Expectations) -> Result<()> {
        let picture = Oracle::settle(&self.database.admin, &expected).await?;
        expected.provider = self.provider_log();
        let found = Oracle::judge(&picture, &self.ledger, &expected);
        if found.is_empty() {
            return Ok(());
        }
        let lines: Vec<String> = found.iter().take(30).map(ToString::to_string).collect();
        bail!("{} violations:\n{}", found.len(), lines.join("\n"))
    }

    /// The ends of all processes' logs.
    #[must_use]
    pub fn logs(&self) -> String {
        let apis = self.apis.iter().filter_map(ApiNode::process_log);
        let workers = self.workers.iter().filter_map(WorkerNode::process_log);
        apis.chain(workers).collect::<Vec<_>>().join("\n")
    }
}
