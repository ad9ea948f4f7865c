//! Invitations into a tenant: a code that an admin or an operator hands to the person, and what showing it does.
//!
//! Invariant: an address grants nothing, since anybody can register with any. Whoever shows the code is whom it was meant
//! for; a user whose address an issuer has checked may also accept by naming the tenant ([`super::memberships`]). The
//! code is 256 random bits, stored as a hash, good once and for seven days.

mod store;

use chrono::{DateTime, TimeDelta, Utc};
use secrecy::SecretString;
use sqlx::{PgConnection, PgPool};

use super::{
    audit::{self, Entry},
    secrets::random_secret,
};
use crate::{
    error::{Error, Result},
    identity::{KeyHash, Role},
    ids::{TenantId, UserId},
};

/// For how long a code is good.
const GOOD_FOR: TimeDelta = TimeDelta::days(7);

/// A new invitation, for whoever asked for it to hand on. The code cannot be read again.
#[derive(Debug, Clone)]
pub struct Invitation {
    pub code: SecretString,
    pub expires_at: DateTime<Utc>,
}

impl Invitation {
    pub(super) fn new() -> Self {
        Self { code: random_secret("inv_"), expires_at: Utc::now() + GOOD_FOR }
    }

    /// What is stored of the code.
    pub(super) fn hash(&self) -> KeyHash {
        KeyHash::of(&self.code)
    }
}

/// What a person belongs to now.
#[derive(Debug, Clone)]
pub struct Joined {
    pub tenant: TenantId,
    /// The tenant's name.
    pub name: String,
    pub role: Role,
}

/// An invitation whose code was shown. It is locked until the end of the transaction.
#[derive(Debug)]
pub(crate) struct Open {
    pub(super) tenant: TenantId,
    pub(super) name: String,
    pub(super) role: Role,
    /// Whose membership waits.
    pub(super) user: UserId,
    /// Whether that user has no address, so nobody has signed in as them: they were made for the invitation.
    pub(super) is_nobody: bool,
    /// Whether the membership counts already: a tenant's first admin, whose key was handed out with the code.
    pub(super) is_accepted: bool,
}

impl Open {
    /// The user that was made for the invitation, whom a new account may become.
    pub(crate) fn nobody(&self) -> Option<UserId> {
        self.is_nobody.then_some(self.user)
    }
}

/// The signed-in person accepts the invitation of this code.
///
/// # Errors
/// 422 when the code is not good; 409 when they belong to the tenant already; the database's.
pub(crate) async fn accept(engine: &PgPool, code: &SecretString, user: UserId) -> Result<Joined> {
    let mut tx = crate::db::begin(engine).await?;
    let open = open(&mut tx, code).await?;
    if open.user == user && open.is_accepted {
        return Err(belongs());
    }
    let joined = take(&mut tx, open, user).await?;
    tx.commit().await?;
    Ok(joined)
}

/// Refuses a code that is not good, before anything is done for it.
///
/// # Errors
/// 422; the database's.
pub(crate) async fn must_be_good(engine: &PgPool, code: &SecretString) -> Result<()> {
    let mut tx = crate::db::begin(engine).await?;
    open(&mut tx, code).await?;
    Ok(tx.rollback().await?)
}

/// The open invitation of this code.
///
/// # Errors
/// 422 when there is none; the database's.
pub(crate) async fn open(connection: &mut PgConnection, code: &SecretString) -> Result<Open> {
    let open = store::open(connection, KeyHash::of(code)).await?;
    open.ok_or_else(|| {
        Error::unacceptable(
            "the invitation is not good: it is unknown, was accepted or taken back, or has ended",
        )
    })
}

/// The membership becomes this user's, and the code is good no more.
///
/// # Errors
/// 409 when they belong to the tenant already; the database's.
pub(crate) async fn take(connection: &mut PgConnection, open: Open, user: UserId) -> Result<Joined> {
    if open.user == user {
        store::accept(connection, &open).await?;
    } else {
        if !store::join(connection, &open, user).await? {
            return Err(belongs());
        }
        // A first admin's key goes on; what only waited is gone.
        if open.is_accepted {
            store::close(connection, &open).await?;
        } else {
            store::delete(connection, &open).await?;
        }
    }
    let target = user.to_string();
    audit::record_of_system(connection, open.tenant, Entry::new("invitation.accepted", &target)).await?;
    Ok(Joined { tenant: open.tenant, name: open.name, role: open.role })
}

fn belongs() -> Error {
    Error::conflict("you belong to this tenant already")
}
