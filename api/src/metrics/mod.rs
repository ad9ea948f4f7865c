//! What `/metrics` shows [O4]. What this process counted comes from the `metrics` recorder. What belongs to the whole
//! deployment, the queues and how turns ended, is read from the database at each scrape: turns that ended since the
//! scrape before are added up, so a scrape never reads more than what is new.

mod agents;

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use shared::{
    agents::figures as agent_figures,
    error::Result,
    queues::{self, Levels},
    telemetry::Recorder,
    turns::{
        Status,
        figures::{self, DURATION_BOUNDS, EndedTurns, UsedTokens},
    },
    workspace::changes,
};
use sqlx::PgPool;
use tokio::sync::Mutex;

use crate::state::App;

/// How long the database may take; a scrape goes without its figures then.
const PATIENCE: Duration = Duration::from_secs(2);
/// A turn's end is written before it is committed, so the newest ones may not be visible yet.
const SETTLING: TimeDelta = TimeDelta::seconds(5);
const ENDS: [Status; 4] = [Status::Succeeded, Status::Failed, Status::Cancelled, Status::Dead];

/// The figures of a process.
pub(crate) struct Metrics {
    recorder: Recorder,
    started: Instant,
    turns: Mutex<Turns>,
    deliveries: Mutex<agents::Deliveries>,
}

/// What belongs to the whole deployment.
struct OfAll {
    /// Agents and whether each is left alone.
    breakers: Vec<(String, bool)>,
    text: String,
}

/// Turns that ended since this process started, over all processes.
#[derive(Default)]
struct Turns {
    counted_until: Option<DateTime<Utc>>,
    by_status: [i64; ENDS.len()],
    by_duration: [i64; DURATION_BOUNDS.len() + 1],
    seconds: f64,
}

impl Metrics {
    /// Over this process's recorder.
    pub(crate) fn new(recorder: Recorder) -> Self {
        Self { recorder, started: Instant::now(), turns: Mutex::default(), deliveries: Mutex::default() }
    }

    /// The text of a scrape.
    pub(crate) async fn scrape(&self, app: &App) -> String {
        // First, because some of it is told by the recorder.
        let of_all = tokio::time::timeout(PATIENCE, self.of_all(&app.engine)).await;
        let mut text = self.recorder.text(&[("app", app.tenants.app()), ("engine", &app.engine)]);
        match of_all {
            Ok(Ok(figures)) => {
                agents::add_breakers(&mut text, &figures.breakers);
                text.push_str(&figures.text);
            }
            Ok(Err(error)) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a scrape goes without the database's figures"
                );
            }
            Err(_) => tracing::warn!("the database took too long; a scrape goes without its figures"),
        }
        text
    }

    async fn of_all(&self, engine: &PgPool) -> Result<OfAll> {
        let now = figures::now(engine).await?;
        let levels = queues::levels(engine).await?;
        let breakers = agent_figures::breakers(engine).await?;
        let mut deliveries = self.deliveries.lock().await;
        let sessions = figures::active_sessions(engine).await?;
        let lag = changes::lag_seconds(engine).await?;
        let mut turns = self.turns.lock().await;
        let uptime = TimeDelta::from_std(self.started.elapsed()).unwrap_or_default();
        let after = turns.counted_until.unwrap_or(now - uptime - SETTLING);
        let until = (now - SETTLING).max(after);
        let ended = figures::ended(engine, after, until).await?;
        let tokens = figures::tokens(engine, after, until).await?;
        let told_after = deliveries.counted_until.unwrap_or(after);
        let told_until = until.max(told_after);
        let told = agent_figures::ended(engine, told_after, told_until).await?;
        // All was read: it is counted as a whole, or by the next scrape.
        turns.counted_until = Some(until);
        deliveries.counted_until = Some(told_until);
        told.iter().for_each(|ended| deliveries.add(ended));
        ended.iter().for_each(|ended| turns.add(ended));
        tokens.iter().for_each(count_tokens);
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = queue_lines(&mut text, &levels, now)
            .and_then(|()| session_lines(&mut text, sessions))
            .and_then(|()| feed_lines(&mut text, lag))
            .and_then(|()| turns.lines(&mut text))
            .and_then(|()| deliveries.lines(&mut text));
        Ok(OfAll { breakers, text })
    }
}

