//! The agents of the reference deployment, each there when its endpoint is in the environment.

use serde_json::{Value, json};
use sqlx::PgPool;
use url::Url;

use super::{AgentName, permissions::Level, secret, store};
use crate::{error::Result, ids::TenantId, vault::Vault};

/// What an agent of the reference deployment may do when it is new. From then on its admins decide.
struct Defaults {
    name: &'static str,
    level: Level,
    required: &'static [&'static str],
    optional: &'static [&'static str],
    forbidden: &'static [&'static str],
}

const DEFAULTS: [Defaults; 5] = [
    // It looks at markets, and has no business with what anybody owns.
    Defaults {
        name: "technical_analysis",
        level: Level::ReadOnly,
        required: &["read:preferences"],
        optional: &["read:active_strategies"],
        forbidden: &["read:portfolio_settings"],
    },
    Defaults {
        name: "portfolio_optimization",
        level: Level::ReadWrite,
        required: &["read:portfolio_settings", "read:risk_profile"],
        optional: &["read:preferences", "read:active_strategies", "write:active_strategies"],
        forbidden: &["write:preferences"],
    },
    Defaults {
        name: "risk_management",
        level: Level::ReadWrite,
        required: &["read:risk_profile", "read:portfolio_settings"],
        optional: &["read:active_strategies", "write:risk_profile"],
        forbidden: &["write:preferences"],
    },
    Defaults {
        name: "news_analysis",
        level: Level::ReadOnly,
        required: &["read:preferences"],
        optional: &[],
        forbidden: &["read:portfolio_settings", "read:risk_profile"],
    },
    Defaults {
        name: "user_preference",
        level: Level::ReadWrite,
        required: &["read:preferences", "write:preferences"],
        optional: &["read:risk_profile", "read:session"],
        forbidden: &["read:portfolio_settings"],
    },
];

/// Makes the registry of this tenant, the deployment's default one, agree with the environment. Safe to run many times and at
/// the same time. A new agent gets a secret, which an admin fetches by rotating it.
///
/// # Errors
/// The database's.
pub async fn apply(engine: &PgPool, vault: &Vault, tenant: TenantId, agents: &[(&str, Url)]) -> Result<()> {
    let given: Vec<Value> = agents.iter().map(|(name, url)| described(name, url)).collect();
    let without_secret = store::configure(engine, tenant, &Value::Array(given)).await?;
    for name in without_secret {
        let mut tx = crate::db::begin(engine).await?;
        make_first_secret(&mut tx, vault, tenant, &name).await?;
        tx.commit().await?;
    }
    Ok(())
}

fn described(name: &str, url: &Url) -> Value {
    let defaults = DEFAULTS.iter().find(|defaults| defaults.name == name);
    let level = defaults.map_or(Level::Restricted, |defaults| defaults.level);
    json!({
        "name": name,
        "endpoint": url.as_str().trim_end_matches('/'),
        "level": level.as_str(),
        "required": defaults.map(|defaults| defaults.required).unwrap_or_default(),
        "optional": defaults.map(|defaults| defaults.optional).unwrap_or_default(),
        "forbidden": defaults.map(|defaults| defaults.forbidden).unwrap_or_default(),
    })
}

async fn make_first_secret(
    connection: &mut sqlx::PgConnection,
    vault: &Vault,
    tenant: TenantId,
    name: &AgentName,
) -> Result<()> {
    secret::make(connection, vault, tenant, name).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agents::permissions::{Granted, Part},
        testing::TestDb,
    };

    /// What an admin switched off stays off, wherever the environment says that it is; what merely left the environment is back
    /// when it names it again.
    #[tokio::test]
    async fn the_environment_moves_an_agent_and_switches_none_on() {
        let db = TestDb::new().await;
        let vault = Vault::new(&["MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=".into()]).unwrap();
        let tenant = TenantId(uuid::Uuid::from_u128(7));
        sqlx::query("insert into tenants (id, name) values ($1, 'home')")
            .bind(tenant)
            .execute(&db.admin())
            .await
            .unwrap();
        let configure = async |agents: &[(&str, &str)]| -> Vec<(String, String, bool)> {
            let agents: Vec<_> = agents.iter().map(|(name, url)| (*name, url.parse().unwrap())).collect();
            apply(&db.engine, &vault, tenant, &agents).await.unwrap();
            sqlx::query_as("select name, endpoint, enabled from agents order by name")
                .fetch_all(&db.admin())
                .await
                .unwrap()
        };
        let stands =
            |name: &str, place: &str, is_on: bool| (name.to_owned(), format!("http://{place}"), is_on);
        let (risk, news) = ("risk_management", "news_analysis");
        configure(&[(risk, "http://a:1"), (news, "http://b:1")]).await;
        // As an admin does it.
        sqlx::query("update agents set enabled = false where name = $1")
            .bind(risk)
            .execute(&db.admin())
            .await
            .unwrap();
        assert_eq!(
            configure(&[(risk, "http://a:2"), (news, "http://b:2")]).await,
            [stands(news, "b:2", true), stands(risk, "a:2", false)]
        );
        sqlx::query(
            "insert into agent_sessions (tenant_id, id, agent_name, session_token_hash, permissions, expires_at)
             select tenant_id, gen_random_uuid(), name, '\\x00', '{}', now() + interval '1 hour' from agents where name = $1",
        )
        .bind(news)
        .execute(&db.admin())
        .await
        .unwrap();
        assert_eq!(configure(&[]).await, [stands(news, "b:2", false), stands(risk, "a:2", false)]);
        assert_eq!(
            configure(&[(risk, "http://a:2"), (news, "http://b:2")]).await,
            [stands(news, "b:2", true), stands(risk, "a:2", false)]
        );
        let lasts: bool =
            sqlx::query_scalar("select is_active from agent_sessions").fetch_one(&db.admin()).await.unwrap();
        assert!(!lasts, "a session of an agent that was switched off");
    }

    #[test]
    fn the_defaults_agree_and_give_each_agent_what_it_needs() {
        for defaults in &DEFAULTS {
            let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
            let given = [defaults.required, defaults.optional, defaults.forbidden];
            for word in given.iter().copied().flatten() {
                assert!(word.parse::<crate::agents::permissions::Permission>().is_ok(), "{word}");
            }
            let [required, optional, forbidden] = given.map(words);
            let permissions = store::permissions_of(&required, &optional, &forbidden);
            permissions.must_agree().unwrap();
            let granted = permissions.granted(defaults.level);
            assert_ne!(granted, Granted::default(), "{}", defaults.name);
            let sees_money = granted.reads(Part::PortfolioSettings);
            assert_eq!(sees_money, ["portfolio_optimization", "risk_management"].contains(&defaults.name));
        }
    }
}
