//! The harness itself: a cluster that crashes and comes back, and a proxy that loses what it should.

use std::{str::FromStr, time::Duration};

use anyhow::{Result, ensure};
use harness::{
    database::Database,
    postgres::Stop,
    proxy::{Mode, Proxy},
};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};

use crate::run::ensure_eq;

#[tokio::test]
async fn a_cluster_crashes_and_comes_back_with_what_was_committed() -> Result<()> {
    let database = Database::own().await?;
    ensure_eq!(database.count("turns").await?, 0, "turns");
    database.cluster().restart(Stop::Immediate).await?;
    let back = tokio::time::timeout(Duration::from_secs(10), async {
        while database.count("turns").await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    back.await?;
    database.cluster().stop(Stop::Fast).await?;
    ensure!(database.count("turns").await.is_err(), "the server answers although it was stopped");
    database.cluster().start_again().await?;
    Ok(())
}

#[tokio::test]
async fn a_proxy_lets_a_commit_happen_and_loses_its_reply() -> Result<()> {
    let database = Database::shared().await;
    let proxy = Proxy::start(database.address()?).await?;
    let options = PgConnectOptions::from_str(&proxy.url(&database.engine_url)?)?;
    let insert = "insert into workers (id, host, pid) values (gen_random_uuid(), 'h', 1)";

    let mut connection = PgConnection::connect_with(&options).await?;
    proxy.lose_replies_to("commit", 1);
    let mut transaction = connection.begin().await?;
    sqlx::query(insert).execute(&mut *transaction).await?;
    ensure!(transaction.commit().await.is_err(), "the reply to COMMIT came through");
    ensure_eq!((proxy.lost(), database.count("workers").await?), (1, 1), "lost replies and rows");

    // A statement that commits by itself, prepared on this connection before.
    let mut connection = PgConnection::connect_with(&options).await?;
    sqlx::query(insert).execute(&mut connection).await?;
    proxy.lose_replies_to("insert into workers", 1);
    ensure!(sqlx::query(insert).execute(&mut connection).await.is_err(), "the reply came through");
    ensure_eq!((proxy.lost(), database.count("workers").await?), (2, 3), "lost replies and rows");

    let mut connection = PgConnection::connect_with(&options).await?;
    proxy.mode(Mode::BlackHole);
    let silent =
        tokio::time::timeout(Duration::from_millis(200), sqlx::query(insert).execute(&mut connection)).await;
    ensure!(silent.is_err(), "an answer came out of the black hole");
    proxy.mode(Mode::Pass);
    let mut connection = PgConnection::connect_with(&options).await?;
    proxy.cut_all();
    ensure!(sqlx::query(insert).execute(&mut connection).await.is_err(), "a cut connection answers");
    let mut connection = PgConnection::connect_with(&options).await?;
    proxy.cut_after(100_000);
    let much = sqlx::query("select repeat('x', 200000)").execute(&mut connection).await;
    ensure!(much.is_err(), "a long answer came through");
    Ok(())
}
