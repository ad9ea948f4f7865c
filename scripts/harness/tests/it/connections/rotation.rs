//! A new key of FERNET_KEY takes over while everybody works.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use anyhow::{Context, Result, ensure};
use harness::fakes::oauth::{FakeAuthorization, Mishap};
use shared::{config::Config, key_rotation};

use super::{Browser, OLD_KEY, actor, alfred, an_hour_passes, one_text, process_with};
use crate::run::{ensure_eq, run};

const NEW_KEY: &str = "YWJjZGVmZ2hpamFiY2RlZmdoaWphYmNkZWZnaGlqYWI=";

fn config(stack: &harness::stack::Stack, keys: &str) -> Result<Config> {
    let variables: HashMap<String, String> = [
        ("APP_ENV", "test"),
        ("FERNET_KEY", keys),
        ("DB_URL", &stack.database.app_url),
        ("DB_ENGINE_URL", &stack.database.engine_url),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    Ok(Config::from_vars(&variables)?)
}

#[tokio::test]
async fn every_secret_is_read_before_during_and_after() -> Result<()> {
    let notion = FakeAuthorization::start().await?;
    notion.set(|knobs| knobs.secrets = true);
    let both = format!("{NEW_KEY},{OLD_KEY}");
    run(alfred(&notion).tenants(3).env("FERNET_KEY", &format!("{OLD_KEY},{NEW_KEY}")), async |stack| {
        for tenant in 0..3 {
            for workspace in 0..4 {
                notion.set(|knobs| knobs.workspace = (format!("w-{workspace}"), format!("W {workspace}")));
                Browser::of(stack, tenant).connect("notion").await?.is(200, "connected")?;
            }
        }
        // A flow that is under way is finished with the other key.
        let mut late = Browser::of(stack, 0);
        let back = late.leave("notion").await?;

        let reading = Arc::new((AtomicBool::new(true), AtomicUsize::new(0)));
        let mut readers = Vec::new();
        for reader in 0..6 {
            let connections = process_with(stack, &notion, &[("FERNET_KEY", &both)])?;
            let (me, reading) = (actor(stack, reader % 3), Arc::clone(&reading));
            readers.push(tokio::spawn(async move {
                while reading.0.load(Ordering::Relaxed) {
                    for workspace in 0..4 {
                        let named = format!("w-{workspace}");
                        let found = connections.credential_in(&me, "notion", Some(&named)).await?;
                        found.context("a connection could not be read")?;
                        reading.1.fetch_add(1, Ordering::Relaxed);
                    }
                }
                anyhow::Ok(())
            }));
        }
        let rotating = config(stack, &both)?;
        // Twice at once; and refreshes write meanwhile.
        let (one, two, refreshed) =
            tokio::join!(key_rotation::rotate(&rotating), key_rotation::rotate(&rotating), async {
                notion.fail_next(Mishap::Late(std::time::Duration::from_millis(50)));
                an_hour_passes(stack).await
            });
        refreshed?;
        let (one, two) = (one?, two?);
        let again = key_rotation::rotate(&rotating).await?;
        reading.0.store(false, Ordering::Relaxed);
        for reader in readers {
            reader.await??;
        }
        ensure!(reading.1.load(Ordering::Relaxed) > 0, "nobody read anything");
        for (place, report) in again.iter().enumerate() {
            ensure_eq!(report.unopened, 0, "unopened {}", report.what);
            ensure_eq!(report.sealed_again, 0, "the third run finds {}", report.what);
            ensure!(report.left.len() <= 1, "keys that are left: {report:?}");
            if report.what == "connections" {
                ensure!(one[place].sealed_again + two[place].sealed_again >= 24, "{one:?} {two:?}");
                ensure_eq!(report.left[0].1, 12, "connections");
            }
        }
        // The old key is gone, and nothing is missed.
        let alone = process_with(stack, &notion, &[("FERNET_KEY", NEW_KEY)])?;
        for tenant in 0..3 {
            for workspace in 0..4 {
                let named = format!("w-{workspace}");
                alone.credential_in(&actor(stack, tenant), "notion", Some(&named)).await?.context("read")?;
            }
        }
        late.get(&back).await?.is(200, "connected")?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_key_that_is_missing_costs_nothing_but_an_error() -> Result<()> {
    let notion = FakeAuthorization::start().await?;
    run(alfred(&notion), async |stack| {
        Browser::of(stack, 0).connect("notion").await?.is(200, "connected")?;
        let me = actor(stack, 0);
        an_hour_passes(stack).await?;
        let wrong = process_with(stack, &notion, &[("FERNET_KEY", NEW_KEY)])?;
        let error = wrong.credential(&me, "notion").await.expect_err("no key fits");
        ensure_eq!(error.code.as_str(), "APP-5XX", "a trouble of ours");
        ensure_eq!(notion.refreshes(), 0, "the provider was asked");
        let reports = key_rotation::rotate(&config(stack, NEW_KEY)?).await?;
        let connections =
            reports.iter().find(|report| report.what == "connections").context("connections")?;
        ensure_eq!((connections.sealed_again, connections.unopened), (0, 1), "left as it is");
        let whole = "select (status = 'active' and lease is null and sent_at is null)::text from connections";
        ensure_eq!(one_text(stack, whole).await?, "true", "the row");
        let right = process_with(stack, &notion, &[])?;
        ensure_eq!(right.credential(&me, "notion").await?.context("kept")?.version, 2, "with the right key");
        Ok(())
    })
    .await
}
