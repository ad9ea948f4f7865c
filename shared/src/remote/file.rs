//! `MCP_SERVERS_FILE`: servers that the deployment gives to every tenant, in TOML.
//!
//! ```toml
//! [[server]]
//! name = "docs"
//! url = "https://docs.example.com/mcp"
//! auth = { type = "bearer", token_env = "DOCS_TOKEN" }
//! ```

use secrecy::SecretString;
use serde::Deserialize;

use super::{
    definition::{Auth, ServerDefinition},
    registry::FixedServer,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    server: Vec<toml::Table>,
}

/// The servers of a file. `variable` reads the environment, so that the file holds no secret.
///
/// # Errors
/// A sentence that says what is wrong where.
pub fn read(text: &str, variable: impl Fn(&str) -> Option<SecretString>) -> Result<Vec<FixedServer>, String> {
    let file: File = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    file.server.into_iter().map(|server| one(server, &variable)).collect()
}

fn one(
    mut server: toml::Table,
    variable: &impl Fn(&str) -> Option<SecretString>,
) -> Result<FixedServer, String> {
    let name = server.get("name").and_then(toml::Value::as_str).unwrap_or_default().to_owned();
    let problem = |what: &str| format!("server {name:?}: {what}");
    let token_env = server
        .get_mut("auth")
        .and_then(toml::Value::as_table_mut)
        .and_then(|auth| auth.remove("token_env"))
        .map(|value| value.as_str().map(str::to_owned).ok_or_else(|| problem("auth.token_env is not a name")))
        .transpose()?;
    let definition: ServerDefinition =
        server.try_into().map_err(|error: toml::de::Error| problem(error.message()))?;
    definition.check().map_err(|error| problem(&error.message))?;
    let bearer = match token_env {
        Some(wanted) => {
            let missing = || problem(&format!("auth.token_env names {wanted}, which is not set"));
            Some(variable(&wanted).ok_or_else(missing)?)
        }
        None => None,
    };
    match (&definition.auth, &bearer) {
        (Auth::Bearer, None) => Err(problem("auth needs token_env, the name of a variable")),
        (Auth::None, Some(_)) => Err(problem("auth.token_env goes with type bearer or oauth")),
        _ => Ok(FixedServer { definition, bearer }),
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::{cache::Scope, tools::Effect};

    fn variable(name: &str) -> Option<SecretString> {
        (name == "DOCS_TOKEN").then(|| "hunter2".into())
    }

    #[test]
    fn servers_are_read() {
        let text = r#"
            [[server]]
            name = "docs"
            url = "https://docs.example.com/mcp"
            auth = { type = "bearer", token_env = "DOCS_TOKEN" }
            cache = { scope = "tenant", default_ttl_seconds = 60, tools = { search = 5 } }
            effects = { search = "read" }

            [[server]]
            name = "tickets"
            url = "https://tickets.example.com/mcp"
            auth = { type = "oauth", scopes = ["read"] }
        "#;
        let servers = read(text, variable).unwrap();
        let [docs, tickets] = servers.as_slice() else { panic!("{servers:?}") };
        assert_eq!(docs.bearer.as_ref().unwrap().expose_secret(), "hunter2");
        assert_eq!(
            (docs.definition.cache.scope, docs.definition.effects["search"]),
            (Some(Scope::Tenant), Effect::Read)
        );
        assert!(tickets.definition.wants_connection() && tickets.bearer.is_none());
        assert!(!format!("{servers:?}").contains("hunter2"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let wrong = |server: &str| read(&format!("[[server]]\n{server}"), variable).unwrap_err();
        let address = "url = \"https://x.example/mcp\"\n";
        assert!(wrong(&format!("name = \"X\"\n{address}")).contains("lower-case"));
        assert!(wrong(&format!("name = \"x\"\n{address}typo = 1")).contains("typo"));
        assert!(wrong("name = \"x\"\nurl = \"not one\"").contains("\"x\""));
        assert!(
            wrong(&format!("name = \"x\"\n{address}auth = {{ type = \"bearer\" }}")).contains("token_env")
        );
        let unset = format!("name = \"x\"\n{address}auth = {{ type = \"bearer\", token_env = \"NO\" }}");
        assert!(wrong(&unset).contains("NO, which is not set"));
    }
}
