//! Tells a process's followers of the feed when to look: one statement for all of them, whenever the bell says that a
//! tenant's items changed, and on a slow timer.
//!
//! As the engine it sees who changed something, never what; a follower then reads in a transaction of its own, under
//! row-level security, and one whose own items did not change reads nothing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::FutureExt as _;
use sqlx::PgPool;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::Instant,
};

use super::{Place, store};
use crate::{
    bell::{Bell, Heard, Hearing},
    db::OwnConnection,
    error::{Error, Result},
    identity::{Actor, Role},
    ids::{TenantId, UserId},
};

/// How often all feeds are looked at, whatever the bell says.
const SLOW: Duration = Duration::from_secs(5);
/// Between two looks; what is rung meanwhile is seen by the second.
const PAUSE: Duration = Duration::from_millis(25);
/// How soon a change is looked for again that an older transaction holds up; twice as long each time.
const HELD: Duration = Duration::from_millis(10);
/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A process's followers of the feed. The task ends with the last clone.
#[derive(Clone)]
pub struct ChangeHub {
    shared: Arc<Shared>,
    _task: Arc<Task>,
}

struct Shared {
    tenants: Mutex<HashMap<TenantId, Followed>>,
    wake: Notify,
}

/// A tenant whose feed somebody follows.
#[derive(Default)]
struct Followed {
    /// What was looked at; none: nothing yet.
    place: Option<Place>,
    dirty: bool,
    /// By user; without one, the tenant's admins.
    followers: HashMap<Option<UserId>, watch::Sender<()>>,
}

struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One reader's end.
pub struct Follower(watch::Receiver<()>);

impl Follower {
    /// Waits until there may be more to read. Cancel-safe. Also right when it was never waited for before: whatever
    /// is changed after [`ChangeHub::follow`] is told.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            // The hub is gone, and with it the process soon.
            std::future::pending::<()>().await;
        }
    }
}

impl ChangeHub {
    /// Over the bell, which must listen to events, turns and changes.
    #[must_use]
    pub fn start(bell: &Bell, engine: &PgPool) -> Self {
        let shared = Arc::new(Shared { tenants: Mutex::default(), wake: Notify::new() });
        let task = run(Arc::clone(&shared), bell.subscribe(), OwnConnection::like(engine));
        Self { shared, _task: Arc::new(Task(tokio::spawn(task))) }
    }

    /// Follows what this actor may see. To be called before the first look at the table.
    #[must_use]
    pub fn follow(&self, actor: &Actor) -> Follower {
        let whose = (actor.role != Role::Admin).then_some(actor.user);
        let mut tenants = self.shared.tenants();
        let followed = tenants.entry(actor.tenant).or_insert_with(|| {
            self.shared.wake.notify_one();
            Followed { dirty: true, ..Followed::default() }
        });
        Follower(followed.followers.entry(whose).or_default().subscribe())
    }
}

impl Shared {
    fn tenants(&self) -> MutexGuard<'_, HashMap<TenantId, Followed>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks what has to be looked at.
    fn hear(&self, heard: &Heard) {
        let mut tenants = self.tenants();
        let mut mark = |tenant: &TenantId| {
            if let Some(followed) = tenants.get_mut(tenant) {
                followed.dirty = true;
            }
        };
        match heard {
            Heard::Changes(changed) => changed.iter().for_each(mark),
            // Turns write messages.
            Heard::Events(grown) => grown.iter().for_each(|(tenant, ..)| mark(tenant)),
            Heard::Turns(posted) => posted.iter().for_each(|(tenant, ..)| mark(tenant)),
            Heard::Reconnected => tenants.values_mut().for_each(|followed| followed.dirty = true),
            Heard::Work
            | Heard::Cancel(_)
            | Heard::Cache(_)
            | Heard::Contexts(_)
            | Heard::Deliveries
            | Heard::Switches => {}
        }
    }

    /// Forgets whom nobody follows any more, and answers where to look.
    fn dirty(&self, all: bool) -> Vec<(TenantId, Option<Place>)> {
        let mut tenants = self.tenants();
        tenants.retain(|_, followed| {
            followed.followers.retain(|_, sender| sender.receiver_count() > 0);
            !followed.followers.is_empty()
        });
        let dirty = tenants.iter_mut().filter(|(_, followed)| all || followed.dirty);
        dirty
            .map(|(tenant, followed)| {
                followed.dirty = false;
                (*tenant, followed.place)
            })
            .collect()
    }

    /// Passes on what was found; answers whether some tenant must be looked at again soon.
    fn tell(&self, news: Vec<store::News>) -> bool {
        let mut tenants = self.tenants();
        let mut again = false;
        for news in news {
            let Some(followed) = tenants.get_mut(&news.tenant) else { continue };
            // Whoever looked at the table before the first look here may have missed what lay between.
            let first = followed.place.replace(news.place).is_none();
            followed.dirty |= news.more || news.held;
            again |= followed.dirty;
            for (whose, sender) in &followed.followers {
                let theirs = match whose {
                    Some(user) => news.users.contains(user),
                    None => !news.users.is_empty(),
                };
                if first || theirs {
                    sender.send_replace(());
                }
            }
        }
        again
    }

    /// Looks at these again.
    fn missed(&self, tenants: &[(TenantId, Option<Place>)]) {
        let mut all = self.tenants();
        for (tenant, _) in tenants {
            if let Some(followed) = all.get_mut(tenant) {
                followed.dirty = true;
            }
        }
    }
}

async fn run(shared: Arc<Shared>, mut hearing: Hearing, mut connection: OwnConnection) {
    let (mut slow, mut held) = (Instant::now() + SLOW, HELD);
    let mut again: Option<Instant> = None;
    loop {
        let due = again.map_or(slow, |again| again.min(slow));
        tokio::select! {
            heard = hearing.next() => shared.hear(&heard),
            () = shared.wake.notified() => {}
            () = tokio::time::sleep_until(due) => {}
        }
        // All that was heard meanwhile is one look.
        while let Some(heard) = hearing.next().now_or_never() {
            shared.hear(&heard);
        }
        let all = slow <= Instant::now();
        let tenants = shared.dirty(all);
        if all {
            slow = Instant::now() + SLOW;
        }
        again = None;
        if tenants.is_empty() {
            continue;
        }
        match look(&mut connection, &tenants).await {
            Ok(news) => {
                let soon = shared.tell(news);
                again = soon.then(|| Instant::now() + held);
                held = if soon { (held * 2).min(Duration::from_secs(1)) } else { HELD };
            }
            Err(error) => {
                tracing::warn!(%error, "the change feed was not looked at; trying again");
                shared.missed(&tenants);
                again = Some(Instant::now() + Duration::from_secs(1));
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn look(
    connection: &mut OwnConnection,
    tenants: &[(TenantId, Option<Place>)],
) -> Result<Vec<store::News>> {
    let look = async {
        let mut engine = connection.take().await?;
        let news = store::news(&mut engine, tenants).await?;
        connection.keep(engine);
        Ok(news)
    };
    match tokio::time::timeout(PATIENCE, look).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::internal("no answer within 5 s")),
    }
}
