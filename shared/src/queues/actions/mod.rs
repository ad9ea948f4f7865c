//! What can be done to jobs: try them again, stop them, put them away. One by one, or many by a filter in bounded batches.
//!
//! Retry: a dead turn begins anew as another turn, a dead delivery is made again, a failed ticket or an item that was put off is
//! taken up now. Cancel: what has not ended ends. Discard: a failed job leaves the list of those that somebody has to look
//! at; what waits is stopped as well. What ran before stays as it was written.

mod store;

use serde_json::json;
use uuid::Uuid;

use super::{
    QueueDef, Queues, Source, Viewer,
    jobs::{self, Filter, Job, Status, Wanted, no_such_job},
};
use crate::{
    bell::Ring,
    db::TenantTx,
    error::{Code, Error, Result},
    identity::{Actor, Role},
    ids::{TenantId, TurnId, UserId},
    tenancy::audit::{self, Entry},
};

/// Jobs that match are counted up to this number.
const MOST_COUNTED: i64 = 10_000;
/// What a turn that is stopped says.
const REASON: &str = "cancelled by an administrator";

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Retry,
    Cancel,
    Discard,
}

impl Action {
    /// The word of the contract.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Cancel => "cancel",
            Self::Discard => "discard",
        }
    }

    fn audited(self) -> (&'static str, &'static str) {
        match self {
            Self::Retry => ("job.retried", "jobs.retried"),
            Self::Cancel => ("job.cancelled", "jobs.cancelled"),
            Self::Discard => ("job.discarded", "jobs.discarded"),
        }
    }

    /// How a job must stand for this.
    fn takes(self, source: Source) -> &'static [Status] {
        match (self, source) {
            (Self::Retry, Source::Turns | Source::Deliveries) => &[Status::Dead],
            (Self::Retry, Source::Items) => &[Status::Queued],
            (Self::Retry, Source::Tickets) => &[Status::Failed, Status::Cancelled],
            (Self::Cancel, Source::Turns) => &[Status::Queued, Status::Running, Status::AwaitingApproval],
            (Self::Cancel, Source::Items) => &[],
            (Self::Cancel, Source::Deliveries | Source::Tickets) => &[Status::Queued],
            (Self::Discard, Source::Turns) => {
                &[Status::Queued, Status::Running, Status::AwaitingApproval, Status::Failed, Status::Dead]
            }
            (Self::Discard, Source::Items) => &[Status::Queued],
            (Self::Discard, Source::Deliveries) => &[Status::Queued, Status::Dead],
            (Self::Discard, Source::Tickets) => {
                &[Status::Queued, Status::Failed, Status::Cancelled, Status::Succeeded]
            }
        }
    }
}

/// A job of a batch with which it could not be done.
#[derive(Debug, Clone)]
pub struct Refused {
    pub id: Uuid,
    pub because: String,
}

/// What is to be done to how many jobs at most.
#[derive(Debug, Clone, Copy)]
pub struct Batch {
    pub action: Action,
    pub limit: i64,
    /// The last job of the batch before, whose jobs may still match: those that were refused do.
    pub after: Option<Uuid>,
    /// Only say which they are.
    pub is_dry: bool,
}

/// What a batch came to.
#[derive(Debug, Clone, Default)]
pub struct Bulk {
    /// Jobs that match, and come after the batch before, counted up to 10 000.
    pub matched: i64,
    /// Those with which it was done, or would be done: the oldest.
    pub touched: Vec<Uuid>,
    pub refused: Vec<Refused>,
    /// Where the next batch begins; none when there is none.
    pub next: Option<Uuid>,
}

impl Queues {
    /// Does this to one job; answers the turn that was made, where one was.
    ///
    /// # Errors
    /// 404; 409 when the job does not stand so that this could be done; the database's.
    pub async fn act(
        &self,
        viewer: &Viewer,
        queue: &QueueDef,
        id: Uuid,
        action: Action,
        request_id: &str,
    ) -> Result<Option<TurnId>> {
        let mut reach = self.reach(viewer).await?;
        let view = reach.jobs_of(queue);
        let job = jobs::one(reach.connection(), view, queue, id).await?.pop();
        reach.commit().await?;
        self.act_on(viewer, queue, &job.ok_or_else(no_such_job)?, action, request_id).await
    }

    /// Does this to the oldest of the jobs that match, so many at most; a dry run only says which.
    ///
    /// # Errors
    /// The database's. A job that cannot be acted on is told of in the answer.
    pub async fn act_on_all(
        &self,
        viewer: &Viewer,
        queue: &QueueDef,
        filter: &Filter,
        batch: Batch,
        request_id: &str,
    ) -> Result<Bulk> {
        let Batch { action, limit, after, is_dry } = batch;
        let statuses = action.takes(queue.source);
        if statuses.is_empty() {
            return Ok(Bulk::default());
        }
        let mut reach = self.reach(viewer).await?;
        let wanted = Wanted { view: reach.jobs_of(queue), queue, filter, statuses, after };
        let matched = jobs::count(reach.connection(), &wanted, MOST_COUNTED).await?;
        let jobs = jobs::oldest(reach.connection(), &wanted, limit).await?;
        reach.commit().await?;
        let is_last = i64::try_from(jobs.len()).is_ok_and(|count| matched <= count);
        let next = jobs.last().filter(|_| !is_last).map(|job| job.id);
        let mut bulk = Bulk { matched, next, ..Bulk::default() };
        for job in &jobs {
            if is_dry {
                bulk.touched.push(job.id);
                continue;
            }
            match self.act_on(viewer, queue, job, action, request_id).await {
                Ok(_) => bulk.touched.push(job.id),
                // It stands otherwise than a moment ago.
                Err(error) if matches!(error.code, Code::Conflict | Code::NotFound | Code::Gone) => {
                    bulk.refused.push(Refused { id: job.id, because: error.message.into_owned() });
                }
                Err(error) => return Err(error),
            }
        }
        if !is_dry && !jobs.is_empty() {
            let details = json!({
                "matched": matched, "touched": bulk.touched.len(), "refused": bulk.refused.len(),
                "status": filter.status.map(Status::as_str), "kind": filter.kind, "subject": filter.subject,
                "since": filter.since, "until": filter.until, "error": filter.error, "tenant": filter.tenant,
            });
            let mut tx = self.tenants.begin(viewer.actor()).await?;
            note(&mut tx, viewer, Entry::new(action.audited().1, queue.name).with(details)).await?;
            tx.commit().await?;
        }
        Ok(bulk)
    }

