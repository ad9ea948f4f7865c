//! Feature flags: what operators switch on for everybody, for nobody, or for a part of all subjects. A subject is a user (by
//! id), an agent or a remote MCP server (by name).
//!
//! Invariant: whoever has a feature keeps it while its percentage grows. Each subject has a place among all, which comes from
//! a hash of the flag's name and the subject's, so that the parts of different flags are not the same people. The function
//! `flag_place` of the database computes the same.

mod store;

use chrono::{DateTime, Utc};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use sqlx::PgPool;

use crate::{
    bell::{Bell, Ring},
    db,
    error::{Error, Result},
    ids::UserId,
    tenancy::{
        OperatorActor,
        audit::{self, Entry},
    },
};

/// Whether agents may have what is optional in their matrix of permissions; by agent.
pub const ADVANCED_AGENT_PERMISSIONS: &str = "ADVANCED_AGENT_PERMISSIONS";
/// Whether agents' health and the time that deliveries take are recorded; by agent.
pub const AGENT_PERFORMANCE_MONITORING: &str = "AGENT_PERFORMANCE_MONITORING";
/// Whether an agent or a remote MCP server that fails is left alone for a while; by agent, by server.
pub const CIRCUIT_BREAKER_ENABLED: &str = "CIRCUIT_BREAKER_ENABLED";
/// Whether agents are told of a user; by user.
pub const MCP_AGENT_NOTIFICATIONS: &str = "MCP_AGENT_NOTIFICATIONS";

/// Every flag, sorted.
pub const NAMES: &[&str] = &[
    ADVANCED_AGENT_PERMISSIONS,
    AGENT_PERFORMANCE_MONITORING,
    CIRCUIT_BREAKER_ENABLED,
    MCP_AGENT_NOTIFICATIONS,
];

/// Places of subjects.
const PLACES: u32 = 10_000;

/// A flag.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Flag {
    pub name: String,
    pub enabled: bool,
    /// Of all subjects.
    pub percent: i64,
    pub updated_at: DateTime<Utc>,
    pub updated_by: Option<UserId>,
}

impl Flag {
    /// Whether it is on for this subject.
    #[must_use]
    pub fn is_on_for(&self, subject: &str) -> bool {
        self.enabled && i64::from(place(&self.name, subject)) < self.percent * i64::from(PLACES / 100)
    }
}

/// What it governs, for people.
#[must_use]
pub fn about(flag: &str) -> &'static str {
    match flag {
        ADVANCED_AGENT_PERMISSIONS => "What agents may ask for beyond their required permissions. By agent",
        AGENT_PERFORMANCE_MONITORING => "The health checks of agents and the time of deliveries. By agent",
        CIRCUIT_BREAKER_ENABLED => {
            "Leaving agents and remote MCP servers alone for a while that fail. By agent and by server"
        }
        MCP_AGENT_NOTIFICATIONS => "Telling agents of users. By user",
        _ => "",
    }
}

/// Where a subject stands, below [`PLACES`].
fn place(flag: &str, subject: &str) -> u32 {
    let hash = Sha256::new().chain_update(flag).chain_update(":").chain_update(subject).finalize();
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]) % PLACES
}

/// Every flag, by name.
///
/// # Errors
/// The database's.
pub async fn list(engine: &PgPool, _: &OperatorActor) -> Result<Vec<Flag>> {
    store::all(engine).await
}

/// The same, for a process's copy.
pub(crate) async fn all(engine: &PgPool) -> Result<Vec<Flag>> {
    store::all(engine).await
}

/// Sets a flag; every process heeds it within a moment.
///
/// # Errors
/// 404; 422 for a percentage that is none; the database's.
pub async fn set(
    engine: &PgPool,
    bell: &Bell,
    operator: &OperatorActor,
    name: &str,
    enabled: bool,
    percent: i64,
) -> Result<Flag> {
    if !(0..=100).contains(&percent) {
        return Err(Error::unacceptable("percent: takes 0 to 100"));
    }
    let unknown = || Error::not_found("there is no such flag");
    if !NAMES.contains(&name) {
        return Err(unknown());
    }
    let mut tx = db::begin(engine).await?;
    let flag = store::set(&mut tx, name, enabled, percent, operator.actor().user).await?;
    let flag = flag.ok_or_else(unknown)?;
    let entry = Entry::new("flag.set", name).with(json!({ "enabled": enabled, "percent": percent }));
    audit::record_for(&mut tx, operator, operator.actor().tenant, entry).await?;
    tx.commit().await?;
    bell.ring(Ring::Switches);
    Ok(flag)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::testing::TestDb;

    fn flag(percent: i64) -> Flag {
        Flag {
            name: MCP_AGENT_NOTIFICATIONS.to_owned(),
            enabled: true,
            percent,
            updated_at: Utc::now(),
            updated_by: None,
        }
    }

    proptest! {
        #[test]
        fn whoever_has_a_feature_keeps_it_while_the_percentage_grows(subject in ".{0,40}", low in 0_i64..=100, more in 0_i64..=100) {
            let high = (low + more).min(100);
            prop_assert!(!flag(low).is_on_for(&subject) || flag(high).is_on_for(&subject));
            prop_assert_eq!(flag(low).is_on_for(&subject), flag(low).is_on_for(&subject));
            prop_assert!(!flag(0).is_on_for(&subject) && flag(100).is_on_for(&subject));
            let off = Flag { enabled: false, ..flag(100) };
            prop_assert!(!off.is_on_for(&subject));
        }
    }

    #[test]
    fn the_part_is_near_the_percentage() {
        let users: Vec<String> = (0..10_000_u128).map(|n| Uuid::from_u128(n * 7919).to_string()).collect();
        for percent in [1, 10, 50, 90] {
            let on = users.iter().filter(|user| flag(percent).is_on_for(user)).count();
            let off_by = i64::try_from(on).unwrap() - percent * 100;
            assert!(off_by.abs() < 200, "{percent} % is {on} of 10 000");
        }
    }

    #[tokio::test]
    async fn the_database_finds_the_same_place() {
        let db = TestDb::new().await;
        for subject in ["", "risk_management", "0198c0de-0000-7000-8000-000000000000", "é ☂"] {
            let found: i64 = store::place(&db.engine, MCP_AGENT_NOTIFICATIONS, subject).await.unwrap();
            assert_eq!(found, i64::from(place(MCP_AGENT_NOTIFICATIONS, subject)), "{subject}");
        }
    }
}
