//! The sweeper: makes up for every step that a process did not live to take. One at a time over all processes, every
//! two seconds while work is unfinished. A test switches it off to show that the fast paths alone are right.

mod store;

use std::time::Duration;

use super::{Ending, MAX_TAKEOVERS, TurnError, Turns, second_look};
use crate::{
    bell::Ring,
    error::{Code, Origin, Result},
    identity::Actor,
    ids::TurnId,
};

/// What a sweep found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Unfinished work is left: sweep again soon.
    pub unfinished: bool,
    pub processes_died: u64,
    pub taken_over: u64,
}

impl Turns {
    /// One sweep; does nothing while another process sweeps. `reap`: whether this process has been in unbroken contact
    /// with the database for one whole lease, without which it must not judge others.
    ///
    /// # Errors
    /// The database's.
    pub async fn sweep(&self, reap: bool) -> Result<Swept> {
        // One statement is all that an idle process spends on this.
        if !store::unfinished(&self.engine).await? {
            return Ok(Swept::default());
        }
        let mut swept = Swept { unfinished: true, ..Swept::default() };
        let mut guard = crate::db::begin(&self.engine).await?;
        if !store::try_lock(&mut guard).await? {
            return Ok(swept);
        }
        if let Err(error) = crate::db::measure_tables(&self.engine).await {
            tracing::debug!(%error, "tables without statistics could not be measured; autovacuum will");
        }
        if reap {
            swept.processes_died = store::mark_dead(&self.engine, self.settings.lease).await?;
        }
        swept.taken_over = store::free_dead(&self.engine, MAX_TAKEOVERS).await?;
        if swept.taken_over > 0 {
            tracing::warn!(turns = swept.taken_over, "turns of dead processes go to others");
        }
        for stuck in store::to_end(&self.engine, MAX_TAKEOVERS).await? {
            let ending = match stuck.cancel_reason {
                Some(reason) => Ending::cancelled(&reason),
                None => Ending::dead(TurnError {
                    code: Code::Internal,
                    message: "the turn was given up: every process that ran it died".to_owned(),
                    origin: Origin::App,
                }),
            };
            let actor = Actor::of_turn(stuck.tenant, stuck.user);
            goes_on(self.end(&actor, stuck.conversation, stuck.turn, ending).await, stuck.turn)?;
        }
        for parked in store::expired(&self.engine).await? {
            let actor = Actor::of_turn(parked.tenant, parked.user);
            goes_on(self.expire(&actor, parked.turn).await, parked.turn)?;
        }
        let headless = store::promote_headless(&self.engine).await?;
        let slots = store::free_slots(&self.engine).await?;
        for tenant in store::tenants_waiting(&self.engine).await? {
            second_look::admit(&self.tenants, &self.bell, tenant).await?;
        }
        let late = store::late_ready(&self.engine, Duration::from_secs(30)).await?;
        if late || swept.taken_over + headless + slots > 0 {
            self.bell.ring(Ring::Work);
        }
        if headless + slots > 0 {
            tracing::warn!(headless, slots, "the sweep mended what a fast path had left");
        }
        guard.commit().await?;
        Ok(swept)
    }
}

/// One turn that cannot be mended must not keep the sweep from all others; without the database nothing can.
fn goes_on<T>(mended: Result<T>, turn: TurnId) -> Result<()> {
    match mended {
        Err(error) if error.is_transient() && !matches!(error.database(), Some(sqlx::Error::Database(_))) => {
            Err(error)
        }
        Err(error) => {
            tracing::error!(turn_id = %turn, error = %error, cause = ?error.database().map(ToString::to_string), "the sweep cannot mend this turn");
            Ok(())
        }
        Ok(_) => Ok(()),
    }
}
