//! People's accounts at other services: how they come about, which of them a tool uses, and how their tokens are kept
//! good. Tokens are sealed by the vault and leave this module in a [`Credential`] alone, for the server that they were
//! issued for.
//!
//! ```text
//!  (none) ── connected ──▶ active ── refused, or run out ──▶ invalid
//!               ▲            │  ▲                              │
//!               └────────────┘  └── connected again, or a late answer
//! ```
//!
//! Invariant: `token_version` moves when the tokens change and never otherwise, so whoever refreshed with version n writes
//! only over version n. Nothing here holds a transaction across a request to somebody else.

mod flows;
mod providers;
mod refresh;
mod registrations;
pub(crate) mod store;

use std::{fmt, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use secrecy::SecretString;
use serde::Serialize;

pub use self::{
    flows::{Browser, Finished, Unfinished},
    providers::{NOTION, NOTION_SELF_HOSTED, Provider, Servers, Way, is_name},
    refresh::{Due, Outcome, due},
};
use self::{refresh::Flights, store::Row};
use crate::{
    bell::Bell,
    cache::ToolCache,
    config::ConnectionConfig,
    db::{TenantDb, TenantTx},
    error::{Code, Error, Result},
    identity::Actor,
    ids::{ConnectionId, SessionId, TenantId, UserId},
    oauth::{self, AuthMethod, ClientIdentity, Endpoints},
    outbound::Outbound,
    vault::{Binding, Vault},
};

const ACCESS: &str = "connection access token";
const REFRESH: &str = "connection refresh token";

/// Told, after it was committed, when what a person's tools may show has changed: connected, disconnected, or another
/// workspace.
pub type Forget = Arc<dyn for<'a> Fn(&'a Actor, &'a str) -> BoxFuture<'a, Result<()>> + Send + Sync>;

/// What connections are made of in a process.
pub struct Parts {
    pub tenants: TenantDb,
    pub vault: Vault,
    pub outbound: Outbound,
    pub config: ConnectionConfig,
    /// Without a slash at its end.
    pub public_url: String,
    /// Servers beside the built-in ones.
    pub servers: Option<Arc<dyn Servers>>,
    /// Tells the other processes that cached results of a person and server are gone.
    pub bell: Bell,
    /// Told as well, in this process.
    pub forget: Option<Forget>,
}

/// The connections of this process; cheap to clone.
#[derive(Clone)]
pub struct Connections(Arc<Inner>);

struct Inner {
    parts: Parts,
    flights: Flights,
}

/// What a call to a server is authenticated with. It is for that server alone.
#[derive(Clone)]
pub struct Credential {
    pub connection: ConnectionId,
    pub token: SecretString,
    /// The server that it may be sent to.
    pub server_url: String,
    /// Moves with each refresh: whoever keeps a session per token begins a new one when it differs.
    pub version: i64,
    /// Empty where the provider names none.
    pub workspace: String,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("connection", &self.connection)
            .field("version", &self.version)
            .finish()
    }
}

/// Whether a connection can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Active,
    /// The person has to sign in again.
    Invalid,
}

/// A connection, without its secrets.
#[derive(Debug, Clone)]
pub struct Connection {
    pub id: ConnectionId,
    pub server: String,
    /// Empty where the provider names none.
    pub workspace_id: String,
    pub workspace_name: Option<String>,
    pub status: Status,
    /// Why it is invalid, in a word.
    pub reason: Option<String>,
    /// Tools use this one of those of its server.
    pub chosen: bool,
    pub expires_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// What became of a connection that was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// The provider took the tokens back. Here they are gone in any case.
    pub revoked: bool,
}

