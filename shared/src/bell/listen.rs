//! The listening task: connects, passes on what it hears, and notices when it has gone deaf.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use sqlx::postgres::{PgConnectOptions, PgListener};
use tokio::time::Instant;

use super::{Channel, Heard, Shared, payload, store};

/// How often the bell rings itself; two echoes missing make it connect anew.
const ECHO_EVERY: Duration = Duration::from_secs(5);

pub(super) async fn run(
    shared: Arc<Shared>,
    options: PgConnectOptions,
    channels: Vec<Channel>,
    echo: String,
) {
    let mut names: Vec<&str> = channels.into_iter().map(Channel::name).collect();
    names.push(&echo);
    let mut backoff = Duration::ZERO;
    loop {
        let connecting = tokio::time::timeout(Duration::from_secs(5), store::listen(options.clone(), &names));
        match connecting.await {
            Ok(Ok(listener)) => {
                // Nobody may be subscribed yet; whoever subscribes looks first anyway.
                let _ = shared.heard.send(Heard::Reconnected);
                let proven = listen(&shared, listener, &echo).await;
                metrics::counter!("bell_reconnects_total").increment(1);
                if proven {
                    backoff = Duration::ZERO;
                }
            }
            Ok(Err(error)) if backoff.is_zero() => tracing::warn!(%error, "cannot listen; trying again"),
            Ok(Err(_)) | Err(_) => {}
        }
        // The first try after a loss is made at once.
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).clamp(Duration::from_millis(50), Duration::from_secs(2));
    }
}

/// Listens until the connection is lost or deaf. Answers whether it ever heard anything.
async fn listen(shared: &Shared, mut listener: PgListener, echo: &str) -> bool {
    let (mut proven, mut unanswered) = (false, 0);
    let mut next_echo = Instant::now();
    loop {
        match tokio::time::timeout_at(next_echo, receive(shared, &mut listener, echo)).await {
            Ok(ControlFlow::Continue(is_echo)) => {
                proven = true;
                if is_echo {
                    unanswered = 0;
                }
            }
            Ok(ControlFlow::Break(())) => return proven,
            Err(_) if unanswered >= 2 => {
                tracing::warn!("the listening connection is deaf; connecting anew");
                return proven;
            }
            Err(_) => {
                unanswered += 1;
                shared.ring(super::ring::Pending::add_echo);
                next_echo = Instant::now() + ECHO_EVERY;
            }
        }
    }
}

/// One notification; continues with whether it was the echo, breaks when the connection is lost.
async fn receive(shared: &Shared, listener: &mut PgListener, echo: &str) -> ControlFlow<(), bool> {
    match listener.try_recv().await {
        Ok(Some(notification)) if notification.channel() == echo => ControlFlow::Continue(true),
        Ok(Some(notification)) => {
            if let Some(heard) = payload::read(notification.channel(), notification.payload()) {
                let _ = shared.heard.send(heard);
            }
            ControlFlow::Continue(false)
        }
        Ok(None) => ControlFlow::Break(()),
        Err(error) => {
            tracing::debug!(%error, "the listening connection is lost");
            ControlFlow::Break(())
        }
    }
}
