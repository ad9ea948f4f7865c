//! What people see and end of their own sign-ins, and how they change their password.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use secrecy::SecretString;

use super::{
    EndedBecause, SignIns,
    store::{self, Hashes},
};
use crate::{
    error::{Error, Result},
    identity::{EmailAddress, Scopes, accounts, throttle},
    ids::{SignInId, UserId},
};

/// A sign-in that has not ended, as its user sees it.
#[derive(Debug, Clone)]
pub struct SignIn {
    /// The id.
    pub id: SignInId,
    /// `token` or `cookie`.
    pub kind: String,
    /// What its tokens may be used for.
    pub scopes: Scopes,
    /// The program that acts for the user; none for our own.
    pub client: Option<String>,
    /// Where it began, if known.
    pub address: Option<String>,
    /// What the program or browser called itself then, if it did.
    pub user_agent: Option<String>,
    /// When it began.
    pub created_at: DateTime<Utc>,
    /// Right to some seconds.
    pub last_used_at: DateTime<Utc>,
    /// When it ends if it is not used.
    pub expires_at: DateTime<Utc>,
}

impl SignIns {
    /// The user's sign-ins that have not ended, newest first, after this one.
    ///
    /// # Errors
    /// The database's.
    pub async fn list(&self, user: UserId, after: Option<SignInId>, most: i64) -> Result<Vec<SignIn>> {
        store::list(&self.0.engine, user, after, most).await
    }

    /// Ends one of the user's sign-ins: its refresh token and its access tokens are good no more.
    ///
    /// # Errors
    /// 404 when the user has no such sign-in, or it has ended; the database's.
    pub async fn revoke(&self, user: UserId, sign_in: SignInId) -> Result<()> {
        let revoked =
            self.told(store::revoke(&self.0.engine, user, sign_in, EndedBecause::Revoked.as_str()).await)?;
        if revoked { Ok(()) } else { Err(Error::not_found("there is no such sign-in")) }
    }

    /// Changes the password of somebody who knows the present one, and ends their sign-ins except `keep`. Counted as an
    /// attempt to sign in, so that nobody with a borrowed browser tries passwords here.
    ///
    /// # Errors
    /// 409 for an account without an address; 422 when the new password is not acceptable or the present one is wrong; 429
    /// after too many attempts; the database's.
    pub async fn change_password(
        &self,
        address: IpAddr,
        user: UserId,
        keep: Option<SignInId>,
        present: SecretString,
        new: SecretString,
    ) -> Result<()> {
        let engine = &self.0.engine;
        let email = accounts::user(engine, user).await?.and_then(|user| user.email);
        let email = email
            .ok_or_else(|| Error::conflict("the account has no password: it is not signed in to here"))?;
        let email = EmailAddress::parse(&email)?;
        accounts::must_be_good(&new, &email)?;
        let attempt = throttle::log_in(engine, address, &email).await?;
        let wrong =
            || Error::unacceptable("current_password: is wrong").with_detail("field", "current_password");
        let proven = accounts::authenticate(engine, &self.0.passwords, &email, present).await?;
        let proven = proven.filter(|proven| proven.user.id == user).ok_or_else(wrong)?;
        attempt.was_good(engine).await?;
        let hash = self.0.passwords.hash(new).await?;
        let hashes = Hashes { present: &proven.hash, new: &hash };
        let because = EndedBecause::Password.as_str();
        let is_changed = self.told(store::set_password(engine, user, hashes, keep, because).await)?;
        if is_changed { Ok(()) } else { Err(wrong()) }
    }
}
