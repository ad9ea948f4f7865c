//! The parts of a stack that run: API processes and workers, as real processes or within this one.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Result, bail};

use super::MakeTools;
use crate::process::{Process, binary, free_port};

/// An API server.
pub struct ApiNode {
    /// `http://127.0.0.1:port`
    pub base: String,
    runs: Runs<api::Running>,
}

/// A worker.
pub struct WorkerNode {
    runs: Runs<worker::Running>,
}

enum Runs<T> {
    Process(Process),
    Here(Option<T>),
}

type Variables = BTreeMap<String, String>;

fn config(variables: &Variables) -> Result<shared::config::Config> {
    let map = variables.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    Ok(shared::config::Config::from_vars(&map)?)
}

fn pairs(variables: &Variables) -> impl Iterator<Item = (&str, &str)> {
    variables.iter().map(|(name, value)| (name.as_str(), value.as_str()))
}

impl ApiNode {
    pub(super) async fn in_process(variables: &Variables) -> Result<Self> {
        let running = api::start(config(variables)?).await?;
        Ok(Self { base: format!("http://{}", running.addr), runs: Runs::Here(Some(running)) })
    }

    pub(super) fn process(name: &str, variables: &Variables, folder: &Path) -> Result<Self> {
        let mut variables = variables.clone();
        if variables.get("APP_PORT").is_none_or(|port| port == "0") {
            variables.insert("APP_PORT".to_owned(), free_port()?.to_string());
        }
        let base = format!("http://127.0.0.1:{}", variables["APP_PORT"]);
        let process = Process::start(name, &binary("api")?, &[], pairs(&variables), folder)?;
        Ok(Self { base, runs: Runs::Process(process) })
    }

    pub(super) async fn until_ready(&mut self, within: Duration) -> Result<()> {
        let http = crate::client::http();
        let deadline = tokio::time::Instant::now() + within;
        loop {
            let asked =
                http.get(format!("{}/readyz", self.base)).timeout(Duration::from_secs(10)).send().await;
            let last = match asked {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                Ok(answer) => answer.status().to_string(),
                Err(error) => error.to_string(),
            };
            let ended = match &mut self.runs {
                Runs::Process(process) => process.ended().is_some(),
                Runs::Here(_) => false,
            };
            if ended || tokio::time::Instant::now() > deadline {
                bail!(
                    "the api at {} is not ready: {last}\n{}",
                    self.base,
                    self.process_log().unwrap_or_default()
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The process.
    ///
    /// # Panics
    /// When it runs within this process.
    pub fn real(&mut self) -> &mut Process {
        match &mut self.runs {
            Runs::Process(process) => process,
            Runs::Here(_) => panic!("this api runs within the test"),
        }
    }

    /// Stops it as an operator does.
    ///
    /// # Errors
    /// It does not stop.
    pub async fn stop(&mut self) -> Result<()> {
        match &mut self.runs {
            Runs::Process(process) => {
                process.signal("TERM")?;
                process.wait(Duration::from_secs(15)).await?;
            }
            Runs::Here(running) => {
                if let Some(running) = running.take() {
                    running.stop().await;
                }
            }
        }
        Ok(())
    }

    pub(super) fn process_log(&self) -> Option<String> {
        match &self.runs {
            Runs::Process(process) => {
                Some(format!("--- {} (pid {})\n{}", process.name(), process.pid(), process.log_tail()))
            }
            Runs::Here(_) => None,
        }
    }
}

impl WorkerNode {
    pub(super) async fn in_process(variables: &Variables, tools: Option<MakeTools>) -> Result<Self> {
        let mut extras = worker::Extras::default();
        if let Some(make) = tools {
            extras.cached_tools = Some(Box::new(move |cache| make(cache)));
        }
        let running = worker::start(config(variables)?, extras).await?;
        Ok(Self { runs: Runs::Here(Some(running)) })
    }

    pub(super) fn process(
        name: &str,
        program: Option<&Path>,
        variables: &Variables,
        folder: &Path,
    ) -> Result<Self> {
        let program = match program {
            Some(program) => program.to_owned(),
            None => binary("worker")?,
        };
        Ok(Self { runs: Runs::Process(Process::start(name, &program, &[], pairs(variables), folder)?) })
    }

    /// Its pid, when it is a process of its own.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        match &self.runs {
            Runs::Process(process) => Some(process.pid()),
            Runs::Here(_) => None,
        }
    }

    /// The process.
    ///
    /// # Panics
    /// When it runs within this process.
    pub fn real(&mut self) -> &mut Process {
        match &mut self.runs {
            Runs::Process(process) => process,
            Runs::Here(_) => panic!("this worker runs within the test"),
        }
    }

    /// Ends it without warning: kill -9, or as near to that as can be had within a process.
    pub fn kill(&mut self) {
        match &mut self.runs {
            Runs::Process(process) => process.kill(),
            Runs::Here(running) => {
                if let Some(running) = running.take() {
                    running.kill();
                }
            }
        }
    }

    /// Stops it as an operator does.
    ///
    /// # Errors
    /// It does not stop.
    pub async fn stop(&mut self) -> Result<()> {
        match &mut self.runs {
            Runs::Process(process) => {
                process.signal("TERM")?;
                process.wait(Duration::from_secs(15)).await?;
            }
            Runs::Here(running) => {
                if let Some(running) = running.take() {
                    running.stop().await;
                }
            }
        }
        Ok(())
    }

    pub(super) fn process_log(&self) -> Option<String> {
        match &self.runs {
            Runs::Process(process) => {
                Some(format!("--- {} (pid {})\n{}", process.name(), process.pid(), process.log_tail()))
            }
            Runs::Here(_) => None,
        }
    }
}
