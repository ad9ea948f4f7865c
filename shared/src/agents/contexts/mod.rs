//! What is known of users [A4]: one document for each user of a tenant, with a version that every change moves by one.
//!
//! A change, its version in the history, its event and the deliveries of it are one transaction. Agents are told whose own
//! view of the user changed: by what they may see, before and after. Invariant: whatever leaves here for an agent has gone
//! through [`Document::seen_by`].

mod cache;
mod document;
mod store;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use sqlx::PgPool;

pub use self::{
    cache::ContextCache,
    document::{AGENT_PERMISSIONS, Document},
};
use super::permissions::{Granted, Part};
use crate::{
    db::TenantTx,
    error::{Code, Error, Result},
    ids::{SignInId, TenantId, UserId},
    tenancy::AdminActor,
};

/// Everybody's context begins with this version, empty.
pub const FIRST_VERSION: i64 = 1;

/// What is known of a user.
#[derive(Debug, Clone)]
pub struct Context {
    pub user: UserId,
    /// None for some users of outside issuers.
    pub email: Option<String>,
    pub version: i64,
    pub document: Document,
    /// None while it was never changed.
    pub updated_at: Option<DateTime<Utc>>,
}

/// A change of a context.
#[derive(Debug, Clone)]
pub enum Change {
    /// What is given replaces, null removes, objects are merged (RFC 7396).
    Merge(Map<String, Value>),
    /// In place of all preferences.
    Preferences(Map<String, Value>),
}

/// Who changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangedBy<'a> {
    /// The user.
    User,
    /// An agent, with what it was granted.
    Agent(&'a str, &'a Granted),
}

impl ChangedBy<'_> {
    fn word(self) -> String {
        match self {
            Self::User => "user".to_owned(),
            Self::Agent(name, _) => format!("agent:{name}"),
        }
    }
}

/// What came of a change.
#[derive(Debug, Clone)]
pub struct Changed {
    /// The context as it is now.
    pub context: Context,
    /// False when it was so already: then nothing was written.
    pub is_new: bool,
}

/// A version of a context that was.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Version {
    pub version: i64,
    pub context_data: Value,
    /// What the change was about.
    pub changed_parts: Vec<String>,
    /// user, system, or agent: and its name.
    pub changed_by: String,
    pub created_at: DateTime<Utc>,
}

/// The context of the transaction's user.
///
/// # Errors
/// The database's.
pub async fn get(tx: &mut TenantTx) -> Result<Context> {
    let user = tx.actor().user;
    store::one(tx, user).await
}

/// The context of any user of the tenant, for its admins. Whoever belongs to no tenant belongs to the default one.
///
/// # Errors
/// 404 for somebody who does not belong to the tenant, or no longer; the database's.
pub async fn of(
    tx: &mut TenantTx,
    _: &AdminActor,
    user: UserId,
    default_tenant: TenantId,
) -> Result<Context> {
    if !store::belongs(tx, user, default_tenant).await? {
        return Err(Error::not_found("the tenant has no such user"));
    }
    store::one(tx, user).await
}

/// The versions of a context, newest first, before the one that the cursor names.
///
/// # Errors
/// As [`of`].
pub async fn history(
    tx: &mut TenantTx,
    admin: &AdminActor,
    user: UserId,
    default_tenant: TenantId,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Version>> {
    of(tx, admin, user, default_tenant).await?;
    store::history(tx, user, before, limit).await
}

/// Changes the context of the transaction's user, and writes what agents are to be told of it. A change that changes nothing
/// writes nothing and keeps the version.
///
/// # Errors
/// 412 when the version is not the one that was seen; 422 with the field's path; 403 when an agent may not change a part;
/// the database's.
pub async fn change(
    tx: &mut TenantTx,
    by: ChangedBy<'_>,
    change: Change,
    if_match: Option<i64>,
    correlation: &str,
) -> Result<Changed> {
    let before = store::locked(tx).await?;
    if let Some(seen) = if_match.filter(|seen| *seen != before.version) {
        return Err(Error::new(
            Code::Precondition,
            format!(
                "the context has version {}, not {seen}: read it again before changing it",
                before.version
            ),
        ));
    }
    if let ChangedBy::Agent(name, granted) = by {
        may_change(&before.document, name, granted, &change)?;
    }
    let after = match change {
        Change::Merge(changes) => before.document.merged(changes)?,
        Change::Preferences(preferences) => before.document.with_part(Part::Preferences, preferences)?,
    };
    let parts = before.document.differences(&after);
    if parts.is_empty() {
        return Ok(Changed { context: before, is_new: false });
    }
    if let Some(timezone) = after.timezone().filter(|timezone| before.document.timezone() != Some(*timezone))
        && !store::is_timezone(tx, timezone).await?
    {
        return Err(document::no_timezone());
    }
    let version = before.version + 1;
    let updated_at = store::write(tx, version, &after, &parts, &by.word()).await?;
    let told: Vec<String> = store::listeners(tx)
        .await?
        .into_iter()
        .filter(|listener| listener.view(&before.document) != listener.view(&after))
        .map(|listener| listener.name)
        .collect();
    let facts = json!({ "version": version, "parts": parts, "changed_by": by.word() });
    store::tell(tx, &told, &facts, correlation).await?;
    let context = Context { version, document: after, updated_at: Some(updated_at), ..before };
    Ok(Changed { context, is_new: true })
}

/// By what the change names, not by what it comes to: otherwise whoever may not see a part could find out what is in it, by
/// asking for a change to what they suspect.
fn may_change(document: &Document, agent: &str, granted: &Granted, change: &Change) -> Result<()> {
    let granted = granted.clone().narrowed(document.level_of(agent));
    let may = |name: &str| Part::ALL.into_iter().any(|part| part.as_str() == name && granted.writes(part));
    let named: Vec<&str> = match change {
        Change::Merge(changes) => changes.keys().map(String::as_str).collect(),
        Change::Preferences(_) => vec![Part::Preferences.as_str()],
    };
    match named.into_iter().find(|name| !may(name)) {
        None => Ok(()),
        Some(name) => {
            let name: String = name.chars().take(100).collect();
            Err(Error::new(
                Code::Forbidden,
                format!("{name}: this agent may not change this of the user's context"),
            ))
        }
    }
}

/// An agent that wants to hear of changes.
struct Listener {
    name: String,
    granted: Granted,
}

impl Listener {
    fn view(&self, document: &Document) -> Map<String, Value> {
        document.seen_by(&self.name, self.granted.clone())
    }
}

/// The newest sign-in of a user, while one lasts.
///
/// # Errors
/// The database's.
pub async fn newest_sign_in(engine: &PgPool, user: UserId) -> Result<Option<SignInId>> {
    store::newest_sign_in(engine, user).await
}

/// Empties the contexts of users who did nothing for so many days, and forgets what was in them; answers how many. Their
/// versions go on, so that no agent takes an old one for a new one.
///
/// # Errors
/// The database's.
pub async fn forget_inactive(engine: &PgPool, days: i64, chunk: i64) -> Result<u64> {
    store::forget_inactive(engine, days, chunk).await
}
