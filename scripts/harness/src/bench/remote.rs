//! What a call of somebody else's tool costs beyond the server's own time: a guarded, pooled call through the gateway beside
//! the same message over a bare connection, to a server that answers at once.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use secrecy::SecretString;
use serde_json::{Value, json};
use shared::{
    config::Reachable,
    counters::Counters,
    db::{self, DbRole, TenantDb},
    identity::Actor,
    ids::{SessionId, TurnId},
    outbound::Outbound,
    remote::{Gateway, GatewaySettings, NoConnections, Registry, file},
    resilience::BreakerSettings,
    switches::Switches,
    tools::{OutsideCall, ToolDef, ToolRun},
    vault::Vault,
};
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    Plan,
    report::Table,
    statistics::{Samples, figure, float, milliseconds},
};
use crate::{
    fakes::mcp::{Behaviour, Era, FakeMcp, FakeTool},
    stack::Stack,
};

/// Who calls at once.
const CALLERS: usize = 32;
/// Nothing is sealed here.
const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

struct Side<'a> {
    http: reqwest::Client,
    fake: &'a FakeMcp,
    /// Ours, or none: a bare connection.
    tool: Option<&'a ToolDef>,
    actor: &'a Actor,
}

impl Side<'_> {
    async fn call(&self) -> Result<()> {
        let arguments = json!({"id": 7});
        let Some(tool) = self.tool else { return self.bare(&arguments).await };
        let ToolRun::Outside(tool) = &tool.run else { anyhow::bail!("a tool of ours") };
        let call = OutsideCall {
            actor: self.actor,
            session: SessionId(Uuid::nil()),
            turn: TurnId::generate(),
            arguments: &arguments,
            idempotency_key: "bench",
            force_refresh: false,
            request_id: "bench",
            progress: &tokio::sync::watch::Sender::default(),
        };
        let output = tool.call(call).await?;
        ensure!(!output.is_error, "{}", output.content);
        Ok(())
    }

    async fn bare(&self, arguments: &Value) -> Result<()> {
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": "read", "arguments": arguments}});
        let answer = self.http.post(&self.fake.url).json(&message).send().await?.error_for_status()?;
        let answer: Value = answer.json().await?;
        ensure!(answer["result"]["content"].is_array(), "{answer}");
        Ok(())
    }

    async fn at_once(&self, length: Duration) -> Result<(f64, Samples)> {
        let begun = Instant::now();
        let until = begun + length;
        let callers = (0..CALLERS).map(|_| async {
            let mut times = Vec::new();
            while Instant::now() < until {
                let begun = Instant::now();
                self.call().await?;
                times.push(begun.elapsed());
            }
            anyhow::Ok(times)
        });
        let times = futures::future::try_join_all(callers).await?.concat();
        Ok((float(times.len()) / begun.elapsed().as_secs_f64(), Samples::of_times(times)))
    }
}

/// Measures, on a database of its own.
///
/// # Errors
/// A call is not answered with a result.
pub(super) async fn measure(plan: &Plan) -> Result<Table> {
    let stack = Stack::builder().in_process().own_cluster().start().await?;
    let tenant = stack.tenants.first().context("a tenant")?;
    let actor = Actor::of_turn(tenant.id, tenant.user);
    let mut table = Table::new(
        "Calls of a remote tool that answers at once",
        &["", "alone p50", "p99", "32: calls/s", "p95"],
    );
    let mut overheads = Vec::new();
    for (era, name) in [(Era::Modern, "2026-07-28"), (Era::Legacy, "2025-11-25, with sessions")] {
        let fake = FakeMcp::start(era, vec![FakeTool::reads("read", Behaviour::Echo)]).await?;
        let gateway = gateway(&stack, &fake)?;
        let toolset = gateway.toolset(&actor, None).await?;
        let tool = toolset.get("bench.read").context("the tool is not offered")?;
        // A server of sessions refuses a bare message; the newer era's answer stands for both.
        let own = FakeMcp::start(Era::Modern, vec![FakeTool::reads("read", Behaviour::Echo)]).await?;
        let http = reqwest::Client::builder().no_proxy().build()?;
        let bare = Side { http: http.clone(), fake: &own, tool: None, actor: &actor };
        let ours = Side { http, fake: &fake, tool: Some(tool), actor: &actor };
        let (mut alone_bare, mut alone_ours) = (Vec::new(), Vec::new());
        for round in 0..plan.pick(400, 2000) {
            for (side, times) in [(&bare, &mut alone_bare), (&ours, &mut alone_ours)] {
                let begun = Instant::now();
                side.call().await?;
                // The first calls open connections and sessions.
                if round >= 50 {
                    times.push(begun.elapsed());
                }
            }
        }
        let (alone_bare, alone_ours) = (Samples::of_times(alone_bare), Samples::of_times(alone_ours));
        overheads.push(format!("{} ({name})", milliseconds(alone_ours.median() - alone_bare.median())));
        let length = Duration::from_secs(plan.pick(1, 4));
        for (label, side, alone) in [
            (format!("bare connection, {name}"), &bare, &alone_bare),
            (format!("through the gateway, {name}"), &ours, &alone_ours),
        ] {
            let (rate, times) = side.at_once(length).await?;
            table.row([
                label,
                milliseconds(alone.median()),
                figure(alone.percentile(99.0)),
                figure(rate),
                milliseconds(times.percentile(95.0)),
            ]);
        }
        gateway.close().await;
    }
    table.note(format!(
        "Overhead of a call alone, the medians' difference: {}. Server and callers share this process's one thread; nothing comes from the cache.",
        overheads.join(", ")
    ));
    Ok(table)
}

fn gateway(stack: &Stack, fake: &FakeMcp) -> Result<Gateway> {
    let options = |url: &str, role| db::options(url, role, "bench").map_err(anyhow::Error::msg);
    let engine = options(&stack.database.engine_url, DbRole::Engine)?;
    let app = db::pool(options(&stack.database.app_url, DbRole::App)?, 8);
    let counters = Arc::new(Counters::start(db::relaxed_pool(engine)));
    let text = format!("[[server]]\nname = \"bench\"\nurl = \"{}\"\nconcurrency = {CALLERS}\n", fake.url);
    let servers = file::read(&text, |_| None).map_err(anyhow::Error::msg)?;
    let loopback: Reachable = "127.0.0.0/8".parse().map_err(|()| anyhow::anyhow!("a network"))?;
    let settings = GatewaySettings {
        connect_time: Duration::from_secs(2),
        read_time: Duration::from_secs(10),
        retry_pause: Duration::from_millis(250),
        breaker: BreakerSettings { failures: 5, recovery: Duration::from_secs(30) },
    };
    let registry =
        Registry::new(TenantDb::new(app, counters), Vault::new(&[SecretString::from(KEY)])?, &servers)?;
    let outbound = Outbound::new(&[loopback]);
    Ok(Gateway::start(registry, outbound, settings, Arc::new(NoConnections), None, Switches::untouched()))
}
