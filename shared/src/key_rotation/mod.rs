//! Sealing everything again with the newest key of `FERNET_KEY`, while everybody works: row by row, each only where it is
//! still as it was read, so a run may be stopped and begun anew, and two may run at once.
//!
//! Knows every sealed column there is, as data; `shared/tests/catalogue.rs` compares the list with the schema.

mod store;

use secrecy::ExposeSecret as _;
use sqlx::PgPool;

pub use self::store::columns;
use self::store::{PLACES, Place, Reach, Spot};
use crate::{
    config::Config,
    counters::Counters,
    db::{self, DbRole, TenantDb},
    error::{Error, Result},
    identity::Actor,
    vault::{Binding, Vault},
};

/// Rows that are asked for at once.
const CHUNK: i64 = 200;

/// What became of one kind of secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What they are.
    pub what: &'static str,
    /// Sealed again.
    pub sealed_again: u64,
    /// Opened by no key that there is, and left as they are.
    pub unopened: u64,
    /// How many each key has now, by its id.
    pub left: Vec<(String, i64)>,
}

/// Seals everything again that the first key did not seal.
///
/// # Errors
/// The database's. What was sealed again stays so; run it again.
pub async fn rotate(config: &Config) -> Result<Vec<Report>> {
    let options = |url: &secrecy::SecretString, role| {
        db::options(url.expose_secret(), role, "alfred-rotate-keys").map_err(Error::internal)
    };
    let app = options(&config.db_url, DbRole::App)?;
    let engine = db::pool(options(&config.db_engine_url, DbRole::Engine)?, 2);
    let counters = Counters::start(db::relaxed_pool(app.clone()));
    let tenants = TenantDb::new(db::pool(app, 2), counters.into());
    let vault = Vault::new(&config.fernet_keys)?;
    let mut reports = Vec::new();
    for place in PLACES {
        reports.push(rotate_place(&engine, &tenants, &vault, place).await?);
    }
    Ok(reports)
}

async fn rotate_place(engine: &PgPool, tenants: &TenantDb, vault: &Vault, place: &Place) -> Result<Report> {
    let (mut sealed_again, mut unopened) = (0, 0);
    let mut after = None;
    loop {
        let spots = store::spots(engine, place, vault.first_id(), after.as_ref(), CHUNK).await?;
        let Some(last) = spots.last().cloned() else { break };
        for spot in &spots {
            match reseal(engine, tenants, vault, place, spot).await {
                Ok(count) => sealed_again += count,
                Err(error) if error.database().is_some() => return Err(error),
                Err(error) => {
                    unopened += 1;
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, what = place.what, tenant_id = %spot.tenant_id, "a secret was not sealed again");
                }
            }
        }
        after = Some(last);
    }
    Ok(Report { what: place.what, sealed_again, unopened, left: store::left(engine, place).await? })
}

/// Seals the secrets of one row again, in one transaction.
async fn reseal(
    engine: &PgPool,
    tenants: &TenantDb,
    vault: &Vault,
    place: &Place,
    spot: &Spot,
) -> Result<u64> {
    let again = |sealed: &store::Sealed, purpose| {
        let subject = sealed.subject()?;
        let binding = Binding { tenant: spot.tenant_id, purpose, subject: &subject };
        vault.seal(binding, &vault.open(binding, &sealed.text)?)
    };
    let mut count = 0;
    match place.reach {
        Reach::Engine => {
            let mut tx = db::begin(engine).await?;
            for column in place.columns {
                if let Some(sealed) = store::read(&mut tx, column, spot).await? {
                    let new = again(&sealed, column.purpose)?;
                    count += store::write(&mut tx, column, spot, &sealed.text, &new).await?;
                }
            }
            tx.commit().await?;
        }
        Reach::Person => {
            let mut tx = tenants.begin(&Actor::of_turn(spot.tenant_id, spot.user_id)).await?;
            for column in place.columns {
                if let Some(sealed) = store::read(tx.connection(), column, spot).await? {
                    let new = again(&sealed, column.purpose)?;
                    count += store::write(tx.connection(), column, spot, &sealed.text, &new).await?;
                }
            }
            tx.commit().await?;
        }
    }
    Ok(count)
}
