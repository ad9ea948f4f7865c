//! Configuration, from the environment and nowhere else.
//!
//! Knows the shape of each value, not its use. Invariant: a process that started has values that make sense, and a
//! process that did not start said which variable to mend.

mod agents;
mod cache;
mod connections;
mod embeddings;
mod keys;
mod limits;
mod model;
mod network;
mod origins;
mod reader;
mod redis;
mod remote;
mod sign_ins;
mod tenants;
#[cfg(test)]
mod tests;
mod variables;

use std::{collections::HashMap, fmt, net::IpAddr, str::FromStr, time::Duration};

use secrecy::SecretString;
use url::Url;
use uuid::Uuid;

use self::reader::Reader;
pub use self::{
    agents::AgentsConfig,
    cache::ThriftConfig,
    connections::{ConnectionConfig, NotionIntegration},
    limits::RateLimits,
    network::{Network, Reachable},
    reader::ConfigError,
    remote::RemoteConfig,
    sign_ins::{OutsideIssuer, SignInConfig},
    tenants::{TenantConfig, WorkosConfig},
    variables::{GROUPS, Group, Variable, env_example},
};
use crate::{
    cache::CacheSettings,
    ids::TenantId,
    model::{ModelConfig, embeddings::EmbeddingConfig},
    redis_stream::RedisConfig,
};

/// The tenant of `API_KEY`, unless `DEFAULT_TENANT_ID` names another.
pub const DEFAULT_TENANT: TenantId = TenantId(Uuid::from_u128(0x0a1f_0000_0000_7000_8000_0000_0000_0001));

/// Which kind of place this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppEnv {
    /// A developer's machine.
    Dev,
    /// A test's process.
    Test,
    /// People depend on it.
    Prod,
}

impl FromStr for AppEnv {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "dev" => Ok(Self::Dev),
            "test" => Ok(Self::Test),
            "prod" => Ok(Self::Prod),
            _ => Err(()),
        }
    }
}

impl fmt::Display for AppEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dev => "dev",
            Self::Test => "test",
            Self::Prod => "prod",
        })
    }
}

/// What a process was told. The variable of each field is its name in capitals unless its line says otherwise;
/// `.env.example` explains them.
#[derive(Debug, Clone)]
pub struct Config {
    pub app_env: AppEnv,
    pub app_host: IpAddr,
    pub app_port: u16,
    pub public_url: Url,
    /// Lower-case origins such as `https://app.example.com`; empty means all in dev and test, none in prod.
    pub cors_origins: Vec<String>,
    pub max_body_bytes: usize,
    /// `RATE_LIMIT_*`
    pub rate_limits: RateLimits,
    pub log_level: String,
    /// `DRAIN_SECONDS`
    pub drain: Duration,

    /// None only in production, where keys may live in the database alone.
    pub api_key: Option<SecretString>,
    /// `FERNET_KEY`: newest first, never empty.
    pub fernet_keys: Vec<SecretString>,
    /// `DEFAULT_TENANT_ID`
    pub default_tenant: TenantId,
    /// `*_AGENT_ENDPOINT`, `MCP_*`: agents that are told of users.
    pub agents: AgentsConfig,
    /// `REDIS_STREAMS_ENABLED`; none when it is off.
    pub redis: Option<RedisConfig>,
    /// `TENANT_*` and `WORKOS_*`
    pub tenants: TenantConfig,
    /// `ACCESS_TOKEN_SECONDS`, `PASSWORD_HASH_*`, `JWT_*` and the like.
    pub sign_ins: SignInConfig,
    /// `NOTION_*`, `FEATURE_NOTION_*` and `OAUTH_TIMEOUT_SECONDS`.
    pub connections: ConnectionConfig,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Network>,
    /// `OUTBOUND_ALLOW`: private addresses that what others name may lead us to. This machine is one in development.
    pub outbound_allow: Vec<Reachable>,
    /// `MCP_*`
    pub remote: RemoteConfig,

    pub db_url: SecretString,
    pub db_engine_url: SecretString,
    pub db_owner_url: SecretString,
    pub db_listen_url: SecretString,
    pub db_pool_max: u32,

    /// `MODEL_*` and the providers' keys.
    pub model: ModelConfig,
    pub model_retries: u32,
    /// `MODEL_RETRY_BASE_MS`
    pub model_retry_base: Duration,
    pub context_budget_tokens: i64,
    /// `TOKEN_THRIFT` and the sizes that go with it.
    pub thrift: ThriftConfig,
    /// `CACHE_*`
    pub cache: CacheSettings,
    /// `EMBEDDING_*`: none switches search by meaning off.
    pub embeddings: Option<EmbeddingConfig>,

