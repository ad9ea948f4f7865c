//! Jobs of all queues: lists of them, one with all that is known of it, and why those wait that do.

mod store;

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use uuid::Uuid;

pub(super) use self::store::{Wanted, count, oldest, one};
use super::{QueueDef, Queues, Source, Viewer, figures, pause, redact};
use crate::{
    error::{Error, Result},
    ids::{TenantId, UserId},
};

/// Clocks of processes differ by less.
const SKEW: TimeDelta = TimeDelta::minutes(5);

/// How a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    Queued,
    Running,
    AwaitingApproval,
    Succeeded,
    Failed,
    Cancelled,
    /// All its attempts are used up.
    Dead,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 7] = [
        Self::Queued,
        Self::Running,
        Self::AwaitingApproval,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::Dead,
    ];

    /// The word of the contract.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::AwaitingApproval => "awaiting_approval",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Dead => "dead",
        }
    }

    /// Whether the job has ended.
    #[must_use]
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled | Self::Dead)
    }

    pub(super) fn of_word(word: &str) -> Self {
        Self::ALL.into_iter().find(|status| status.as_str() == word).unwrap_or(Self::Queued)
    }

    /// The states of the source's table that can be this status: what its indexes are made for.
    fn states(self, source: Source) -> &'static [&'static str] {
        match (source, self) {
            (Source::Turns, Self::Queued) => &["queued", "waiting", "ready"],
            (Source::Turns, Self::Running) => &["running"],
            (Source::Turns, Self::AwaitingApproval) => &["awaiting_approval"],
            (Source::Turns, Self::Succeeded) => &["succeeded"],
            (Source::Turns, Self::Failed) => &["failed"],
            (Source::Turns, Self::Cancelled) => &["cancelled"],
            (Source::Turns, Self::Dead) => &["dead"],
            (Source::Deliveries, Self::Queued | Self::Running) => &["pending", "retry"],
            (Source::Deliveries, Self::Succeeded) => &["delivered"],
            (Source::Deliveries, _) => &["failed"],
            (Source::Items, _) => &["listed"],
            (Source::Tickets, Self::Queued) => &["Pending", "Failed"],
            (Source::Tickets, Self::Running) => &["Queued", "Running"],
            (Source::Tickets, Self::Succeeded) => &["Done"],
            (Source::Tickets, _) => &["Failed", "Killed"],
        }
    }
}

/// A job, whatever it is made of.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Job {
    /// None for what belongs to the deployment.
    pub tenant_id: Option<TenantId>,
    pub id: Uuid,
    pub kind: String,
    /// In its own table.
    pub(super) state: String,
    status: String,
    pub user_id: Option<UserId>,
    /// A conversation, an agent, a kind of item, a connection.
    pub subject: Option<String>,
    pub created_at: DateTime<Utc>,
    /// When it may be taken up.
    pub due_at: Option<DateTime<Utc>>,
    pub started_at: Option<DateTime<Utc>>,
    pub finished_at: Option<DateTime<Utc>>,
    pub attempts: i64,
    pub max_attempts: Option<i64>,
    pub error_code: Option<String>,
    pub error: Option<String>,
    pub worker: Option<String>,
    /// Somebody has dealt with its failure.
    pub is_discarded: bool,
    /// Why it waits, if it does.
    #[sqlx(skip)]
    pub waiting: Option<Waiting>,
}

impl Job {
    /// How it stands.
    #[must_use]
    pub fn status(&self) -> Status {
        Status::of_word(&self.status)
    }
}

/// Why a job waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// For an earlier turn of its conversation.
    Turn(Option<Uuid>),
    /// For one of its tenant's running turns to end.
    Slot,
    /// For a person's decision.
    Approval,
    /// The queue stands still since then.
    Paused(DateTime<Utc>),
    /// The agent is disabled.
    AgentOff,
    /// The tenant is suspended.
    TenantOff,
    /// `MCP_AGENT_NOTIFICATION_ENABLED` is off.
    TellingOff,
    /// The agent failed too often and is left alone until then.
    Breaker(DateTime<Utc>),
    /// Until then: it was put off, or failed and is tried again.
    Delayed(DateTime<Utc>),
    /// For an earlier delivery to the agent about the same user.
    Delivery(Uuid),
    /// No worker has been heard of for a while.
    NoWorker,
    /// For the next free worker.
    Worker,
}