impl Connections {
    /// Over these parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(Inner { parts, flights: Flights::default() }))
    }

    /// The servers that the actor can connect, by name.
    ///
    /// # Errors
    /// The database's.
    pub async fn providers(&self, actor: &Actor) -> Result<Vec<Provider>> {
        let mut all = providers::built_in(&self.0.parts.config);
        if let Some(servers) = &self.0.parts.servers {
            let more = servers.of(actor).await?;
            all.extend(
                more.into_iter().filter(|one| ![NOTION, NOTION_SELF_HOSTED].contains(&one.name.as_str())),
            );
        }
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    /// The server of this name.
    ///
    /// # Errors
    /// 404 when the actor has none of that name; the database's.
    pub async fn provider(&self, actor: &Actor, server: &str) -> Result<Provider> {
        let found = self.providers(actor).await?.into_iter().find(|provider| provider.name == server);
        found.ok_or_else(|| Error::not_found("there is no such server to connect"))
    }

    /// The actor's connections, by server, oldest first.
    ///
    /// # Errors
    /// The database's.
    pub async fn list(&self, actor: &Actor) -> Result<Vec<Connection>> {
        let mut tx = self.begin(actor).await?;
        let rows = store::list(&mut tx).await?;
        tx.commit().await?;
        Ok(rows.into_iter().map(Row::into_connection).collect())
    }

    /// Makes this one the connection that tools use, of those of its server.
    ///
    /// # Errors
    /// 404 when the actor has no such connection; the database's.
    pub async fn choose(&self, actor: &Actor, id: ConnectionId) -> Result<Connection> {
        let mut tx = self.begin(actor).await?;
        let row = store::by_id(&mut tx, id).await?.ok_or_else(unknown)?;
        store::choose(&mut tx, &row.provider, id).await?;
        let row = store::by_id(&mut tx, id).await?.ok_or_else(unknown)?;
        ToolCache::drop_server(&mut tx, &row.provider).await?;
        tx.commit().await?;
        self.changed(actor, &row.provider).await;
        Ok(row.into_connection())
    }

    /// Ends a connection: its tokens are deleted here whatever the provider does, then it is asked to take them back.
    ///
    /// # Errors
    /// 404 when the actor has no such connection; the database's.
    pub async fn disconnect(&self, actor: &Actor, id: ConnectionId) -> Result<Ended> {
        let mut tx = self.begin(actor).await?;
        let row = store::delete(&mut tx, id).await?.ok_or_else(unknown)?;
        store::choose_some(&mut tx, &row.provider).await?;
        ToolCache::drop_server(&mut tx, &row.provider).await?;
        tx.commit().await?;
        self.changed(actor, &row.provider).await;
        let revoked = self.give_back(actor, &row).await;
        tracing::info!(server = row.provider, revoked, user_id = %actor.user, "a connection was ended");
        Ok(Ended { revoked })
    }

    /// What a call to this server is authenticated with; none when the actor has not connected it. A token that is about
    /// to run out is refreshed first.
    ///
    /// # Errors
    /// OAUTH-REFRESH-FAIL when the person must sign in again, which its detail `connectUrl` says where, or when the
    /// provider cannot be asked for a new token now; the database's.
    pub async fn credential(&self, actor: &Actor, server: &str) -> Result<Option<Credential>> {
        self.credential_in(actor, server, None).await
    }

    /// The same for one workspace, by its id or name; none when that one is not connected.
    ///
    /// # Errors
    /// As [`Connections::credential`].
    pub async fn credential_in(
        &self,
        actor: &Actor,
        server: &str,
        workspace: Option<&str>,
    ) -> Result<Option<Credential>> {
        let mut tx = self.begin(actor).await?;
        let row = store::in_use(&mut tx, server, workspace).await?;
        tx.commit().await?;
        self.good(actor, server, row).await
    }

    /// The same for a session: Notion's tools work in the workspace that it has chosen, if it has chosen one.
    ///
    /// # Errors
    /// As [`Connections::credential`].
    pub async fn credential_for(
        &self,
        actor: &Actor,
        server: &str,
        session: Option<SessionId>,
    ) -> Result<Option<Credential>> {
        let mut tx = self.begin(actor).await?;
        let workspace = match session.filter(|_| [NOTION, NOTION_SELF_HOSTED].contains(&server)) {
            Some(session) => store::workspace_of(&mut tx, session).await?,
            None => None,
        };
        let row = store::in_use(&mut tx, server, workspace.as_deref()).await?;
        tx.commit().await?;
        self.good(actor, server, row).await
    }

    /// The row's credential, when the server is still the one that it is for.
    async fn good(&self, actor: &Actor, server: &str, row: Option<Row>) -> Result<Option<Credential>> {
        let Some(row) = row else { return Ok(None) };
        let provider = match self.provider(actor, server).await {
            Ok(provider) => provider,
            Err(error) if error.code == Code::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if row.server_url != provider.url.as_str() {
            // Its tokens are for another server than the one that has this name now.
            return Err(self.sign_in_again(server));
        }
        self.usable(actor, row, refresh::Wanted::Good).await
    }

    /// The server refused this credential although its time is not up: a newer one, when there is one to be had.
    ///
    /// # Errors
    /// As [`Connections::credential`].
    pub async fn refused(&self, actor: &Actor, credential: &Credential) -> Result<Option<Credential>> {
        let mut tx = self.begin(actor).await?;
        let row = store::by_id(&mut tx, credential.connection).await?;
        tx.commit().await?;
        match row {
            Some(row) => self.usable(actor, row, refresh::Wanted::After(credential.version)).await,
            None => Ok(None),
        }
    }

    /// Where a person connects a server.
    #[must_use]
    pub fn connect_url(&self, server: &str) -> String {
        format!("{}/connect/{server}", self.0.parts.public_url)
    }

    fn sign_in_again(&self, server: &str) -> Error {
        let sentence = format!("{server} needs you to sign in again");
        Error::new(Code::OauthRefresh, sentence).with_detail("connectUrl", self.connect_url(server))
    }

    async fn begin(&self, actor: &Actor) -> Result<TenantTx> {
        self.0.parts.tenants.begin(actor).await
    }

    /// Tells whoever keeps something of a person and server that it is out of date. What is stored went with the change; a
    /// failure here is told and does not undo it.
    async fn changed(&self, actor: &Actor, server: &str) {
        ToolCache::dropped(&self.0.parts.bell, actor, server);
        if let Some(forget) = &self.0.parts.forget
            && let Err(error) = forget(actor, server).await
        {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                server,
                "what was kept was not dropped"
            );
        }
    }

    /// Asks the provider to take a connection's tokens back.
    async fn give_back(&self, actor: &Actor, row: &Row) -> bool {
        let giving = async {
            let endpoints = row.endpoints()?;
            let client = self.client_of(actor, row).await?;
            let place = self.place(actor, row);
            let open = |purpose, sealed: &Option<String>| {
                sealed
                    .as_ref()
                    .map(|sealed| self.0.parts.vault.open(place.binding(purpose), sealed))
                    .transpose()
            };
            let tokens = (open(REFRESH, &row.refresh_token_enc)?, open(ACCESS, &row.access_token_enc)?);
            Ok::<_, Error>(self.revoke(&endpoints, &client, tokens.0.as_ref(), tokens.1.as_ref()).await)
        };
        giving.await.unwrap_or_else(|error| {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a connection's tokens could not be given back"
            );
            false
        })
    }

    async fn revoke(
        &self,
        endpoints: &Endpoints,
        client: &ClientIdentity,
        refresh: Option<&SecretString>,
        access: Option<&SecretString>,
    ) -> bool {
        let (outbound, within) = (&self.0.parts.outbound, self.timeout());
        let mut revoked = refresh.is_some() || access.is_some();
        for (token, hint) in [(refresh, "refresh_token"), (access, "access_token")] {
            if let Some(token) = token {
                revoked &= oauth::revoke(outbound, endpoints, client, token, hint, within).await;
            }
        }
        revoked
    }

    fn timeout(&self) -> Duration {
        self.0.parts.config.timeout
    }

    /// As what Alfred got a connection's tokens: tokens and client belong together.
    async fn client_of(&self, actor: &Actor, row: &Row) -> Result<ClientIdentity> {
        let provider = self.provider(actor, &row.provider).await.ok();
        if let Some(client) = provider.and_then(|provider| provider.client)
            && client.id == row.client_id
        {
            return Ok(client);
        }
        let known = self.registration_of(actor, &row.issuer, &row.client_id).await?;
        Ok(known.unwrap_or_else(|| ClientIdentity {
            id: row.client_id.clone(),
            secret: None,
            method: AuthMethod::None,
        }))
    }

    /// A good row as what it is for.
    fn open(&self, actor: &Actor, row: &Row) -> Result<Credential> {
        let sealed = row.access_token_enc.as_ref().ok_or_else(|| self.sign_in_again(&row.provider))?;
        Ok(Credential {
            connection: row.id,
            token: self.0.parts.vault.open(self.place(actor, row).binding(ACCESS), sealed)?,
            server_url: row.server_url.clone(),
            version: row.token_version,
            workspace: row.workspace_id.clone(),
        })
    }

    fn place(&self, actor: &Actor, row: &Row) -> Place {
        Place::new(actor.tenant, row.user_id, &row.provider, &row.workspace_id)
    }
}