    /// The first of the ports that a worker tries for its metrics; none is no metrics.
    pub worker_metrics_port: Option<u16>,
    pub worker_concurrency: usize,
    pub tenant_running_turns: i64,
    /// `TURN_LEASE_SECONDS`
    pub turn_lease: Duration,
    pub turn_max_attempts: i64,
    /// `TURN_RETRY_BASE_MS`
    pub turn_retry_base: Duration,
    pub turn_max_steps: i64,
    /// `TURN_TIME_BUDGET_SECONDS`
    pub turn_time_budget: Duration,
    pub turn_token_budget: i64,
    /// `TURN_COST_BUDGET_MICROS`; none is no limit.
    pub turn_cost_budget_micros: Option<i64>,
    /// `APPROVAL_TIMEOUT_SECONDS`
    pub approval_timeout: Duration,
    pub session_idle_days: i64,

    /// `TURN_SWEEP`: false only in tests.
    pub turn_sweep: bool,
    /// `ALFRED_FAILPOINT`: in tests only.
    pub failpoint: Option<String>,

    /// `STREAM_KEEPALIVE_SECONDS`
    pub stream_keepalive: Duration,
    /// `STREAM_HOLD_SECONDS`
    pub stream_hold: Duration,

    /// Sentences about values that work but should not stay; whoever starts a process logs them.
    pub warnings: Vec<String>,
}

impl Config {
    /// From the process's environment and, unless that says `APP_ENV=prod`, from `.env` in the current directory.
    ///
    /// # Errors
    /// Every variable that is missing or wrong.
    pub fn from_env() -> Result<Self, ConfigError> {
        // A value that is not Unicode cannot be one of ours.
        let environment: HashMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        if environment.get("APP_ENV").is_some_and(|app_env| app_env.trim() == "prod") {
            return Self::from_vars(&environment);
        }
        let mut variables = HashMap::new();
        match dotenvy::from_path_iter(".env") {
            Ok(lines) => {
                for line in lines {
                    match line {
                        Ok((name, value)) => variables.insert(name, value),
                        // The error would quote the line, and the line may be a secret.
                        Err(_) => {
                            let problem = "has a line that is not NAME=value".to_owned();
                            return Err(ConfigError { problems: vec![(".env", problem)] });
                        }
                    };
                }
            }
            Err(error) if error.not_found() => {}
            Err(_) => return Err(ConfigError { problems: vec![(".env", "cannot be read".to_owned())] }),
        }
        // An empty variable of the environment counts as unset and does not hide the file's.
        variables.extend(environment.into_iter().filter(|(_, value)| !value.trim().is_empty()));
        Self::from_vars(&variables)
    }

    /// From these variables alone.
    ///
    /// # Errors
    /// Every variable that is missing or wrong.
    pub fn from_vars(variables: &HashMap<String, String>) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(variables);
        let config = read(&mut reader);
        match config {
            Some(config) if reader.problems.is_empty() => Ok(config),
            _ => Err(ConfigError { problems: reader.problems }),
        }
    }
}

