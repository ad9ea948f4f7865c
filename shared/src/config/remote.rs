//! Remote MCP servers that the deployment itself names, and how patient it is with all of them.

use std::{collections::HashMap, fs, time::Duration};

use secrecy::SecretString;

use super::{ConnectionConfig, reader::Reader};
use crate::remote::{FixedServer, file, shipped};

/// See `.env.example`.
#[derive(Debug, Clone)]
pub struct RemoteConfig {
    /// Those of `MCP_SERVERS_FILE` and the shipped ones that are switched on.
    pub servers: Vec<FixedServer>,
    /// `MCP_CIRCUIT_BREAKER_FAILURE_THRESHOLD`
    pub breaker_failures: u32,
    /// `MCP_CIRCUIT_BREAKER_RECOVERY_TIMEOUT`
    pub breaker_recovery: Duration,
    /// `MCP_CONNECT_TIMEOUT_SECONDS`
    pub connect_time: Duration,
    /// `MCP_READ_TIMEOUT_SECONDS`
    pub read_time: Duration,
}

pub(super) fn read(reader: &mut Reader<'_>, connections: Option<&ConnectionConfig>) -> RemoteConfig {
    let mut servers = connections.map(shipped::servers).unwrap_or_default();
    if let Some(path) = reader.text("MCP_SERVERS_FILE") {
        match fs::read_to_string(path) {
            Ok(text) => match file::read(&text, |name| reader.given(name).map(SecretString::from)) {
                Ok(more) => servers.extend(more),
                Err(problem) => reader.refuse("MCP_SERVERS_FILE", problem),
            },
            Err(error) => {
                reader.refuse("MCP_SERVERS_FILE", format!("{path:?} cannot be read: {}", error.kind()))
            }
        }
    }
    let mut names = HashMap::new();
    for server in &servers {
        if names.insert(server.definition.name.clone(), ()).is_some() {
            let problem = format!("has a server {:?} that there is already", server.definition.name);
            reader.refuse("MCP_SERVERS_FILE", problem);
        }
    }
    RemoteConfig {
        servers,
        breaker_failures: reader.number("MCP_CIRCUIT_BREAKER_FAILURE_THRESHOLD", 1, 1000),
        breaker_recovery: reader.seconds("MCP_CIRCUIT_BREAKER_RECOVERY_TIMEOUT", 0.1, 3600.0),
        connect_time: reader.seconds("MCP_CONNECT_TIMEOUT_SECONDS", 0.1, 60.0),
        read_time: reader.seconds("MCP_READ_TIMEOUT_SECONDS", 0.1, 600.0),
    }
}
