//! The gateway as a client of the official conformance suite: it is started once for each scenario, with the address of the
//! scenario's server, and does what a person and their turns do: connects the server where it wants that, lists its tools,
//! and calls them. `scripts/conformance/run` has the suite run it, and names what it does not do.

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value, json};
use shared::{
    bell::Bell,
    config::Config,
    connections::{self, Browser, Connections, Unfinished},
    counters::Counters,
    db::{self, DbRole, TenantDb},
    identity::{Actor, Role, development},
    ids::{SessionId, TenantId, TurnId, UserId},
    oauth::{self, Reply},
    outbound::Outbound,
    remote::{
        Auth, FixedServer, Gateway, GatewaySettings, OAuthSettings, Registry, ServerDefinition, Standing,
        Toolset,
    },
    switches::Switches,
    tools::{OutsideCall, ToolRun},
    vault::Vault,
};
use tokio::sync::watch;
use url::Url;

const NAME: &str = "suite";

#[tokio::main]
async fn main() -> Result<()> {
    let address = std::env::args().nth(1).context("the address of a server")?;
    let url: Url = address.parse().context("the address of a server")?;
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let context: Value =
        serde_json::from_str(&variable("MCP_CONFORMANCE_CONTEXT")).unwrap_or_else(|_| json!({}));
    let wants_connection = variable("MCP_CONFORMANCE_SCENARIO").starts_with("auth/");

    let person = Person::start(&url, wants_connection, &context).await?;
    if wants_connection {
        person.connect().await?;
    }
    // What a server takes back, a person connects once more.
    for connects in 0..2 {
        let toolset = person.gateway.toolset(&person.actor, None).await?;
        let server = toolset.servers.first().context("the server")?;
        if let Some(trouble) = &server.trouble {
            bail!("{trouble}");
        }
        let is_refused = !matches!(server.standing, Standing::Open | Standing::Connected)
            || !person.use_tools(&toolset, &context).await?;
        if !is_refused {
            break;
        }
        ensure!(wants_connection && connects == 0, "the server refuses its person");
        person.connect().await?;
    }
    person.gateway.close().await;
    Ok(())
}

/// Somebody in a tenant of their own, with a process's parts of Alfred.
struct Person {
    actor: Actor,
    connections: Connections,
    gateway: Gateway,
    http: reqwest::Client,
}

impl Person {
    async fn start(url: &Url, wants_connection: bool, context: &Value) -> Result<Self> {
        let mut variables: HashMap<String, String> =
            std::env::vars().filter(|(name, _)| name.starts_with("DB_")).collect();
        for (name, value) in [
            ("APP_ENV", "test"),
            ("FERNET_KEY", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="),
            ("OUTBOUND_ALLOW", "localhost,127.0.0.0/8"),
            ("PUBLIC_URL", "https://alfred.test"),
        ] {
            variables.insert(name.to_owned(), value.to_owned());
        }
        let config = Config::from_vars(&variables)?;
        let options = |url: &SecretString, role| {
            db::options(url.expose_secret(), role, "conformance").map_err(anyhow::Error::msg)
        };
        let engine = db::pool(options(&config.db_engine_url, DbRole::Engine)?, 2);
        let counters =
            Arc::new(Counters::start(db::relaxed_pool(options(&config.db_engine_url, DbRole::Engine)?)));
        let tenants = TenantDb::new(db::pool(options(&config.db_url, DbRole::App)?, 4), counters);
        let bell = Bell::start(options(&config.db_listen_url, DbRole::Engine)?, &engine, &[]);

        let (tenant, user) = (TenantId::generate(), UserId::generate());
        let email = format!("{}@conformance.test", user.0.simple());
        let key = SecretString::from(format!("key-of-{email}"));
        let identity = development::Identity {
            tenant,
            user,
            email: &email,
            role: Role::Member,
            operator: false,
            key: &key,
            running_turns: 1,
        };
        development::ensure(&engine, &identity).await?;

        let mut definition = ServerDefinition::new(NAME, url.clone());
        if wants_connection {
            let client_id = context["client_id"].as_str().map(str::to_owned);
            definition.auth = Auth::OAuth(OAuthSettings { client_id, ..OAuthSettings::default() });
        }
        let vault = Vault::new(&config.fernet_keys)?;
        let outbound = Outbound::new(&config.outbound_allow);
        let fixed = [FixedServer { definition, bearer: None }];
        let registry = Registry::new(tenants.clone(), vault.clone(), &fixed)?;
        let connections = Connections::new(connections::Parts {
            bell,
            tenants,
            vault,
            outbound: outbound.clone(),
            config: config.connections.clone(),
            public_url: config.public_url.as_str().trim_end_matches('/').to_owned(),
            servers: Some(Arc::new(registry.clone())),
            forget: None,
        });
        let settings =
            GatewaySettings { read_time: Duration::from_secs(10), ..GatewaySettings::of(&config.remote) };
        let switches = Switches::untouched();
        let gateway =
            Gateway::start(registry, outbound, settings, Arc::new(connections.clone()), None, switches);
        let http =
            reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build()?;
        Ok(Self { actor: Actor::of_turn(tenant, user), connections, gateway, http })
    }

    /// Presses the button, allows it, and comes back.
    async fn connect(&self) -> Result<()> {
        let browser = Browser { secret: oauth::random_text(), sign_in: None };
        let there = self.connections.depart(&self.actor, NAME, &browser).await?;
        let asked = self.http.get(there).send().await?;
        let back = asked.headers().get("location").context("the person was not sent back")?;
        let back = Url::parse(back.to_str()?)?;
        let reply = Reply::read(back.query().unwrap_or_default());
        match self.connections.arrive(NAME, &browser, &reply).await {
            Ok(_) => Ok(()),
            Err(Unfinished::Failed { error, .. } | Unfinished::Error(error)) => Err(error.into()),
            Err(other) => bail!("no connection was made: {other:?}"),
        }
    }

    /// Calls what the scenario names, or everything there is. False: the server does not take the person's token.
    async fn use_tools(&self, toolset: &Toolset, context: &Value) -> Result<bool> {
        let named: Vec<(String, Value)> = context["toolCalls"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|call| (call["name"].as_str().unwrap_or_default().to_owned(), call["arguments"].clone()))
            .collect();
        let every =
            toolset.tools().map(|(tool, definition)| (tool.own_name.clone(), sample(&definition.input)));
        let calls = if named.is_empty() { every.collect() } else { named };
        for (name, arguments) in calls {
            let offered = format!("{NAME}.{name}");
            let definition = toolset.get(&offered).with_context(|| format!("{name} is not offered"))?;
            let ToolRun::Outside(tool) = &definition.run else { bail!("{name} is none of the server's") };
            let call = OutsideCall {
                actor: &self.actor,
                session: SessionId::generate(),
                turn: TurnId::generate(),
                arguments: &arguments,
                idempotency_key: "conformance",
                force_refresh: false,
                request_id: "conformance",
                progress: &watch::Sender::default(),
            };
            let output = tool.call(call).await?;
            if output.warning.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Arguments that fit a schema, more or less.
fn sample(schema: &Value) -> Value {
    let properties = schema["properties"].as_object().cloned().unwrap_or_default();
    let value = |schema: &Value| match schema["type"].as_str() {
        Some("number" | "integer") => json!(2),
        Some("boolean") => json!(true),
        Some("array") => json!([]),
        Some("object") => json!({}),
        Some("null") => Value::Null,
        _ => json!("a text"),
    };
    properties.iter().map(|(name, schema)| (name.clone(), value(schema))).collect::<Map<_, _>>().into()
}