    async fn act_on(
        &self,
        viewer: &Viewer,
        queue: &QueueDef,
        job: &Job,
        action: Action,
        request_id: &str,
    ) -> Result<Option<TurnId>> {
        if !action.takes(queue.source).contains(&job.status()) {
            let message = format!("a {} job cannot be {}", job.status().as_str(), past(action));
            return Err(Error::conflict(message).with_detail("status", job.status().as_str()));
        }
        // What belongs to the deployment is audited where its operator is at home.
        let tenant = job.tenant_id.filter(|tenant| *tenant != super::NOBODY);
        let actor = within(viewer.actor(), tenant);
        let mut tx = self.tenants.begin(&actor).await?;
        let details = json!({ "queue": queue.name, "kind": job.kind, "status": job.status().as_str() });
        let target = job.id.to_string();
        note(&mut tx, viewer, Entry::new(action.audited().0, &target).with(details)).await?;
        let made = match queue.source {
            Source::Turns => self.act_on_turn(&mut tx, queue, job, action, request_id).await?,
            Source::Deliveries => {
                let done = match (action, job.status()) {
                    (Action::Retry, _) => {
                        store::take_back(&mut tx, queue.name, job.id).await?;
                        store::deliver_again(&mut tx, job.id).await?
                    }
                    (Action::Cancel, _) => store::give_up(&mut tx, job.id, REASON).await?,
                    (Action::Discard, Status::Queued) => {
                        store::put_away(&mut tx, queue.name, job.id).await?;
                        store::give_up(&mut tx, job.id, REASON).await?
                    }
                    (Action::Discard, _) => store::put_away(&mut tx, queue.name, job.id).await?,
                };
                moved_on(done)?;
                None
            }
            Source::Items => {
                let tenant = tenant.unwrap_or(super::NOBODY);
                moved_on(match action {
                    Action::Retry => store::embed_now(&self.engine, tenant, job.id).await?,
                    Action::Cancel | Action::Discard => {
                        store::do_not_embed(&self.engine, tenant, job.id).await?
                    }
                })?;
                None
            }
            Source::Tickets => {
                moved_on(match action {
                    Action::Retry => store::take_up_again(&self.engine, queue.name, job.id).await?,
                    Action::Cancel => store::kill(&self.engine, queue.name, job.id, REASON).await?,
                    Action::Discard => store::delete(&self.engine, queue.name, job.id).await?,
                })?;
                None
            }
        };
        tx.commit().await?;
        if queue.source == Source::Deliveries {
            self.bell.ring(Ring::Deliveries);
        }
        Ok(made)
    }

    /// Turns are changed by their own verbs, as their owners, in transactions of their own, while `tx` is open: what it holds is
    /// committed right after.
    async fn act_on_turn(
        &self,
        tx: &mut TenantTx,
        queue: &QueueDef,
        job: &Job,
        action: Action,
        request_id: &str,
    ) -> Result<Option<TurnId>> {
        let owner = Actor::of_turn(tx.actor().tenant, job.user_id.unwrap_or(UserId(Uuid::nil())));
        let turn = TurnId(job.id);
        match action {
            Action::Retry => {
                // One dead turn becomes one new one, however many ask at once: the second waits here for the first.
                dealt_with(store::put_away(tx, queue.name, job.id).await?)?;
                let accepted = self.turns.retry(&owner, turn, TurnId::generate(), request_id).await?;
                return Ok(Some(accepted.turn));
            }
            Action::Cancel => {
                self.turns.cancel(&owner, turn, REASON).await?;
            }
            Action::Discard => {
                dealt_with(store::put_away(tx, queue.name, job.id).await?)?;
                if !job.status().has_ended() {
                    self.turns.cancel(&owner, turn, REASON).await?;
                }
            }
        }
        Ok(None)
    }
}

async fn note(tx: &mut TenantTx, viewer: &Viewer, entry: Entry<'_>) -> Result<()> {
    match viewer {
        Viewer::Admin(admin) => audit::record(tx, admin, entry).await,
        Viewer::Operator(operator) => {
            let tenant = tx.actor().tenant;
            audit::record_for(tx.connection(), operator, tenant, entry).await
        }
    }
}

/// The same person as an admin of the job's tenant: what follows is about a job that they were shown.
fn within(actor: &Actor, tenant: Option<TenantId>) -> Actor {
    Actor { tenant: tenant.unwrap_or(actor.tenant), role: Role::Admin, ..actor.clone() }
}

fn moved_on(is_done: bool) -> Result<()> {
    if is_done { Ok(()) } else { Err(Error::conflict("the job has moved on meanwhile")) }
}

fn dealt_with(is_first: bool) -> Result<()> {
    if is_first { Ok(()) } else { Err(Error::conflict("somebody has dealt with this job already")) }
}

fn past(action: Action) -> &'static str {
    match action {
        Action::Retry => "retried",
        Action::Cancel => "cancelled",
        Action::Discard => "discarded",
    }
}
