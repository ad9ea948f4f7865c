//! People at work: conversations that post, follow and go on, and that do not give up when something breaks.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anyhow::{Result, bail};
use futures::future::try_join_all;

use crate::client::{Chat, Client, Posted, Transcript};

static KEYS: AtomicU64 = AtomicU64::new(0);

/// An idempotency key that nobody used before.
#[must_use]
pub fn fresh_key() -> String {
    format!("key-{}-{}", std::process::id(), KEYS.fetch_add(1, Ordering::Relaxed))
}

/// Posts one turn, however often that takes, and follows it to its end over the API processes in turn.
///
/// # Errors
/// It was refused, or is not at its end within the time.
pub async fn one_turn(
    client: &Client,
    bases: &[String],
    chat: Chat,
    within: Duration,
) -> Result<(Posted, Transcript)> {
    let deadline = tokio::time::Instant::now() + within;
    let posted = client.accept_stubbornly(&chat.idempotency(&fresh_key()), within).await?;
    let left = deadline.saturating_duration_since(tokio::time::Instant::now());
    let transcript = client.follow(&posted.job).over(bases).within(left).to_done().await?;
    Ok((posted, transcript))
}

/// A conversation of so many turns, one after the other; `text` makes the message of each. The tenant's name goes with
/// every message, so that the oracle can tell whose it is.
///
/// # Errors
/// A turn was refused, did not end in time, or ended other than succeeded.
pub async fn conversation(
    client: Client,
    bases: Vec<String>,
    turns: usize,
    text: impl Fn(usize) -> String,
    within: Duration,
) -> Result<()> {
    let mut session: Option<String> = None;
    for number in 0..turns {
        let mut chat = Chat::new(&format!("{} says: {}", client.tenant, text(number)));
        if let Some(token) = &session {
            chat = chat.session(token);
        }
        let (posted, transcript) = one_turn(&client, &bases, chat, within).await?;
        let done = transcript.done().unwrap_or_default();
        if done["status"] != "succeeded" {
            bail!("turn {number} ({}) of a conversation ended as {done}", posted.job);
        }
        session = Some(posted.session);
    }
    Ok(())
}

/// So many such conversations at once, over the clients in turn. The message of turn `t` of conversation `c` is
/// `text(c, t)`.
///
/// # Errors
/// The first that a conversation has.
pub async fn crowd(
    clients: &[Client],
    bases: &[String],
    conversations: usize,
    turns: usize,
    text: impl Fn(usize, usize) -> String + Clone,
    within: Duration,
) -> Result<()> {
    let all = (0..conversations).map(|number| {
        let text = text.clone();
        let client = clients[number % clients.len()].at(&bases[number % bases.len()]);
        conversation(client, bases.to_vec(), turns, move |turn| text(number, turn), within)
    });
    try_join_all(all).await.map(drop)
}

/// A message that makes the stand-in call two writing tools, then stream slowly: about half a second of work with
/// every kind of step in it.
#[must_use]
pub fn busy_text(conversation: usize, turn: usize) -> String {
    format!(
        "[[tool:add_task {{\"title\":\"task {conversation}.{turn}\"}}]][[next]]\
         [[tool:list_tasks {{}}]][[tool:add_task {{\"title\":\"second {conversation}.{turn}\"}}]]\
         [[tokens:20]][[delay:10]]"
    )
}
