//! Describing a stack and starting it.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use anyhow::Result;
use secrecy::SecretString;
use shared::{
    cache::ToolCache,
    identity::{Role, development},
    ids::{TenantId, UserId},
    tools::ToolDef,
};

use super::{Stack, Tenant};
use crate::{client::Ledger, database::Database, fakes::model::FakeModel, folder::Folder, proxy::Proxy};

/// Which model the workers talk to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelChoice {
    /// The built-in rules, with this pause before each word.
    Offline {
        /// In milliseconds.
        delay_ms: u64,
    },
    /// The stand-in, as this provider.
    Fake(&'static str),
}

/// Whose connections go through the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Through {
    /// The workers'.
    Workers,
    /// The API processes'.
    Apis,
    /// Everybody's.
    All,
}

/// A stack that is being described.
pub struct Builder {
    workers: Vec<Vec<(String, String)>>,
    apis: usize,
    tenants: usize,
    running_turns: i64,
    model: ModelChoice,
    variables: BTreeMap<String, String>,
    own_cluster: bool,
    through: Option<Through>,
    in_process: bool,
    worker_binary: Option<PathBuf>,
    tools: Option<MakeTools>,
    stewards: bool,
}

/// Tools of a worker within this process, over its cache.
pub type MakeTools = Arc<dyn Fn(&ToolCache) -> Vec<ToolDef> + Send + Sync>;

impl Default for Builder {
    fn default() -> Self {
        Self {
            workers: vec![Vec::new()],
            apis: 1,
            tenants: 1,
            running_turns: 64,
            model: ModelChoice::Fake("anthropic"),
            variables: BTreeMap::new(),
            own_cluster: false,
            through: None,
            in_process: false,
            worker_binary: None,
            tools: None,
            stewards: false,
        }
    }
}

impl Builder {
    /// So many workers (1), all alike.
    #[must_use]
    pub fn workers(mut self, count: usize) -> Self {
        self.workers = vec![Vec::new(); count];
        self
    }

    /// One more worker, with a variable of its own: for failpoints.
    #[must_use]
    pub fn worker_with(mut self, name: &str, value: &str) -> Self {
        self.workers.push(vec![(name.to_owned(), value.to_owned())]);
        self
    }

    /// So many API processes (1).
    #[must_use]
    pub fn apis(mut self, count: usize) -> Self {
        self.apis = count;
        self
    }

    /// So many tenants (1), each with one user.
    #[must_use]
    pub fn tenants(mut self, count: usize) -> Self {
        self.tenants = count;
        self
    }

    /// How many turns of a tenant may run at once (64).
    #[must_use]
    pub fn running_turns(mut self, count: i64) -> Self {
        self.running_turns = count;
        self
    }

    /// Which model (the stand-in, as Anthropic).
    #[must_use]
    pub fn model(mut self, model: ModelChoice) -> Self {
        self.model = model;
        self
    }

    /// A variable for every process.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    /// A cluster of its own, that the test may break.
    #[must_use]
    pub fn own_cluster(mut self) -> Self {
        self.own_cluster = true;
        self
    }

    /// A proxy in front of Postgres for these.
    #[must_use]
    pub fn proxy(mut self, through: Through) -> Self {
        self.through = Some(through);
        self
    }

    /// Servers and workers within this process: quick to start, cannot be killed.
    #[must_use]
    pub fn in_process(mut self) -> Self {
        self.in_process = true;
        self
    }

    /// Tools that workers within this process have beside the workspace's.
    #[must_use]
    pub fn tools(mut self, tools: MakeTools) -> Self {
        self.tools = Some(tools);
        self
    }

    /// Users who administer their tenants and operate the deployment (plain members).
    #[must_use]
    pub fn stewards(mut self) -> Self {
        self.stewards = true;
        self
    }

    /// Another program than `worker`.
    #[must_use]
    pub fn worker_binary(mut self, path: &str) -> Self {
        self.worker_binary = Some(PathBuf::from(path));
        self
    }