/// By the recorder, which has the tokens of embeddings under the same name.
fn count_tokens(used: &UsedTokens) {
    let kinds = [
        ("input", used.input),
        ("output", used.output),
        ("cache_read", used.cache_read),
        ("cache_write", used.cache_write),
    ];
    for (kind, tokens) in kinds {
        metrics::counter!("model_tokens_total", "provider" => used.provider.clone(), "kind" => kind)
            .increment(u64::try_from(tokens).unwrap_or(0));
    }
}

impl Turns {
    fn add(&mut self, ended: &EndedTurns) {
        if let Some(place) = ENDS.iter().position(|status| *status == ended.status) {
            self.by_status[place] += ended.count;
        }
        if let Some(count) = self.by_duration.get_mut(ended.class) {
            *count += ended.count;
        }
        self.seconds += ended.seconds;
    }

    fn lines(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "# HELP turns_total Turns that ended since this process started, on all workers.")?;
        writeln!(text, "# TYPE turns_total counter")?;
        for (status, count) in ENDS.iter().zip(self.by_status) {
            writeln!(text, "turns_total{{status=\"{}\"}} {count}", status.as_str())?;
        }
        writeln!(text, "# HELP turn_duration_seconds From a turn's acceptance to its end.")?;
        writeln!(text, "# TYPE turn_duration_seconds histogram")?;
        let mut sum = 0;
        for (bound, count) in DURATION_BOUNDS.iter().zip(self.by_duration) {
            sum += count;
            writeln!(text, "turn_duration_seconds_bucket{{le=\"{bound}\"}} {sum}")?;
        }
        let count: i64 = self.by_duration.iter().sum();
        writeln!(text, "turn_duration_seconds_bucket{{le=\"+Inf\"}} {count}")?;
        writeln!(text, "turn_duration_seconds_sum {}", self.seconds)?;
        writeln!(text, "turn_duration_seconds_count {count}")
    }
}

fn queue_lines(text: &mut String, queues: &[(&'static str, Levels)], now: DateTime<Utc>) -> std::fmt::Result {
    writeln!(text, "# HELP queue_depth What waits in a queue and is due.\n# TYPE queue_depth gauge")?;
    for (queue, levels) in queues {
        writeln!(text, "queue_depth{{queue=\"{queue}\"}} {}", levels.due)?;
    }
    writeln!(text, "# HELP queue_oldest_seconds How long the oldest of it has waited.")?;
    writeln!(text, "# TYPE queue_oldest_seconds gauge")?;
    for (queue, levels) in queues {
        let waited = levels.oldest_at.map_or(0.0, |at| (now - at).as_seconds_f64().max(0.0));
        writeln!(text, "queue_oldest_seconds{{queue=\"{queue}\"}} {waited}")?;
    }
    Ok(())
}

fn session_lines(text: &mut String, sessions: i64) -> std::fmt::Result {
    writeln!(text, "# HELP active_user_sessions Sessions that have not ended, of all users.")?;
    writeln!(text, "# TYPE active_user_sessions gauge\nactive_user_sessions {sessions}")
}

fn feed_lines(text: &mut String, lag: f64) -> std::fmt::Result {
    writeln!(
        text,
        "# HELP change_feed_lag_seconds How long the oldest change has waited that an older transaction holds up."
    )?;
    writeln!(text, "# TYPE change_feed_lag_seconds gauge\nchange_feed_lag_seconds {lag}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_add_up() {
        let mut turns = Turns::default();
        for (status, class, count, seconds) in
            [(Status::Succeeded, 0, 3, 0.1), (Status::Dead, 12, 1, 900.0), (Status::Succeeded, 4, 2, 1.5)]
        {
            turns.add(&EndedTurns { status, class, count, seconds });
        }
        let mut text = String::new();
        turns.lines(&mut text).unwrap();
        for line in [
            "turns_total{status=\"succeeded\"} 5",
            "turns_total{status=\"dead\"} 1",
            "turn_duration_seconds_bucket{le=\"0.05\"} 3",
            "turn_duration_seconds_bucket{le=\"1\"} 5",
            "turn_duration_seconds_bucket{le=\"600\"} 5",
            "turn_duration_seconds_bucket{le=\"+Inf\"} 6",
            "turn_duration_seconds_sum 901.6",
            "turn_duration_seconds_count 6",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
