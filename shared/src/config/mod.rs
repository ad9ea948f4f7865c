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
mod network;
mod reader;
mod redis;
mod remote;
mod sign_ins;
mod tenants;
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
    model::{self, ModelConfig, ModelId, Provider, embeddings::EmbeddingConfig},
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
    /// `TENANT_*` and `WORKOS_*`
    /// Agents that are told of users.
    pub agents: AgentsConfig,
    /// `REDIS_STREAMS_ENABLED`; none when it is off.
    pub redis: Option<RedisConfig>,
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
    let public_url = public_url(reader, app_port);
    let cors_origins = cors_origins(reader);
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
    let model = model(reader);
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
        outbound_allow: outbound_allow(reader, app_env),
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

/// The parts, which must also fit together: every process refuses what only a worker would come to use.
fn model(reader: &mut Reader<'_>) -> ModelConfig {
    let problems_before = reader.problems.len();
    let base_url: Option<Url> = reader.optional("MODEL_BASE_URL", "an http or https URL");
    if base_url.as_ref().is_some_and(|url| !matches!(url.scheme(), "http" | "https")) {
        reader.refuse("MODEL_BASE_URL", "is not an http or https URL");
    }
    let config = ModelConfig {
        provider: reader
            .optional::<Provider>("MODEL_PROVIDER", "anthropic, openai, openai-compatible or offline"),
        name: reader.text("MODEL_NAME").map(str::to_owned),
        base_url,
        fallbacks: reader.list::<ModelId>("MODEL_FALLBACKS", "a model written provider:model"),
        anthropic_api_key: reader.secret("ANTHROPIC_API_KEY"),
        openai_api_key: reader.secret("OPENAI_API_KEY"),
        idle_timeout: reader.seconds("MODEL_IDLE_TIMEOUT_SECONDS", 0.1, 3600.0),
        offline_delay: reader.milliseconds("MODEL_OFFLINE_DELAY_MS", 0, 60_000),
    };
    if reader.problems.len() == problems_before
        && let Err(error) = model::check(&config)
    {
        reader.refuse(error.variable, error.message);
    }
    config
}

/// A variable that only tests may set to anything but its default.
fn test_only(reader: &mut Reader<'_>, app_env: AppEnv, name: &'static str) -> Option<String> {
    let value = reader.given(name)?.to_owned();
    if app_env != AppEnv::Test && variables::default_of(name) != Some(&value) {
        reader.refuse(name, "is for tests only and needs APP_ENV=test".to_owned());
    }
    Some(value)
}

fn public_url(reader: &mut Reader<'_>, app_port: u16) -> Option<Url> {
    let text =
        reader.text("PUBLIC_URL").map_or_else(|| format!("http://localhost:{app_port}"), str::to_owned);
    match Url::parse(&text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.host().is_some() => Some(url),
        _ => {
            reader.refuse("PUBLIC_URL", format!("{text:?} is not an http or https URL"));
            None
        }
    }
}

fn cors_origins(reader: &mut Reader<'_>) -> Vec<String> {
    let mut origins = Vec::new();
    for url in reader.list::<Url>("CORS_ORIGINS", "an origin such as https://app.example.com") {
        if !matches!(url.scheme(), "http" | "https") || url.path() != "/" || url.query().is_some() {
            reader.refuse(
                "CORS_ORIGINS",
                format!("{:?} is not an origin: scheme, host and port only", url.as_str()),
            );
        }
        origins.push(url.origin().ascii_serialization());
    }
    origins
}

