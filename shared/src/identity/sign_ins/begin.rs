//! How sign-ins begin: with a password that was just shown, or for a program that its user let in.

use secrecy::SecretString;

use super::{
    CookieSession, Grant, SignInFrom, SignIns, Tokens,
    store::{self, NewSignIn, SignInRow},
    token::Kind,
};
use crate::{
    error::{Error, Result},
    identity::{Scopes, accounts::Proven},
    ids::{SignInId, UserId},
};

/// Whose sign-in begins.
struct Who<'a> {
    user: UserId,
    /// The password's hash, which must still be this one; none when no password was shown.
    password: Option<&'a SecretString>,
}

impl<'a> Who<'a> {
    fn of(proven: &'a Proven) -> Self {
        Self { user: proven.user.id, password: Some(&proven.hash) }
    }
}

impl SignIns {
    /// Begins a sign-in with tokens for a program that its user let in.
    ///
    /// # Errors
    /// The database's.
    pub async fn begin_tokens(&self, user: UserId, grant: &Grant, from: &SignInFrom) -> Result<Tokens> {
        let row = self.begin(Who { user, password: None }, Kind::Token, grant, from).await?;
        let row = row.ok_or_else(|| Error::internal("a sign-in without a condition did not begin"))?;
        self.tokens(&row, row.generation).await
    }

    /// Begins a sign-in with tokens; none when the password was changed meanwhile.
    ///
    /// # Errors
    /// The database's.
    pub async fn log_in_tokens(&self, proven: &Proven, from: &SignInFrom) -> Result<Option<Tokens>> {
        match self.begin(Who::of(proven), Kind::Token, &Grant::default(), from).await? {
            Some(row) => self.tokens(&row, row.generation).await.map(Some),
            None => Ok(None),
        }
    }

    /// Begins a browser's sign-in; none when the password was changed meanwhile.
    ///
    /// # Errors
    /// The database's.
    pub async fn log_in_cookie(&self, proven: &Proven, from: &SignInFrom) -> Result<Option<CookieSession>> {
        let row = self.begin(Who::of(proven), Kind::Cookie, &Grant::default(), from).await?;
        row.map(|row| self.cookie_session(&row)).transpose()
    }

    async fn begin(
        &self,
        who: Who<'_>,
        kind: Kind,
        grant: &Grant,
        from: &SignInFrom,
    ) -> Result<Option<SignInRow>> {
        let new = NewSignIn {
            id: SignInId::generate(),
            user: who.user,
            password: who.password,
            kind: kind.as_str(),
            nonce: rand::random::<[u8; 16]>(),
            scopes: grant.scopes.map(Scopes::words),
            audience: grant.audience.as_deref(),
            client: grant.client.as_deref(),
            tenant: grant.tenant,
            idle_days: self.0.settings.idle_days,
            address: from.address.map(|address| address.to_string()),
            user_agent: from.user_agent.as_deref(),
            home_tenant: self.0.settings.home_tenant,
        };
        self.told(store::begin(&self.0.engine, &new).await)
    }
}
