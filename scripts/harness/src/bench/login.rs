//! Signing in: the whole of it, and without the password's hash, which is work on purpose.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use reqwest::{Client, Response};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Plan,
    report::Table,
    stack::Stack,
    statistics::{Samples, figure, milliseconds},
};

const PASSWORD: &str = "correct horse battery staple";
/// People who sign in at once: fewer than the attempts that one address has.
const CROWD: usize = 40;
/// Makes a hash a matter of microseconds.
pub(super) const CHEAP: [(&str, &str); 2] =
    [("PASSWORD_HASH_MEMORY_KIB", "8"), ("PASSWORD_HASH_PASSES", "1")];

/// One api process and a client of it.
pub(super) struct Api {
    client: Client,
    address: SocketAddr,
}

impl Api {
    pub(super) fn at(address: SocketAddr) -> Self {
        Self { client: crate::client::http(), address }
    }

    pub(super) async fn post(&self, verb: &str, body: &Value) -> Result<Response> {
        let url = format!("http://{}/api/v1/auth/{verb}", self.address);
        // Everybody comes from somewhere else, to an api that believes it: sign-ups of one address are limited.
        let email = body["email"].as_str().unwrap_or_default();
        let sum = email.bytes().fold(7_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
        let from = std::net::Ipv4Addr::from(0x0a00_0000 | (sum & 0x00ff_ffff));
        let request = self.client.post(url).header("x-forwarded-for", from.to_string());
        let answered = request.json(body).send().await?;
        ensure!(answered.status().is_success(), "{verb}: {}", answered.status());
        Ok(answered)
    }

    pub(super) async fn account(&self, email: &str) -> Result<Value> {
        let body = json!({"email": email, "password": PASSWORD});
        self.post("register", &body).await?;
        Ok(body)
    }

    pub(super) async fn logins(&self, account: &Value, count: usize) -> Result<Samples> {
        let mut times = Vec::new();
        for _ in 0..count {
            let begun = Instant::now();
            self.post("login", account).await?.bytes().await?;
            times.push(begun.elapsed());
        }
        Ok(Samples::of_times(times))
    }

    async fn refreshes(&self, account: &Value, count: usize) -> Result<Samples> {
        let mut tokens: Value = self.post("login", account).await?.json().await?;
        let mut times = Vec::new();
        for _ in 0..count {
            let begun = Instant::now();
            let body = json!({"refresh_token": tokens["refresh_token"]});
            tokens = self.post("refresh", &body).await?.json().await?;
            times.push(begun.elapsed());
        }
        Ok(Samples::of_times(times))
    }

    /// Requests with access tokens that the process has not seen: signature, sign-in and all.
    async fn first_uses(&self, account: &Value, count: usize) -> Result<(Samples, Samples)> {
        let (mut first, mut again) = (Vec::new(), Vec::new());
        let url = format!("http://{}/api/v1/auth/me", self.address);
        for _ in 0..count {
            let tokens: Value = self.post("login", account).await?.json().await?;
            let token = tokens["access_token"].as_str().unwrap_or_default();
            for times in [&mut first, &mut again] {
                let begun = Instant::now();
                self.client.get(&url).bearer_auth(token).send().await?.error_for_status()?.bytes().await?;
                times.push(begun.elapsed());
            }
        }
        Ok((Samples::of_times(first), Samples::of_times(again)))
    }

    /// Many people at once: the time from the first request to the last answer. One person could not be that many: eight
    /// attempts at an account from one address may be under way.
    async fn crowd(&self, accounts: &[Value]) -> Result<Duration> {
        let begun = Instant::now();
        futures::future::try_join_all(accounts.iter().map(|account| self.post("login", account))).await?;
        Ok(begun.elapsed())
    }
}

/// Measures.
///
/// # Errors
/// Somebody is not signed in.
pub(super) async fn measure(plan: &Plan, stack: &mut Stack) -> Result<Table> {
    let count = plan.pick(50, 300);
    let (cheap, address) = stack.another_api(&CHEAP).await?;
    let (without_hash, whole) = (Api::at(address), Api::at(stack.address));
    let account = without_hash.account("cheap@bench.example").await?;
    // Plans and connections.
    without_hash.logins(&account, 30).await?;
    let mut table = Table::new("Signing in", &["", "p50 ms", "p95", "p99"]);
    let mut add = |name: &str, times: &Samples| {
        table.row([
            name.to_owned(),
            milliseconds(times.median()),
            figure(times.percentile(95.0)),
            figure(times.percentile(99.0)),
        ]);
    };
    add("login, without the hash's time", &without_hash.logins(&account, count).await?);
    add("refresh", &without_hash.refreshes(&account, count).await?);
    let (first, again) = without_hash.first_uses(&account, count).await?;
    add("GET me, a token's first use", &first);
    add("GET me, after that", &again);
    let dear = whole.account("dear@bench.example").await?;
    whole.logins(&dear, 3).await?;
    add("login, whole", &whole.logins(&dear, plan.pick(20, 60)).await?);
    let mut accounts = Vec::new();
    for person in 0..CROWD {
        accounts.push(whole.account(&format!("person-{person}@bench.example")).await?);
    }
    let crowd = whole.crowd(&accounts).await?;
    drop(cheap);
    table.note(format!(
        "{CROWD} logins at once were answered within {} s. The hash is argon2id, 19 MiB and 2 passes, two at once; \
         without it means 8 KiB and 1 pass.",
        figure(crowd.as_secs_f64())
    ));
    table.note("Aim: a login without the hash's own time under 5 ms.");
    Ok(table)
}