fn outbound_allow(reader: &mut Reader<'_>, app_env: AppEnv) -> Vec<Reachable> {
    let expected = "a host, a host and a port, an address or a network such as 10.0.0.0/8";
    let mut allowed = reader.list("OUTBOUND_ALLOW", expected);
    if app_env == AppEnv::Dev {
        let this_machine = ["127.0.0.0/8", "::1", "localhost"];
        allowed.extend(this_machine.iter().filter_map(|entry| entry.parse().ok()));
    }
    allowed
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::{
        keys::{DEVELOPMENT_API_KEY, DEVELOPMENT_FERNET_KEY},
        *,
    };

    const DB: (&str, &str) = ("DB_URL", "postgresql+asyncpg://alfred_app:hunter2@127.0.0.1/alfred");
    const FERNET: (&str, &str) = ("FERNET_KEY", "0123456789012345678901234567890123456789-_8=");

    fn read(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::from_vars(
            &variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        )
    }

    fn refused(variables: &[(&str, &str)]) -> Vec<&'static str> {
        let mut with_db = vec![DB];
        with_db.extend(variables);
        read(&with_db).unwrap_err().problems.into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn the_database_is_all_that_development_needs() {
        let config = read(&[DB]).unwrap();
        assert_eq!((config.app_port, config.app_env), (8080, AppEnv::Dev));
        assert_eq!(config.db_listen_url.expose_secret(), DB.1);
        assert_eq!(config.turn_cost_budget_micros, None);
        assert_eq!(config.warnings.len(), 1);
        assert_eq!(config.public_url.as_str(), "http://localhost:8080/");
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn all_problems_are_told_at_once_and_none_quotes_a_secret() {
        let error = read(&[
            ("APP_PORT", "eighty"),
            ("TURN_LEASE_SECONDS", "-1"),
            ("DB_URL", "mysql://root:hunter2@localhost/x"),
            ("API_KEY", "hunter2"),
            ("FERNET_KEY", "hunter2"),
            ("CORS_ORIGINS", "https://a.example/path"),
            ("LOG_LEVEL", "a=b=c"),
        ])
        .unwrap_err();
        let text = error.to_string();
        for name in
            ["APP_PORT", "TURN_LEASE_SECONDS", "DB_URL", "API_KEY", "FERNET_KEY", "CORS_ORIGINS", "LOG_LEVEL"]
        {
            assert!(text.contains(&format!("\n{name}: ")), "{name} is not named in {text}");
        }
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn production_wants_secrets_of_its_own() {
        assert_eq!(refused(&[("APP_ENV", "prod")]), ["FERNET_KEY"]);
        assert_eq!(refused(&[("APP_ENV", "prod"), FERNET, ("API_KEY", DEVELOPMENT_API_KEY)]), ["API_KEY"]);
        assert_eq!(refused(&[("APP_ENV", "prod"), ("FERNET_KEY", DEVELOPMENT_FERNET_KEY)]), ["FERNET_KEY"]);
        let config = read(&[DB, ("APP_ENV", "prod"), FERNET]).unwrap();
        assert!(config.api_key.is_none());
        assert_eq!(config.app_host, IpAddr::from([0, 0, 0, 0]));
        assert!(config.warnings.is_empty());
    }

    #[test]
    fn the_parts_of_a_model_must_fit_together() {
        assert_eq!(refused(&[("MODEL_PROVIDER", "anthropic")]), ["ANTHROPIC_API_KEY"]);
        assert_eq!(refused(&[("MODEL_FALLBACKS", "openai:gpt-5-mini")]), ["OPENAI_API_KEY"]);
        assert_eq!(refused(&[("MODEL_PROVIDER", "openai-compatible")]), ["MODEL_NAME"]);
        assert_eq!(
            refused(&[("MODEL_PROVIDER", "mistral"), ("APP_PORT", "x")]),
            ["APP_PORT", "MODEL_PROVIDER"]
        );
        read(&[DB, ("MODEL_PROVIDER", "openai"), ("OPENAI_API_KEY", "k")]).unwrap();
    }

    #[test]
    fn a_model_of_embeddings_needs_an_address_or_a_key() {
        let provider = |name| ("EMBEDDING_PROVIDER", name);
        assert_eq!(refused(&[provider("openai")]), ["EMBEDDING_API_KEY"]);
        assert_eq!(refused(&[provider("openai-compatible")]), ["EMBEDDING_BASE_URL", "EMBEDDING_MODEL"]);
        assert_eq!(refused(&[provider("anthropic")]), ["EMBEDDING_PROVIDER"]);
        assert_eq!(refused(&[("EMBEDDING_MODEL", "m")]), ["EMBEDDING_MODEL"]);
        assert_eq!(refused(&[("EMBEDDING_DIMENSIONS", "0")]), ["EMBEDDING_DIMENSIONS"]);
        assert!(read(&[DB]).unwrap().embeddings.is_none());
        let config = read(&[DB, provider("openai"), ("OPENAI_API_KEY", "k")]).unwrap().embeddings.unwrap();
        assert_eq!(config.model, "text-embedding-3-small");
    }

    #[test]
    fn an_outside_issuer_needs_a_name_and_keys() {
        let issuer = ("JWT_ISSUER", "https://issuer.example");
        let secret = ("JWT_HS256_SECRET", "0123456789abcdef0123456789abcdef");
        assert_eq!(refused(&[issuer]), ["JWT_ISSUER"]);
        assert_eq!(refused(&[secret]), ["JWT_ISSUER"]);
        assert_eq!(refused(&[issuer, ("JWT_HS256_SECRET", "short")]), ["JWT_HS256_SECRET"]);
        assert_eq!(refused(&[issuer, ("JWT_JWKS_URL", "ftp://issuer.example")]), ["JWT_JWKS_URL"]);
        assert_eq!(refused(&[("JWT_ISSUER", "http://localhost:8080"), secret]), ["JWT_ISSUER"]);
        let plain = ("JWT_JWKS_URL", "http://issuer.example/keys");
        assert_eq!(refused(&[("APP_ENV", "prod"), FERNET, issuer, plain]), ["JWT_JWKS_URL"]);
        let config = read(&[DB, issuer, secret]).unwrap();
        assert!(config.sign_ins.outside_issuer.is_some());
        assert!(config.warnings.iter().any(|warning| warning.starts_with("JWT_AUDIENCE")));
    }

    #[test]
    fn an_empty_value_counts_as_unset() {
        assert_eq!(read(&[DB, ("APP_PORT", " "), ("DB_ENGINE_URL", "")]).unwrap().app_port, 8080);
        assert_eq!(refused(&[("APP_ENV", "production")])[0], "APP_ENV");
        assert_eq!(read(&[]).unwrap_err().problems[0].0, "DB_URL");
    }

    #[test]
    fn every_default_is_accepted() {
        let mut variables: HashMap<String, String> = GROUPS
            .iter()
            .flat_map(|group| group.variables)
            .map(|v| (v.name.to_owned(), v.default.to_owned()))
            .collect();
        variables.insert("DB_URL".to_owned(), DB.1.to_owned());
        Config::from_vars(&variables).unwrap();
    }
}