impl Waiting {
    /// The word of the contract.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Turn(_) => "earlier_turn",
            Self::Slot => "tenant_cap",
            Self::Approval => "approval",
            Self::Paused(_) => "paused",
            Self::AgentOff => "agent_disabled",
            Self::TenantOff => "tenant_suspended",
            Self::TellingOff => "notifications_off",
            Self::Breaker(_) => "breaker_open",
            Self::Delayed(_) => "delayed",
            Self::Delivery(_) => "earlier_delivery",
            Self::NoWorker => "no_worker",
            Self::Worker => "worker",
        }
    }

    /// The same for people.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Turn(_) => "behind an earlier turn of its conversation",
            Self::Slot => "its tenant runs as many turns as it may",
            Self::Approval => "a person has to decide on a tool call",
            Self::Paused(_) => "the queue is paused",
            Self::AgentOff => "the agent is disabled",
            Self::TenantOff => "the tenant is suspended",
            Self::TellingOff => "telling agents is switched off for the whole deployment",
            Self::Breaker(_) => "the agent failed too often and is left alone for a while",
            Self::Delayed(_) => "it is not due yet",
            Self::Delivery(_) => "behind an earlier delivery to the agent about this user",
            Self::NoWorker => "no worker is running",
            Self::Worker => "the next free worker takes it",
        }
    }

    /// Until when, or since when for a paused queue.
    #[must_use]
    pub fn at(self) -> Option<DateTime<Utc>> {
        match self {
            Self::Paused(at) | Self::Breaker(at) | Self::Delayed(at) => Some(at),
            _ => None,
        }
    }

    /// The job that it waits for.
    #[must_use]
    pub fn job(self) -> Option<Uuid> {
        match self {
            Self::Turn(job) => job,
            Self::Delivery(job) => Some(job),
            _ => None,
        }
    }
}

/// What only its source knows of a job that waits.
#[derive(Debug, Clone, Copy, Default, sqlx::FromRow)]
struct Facts {
    id: Uuid,
    behind: Option<Uuid>,
    open_until: Option<DateTime<Utc>>,
    is_off: bool,
    is_suspended: bool,
}

/// Which jobs; what is none does not matter.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub status: Option<Status>,
    pub tenant: Option<TenantId>,
    pub kind: Option<String>,
    /// A conversation, an agent, a kind of item, a connection.
    pub subject: Option<String>,
    /// Made at this moment or later.
    pub since: Option<DateTime<Utc>>,
    /// Made before this moment.
    pub until: Option<DateTime<Utc>>,
    /// Its error says this somewhere, in whatever case.
    pub error: Option<String>,
    /// Also those that were dealt with.
    pub with_discarded: bool,
}

impl Filter {
    /// Ids that are made before all ids of jobs from `since` on, for sources whose ids tell the time.
    fn first_id(&self, source: Source) -> Option<Uuid> {
        self.since.filter(|_| source != Source::Items).map(|since| id_of(since - SKEW))
    }

    fn last_id(&self, source: Source) -> Option<Uuid> {
        self.until.filter(|_| source != Source::Items).map(|until| id_of(until + SKEW))
    }
}

/// The least id of its millisecond.
fn id_of(at: DateTime<Utc>) -> Uuid {
    let millis = u128::try_from(at.timestamp_millis().max(0)).unwrap_or(0);
    Uuid::from_u128(millis << 80)
}

/// One try at a job, as far as it was kept.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Attempt {
    pub at: DateTime<Utc>,
    /// Whom it asked.
    pub what: Option<String>,
    /// Null while it is under way.
    pub outcome: Option<String>,
    pub duration_ms: Option<i64>,
    /// What was answered, as far as it is kept.
    pub answer: Option<String>,
}

/// A job with all that is known of it. Secrets are taken out.
#[derive(Debug, Clone)]
pub struct Detail {
    pub job: Job,
    pub payload: Value,
    pub attempts: Vec<Attempt>,
}

impl Queues {
    /// A page of a queue's jobs, newest first, after the one that the cursor names.
    ///
    /// # Errors
    /// The database's.
    pub async fn jobs(
        &self,
        viewer: &Viewer,
        queue: &QueueDef,
        filter: &Filter,
        before: Option<Uuid>,
        limit: i64,
    ) -> Result<Vec<Job>> {
        let mut reach = self.reach(viewer).await?;
        let wanted = Wanted { view: reach.jobs_of(queue), queue, filter, statuses: &[], after: None };
        let mut jobs = store::page(reach.connection(), &wanted, before, limit).await?;
        self.explain(&mut reach, queue, &mut jobs).await?;
        reach.commit().await?;
        Ok(jobs)
    }