/// Where a token belongs: it opens nowhere else.
pub(crate) struct Place {
    tenant: TenantId,
    subject: String,
}

impl Place {
    pub(crate) fn new(tenant: TenantId, user: UserId, provider: &str, workspace: &str) -> Self {
        // JSON, so that no two places are spelled alike.
        Self { tenant, subject: serde_json::json!([user, provider, workspace]).to_string() }
    }

    pub(crate) fn binding<'a>(&'a self, purpose: &'a str) -> Binding<'a> {
        Binding { tenant: self.tenant, purpose, subject: &self.subject }
    }
}

/// Tokens, sealed for a place.
pub(crate) struct Sealed {
    pub(crate) access: String,
    pub(crate) refresh: Option<String>,
}

impl Sealed {
    fn new(
        vault: &Vault,
        place: &Place,
        access: &SecretString,
        refresh: Option<&SecretString>,
    ) -> Result<Self> {
        Ok(Self {
            access: vault.seal(place.binding(ACCESS), access)?,
            refresh: refresh.map(|token| vault.seal(place.binding(REFRESH), token)).transpose()?,
        })
    }
}

/// Whether this error says that the person has to sign in again.
#[must_use]
pub fn wants_sign_in(error: &Error) -> bool {
    error.details.as_ref().is_some_and(|details| details.contains_key("connectUrl"))
}

fn unknown() -> Error {
    Error::not_found("there is no such connection")
}
