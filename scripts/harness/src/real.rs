//! Real MCP servers, from npm and PyPI, as other people run them: the reference "everything" server, one made with FastMCP,
//! and Notion's own. `scripts/outside/install` gets them; nothing here is downloaded by a test.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{folder::Folder, process::Process};

/// How long a server may take to say where it is: a Python or a Node starts, on a machine that does much else.
const STARTING: Duration = Duration::from_secs(60);

/// Where the programs are.
pub struct Installed {
    npm: PathBuf,
    python: PathBuf,
}

impl Installed {
    /// Finds them in `ALFRED_OUTSIDE_NPM` and `ALFRED_OUTSIDE_PYTHON`. None on a developer's machine that lacks them, which
    /// is said on the terminal.
    ///
    /// # Errors
    /// They are missing where they may not be: in CI.
    #[expect(clippy::print_stderr, reason = "a test that is left out says so")]
    pub fn find() -> Result<Option<Self>> {
        let found = |name| std::env::var_os(name).map(PathBuf::from).filter(|folder| folder.is_dir());
        match (found("ALFRED_OUTSIDE_NPM"), found("ALFRED_OUTSIDE_PYTHON")) {
            (Some(npm), Some(python)) => Ok(Some(Self { npm, python })),
            _ if std::env::var_os("ALFRED_CI").is_some() => bail!("the real MCP servers are not installed"),
            _ => {
                eprintln!(
                    "skipped: the real MCP servers are not installed (scripts/outside/install npm, and python)"
                );
                Ok(None)
            }
        }
    }

    /// The reference server, which has a tool of every kind.
    ///
    /// # Errors
    /// It does not start.
    pub async fn everything(&self) -> Result<RealServer> {
        let script = self.module("@modelcontextprotocol/server-everything/dist/index.js");
        self.node("everything", &script, &["streamableHttp"], &[]).await
    }

    /// A server made with FastMCP: `scripts/outside/docs.py`.
    ///
    /// # Errors
    /// It does not start.
    pub async fn docs(&self) -> Result<RealServer> {
        let script = here("docs.py");
        RealServer::start("docs", self.python.join("venv/bin/python"), vec!["-I".to_owned(), script], vec![])
            .await
    }

    /// Notion's server as a deployment runs it for its people: it has this token for itself, and each person's comes with
    /// the session. `api` is what it takes for api.notion.com.
    ///
    /// # Errors
    /// It does not start.
    pub async fn notion(&self, api: &str, token: &str) -> Result<RealServer> {
        let script = self.module("@notionhq/notion-mcp-server/bin/cli.mjs");
        let arguments = ["--transport", "http", "--auth-token", token, "--enable-token-passthrough"];
        self.node("notion", &script, &arguments, &[("BASE_URL", api)]).await
    }

    fn module(&self, path: &str) -> String {
        self.npm.join("node_modules").join(path).to_string_lossy().into_owned()
    }

    async fn node(
        &self,
        name: &'static str,
        script: &str,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<RealServer> {
        let carried = std::fs::read_dir(self.npm.join("node_modules"))?
            .filter_map(|entry| Some(entry.ok()?.path().join("bin/node")))
            .find(|path| path.is_file());
        let program = carried.unwrap_or_else(|| PathBuf::from("node"));
        let before = ["--require".to_owned(), here("loopback.cjs"), script.to_owned()];
        let all = before.into_iter().chain(arguments.iter().map(|text| (*text).to_owned())).collect();
        let variables =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        RealServer::start(name, program, all, variables).await
    }
}

fn here(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../outside").join(file);
    path.canonicalize().unwrap_or(path).to_string_lossy().into_owned()
}

/// A running one; it ends with this.
pub struct RealServer {
    /// Its endpoint.
    pub url: String,
    name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    starts: usize,
    process: Process,
    folder: Folder,
}

impl RealServer {
    async fn start(
        name: &'static str,
        program: PathBuf,
        arguments: Vec<String>,
        variables: Vec<(String, String)>,
    ) -> Result<Self> {
        let folder = Folder::new("real")?;
        let process = begin(name, &program, &arguments, &variables, &folder)?;
        let mut server =
            Self { url: String::new(), name, program, arguments, variables, starts: 1, process, folder };
        server.await_address().await?;
        Ok(server)
    }

    /// Kills it and starts it again at the same address: it has forgotten everything.
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart(&mut self) -> Result<()> {
        self.process.kill();
        let port = url::Url::parse(&self.url)?.port().context("a port")?;
        self.variables.retain(|(name, _)| name != "LISTEN_PORT");
        self.variables.push(("LISTEN_PORT".to_owned(), port.to_string()));
        let name = format!("{}-{}", self.name, self.starts);
        self.starts += 1;
        self.process = begin(&name, &self.program, &self.arguments, &self.variables, &self.folder)?;
        self.await_address().await
    }

    /// What it said so far, since it was started last.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Servers say where they listen when they do.
    async fn await_address(&mut self) -> Result<()> {
        let deadline = tokio::time::Instant::now() + STARTING;
        loop {
            let log = self.process.log();
            let said = log.lines().find_map(|line| line.strip_prefix("listening at "));
            if let Some(base) = said {
                self.url = format!("{base}/mcp");
                return Ok(());
            }
            if self.process.ended().is_some() || tokio::time::Instant::now() > deadline {
                bail!("the server {} does not start\n{}", self.name, self.process.log_tail());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn begin(
    name: &str,
    program: &Path,
    arguments: &[String],
    variables: &[(String, String)],
    folder: &Folder,
) -> Result<Process> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let variables = variables.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    Process::start(name, program, &arguments, variables, folder.path())
}
