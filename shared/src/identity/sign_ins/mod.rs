//! Sign-ins: from login to logout, with tokens for programs or a cookie for browsers.
//!
//! A sign-in is one row. Its refresh token is an HMAC of the row's id, nonce and generation under a key that the database
//! does not have, so nothing stored can be turned into a token, and the same request asked twice has the same answer.
//! States of a generation `g` that is presented, when the row is at `n`:
//!
//! ```text
//! g = n                      the row goes to n + 1, the answer is token n + 1
//! g = n - 1, within seconds  two refreshes at once, or an answer that was lost: token n again, no second family
//! g < n otherwise            somebody has an old token: the family ends, for the thief and for the user
//! ```

mod access;
mod begin;
mod own;
mod store;
mod token;

use std::{net::IpAddr, sync::Arc, time::Duration};

use secrecy::SecretString;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

pub use self::{access::AccessClaims, own::SignIn};
use self::{
    store::SignInRow,
    token::{Kind, Presented},
};
use super::{
    Credential, CredentialTenant, EmailAddress, Principal, Scopes,
    accounts::{self, Proven, User},
    passwords::{PasswordCost, Passwords},
    secrets::DerivedKeys,
    signing::{PublishedKey, SigningKeys},
    throttle,
};
use crate::{
    error::{Code, Error, Result},
    ids::{SignInId, TenantId, UserId},
    tenancy::invitations::{self, Joined},
    vault::Vault,
};

/// How long after a rotation the former refresh token still answers the present one.
const GRACE: Duration = Duration::from_secs(10);
/// How often what nobody needs any more is removed.
const TIDIES_EVERY: Duration = Duration::from_secs(3600);

/// How sign-ins work in this deployment.
#[derive(Debug, Clone)]
pub struct SignInSettings {
    /// Who signs our tokens: the public URL without a slash at its end.
    pub issuer: String,
    /// `FERNET_KEY`: newest first.
    pub deployment_keys: Vec<SecretString>,
    /// How long an access token is good.
    pub access_life: Duration,
    /// How many days a sign-in lasts without being used.
    pub idle_days: i64,
    /// What a password's hash costs.
    pub password_cost: PasswordCost,
    /// Where people act who belong to no tenant: its agents are told of them.
    pub home_tenant: TenantId,
}

/// Has agents told, after the commit of something that they want to know.
pub type TellAgents = Arc<dyn Fn() + Send + Sync>;

/// Why a sign-in ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedBecause {
    /// Its user signed out.
    Logout,
    /// A refresh token that was replaced was used again.
    Reuse,
    /// Its user changed their password elsewhere.
    Password,
    /// Its user ended it from elsewhere.
    Revoked,
}

impl EndedBecause {
    fn as_str(self) -> &'static str {
        match self {
            Self::Logout => "logout",
            Self::Reuse => "reuse",
            Self::Password => "password",
            Self::Revoked => "revoked",
        }
    }
}

/// For whom a sign-in is, and for what.
#[derive(Debug, Clone, Default)]
pub struct Grant {
    /// None is everything.
    pub scopes: Option<Scopes>,
    /// The one resource that the tokens are good for; none is all of Alfred.
    pub audience: Option<String>,
    /// The program that acts for the user; none for our own.
    pub client: Option<String>,
    /// The tenant that the user chose for it.
    pub tenant: Option<TenantId>,
}

/// Where a sign-in begins, for its user to recognise it by.
#[derive(Debug, Clone, Default)]
pub struct SignInFrom {
    /// The client's address.
    pub address: Option<IpAddr>,
    /// What the program or browser calls itself.
    pub user_agent: Option<String>,
}

/// What a program gets.
#[derive(Debug)]
pub struct Tokens {
    /// The access token, a JWT.
    pub access: SecretString,
    /// How long it is good.
    pub access_life: Duration,
    /// The refresh token, for one use.
    pub refresh: SecretString,
    /// Who signed in.
    pub user: UserId,
    /// The sign-in.
    pub sign_in: SignInId,
}