    /// Starts it; API processes are ready when this returns.
    ///
    /// # Errors
    /// Something does not start.
    pub async fn start(self) -> Result<Stack> {
        let database = if self.own_cluster { Database::own().await? } else { Database::shared().await };
        let model = match self.model {
            ModelChoice::Offline { .. } => None,
            ModelChoice::Fake(_) => Some(FakeModel::start().await?),
        };
        let proxy = match self.through {
            Some(_) => Some(Proxy::start(database.address()?).await?),
            None => None,
        };
        let tenants = self.make_tenants(&database).await?;
        let variables = self.all_variables(&database, model.as_ref(), &tenants);
        let mut stack = Stack {
            apis: Vec::new(),
            workers: Vec::new(),
            tenants,
            database,
            model,
            proxy,
            ledger: Arc::new(Ledger::default()),
            variables,
            through: self.through,
            worker_binary: self.worker_binary,
            tools: self.tools,
            in_process: self.in_process,
            started: 0,
            folder: Folder::new("stack")?,
        };
        for more in &self.workers {
            let more: Vec<(&str, &str)> =
                more.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            stack.start_worker(&more).await?;
        }
        for _ in 0..self.apis {
            stack.start_api(&[]).await?;
        }
        Ok(stack)
    }

    async fn make_tenants(&self, database: &Database) -> Result<Vec<Tenant>> {
        let engine = database.engine()?;
        let mut tenants = Vec::new();
        for number in 0..self.tenants {
            let id = TenantId::generate();
            let user = UserId::generate();
            // A name that nothing else can contain by chance.
            let name = format!("tenant-{number}-{}", &user.0.simple().to_string()[20..]);
            let key = format!("key-of-{name}-{}", uuid::Uuid::new_v4().simple());
            let email = format!("{name}@example.test");
            development::ensure(
                &engine,
                &development::Identity {
                    tenant: id,
                    user,
                    email: &email,
                    role: if self.stewards { Role::Admin } else { Role::Member },
                    operator: self.stewards,
                    key: &SecretString::from(key.clone()),
                    running_turns: self.running_turns,
                },
            )
            .await?;
            tenants.push(Tenant { name, id, user, key });
        }
        engine.close().await;
        Ok(tenants)
    }

    fn all_variables(
        &self,
        database: &Database,
        model: Option<&FakeModel>,
        tenants: &[Tenant],
    ) -> BTreeMap<String, String> {
        let mut variables = BTreeMap::new();
        let mut set = |name: &str, value: &str| {
            variables.insert(name.to_owned(), value.to_owned());
        };
        set("APP_ENV", "test");
        set("APP_PORT", "0");
        set("LOG_LEVEL", "info,api::request=warn,sqlx=warn,apalis_core=warn");
        set("DB_URL", &database.app_url);
        set("DB_ENGINE_URL", &database.engine_url);
        set("DB_LISTEN_URL", &database.engine_url);
        set("DB_OWNER_URL", &database.owner_url);
        set("DB_POOL_MAX", "6");
        // Nothing of a test should wait for what a person would wait for.
        set("TURN_LEASE_SECONDS", "2");
        set("TURN_RETRY_BASE_MS", "50");
        set("MODEL_RETRY_BASE_MS", "20");
        set("MODEL_IDLE_TIMEOUT_SECONDS", "20");
        set("DRAIN_SECONDS", "5");
        // Stand-ins for other people's servers are on this machine.
        set("OUTBOUND_ALLOW", "127.0.0.1");
        for name in ["", "CHAT_", "ADDRESS_", "ADDRESS_CHAT_"] {
            set(&format!("RATE_LIMIT_{name}PER_MINUTE"), "0");
        }
        if let Some(first) = tenants.first() {
            set("DEFAULT_TENANT_ID", &first.id.to_string());
        }
        match (self.model, model) {
            (ModelChoice::Fake(provider), Some(model)) => {
                set("MODEL_PROVIDER", provider);
                set("MODEL_NAME", "fake-1");
                set("MODEL_BASE_URL", &model.base_url);
                set("ANTHROPIC_API_KEY", "a-key-of-a-test");
                set("OPENAI_API_KEY", "a-key-of-a-test");
            }
            (choice, _) => {
                set("MODEL_PROVIDER", "offline");
                let delay = if let ModelChoice::Offline { delay_ms } = choice { delay_ms } else { 0 };
                set("MODEL_OFFLINE_DELAY_MS", &delay.to_string());
            }
        }
        variables.extend(self.variables.clone());
        variables
    }
}
