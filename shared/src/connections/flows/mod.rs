//! A person's way to an authorization server and back: begun for a person, finished in the browser that left, once,
//! within ten minutes.
//!
//! What comes back proves nothing by itself: a link with somebody else's code can be sent to anybody. So the state, which
//! only we and the authorization server know, must come together with a secret that only the browser has that left; and
//! when a cookie session began the flow, that session must still be there.

pub(super) mod store;

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use url::Url;
use uuid::Uuid;

use super::{Connection, Connections, Place, Provider, Sealed, Way, store as connections};
use crate::{
    cache::ToolCache,
    error::{Code, Error, Result},
    identity::Actor,
    ids::{SignInId, TenantId, UserId},
    oauth::{self, ClientIdentity, Endpoints, Reply, TokenFailure, Workspace},
    vault::Binding,
};

pub(crate) const VERIFIER: &str = "oauth verifier";

/// The browser that a person leaves with, or comes back in.
#[derive(Debug, Clone)]
pub struct Browser {
    /// What only this browser has.
    pub secret: SecretString,
    /// Its cookie session, if it has one.
    pub sign_in: Option<SignInId>,
}

/// A connection was made.
#[derive(Debug)]
pub struct Finished {
    pub title: String,
    pub connection: Connection,
}

/// Why none was made.
#[derive(Debug)]
pub enum Unfinished {
    /// The state is unknown, was used, has expired, or is another browser's. It does not say which.
    Unknown,
    /// The person did not allow it.
    Denied { title: String },
    /// It does not come from the server that they were sent to.
    Forged { title: String },
    /// The provider gave no tokens.
    Failed { title: String, error: Error },
    /// Something here.
    Error(Error),
}

impl From<Error> for Unfinished {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// What was asked for, and of whom.
#[derive(Serialize, Deserialize)]
struct Plan {
    endpoints: Endpoints,
    client_id: String,
    redirect_uri: String,
    server_url: String,
    title: String,
}

impl Connections {
    /// Where to send a person who connects this server.
    ///
    /// # Errors
    /// 404 for an unknown server; OAUTH-EXCHANGE-FAIL when it cannot be connected, with a sentence why; the database's.
    pub async fn depart(&self, actor: &Actor, server: &str, browser: &Browser) -> Result<Url> {
        let provider = self.provider(actor, server).await?;
        let (endpoints, client, redirect_uri, scopes) = self.plan(actor, &provider).await?;
        let redirect: Url = redirect_uri.parse().map_err(Error::internal)?;
        let left = oauth::depart(&endpoints, &client.id, &redirect, &scopes, |random| {
            format!("{}.{random}", actor.tenant.0.simple())
        });
        let id = Uuid::now_v7();
        let subject = id.to_string();
        let binding = Binding { tenant: actor.tenant, purpose: VERIFIER, subject: &subject };
        let seal = |verifier: &SecretString| self.0.parts.vault.seal(binding, verifier);
        let plan = Plan {
            client_id: client.id,
            redirect_uri,
            server_url: provider.url.as_str().to_owned(),
            title: provider.title,
            endpoints,
        };
        let flow = store::New {
            id,
            state_hash: hash(&left.state),
            browser_hash: hash(&browser.secret),
            sign_in: browser.sign_in,
            provider: server,
            plan: serde_json::to_string(&plan)?,
            verifier_enc: left.verifier.as_ref().map(seal).transpose()?,
        };
        let mut tx = self.begin(actor).await?;
        store::insert(&mut tx, &flow).await?;
        tx.commit().await?;
        Ok(left.url)
    }

    async fn plan(
        &self,
        actor: &Actor,
        provider: &Provider,
    ) -> Result<(Endpoints, ClientIdentity, String, Vec<String>)> {
        match (&provider.way, &provider.client) {
            (Way::Registered { endpoints, redirect_uri }, Some(client)) => {
                Ok(((**endpoints).clone(), client.clone(), redirect_uri.to_string(), provider.scopes.clone()))
            }
            _ => {
                let parts = &self.0.parts;
                let found = oauth::discover(&parts.outbound, &provider.url, self.timeout()).await?;
                let redirect_uri = self.redirect_uri(&provider.name);
                let client = self.client(actor, provider, &found, &redirect_uri).await?;
                let scopes = if provider.scopes.is_empty() { found.scopes } else { provider.scopes.clone() };
                Ok((found.endpoints, client, redirect_uri, scopes))
            }
        }
    }