/// What a browser gets.
#[derive(Debug)]
pub struct CookieSession {
    /// For the cookie that scripts cannot read.
    pub cookie: SecretString,
    /// For the cookie that scripts send back in a header.
    pub csrf: SecretString,
    /// Who signed in.
    pub user: UserId,
    /// The sign-in.
    pub sign_in: SignInId,
}

/// What a refresh came to.
#[derive(Debug)]
pub enum Refreshed {
    /// New tokens.
    Tokens(Tokens),
    /// The token is not good.
    Refused,
    /// The token was used before, and its family has ended.
    Reused { user: UserId, sign_in: SignInId },
}

/// Signs people in and out, and knows them again.
#[derive(Clone)]
pub struct SignIns(Arc<Inner>);

struct Inner {
    engine: PgPool,
    passwords: Passwords,
    signing: SigningKeys,
    codes: DerivedKeys,
    settings: SignInSettings,
    tell_agents: TellAgents,
}

impl SignIns {
    /// Over the engine's pool, as nobody is anybody before they have signed in. Tasks end when `stop` is cancelled.
    ///
    /// # Errors
    /// A cost of passwords that argon2 does not know.
    pub fn start(
        engine: PgPool,
        settings: SignInSettings,
        tell_agents: TellAgents,
        stop: CancellationToken,
    ) -> Result<Self> {
        let passwords = Passwords::new(settings.password_cost)?;
        let vault = Vault::new(&settings.deployment_keys)?;
        let codes = DerivedKeys::new(&settings.deployment_keys, "sign-ins");
        let signing = SigningKeys::start(engine.clone(), vault, settings.access_life, stop.clone());
        let this = Self(Arc::new(Inner { engine, passwords, signing, codes, settings, tell_agents }));
        let task = this.clone();
        tokio::spawn(async move {
            loop {
                // Not at the start, when many processes may start at once.
                tokio::select! {
                    () = tokio::time::sleep(TIDIES_EVERY.mul_f64(rand::random_range(0.5..1.0))) => {}
                    () = stop.cancelled() => return,
                }
                if let Err(error) = task.tidy().await {
                    tracing::warn!(error = &error as &dyn std::error::Error, "old sign-ins were not removed");
                }
            }
        });
        Ok(this)
    }

    /// How many password hashes this process has computed.
    #[must_use]
    pub fn hashes_made(&self) -> u64 {
        self.0.passwords.made()
    }

    /// Makes an account, unless the address has one; answers which, for the log alone.
    ///
    /// # Errors
    /// 422 for a password that is not acceptable, 429 for too many accounts from one address; the database's.
    pub async fn register(
        &self,
        address: IpAddr,
        email: &EmailAddress,
        password: SecretString,
    ) -> Result<Option<UserId>> {
        throttle::register(&self.0.engine, address).await?;
        accounts::register(&self.0.engine, &self.0.passwords, email, password).await
    }

    /// The same with an invitation's code: the account belongs to the tenant.
    ///
    /// # Errors
    /// As [`Self::register`]; 422 for a code that is not good.
    pub async fn register_invited(
        &self,
        address: IpAddr,
        email: &EmailAddress,
        password: SecretString,
        code: &SecretString,
    ) -> Result<Option<UserId>> {
        throttle::register(&self.0.engine, address).await?;
        accounts::register_invited(&self.0.engine, &self.0.passwords, email, password, code).await
    }

    /// The user accepts the invitation of this code. Attempts count as those to sign in do.
    ///
    /// # Errors
    /// 422 for a code that is not good, 409 for somebody who belongs already, 429 after too many attempts; the database's.
    pub async fn accept_invitation(
        &self,
        address: IpAddr,
        user: UserId,
        code: &SecretString,
    ) -> Result<Joined> {
        let attempt = throttle::attempt(&self.0.engine, address, &format!("invitation\n{user}")).await?;
        let joined = invitations::accept(&self.0.engine, code, user).await?;
        attempt.was_good(&self.0.engine).await?;
        Ok(joined)
    }