    /// One job.
    ///
    /// # Errors
    /// 404; the database's.
    pub async fn job(&self, viewer: &Viewer, queue: &QueueDef, id: Uuid) -> Result<Detail> {
        let mut reach = self.reach(viewer).await?;
        let view = reach.jobs_of(queue);
        let mut found = store::one(reach.connection(), view, queue, id).await?;
        self.explain(&mut reach, queue, &mut found).await?;
        let job = found.pop().ok_or_else(no_such_job)?;
        let tenant = job.tenant_id.unwrap_or(super::NOBODY);
        let (payload, mut attempts) = match queue.source {
            Source::Turns => store::turn(reach.connection(), tenant, id).await?,
            Source::Deliveries => store::delivery(reach.connection(), tenant, id).await?,
            // Of these the engine knows more than the tenant may ask for; the job itself was the tenant's.
            Source::Items => store::item(&self.engine, tenant, id).await?,
            Source::Tickets => store::ticket(&self.engine, queue.name, id).await?,
        };
        reach.commit().await?;
        for answer in attempts.iter_mut().filter_map(|attempt| attempt.answer.as_mut()) {
            *answer = redact::text(answer);
        }
        Ok(Detail { job, payload: redact::value(payload), attempts })
    }

    async fn explain(&self, reach: &mut super::Reach, queue: &QueueDef, jobs: &mut [Job]) -> Result<()> {
        let waiting: Vec<(TenantId, Uuid)> = jobs
            .iter()
            .filter(|job| job.status() == Status::Queued)
            .map(|job| (job.tenant_id.unwrap_or(super::NOBODY), job.id))
            .collect();
        let facts = match (queue.source, waiting.is_empty()) {
            (Source::Turns, false) => store::facts_of_turns(reach.connection(), &waiting).await?,
            (Source::Deliveries, false) => store::facts_of_deliveries(reach.connection(), &waiting).await?,
            _ => Vec::new(),
        };
        let facts: HashMap<Uuid, Facts> = facts.into_iter().map(|facts| (facts.id, facts)).collect();
        let is_told = queue.source != Source::Deliveries || self.tells_agents;
        let mut stands = Stands { paused: None, is_told, is_worked_on: true };
        if !waiting.is_empty() {
            stands.paused = pause::since(&self.engine, queue.name).await?;
            stands.is_worked_on = figures::is_worked_on(&self.engine).await?;
        }
        let now = Utc::now();
        for job in jobs {
            let facts = facts.get(&job.id).copied().unwrap_or_default();
            job.waiting = waits_for(job, &facts, &stands, now);
        }
        Ok(())
    }
}

/// What holds for all jobs of a queue.
struct Stands {
    paused: Option<DateTime<Utc>>,
    /// It is no queue of deliveries, or agents are told at all.
    is_told: bool,
    is_worked_on: bool,
}

fn waits_for(job: &Job, facts: &Facts, queue: &Stands, now: DateTime<Utc>) -> Option<Waiting> {
    let later = |at: Option<DateTime<Utc>>| at.filter(|at| *at > now);
    Some(match job.status() {
        Status::AwaitingApproval => Waiting::Approval,
        Status::Queued => match job.state.as_str() {
            "queued" => Waiting::Turn(facts.behind),
            "waiting" => Waiting::Slot,
            _ => {
                if let Some(since) = queue.paused {
                    Waiting::Paused(since)
                } else if !queue.is_told {
                    Waiting::TellingOff
                } else if facts.is_suspended {
                    Waiting::TenantOff
                } else if facts.is_off {
                    Waiting::AgentOff
                } else if let Some(until) = later(facts.open_until) {
                    Waiting::Breaker(until)
                } else if let Some(until) = later(job.due_at) {
                    Waiting::Delayed(until)
                } else if let Some(earlier) = facts.behind {
                    Waiting::Delivery(earlier)
                } else if !queue.is_worked_on {
                    Waiting::NoWorker
                } else {
                    Waiting::Worker
                }
            }
        },
        _ => return None,
    })
}

pub(super) fn no_such_job() -> Error {
    Error::not_found("there is no such job")
}