    /// Takes what a person came back with, at this server's address.
    ///
    /// # Errors
    /// See [`Unfinished`].
    pub async fn arrive(
        &self,
        server: &str,
        browser: &Browser,
        reply: &Reply,
    ) -> Result<Finished, Unfinished> {
        let (actor, flow) = self.take(browser, reply).await?.ok_or(Unfinished::Unknown)?;
        let plan: Plan = serde_json::from_str(&flow.plan).map_err(Error::from)?;
        let title = plan.title.clone();
        let came_to = Url::parse(&plan.redirect_uri).map_err(Error::internal)?;
        if !came_to.path().ends_with(&format!("/oauth/{server}/callback")) {
            return Err(Unfinished::Unknown);
        }
        // Before the code, and before the error too: both may be somebody else's words.
        if !reply.is_from(&plan.endpoints) {
            return Err(Unfinished::Forged { title });
        }
        let code = match (&reply.error, &reply.code) {
            (None, Some(code)) => code,
            (Some(error), _) if error != "access_denied" => {
                let error = Error::new(Code::OauthExchange, format!("{title} did not allow it"));
                return Err(Unfinished::Failed { title, error });
            }
            _ => return Err(Unfinished::Denied { title }),
        };
        let subject = flow.id.to_string();
        let binding = Binding { tenant: actor.tenant, purpose: VERIFIER, subject: &subject };
        let open = |sealed: &String| self.0.parts.vault.open(binding, sealed);
        let verifier = flow.verifier_enc.as_ref().map(open).transpose()?;
        let client = self.client_of_plan(&actor, &flow.provider, &plan).await?;
        let exchanged = oauth::exchange(
            &self.0.parts.outbound,
            &plan.endpoints,
            &client,
            code,
            &plan.redirect_uri,
            verifier.as_ref(),
            self.timeout(),
        );
        let tokens = match exchanged.await {
            Ok(tokens) => tokens,
            Err(failure) => {
                if matches!(&failure, TokenFailure::Refused(word) if word == "invalid_client") {
                    self.retire(&actor, &plan.endpoints.issuer, &client.id).await?;
                }
                let sentence = format!("{title} gave no token: {failure}");
                return Err(Unfinished::Failed { title, error: Error::new(Code::OauthExchange, sentence) });
            }
        };
        let workspace = match &tokens.workspace {
            Some(workspace) => Some(workspace.clone()),
            None => {
                oauth::workspace(&self.0.parts.outbound, &plan.endpoints, &tokens.access, self.timeout())
                    .await
            }
        };
        let connection = self.keep(&actor, &flow.provider, &plan, &client, &tokens, workspace).await?;
        tracing::info!(server = flow.provider, user_id = %actor.user, tenant_id = %actor.tenant, "a connection was made");
        Ok(Finished { title, connection })
    }

    /// The flow of this reply, once, with whose it is.
    async fn take(&self, browser: &Browser, reply: &Reply) -> Result<Option<(Actor, store::Flow)>> {
        let Some(state) = &reply.state else { return Ok(None) };
        let tenant =
            state.expose_secret().split_once('.').and_then(|(tenant, _)| Uuid::parse_str(tenant).ok());
        let Some(tenant) = tenant.map(TenantId) else { return Ok(None) };
        let (state, secret) = (hash(state), hash(&browser.secret));
        let owner = store::owner(self.0.parts.tenants.app(), tenant, &state, &secret).await?;
        let Some(owner) = owner else { return Ok(None) };
        let actor = Actor::of_turn(tenant, UserId(owner));
        let mut tx = self.begin(&actor).await?;
        let flow = store::take(&mut tx, &state).await?;
        tx.commit().await?;
        let same_session =
            |flow: &store::Flow| flow.sign_in.is_none_or(|began| browser.sign_in == Some(SignInId(began)));
        Ok(flow.filter(same_session).map(|flow| (actor, flow)))
    }

    async fn client_of_plan(&self, actor: &Actor, server: &str, plan: &Plan) -> Result<ClientIdentity> {
        let provider = self.provider(actor, server).await.ok();
        if let Some(client) = provider.and_then(|provider| provider.client)
            && client.id == plan.client_id
        {
            return Ok(client);
        }
        let known = self.registration_of(actor, &plan.endpoints.issuer, &plan.client_id).await?;
        Ok(known.unwrap_or_else(|| ClientIdentity {
            id: plan.client_id.clone(),
            secret: None,
            method: oauth::AuthMethod::None,
        }))
    }

    async fn keep(
        &self,
        actor: &Actor,
        server: &str,
        plan: &Plan,
        client: &ClientIdentity,
        tokens: &oauth::Tokens,
        workspace: Option<Workspace>,
    ) -> Result<Connection> {
        let workspace = workspace.unwrap_or(Workspace { id: String::new(), name: None });
        let place = Place::new(actor.tenant, actor.user, server, &workspace.id);
        let sealed = Sealed::new(&self.0.parts.vault, &place, &tokens.access, tokens.refresh.as_ref())?;
        let mut tx = self.begin(actor).await?;
        let endpoints = serde_json::to_string(&plan.endpoints)?;
        let new = connections::Connected {
            provider: server,
            server_url: &plan.server_url,
            issuer: &plan.endpoints.issuer,
            client_id: &client.id,
            endpoints: &endpoints,
            workspace_id: &workspace.id,
            workspace_name: workspace.name.as_deref(),
            scope: tokens.scope.as_deref(),
            sealed: &sealed,
            expires_in: tokens.expires_in,
        };
        let id = connections::connect(&mut tx, &new).await?;
        let row = connections::by_id(&mut tx, id).await?.ok_or_else(super::unknown)?;
        // Another workspace may be in use from now on.
        ToolCache::drop_server(&mut tx, server).await?;
        tx.commit().await?;
        self.changed(actor, server).await;
        Ok(row.into_connection())
    }
}

fn hash(secret: &SecretString) -> Vec<u8> {
    Sha256::digest(secret.expose_secret().as_bytes()).to_vec()
}