    /// The user of this address, who showed this password.
    ///
    /// # Errors
    /// 429 after too many attempts; the database's.
    pub async fn authenticate(
        &self,
        address: IpAddr,
        email: &EmailAddress,
        password: SecretString,
    ) -> Result<Option<Proven>> {
        let attempt = throttle::log_in(&self.0.engine, address, email).await?;
        let proven = accounts::authenticate(&self.0.engine, &self.0.passwords, email, password).await?;
        if proven.is_some() {
            attempt.was_good(&self.0.engine).await?;
        }
        Ok(proven)
    }

    /// The user of this id.
    ///
    /// # Errors
    /// The database's.
    pub async fn user(&self, id: UserId) -> Result<Option<User>> {
        accounts::user(&self.0.engine, id).await
    }

    /// What agents are told of was just committed, or may have been.
    fn told<T>(&self, outcome: T) -> T {
        (self.0.tell_agents)();
        outcome
    }

    /// Exchanges a refresh token for new tokens.
    ///
    /// # Errors
    /// The database's.
    pub async fn refresh(&self, token: &SecretString, client: Option<&str>) -> Result<Refreshed> {
        let Some(presented) = token::read(token, Kind::Token) else { return Ok(Refreshed::Refused) };
        let Some(row) = self.checked(&presented).await? else { return Ok(Refreshed::Refused) };
        if !row.is_live || row.client_id.as_deref() != client || presented.generation > row.generation {
            return Ok(Refreshed::Refused);
        }
        let engine = &self.0.engine;
        if presented.generation == row.generation
            && let Some(generation) =
                store::rotate(engine, row.id, row.generation, self.0.settings.idle_days).await?
        {
            return Ok(Refreshed::Tokens(self.tokens(&row, generation).await?));
        }
        // Somebody else has rotated it: a moment ago, or before.
        let Some(row) = store::by_id(engine, row.id).await?.filter(|row| row.is_live) else {
            return Ok(Refreshed::Refused);
        };
        if presented.generation + 1 == row.generation && row.rotated_before < GRACE.as_secs_f64() {
            return Ok(Refreshed::Tokens(self.tokens(&row, row.generation).await?));
        }
        self.told(store::end(engine, row.id, EndedBecause::Reuse.as_str()).await)?;
        Ok(Refreshed::Reused { user: row.user_id, sign_in: row.id })
    }

    /// Ends a sign-in; false when it had ended before.
    ///
    /// # Errors
    /// The database's.
    pub async fn end(&self, sign_in: SignInId, because: EndedBecause) -> Result<bool> {
        self.told(store::end(&self.0.engine, sign_in, because.as_str()).await)
    }

    /// Ends the sign-in of a refresh token; answers which, when the token is of one.
    ///
    /// # Errors
    /// The database's.
    pub async fn end_of_refresh_token(&self, token: &SecretString) -> Result<Option<(SignInId, UserId)>> {
        let Some(presented) = token::read(token, Kind::Token) else { return Ok(None) };
        let Some(row) = self.checked(&presented).await? else { return Ok(None) };
        self.told(store::end(&self.0.engine, row.id, EndedBecause::Logout.as_str()).await)?;
        Ok(Some((row.id, row.user_id)))
    }

    /// Ends the sign-in of a refresh token or of an access token that has not expired; answers which, when the token is
    /// of one.
    ///
    /// # Errors
    /// The database's.
    pub async fn end_of_token(&self, token: &SecretString) -> Result<Option<(SignInId, UserId)>> {
        if let Some(ended) = self.end_of_refresh_token(token).await? {
            return Ok(Some(ended));
        }
        let Some((principal, claims)) = self.by_access_token(token).await? else { return Ok(None) };
        let sign_in = SignInId(claims.sid);
        self.end(sign_in, EndedBecause::Logout).await?;
        Ok(Some((sign_in, principal.user)))
    }

    /// Ends all sign-ins of a user; answers how many there were.
    ///
    /// # Errors
    /// The database's.
    pub async fn end_all(&self, user: UserId) -> Result<u64> {
        self.told(store::end_all(&self.0.engine, user, EndedBecause::Logout.as_str()).await)
    }

