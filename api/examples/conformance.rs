//! The api with the conformance suite's fixtures. An example, so that nothing that is shipped can have them: it is
//! built only with the feature `conformance`, by `scripts/conformance/run`.

use std::io::Write as _;

use shared::{config::Config, telemetry};

fn main() -> anyhow::Result<()> {
    let config = Config::from_env()?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        telemetry::start("api", &config);
        let running = api::start(config).await?;
        writeln!(std::io::stdout(), "http://{}/mcp", running.addr)?;
        std::io::stdout().flush()?;
        // Until it is killed: whoever started it needs it no longer.
        std::future::pending::<()>().await;
        Ok(())
    })
}
