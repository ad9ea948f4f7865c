//! Making, cloning and dropping databases.

use std::{str::FromStr, time::Duration};

use sqlx::{
    AssertSqlSafe, Connection, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::{
    db::{self, DbRole},
    error::{Error, Result},
};

/// Serialises the making of templates; any number will do.
const TEMPLATE_LOCK: i64 = 7042;

/// Makes the database `name` from the template, and the template first if the cluster has none.
pub(super) async fn make(cluster_url: &str, template: &str, name: &str) -> Result<()> {
    let mut admin = PgConnection::connect(cluster_url).await?;
    if !exists(&mut admin, template).await? {
        sqlx::query("select pg_advisory_lock($1)").bind(TEMPLATE_LOCK).execute(&mut admin).await?;
        // The lock goes with the connection, whatever happens in between.
        if !exists(&mut admin, template).await? {
            make_template(&mut admin, cluster_url, template).await?;
        }
        sqlx::query("select pg_advisory_unlock($1)").bind(TEMPLATE_LOCK).execute(&mut admin).await?;
    }
    create(&mut admin, &format!("create database {name} template {template} owner alfred_owner")).await?;
    admin.close().await?;
    Ok(())
}

async fn exists(admin: &mut PgConnection, name: &str) -> Result<bool> {
    let found =
        sqlx::query("select from pg_database where datname = $1").bind(name).fetch_optional(admin).await?;
    Ok(found.is_some())
}

/// Migrates under another name, and renames when all is done: a template that exists is whole.
async fn make_template(admin: &mut PgConnection, cluster_url: &str, template: &str) -> Result<()> {
    let making = format!("{template}_making");
    run(admin, &format!("drop database if exists {making} with (force)")).await?;
    run(admin, &format!("create database {making} owner alfred_owner")).await?;
    let url = super::database_url(cluster_url, &making, Some("alfred_owner"));
    let options = db::options(&url, DbRole::Owner, "test").map_err(Error::internal)?;
    let owner: PgPool = PgPoolOptions::new().max_connections(2).connect_with(options).await?;
    db::migrate(&owner).await?;
    owner.close().await;
    create(admin, &format!("alter database {making} rename to {template}")).await
}

/// Runs a statement that needs a database without connections; one that just closed may take a moment to be gone.
async fn create(admin: &mut PgConnection, statement: &str) -> Result<()> {
    for _ in 0..100 {
        match run(admin, statement).await {
            Err(error) if is_in_use(&error) => tokio::time::sleep(Duration::from_millis(50)).await,
            other => return other,
        }
    }
    run(admin, statement).await
}

fn is_in_use(error: &Error) -> bool {
    let code = error.database().and_then(sqlx::Error::as_database_error).and_then(|error| error.code());
    code.as_deref() == Some("55006")
}

async fn run(admin: &mut PgConnection, statement: &str) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(admin).await?;
    Ok(())
}

/// A partition of items for this kind.
pub(super) async fn add_kind(owner_url: &str, kind: &str) -> Result<()> {
    let options = db::options(owner_url, DbRole::Owner, "test").map_err(Error::internal)?;
    let mut owner = PgConnection::connect_with(&options).await?;
    run(&mut owner, &format!("create table items_{kind} partition of items for values in ('{kind}')"))
        .await?;
    owner.close().await?;
    Ok(())
}

/// Drops the database, with whoever is still connected. Failing is harmless: the cluster is a throwaway.
pub(super) async fn discard(cluster_url: &str, name: &str) {
    let dropping = async {
        let options = PgConnectOptions::from_str(cluster_url)?;
        let mut admin = PgConnection::connect_with(&options).await?;
        run(&mut admin, &format!("drop database if exists {name} with (force)")).await?;
        Ok::<_, Error>(())
    };
    if let Ok(Err(error)) = tokio::time::timeout(Duration::from_secs(20), dropping).await {
        tracing::warn!(%error, database = name, "could not drop a test database");
    }
}