    /// Extends a browser's sign-in and answers its cookies again.
    ///
    /// # Errors
    /// The database's.
    pub async fn extend_cookie(&self, cookie: &SecretString) -> Result<Option<CookieSession>> {
        let Some(presented) = token::read(cookie, Kind::Cookie) else { return Ok(None) };
        let Some(row) = self.checked(&presented).await?.filter(|row| row.is_live) else { return Ok(None) };
        store::touch(&self.0.engine, &[row.id], self.0.settings.idle_days).await?;
        self.cookie_session(&row).map(Some)
    }

    /// Who the browser of this cookie belongs to.
    ///
    /// # Errors
    /// The database's.
    pub async fn by_cookie(&self, cookie: &SecretString) -> Result<Option<Principal>> {
        let Some(presented) = token::read(cookie, Kind::Cookie) else { return Ok(None) };
        let row = self.checked(&presented).await?.filter(|row| row.is_live);
        Ok(row.map(|row| row.principal(Credential::Cookie)))
    }

    /// Whether this is the CSRF token that belongs to this cookie.
    #[must_use]
    pub fn is_csrf_token(&self, cookie: &SecretString, csrf: &str) -> bool {
        token::is_csrf(&self.0.codes, cookie, csrf)
    }

    /// Notes that sign-ins were used, and extends the browsers' among them.
    ///
    /// # Errors
    /// The database's.
    pub async fn touch(&self, sign_ins: &[SignInId]) -> Result<()> {
        store::touch(&self.0.engine, sign_ins, self.0.settings.idle_days).await
    }

    /// The keys that check our tokens.
    ///
    /// # Errors
    /// The database's.
    pub async fn published_keys(&self) -> Result<Vec<PublishedKey>> {
        self.0.signing.published().await
    }

    /// Who the issuer of our tokens is.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.0.settings.issuer
    }

    /// The row of what was presented, when its code is right.
    async fn checked(&self, presented: &Presented) -> Result<Option<SignInRow>> {
        let row = store::by_id(&self.0.engine, presented.sign_in).await?;
        Ok(row.filter(|row| {
            row.kind == presented.kind.as_str() && presented.is_right(&self.0.codes, &row.nonce)
        }))
    }

    async fn tokens(&self, row: &SignInRow, generation: i64) -> Result<Tokens> {
        let access = self.access_token(row).await?;
        let refresh = token::make(&self.0.codes, Kind::Token, row.id, generation, &row.nonce)?;
        let access_life = self.0.settings.access_life;
        Ok(Tokens { access, access_life, refresh, user: row.user_id, sign_in: row.id })
    }

    fn cookie_session(&self, row: &SignInRow) -> Result<CookieSession> {
        let cookie = token::make(&self.0.codes, Kind::Cookie, row.id, row.generation, &row.nonce)?;
        let csrf = token::csrf(&self.0.codes, &cookie)?;
        Ok(CookieSession { cookie, csrf, user: row.user_id, sign_in: row.id })
    }

    async fn tidy(&self) -> Result<()> {
        throttle::tidy(&self.0.engine).await?;
        store::tidy(&self.0.engine).await
    }
}

impl SignInRow {
    fn principal(self, credential: fn(SignInId) -> Credential) -> Principal {
        Principal {
            user: self.user_id,
            email: self.email,
            email_verified: self.email_verified,
            timezone: self.timezone,
            scopes: self
                .scopes
                .map_or(Scopes::ALL, |words| Scopes::of_words(words.iter().map(String::as_str))),
            operator: false,
            tenant: self
                .chosen_tenant
                .map_or(CredentialTenant::Open, |tenant| CredentialTenant::Wished(tenant.to_string())),
            credential: credential(self.id),
            outside: None,
        }
    }
}

/// The one refusal of every token that is not good: it does not say why.
#[must_use]
pub fn not_good() -> Error {
    Error::new(Code::Auth, "the token is not good: it is malformed, of somebody else, expired or revoked")
}
