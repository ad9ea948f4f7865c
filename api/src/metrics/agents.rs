//! How telling agents goes, over all processes.

use std::{collections::BTreeMap, fmt::Write as _};

use chrono::{DateTime, Utc};
use shared::agents::figures::{EXCHANGE_BOUNDS, EndedDeliveries};

/// Names of agents that are told apart; tenants choose them.
const MOST_AGENTS: usize = 500;

const BREAKERS: &str = "# TYPE circuit_breaker_state gauge\n";

/// Agents' breakers as they are now, among those of this process if it has any: a metric's lines have to stand together.
pub(super) fn add_breakers(text: &mut String, breakers: &[(String, bool)]) {
    if breakers.is_empty() {
        return;
    }
    let lines = breakers.iter().fold(String::new(), |mut lines, (agent, is_open)| {
        // Writing to a String cannot fail.
        let _ = writeln!(lines, "circuit_breaker_state{{target=\"agent:{agent}\"}} {}", u8::from(*is_open));
        lines
    });
    match text.find(BREAKERS) {
        Some(at) => text.insert_str(at + BREAKERS.len(), &lines),
        None => {
            text.push_str(
                "# HELP circuit_breaker_state 1 while a target is left alone after failures, by target.\n",
            );
            text.push_str(BREAKERS);
            text.push_str(&lines);
        }
    }
}

/// Deliveries that ended since this process started.
#[derive(Default)]
pub(super) struct Deliveries {
    pub(super) counted_until: Option<DateTime<Utc>>,
    agents: BTreeMap<String, Agent>,
}

#[derive(Default)]
struct Agent {
    delivered: i64,
    failed: i64,
    retried: i64,
    by_duration: [i64; EXCHANGE_BOUNDS.len() + 1],
    seconds: f64,
}

impl Deliveries {
    pub(super) fn add(&mut self, ended: &EndedDeliveries) {
        if self.agents.len() >= MOST_AGENTS && !self.agents.contains_key(&ended.agent) {
            return;
        }
        let agent = self.agents.entry(ended.agent.clone()).or_default();
        match ended.status.as_str() {
            "delivered" => agent.delivered += ended.count,
            _ => agent.failed += ended.count,
        }
        agent.retried += ended.retries;
        if !ended.is_timed {
            return;
        }
        agent.seconds += ended.seconds;
        if let Some(count) =
            usize::try_from(ended.class).ok().and_then(|class| agent.by_duration.get_mut(class))
        {
            *count += ended.count;
        }
    }

    pub(super) fn lines(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "# HELP agent_notifications_total Deliveries that ended since this process started, and their retries, on all workers."
        )?;
        writeln!(text, "# TYPE agent_notifications_total counter")?;
        for (name, agent) in &self.agents {
            for (status, count) in
                [("delivered", agent.delivered), ("failed", agent.failed), ("retry", agent.retried)]
            {
                writeln!(text, "agent_notifications_total{{agent=\"{name}\",status=\"{status}\"}} {count}")?;
            }
        }
        writeln!(text, "# HELP agent_notification_duration_seconds The last exchange of each of them.")?;
        writeln!(text, "# TYPE agent_notification_duration_seconds histogram")?;
        for (name, agent) in
            self.agents.iter().filter(|(_, agent)| agent.by_duration != [0; EXCHANGE_BOUNDS.len() + 1])
        {
            let mut sum = 0;
            for (bound, count) in EXCHANGE_BOUNDS.iter().zip(agent.by_duration) {
                sum += count;
                writeln!(
                    text,
                    "agent_notification_duration_seconds_bucket{{agent=\"{name}\",le=\"{bound}\"}} {sum}"
                )?;
            }
            let all: i64 = agent.by_duration.iter().sum();
            writeln!(
                text,
                "agent_notification_duration_seconds_bucket{{agent=\"{name}\",le=\"+Inf\"}} {all}"
            )?;
            writeln!(text, "agent_notification_duration_seconds_sum{{agent=\"{name}\"}} {}", agent.seconds)?;
            writeln!(text, "agent_notification_duration_seconds_count{{agent=\"{name}\"}} {all}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breakers_of_agents_stand_among_those_of_the_process() {
        let breakers = [("news".to_owned(), false), ("risk".to_owned(), true)];
        let lines = "circuit_breaker_state{target=\"agent:news\"} 0\ncircuit_breaker_state{target=\"agent:risk\"} 1\n";
        let mut text = format!(
            "# TYPE a gauge\na 1\n{BREAKERS}circuit_breaker_state{{target=\"docs\"}} 0\n# TYPE b gauge\n"
        );
        add_breakers(&mut text, &breakers);
        assert!(
            text.contains(&format!("a 1\n{BREAKERS}{lines}circuit_breaker_state{{target=\"docs\"}} 0\n")),
            "{text}"
        );
        let mut alone = "a 1\n".to_owned();
        add_breakers(&mut alone, &breakers);
        assert!(
            alone.starts_with("a 1\n# HELP circuit_breaker_state ")
                && alone.ends_with(&format!("{BREAKERS}{lines}"))
        );
        add_breakers(&mut text, &[]);
        assert_eq!(text.matches(BREAKERS).count(), 1);
    }
}
