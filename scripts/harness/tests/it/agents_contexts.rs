//! Agents hear of changes of what is known of users [A4]: those that may see what changed, at once, and no other.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::{
    client::{Answer, Client},
    fakes::agent::{FakeAgent, Manner},
};
use serde_json::{Value, json};

use crate::{
    agents::{admin, all, deliveries, register, sign_in, told},
    run::{ensure_eq, here, run},
};

/// A person's own request, by their access token.
async fn patch(client: &Client, token: &str, body: &Value) -> Result<Answer> {
    let request = harness::client::http().patch(format!("{}/api/v1/me/context", client.base));
    let answer = client.send(request.bearer_auth(token).json(body)).await?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.body);
    Ok(answer)
}

fn reading(parts: &[&str]) -> Value {
    json!({"required": parts.iter().map(|part| format!("read:{part}")).collect::<Vec<_>>()})
}

/// Changes that were written for an agent, whether delivered or not.
async fn changes_for(admin: &Client, agent: &str) -> Result<Vec<Value>> {
    let mut items = deliveries(admin, &format!("agent={agent}"), |_| true).await?;
    items.retain(|item| item["eventType"] == "context_update");
    Ok(items)
}

#[expect(clippy::print_stdout, reason = "how long it took")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_reaches_who_may_see_it_within_a_second_and_nobody_else() -> Result<()> {
    run(told(here()), async |stack| {
        let admin = admin(stack).await?;
        let mut agents = std::collections::BTreeMap::new();
        for (name, more) in [
            ("styles", json!({"permissions": reading(&["preferences"])})),
            (
                "money",
                json!({"permissions": {"optional": ["read:portfolio_settings", "read:session"], "forbidden": ["read:preferences"]}}),
            ),
            (
                "daring",
                json!({
                    "permissions": reading(&["preferences"]),
                    "condition": {"field": "trading_style", "equals": "aggressive"},
                }),
            ),
            ("logins_only", json!({"permissions": reading(&["preferences"]), "eventTypes": ["user_login"]})),
            ("restricted", json!({"permissions": reading(&["preferences"]), "permissionLevel": "restricted"})),
            ("blind", json!({})),
        ] {
            let agent = FakeAgent::start(Manner::Well).await?;
            register(&admin, name, &agent, more).await?;
            agents.insert(name, agent);
        }
        let (token, user) = sign_in(&stack.client(0), "ann").await?;
        let who = json!({"user_id": user, "email": "ann@example.test"});
        // At the sign-in nothing is known yet; the one with a condition is not told at all.
        deliveries(&admin, "", |items| all(items, 5, "delivered")).await?;
        let mut login = agents["styles"].received().remove(0).json();
        ensure_eq!((&login["version"], &login["prev_version"]), (&json!(1), &Value::Null), "the first version");
        ensure_eq!(login["user_context"]["preferences"], json!({}), "the parts that it may see");
        login["user_context"].as_object_mut().unwrap().remove("preferences");
        ensure_eq!(login["user_context"], who, "and who it is");
        ensure_eq!(agents["blind"].received()[0].json()["user_context"], who, "without permissions");

        let begun = Instant::now();
        patch(&stack.client(0), &token, &json!({"preferences": {"trading_style": "moderate"}})).await?;
        let told = agents["styles"].until(2, Duration::from_secs(1)).await?.remove(1).json();
        println!("a changed preference reached its agent after {:?}", begun.elapsed());
        ensure!(begun.elapsed() < Duration::from_secs(1), "it took {:?}", begun.elapsed());
        ensure_eq!(told["event_type"], "context_updated", "the event");
        ensure_eq!((&told["version"], &told["prev_version"]), (&json!(2), &json!(1)), "the versions");
        ensure_eq!(told["user_context"]["preferences"], json!({"trading_style": "moderate"}), "what changed");
        ensure_eq!(told["user_context"].as_object().unwrap().len(), 3, "nothing else");
        ensure_eq!(told["session_info"], Value::Null, "no sign-in");
        for name in ["money", "daring", "logins_only", "restricted", "blind"] {
            ensure!(changes_for(&admin, name).await?.is_empty(), "{name} is told");
        }

        // Two parts at once: each agent gets its own, and the condition holds now.
        let both = json!({"preferences": {"trading_style": "aggressive"}, "portfolio_settings": {"available_cash": "10"}});
        patch(&stack.client(0), &token, &both).await?;
        let told = agents["money"].until(2, Duration::from_secs(5)).await?.remove(1).json();
        let context = told["user_context"].as_object().context("a context")?;
        let mut names: Vec<&str> = context.keys().map(String::as_str).collect();
        names.sort_unstable();
        ensure_eq!(names, ["email", "is_active", "portfolio_settings", "session_id", "user_id"], "money's parts");
        ensure_eq!(context["is_active"], true, "a sign-in lasts");
        ensure_eq!((&told["version"], &told["prev_version"]), (&json!(3), &json!(1)), "money missed a version");
        let daring = agents["daring"].until(1, Duration::from_secs(5)).await?.remove(0).json();
        ensure_eq!(daring["prev_version"], Value::Null, "it was never told before");

        // Taken up, so that it is not put together with the next one.
        agents["styles"].until(3, Duration::from_secs(5)).await?;

        // What the user takes away is gone at once: the agent hears that it sees less, and then nothing more.
        patch(&stack.client(0), &token, &json!({"agent_permissions": {"styles": "restricted"}})).await?;
        let told = agents["styles"].until(4, Duration::from_secs(5)).await?.remove(3).json();
        ensure_eq!((&told["version"], &told["user_context"]), (&json!(4), &who), "what is left");
        patch(&stack.client(0), &token, &json!({"preferences": {"timezone": "Europe/Berlin"}})).await?;
        ensure_eq!(changes_for(&admin, "styles").await?.len(), 3, "changes for who may not see them");
        ensure_eq!(changes_for(&admin, "money").await?.len(), 1, "changes of other parts");
        deliveries(&admin, "", |items| items.iter().all(|item| item["status"] == "delivered")).await?;
        for received in agents.values().flat_map(|agent| agent.received().split_off(1)) {
            let text = received.body.clone();
            ensure!(!text.contains("agent_permissions"), "the user's choice is told: {text}");
        }
        let forbidden = ["money", "restricted", "blind", "logins_only"];
        for (name, received) in forbidden.iter().flat_map(|name| agents[name].received().into_iter().map(move |one| (name, one))) {
            ensure!(!received.body.contains("moderate") && !received.body.contains("aggressive"), "{name}: {}", received.body);
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_wait_become_one_and_the_receiver_sees_the_gap() -> Result<()> {
    // Long enough for the changes that follow.
    run(told(here()).env("MCP_NOTIFICATION_TIMEOUT", "5"), async |stack| {
        let admin = admin(stack).await?;
        let agent = FakeAgent::start(Manner::Well).await?;
        register(&admin, "slow", &agent, json!({"permissions": reading(&["preferences"])})).await?;
        let (token, _) = sign_in(&stack.client(0), "bob").await?;
        deliveries(&admin, "", |items| all(items, 1, "delivered")).await?;
        let style = |style: &str| json!({"preferences": {"trading_style": style}});
        // The first one is under way, and its answer does not come.
        agent.set(Manner::Silent);
        patch(&stack.client(0), &token, &style("moderate")).await?;
        agent.until(2, Duration::from_secs(5)).await?;
        agent.set(Manner::Well);
        for next in ["aggressive", "conservative", "aggressive"] {
            patch(&stack.client(0), &token, &style(next)).await?;
        }
        let items = deliveries(&admin, "", |items| all(items, 3, "delivered")).await?;
        ensure_eq!(
            items.iter().filter(|item| item["eventType"] == "context_update").count(),
            2,
            "deliveries"
        );
        let told: Vec<Value> = agent.received().iter().map(harness::fakes::agent::Received::json).collect();
        let versions: Vec<(Value, Value)> =
            told.iter().map(|one| (one["version"].clone(), one["prev_version"].clone())).collect();
        let number = |number: i64| json!(number);
        ensure_eq!(
            versions,
            [
                (number(1), Value::Null),
                (number(2), number(1)),
                (number(2), number(1)),
                (number(5), number(2))
            ],
            "what was told: the second try of a version says the same, and then two are missing"
        );
        ensure_eq!(told[1], told[2], "both tries");
        ensure_eq!(told[3]["user_context"]["preferences"]["trading_style"], "aggressive", "the newest");
        Ok(())
    })
    .await
}
