//! What is done by the clock, and how often.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{AGENT_DELIVERIES, CONNECTION_REFRESH, MAINTENANCE};

/// A task of a queue and how often it is due.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// The queue that its tickets go to.
    pub queue: &'static str,
    /// The task.
    pub task: &'static str,
    /// From one firing to the next.
    pub every: Duration,
}

/// Every schedule, sorted by task.
pub const SCHEDULES: &[Schedule] = &[
    Schedule { queue: MAINTENANCE, task: "agents", every: Duration::from_secs(60) },
    Schedule { queue: CONNECTION_REFRESH, task: "connections", every: Duration::from_secs(60) },
    Schedule { queue: MAINTENANCE, task: "contexts", every: Duration::from_secs(3600) },
    Schedule { queue: MAINTENANCE, task: "deleted-tenants", every: Duration::from_secs(60) },
    Schedule { queue: AGENT_DELIVERIES, task: "deliver", every: Duration::from_secs(30) },
    Schedule { queue: MAINTENANCE, task: "header-secrets", every: Duration::from_secs(3600) },
    Schedule { queue: MAINTENANCE, task: "mcp-servers", every: Duration::from_secs(60) },
    Schedule { queue: MAINTENANCE, task: "partitions", every: Duration::from_secs(3600) },
    Schedule { queue: MAINTENANCE, task: "queue-counts", every: Duration::from_secs(60) },
    Schedule { queue: MAINTENANCE, task: "retention", every: Duration::from_secs(300) },
    Schedule { queue: MAINTENANCE, task: "search", every: Duration::from_secs(30) },
    Schedule { queue: MAINTENANCE, task: "tickets", every: Duration::from_secs(60) },
];

impl Schedule {
    fn seconds(&self) -> i64 {
        i64::try_from(self.every.as_secs()).unwrap_or(i64::MAX).max(1)
    }

    /// The number of the firing that is due at this moment.
    #[must_use]
    pub fn tick_at(&self, at: DateTime<Utc>) -> i64 {
        at.timestamp() / self.seconds()
    }

    /// When the firing after this moment is.
    #[must_use]
    pub fn next_after(&self, at: DateTime<Utc>) -> DateTime<Utc> {
        let next = (self.tick_at(at) + 1).saturating_mul(self.seconds());
        DateTime::from_timestamp(next, 0).unwrap_or(at)
    }
}
