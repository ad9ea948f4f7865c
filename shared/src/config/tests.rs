//! What processes are told, and what they refuse to start with.

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
    assert_eq!(refused(&[("MODEL_PROVIDER", "mistral"), ("APP_PORT", "x")]), ["APP_PORT", "MODEL_PROVIDER"]);
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