/// None only when a problem was noted.
fn read(reader: &mut Reader<'_>) -> Option<Config> {
    let app_env = reader.optional("APP_ENV", "dev, test or prod").unwrap_or(AppEnv::Prod);
    let production = app_env == AppEnv::Prod;
    let app_port = reader.number("APP_PORT", 0, u16::MAX);
    let unset_host = IpAddr::from(if production { [0, 0, 0, 0] } else { [127, 0, 0, 1] });
    let app_host = reader.optional("APP_HOST", "an IP address").unwrap_or(unset_host);
    let public_url = origins::own(reader, app_port);
    let cors_origins = origins::of_browsers(reader);
    let mut warnings = Vec::new();
    let (api_key, fernet_keys) =
        (keys::api(reader, production), keys::fernet(reader, production, &mut warnings));
    let default_tenant = reader.optional("DEFAULT_TENANT_ID", "a uuid").map_or(DEFAULT_TENANT, TenantId);
    let agents = agents::read(reader, fernet_keys.first());
    let redis = redis::read(reader);
    let tenants = tenants::read(reader, production);
    let sign_ins = sign_ins::read(reader, production, public_url.as_ref(), &mut warnings);
    let connections = connections::read(reader, public_url.as_ref());
    let log_level = reader.text("LOG_LEVEL").unwrap_or_default().to_owned();
    if tracing_subscriber::EnvFilter::try_new(&log_level).is_err() {
        reader.refuse("LOG_LEVEL", format!("{log_level:?} is not a level or a list of directives"));
    }
    let db_url = reader.database("DB_URL");
    if db_url.is_none() && reader.given("DB_URL").is_none() {
        reader.refuse(
            "DB_URL",
            "is required, for example postgresql://alfred_app:secret@127.0.0.1:5432/alfred",
        );
    }
    let db_engine_url = reader.database("DB_ENGINE_URL").or_else(|| db_url.clone());
    let db_owner_url = reader.database("DB_OWNER_URL").or_else(|| db_url.clone());
    let db_listen_url = reader.database("DB_LISTEN_URL").or_else(|| db_engine_url.clone());
    let model = model::read(reader);
    Some(Config {
        app_env,
        app_host,
        app_port,
        public_url: public_url?,
        cors_origins,
        rate_limits: limits::read(reader),
        max_body_bytes: reader.number("MAX_BODY_BYTES", 1024, 64 << 20),
        log_level,
        drain: reader.seconds("DRAIN_SECONDS", 0.0, 3600.0),
        api_key,
        fernet_keys,
        default_tenant,
        agents: agents?,
        redis,
        tenants: tenants?,
        sign_ins,
        trusted_proxies: reader.list("TRUSTED_PROXIES", "an address or a network such as 10.0.0.0/8"),
        outbound_allow: network::outbound_allow(reader, app_env),
        remote: remote::read(reader, connections.as_ref()),
        connections: connections?,
        db_pool_max: reader.number("DB_POOL_MAX", 3, 1000),
        embeddings: embeddings::read(reader, model.openai_api_key.as_ref()),
        model,
        model_retries: reader.number("MODEL_RETRIES", 0, 20),
        model_retry_base: reader.milliseconds("MODEL_RETRY_BASE_MS", 0, 60_000),
        context_budget_tokens: reader.number("CONTEXT_BUDGET_TOKENS", 1000, 100_000_000),
        thrift: cache::read_thrift(reader),
        cache: cache::read(reader),
        worker_metrics_port: reader.optional("WORKER_METRICS_PORT", "a port number"),
        worker_concurrency: reader.number("WORKER_CONCURRENCY", 1, 100_000),
        tenant_running_turns: reader.number("TENANT_RUNNING_TURNS", 1, 100_000),
        turn_lease: reader.seconds("TURN_LEASE_SECONDS", 0.5, 3600.0),
        turn_max_attempts: reader.number("TURN_MAX_ATTEMPTS", 1, 100),
        turn_retry_base: reader.milliseconds("TURN_RETRY_BASE_MS", 0, 3_600_000),
        turn_max_steps: reader.number("TURN_MAX_STEPS", 1, 1000),
        turn_time_budget: reader.seconds("TURN_TIME_BUDGET_SECONDS", 1.0, 86_400.0),
        turn_token_budget: reader.number("TURN_TOKEN_BUDGET", 1, i64::MAX),
        turn_cost_budget_micros: Some(reader.number("TURN_COST_BUDGET_MICROS", 0, i64::MAX))
            .filter(|most| *most > 0),
        approval_timeout: reader.seconds("APPROVAL_TIMEOUT_SECONDS", 1.0, 2_592_000.0),
        session_idle_days: reader.number("SESSION_IDLE_DAYS", 1, 3650),
        turn_sweep: test_only(reader, app_env, "TURN_SWEEP") != Some("off".to_owned()),
        failpoint: test_only(reader, app_env, "ALFRED_FAILPOINT"),
        stream_keepalive: reader.seconds("STREAM_KEEPALIVE_SECONDS", 0.1, 3600.0),
        stream_hold: reader.seconds("STREAM_HOLD_SECONDS", 0.0, 60.0),
        warnings,
        db_url: db_url?,
        db_engine_url: db_engine_url?,
        db_owner_url: db_owner_url?,
        db_listen_url: db_listen_url?,
    })
}

/// A variable that only tests may set to anything but its default.
fn test_only(reader: &mut Reader<'_>, app_env: AppEnv, name: &'static str) -> Option<String> {
    let value = reader.given(name)?.to_owned();
    if app_env != AppEnv::Test && variables::default_of(name) != Some(&value) {
        reader.refuse(name, "is for tests only and needs APP_ENV=test".to_owned());
    }
    Some(value)
}
