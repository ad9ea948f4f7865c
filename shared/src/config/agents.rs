//! Agents that are told of users: which the environment names, and how they are told.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::reader::Reader;

/// The agents of the reference deployment: the name of each, and the variable with its endpoint.
const REFERENCES: [(&str, &str); 5] = [
    ("technical_analysis", "TECHNICAL_ANALYSIS_AGENT_ENDPOINT"),
    ("portfolio_optimization", "PORTFOLIO_OPTIMIZATION_AGENT_ENDPOINT"),
    ("risk_management", "RISK_MANAGEMENT_AGENT_ENDPOINT"),
    ("news_analysis", "NEWS_ANALYSIS_AGENT_ENDPOINT"),
    ("user_preference", "USER_PREFERENCE_AGENT_ENDPOINT"),
];

/// See `.env.example`.
#[derive(Debug, Clone)]
pub struct AgentsConfig {
    /// `MCP_AGENT_NOTIFICATION_ENABLED`
    pub notifications: bool,
    /// `MCP_NOTIFICATION_TIMEOUT`
    pub timeout: Duration,
    /// `MCP_MAX_RETRY_ATTEMPTS`
    pub max_retries: i64,
    /// `AGENT_RETRY_BASE_MS`
    pub retry_base: Duration,
    /// `MCP_CIRCUIT_BREAKER_FAILURE_THRESHOLD`
    pub breaker_threshold: i64,
    /// `MCP_CIRCUIT_BREAKER_RECOVERY_TIMEOUT`
    pub breaker_recovery: Duration,
    /// `AGENT_TOKEN_EXPIRE_MINUTES`
    pub token_life: Duration,
    /// `CONTEXT_INACTIVE_DAYS`
    pub context_inactive_days: i64,
    /// `AGENT_JWT_SECRET_KEY`
    pub jwt_secret: SecretString,
    /// `*_AGENT_ENDPOINT`: name and address.
    pub configured: Vec<(&'static str, Url)>,
}

/// `first_key` is what tokens are signed with where no other secret is set. None only when a problem was noted.
pub(super) fn read(reader: &mut Reader<'_>, first_key: Option<&SecretString>) -> Option<AgentsConfig> {
    let jwt_secret = reader.secret("AGENT_JWT_SECRET_KEY");
    if jwt_secret.as_ref().is_some_and(|secret| secret.expose_secret().len() < 32) {
        reader.refuse(
            "AGENT_JWT_SECRET_KEY",
            "is shorter than 32 characters; make one with: openssl rand -hex 32",
        );
    }
    let mut configured = Vec::new();
    for (name, variable) in REFERENCES {
        let url: Option<Url> = reader.optional(variable, "an http or https URL");
        match url {
            Some(url) if matches!(url.scheme(), "http" | "https") => configured.push((name, url)),
            Some(_) => reader.refuse(variable, "is not an http or https URL"),
            None => {}
        }
    }
    Some(AgentsConfig {
        notifications: on_or_off(reader, "MCP_AGENT_NOTIFICATION_ENABLED"),
        timeout: reader.seconds("MCP_NOTIFICATION_TIMEOUT", 0.05, 60.0),
        max_retries: reader.number("MCP_MAX_RETRY_ATTEMPTS", 0, 20),
        retry_base: reader.milliseconds("AGENT_RETRY_BASE_MS", 10, 60_000),
        breaker_threshold: reader.number("MCP_CIRCUIT_BREAKER_FAILURE_THRESHOLD", 1, 1000),
        breaker_recovery: reader.seconds("MCP_CIRCUIT_BREAKER_RECOVERY_TIMEOUT", 0.05, 3600.0),
        token_life: Duration::from_secs(60 * reader.number::<u64>("AGENT_TOKEN_EXPIRE_MINUTES", 1, 1440)),
        context_inactive_days: reader.number("CONTEXT_INACTIVE_DAYS", 1, 365),
        jwt_secret: jwt_secret.or_else(|| first_key.cloned())?,
        configured,
    })
}

fn on_or_off(reader: &mut Reader<'_>, name: &'static str) -> bool {
    match reader.text(name) {
        Some("on" | "true") => true,
        Some("off" | "false") => false,
        _ => {
            reader.refuse(name, "is not on or off");
            false
        }
    }
}
