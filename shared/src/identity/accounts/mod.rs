//! Users of our own, who have a password.

mod store;

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use sqlx::PgPool;

use super::{
    EmailAddress,
    passwords::{self, Passwords, Verdict},
};
use crate::{db, error::Result, ids::UserId, tenancy::invitations};

/// A person, as they see themselves.
#[derive(Debug, Clone)]
pub struct User {
    /// The id.
    pub id: UserId,
    /// A short number for people.
    pub number: i64,
    /// None for some users of outside issuers.
    pub email: Option<String>,
    /// Whether somebody we trust has checked the address.
    pub email_verified: bool,
    /// IANA name.
    pub timezone: String,
    /// When the account was made.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

/// A user who showed their password.
#[derive(Debug)]
pub struct Proven {
    /// Who.
    pub user: User,
    /// The password's hash, by which it is known whether the password was changed since.
    pub(super) hash: SecretString,
}

/// Makes an account, unless the address has one. Which of the two happened costs the same time; the log may know, the
/// client is not told.
///
/// # Errors
/// 422 when the password is not acceptable; the database's.
pub(super) async fn register(
    engine: &PgPool,
    passwords: &Passwords,
    email: &EmailAddress,
    password: SecretString,
) -> Result<Option<UserId>> {
    must_be_good(&password, email)?;
    let hash = passwords.hash(password).await?;
    store::insert(engine, UserId::generate(), email.as_str(), &hash).await
}

/// Makes an account that belongs to the tenant of an invitation. When the address has an account, that one stays as it is,
/// and the invitation open: whoever has both signs in and accepts it.
///
/// # Errors
/// 422 when the password is not acceptable or the code not good; the database's.
pub(super) async fn register_invited(
    engine: &PgPool,
    passwords: &Passwords,
    email: &EmailAddress,
    password: SecretString,
    code: &SecretString,
) -> Result<Option<UserId>> {
    must_be_good(&password, email)?;
    invitations::must_be_good(engine, code).await?;
    let hash = passwords.hash(password).await?;
    let mut tx = db::begin(engine).await?;
    let open = invitations::open(&mut tx, code).await?;
    let made = match open.nobody() {
        Some(nobody) => store::become_somebody(&mut tx, nobody, email.as_str(), &hash).await?,
        None => store::insert_in(&mut tx, UserId::generate(), email.as_str(), &hash).await?,
    };
    if let Some(user) = made {
        invitations::take(&mut tx, open, user).await?;
        tx.commit().await?;
    }
    Ok(made)
}

/// Whether this may be the password of this address's account.
///
/// # Errors
/// 422 when it may not.
pub(super) fn must_be_good(password: &SecretString, email: &EmailAddress) -> Result<()> {
    passwords::must_be_good(password, email.as_str())
}

/// The user with this address and this password. The work is the same whatever the answer.
///
/// # Errors
/// The database's.
pub(super) async fn authenticate(
    engine: &PgPool,
    passwords: &Passwords,
    email: &EmailAddress,
    password: SecretString,
) -> Result<Option<Proven>> {
    passwords::must_be_short(&password)?;
    let (user, hash) = store::by_email(engine, email.as_str()).await?.unzip();
    let (again, once_more) = (password.clone(), password.clone());
    let hash = hash.flatten();
    match (passwords.check(password, hash.clone()).await?, user, hash) {
        (Verdict::Right, Some(user), Some(hash)) => Ok(Some(Proven { user, hash: hash.into() })),
        (Verdict::RightButOld, Some(user), Some(old)) => {
            let new = passwords.hash(again).await?;
            if store::replace_hash(engine, user.id, &old, &new).await? {
                return Ok(Some(Proven { user, hash: new.into() }));
            }
            // Another login has made it anew, or the password was changed.
            let hash = store::by_email(engine, email.as_str()).await?.and_then(|(_, hash)| hash);
            let verdict = passwords.check(once_more, hash.clone()).await?;
            let hash = hash.filter(|_| matches!(verdict, Verdict::Right));
            Ok(hash.map(|hash| Proven { user, hash: hash.into() }))
        }
        _ => Ok(None),
    }
}

/// The user of this id.
///
/// # Errors
/// The database's.
pub async fn user(engine: &PgPool, id: UserId) -> Result<Option<User>> {
    store::by_id(engine, id).await
}
