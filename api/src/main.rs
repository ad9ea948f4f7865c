//! The api's process: `api` serves, its subcommands do one thing and end.

use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use secrecy::ExposeSecret as _;
use shared::{
    config::Config,
    db::{self, DbRole},
    telemetry,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    signal::unix::{SignalKind, signal},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "api [COMMAND]

  serve                serve HTTP until SIGTERM or Ctrl-C (the default)
  migrate              bring the database up to date; also makes the tenant, user and key of API_KEY
  create-operator-key  make an API key that operates the deployment, and print it once
  rotate-keys          seal all stored secrets again with the first key of FERNET_KEY; may be run at any time, and again
  healthcheck          exit 0 when the api on this machine answers /healthz
  openapi              print the OpenAPI document
  tools                print the workspace's tools, as MCP clients see them
  env                  print .env.example
  help                 print this

Configuration comes from the environment, see .env.example.
";

fn main() -> ExitCode {
    let command = std::env::args().nth(1);
    let outcome = match command.as_deref() {
        None | Some("serve") => with_config(serve),
        Some("migrate") => with_config(migrate),
        Some("create-operator-key") => with_config(create_operator_key),
        Some("rotate-keys") => with_config(rotate_keys),
        Some("healthcheck") => with_config(healthcheck),
        Some("openapi") => print(&api::openapi_document()),
        Some("tools") => print(&api::tools_document()),
        Some("env") => print(&shared::config::env_example()),
        Some("help" | "--help" | "-h") => print(HELP),
        Some(other) => Err(anyhow::anyhow!("there is no command {other:?}; see api help")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing may be listening to the log yet, and whoever started the process looks here.
            let _ = writeln!(std::io::stderr(), "api: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn with_config<F: Future<Output = anyhow::Result<()>>>(
    command: impl FnOnce(Config) -> F,
) -> anyhow::Result<()> {
    let config = Config::from_env()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(command(config));
    // A task that does not end must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

async fn serve(config: Config) -> anyhow::Result<()> {
    telemetry::start("api", &config);
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let running = api::start(config).await?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    running.stop().await;
    tracing::info!("stopped");
    Ok(())
}

async fn migrate(config: Config) -> anyhow::Result<()> {
    telemetry::start("api", &config);
    let options = db::options(config.db_owner_url.expose_secret(), DbRole::Owner, "alfred-migrate")
        .map_err(|problem| anyhow::anyhow!("DB_OWNER_URL: {problem}"))?;
    let owner = db::migration_pool(options);
    db::migrate(&owner).await.map_err(with_causes).context("the migration did not succeed")?;
    owner.close().await;
    tracing::info!("the database is up to date");
    shared::provision::ensure_first_identity(&config)
        .await
        .map_err(with_causes)
        .context("API_KEY was not stored")?;
    Ok(())
}

/// The key is all that goes to the standard output, so that it can be piped to where it is kept.
async fn create_operator_key(config: Config) -> anyhow::Result<()> {
    let key = shared::provision::create_operator_key(&config)
        .await
        .map_err(with_causes)
        .context("no operator key was made")?;
    print(&format!("{}\n", key.expose_secret()))
}

/// What each key still seals goes to the standard output: once the newest is the only one, the others may be taken away.
async fn rotate_keys(config: Config) -> anyhow::Result<()> {
    telemetry::start("api", &config);
    let reports = shared::key_rotation::rotate(&config).await.map_err(with_causes);
    let reports = reports.context("not everything was sealed again; run it again")?;
    let mut unopened = 0;
    for report in &reports {
        unopened += report.unopened;
        let left: Vec<String> = report.left.iter().map(|(key, count)| format!("{key}={count}")).collect();
        let left = if left.is_empty() { "none".to_owned() } else { left.join(" ") };
        print(&format!("{}: {} sealed again; by key: {left}\n", report.what, report.sealed_again))?;
    }
    if unopened > 0 {
        bail!("{unopened} are sealed with keys that are not in FERNET_KEY; they are left as they are");
    }
    Ok(())
}

/// Our error's Display is for clients; at the command line the causes are wanted.
fn with_causes(error: shared::Error) -> anyhow::Error {
    anyhow::Error::new(error)
}

/// As a container's health check would do with curl, which the image does not have.
async fn healthcheck(config: Config) -> anyhow::Result<()> {
    let host = if config.app_host.is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { config.app_host };
    let address = SocketAddr::new(host, config.app_port);
    let asking = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(4096).read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(3), asking)
        .await
        .with_context(|| format!("{address} did not answer within 3 seconds"))?
        .with_context(|| format!("{address} cannot be asked"))?;
    if !answer.starts_with(b"HTTP/1.1 200 ") {
        bail!("{address} answered: {}", String::from_utf8_lossy(&answer).lines().next().unwrap_or("nothing"));
    }
    Ok(())
}
