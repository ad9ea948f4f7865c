//! What Alfred is called at an authorization server: as an admin arranged it, by the address of a document about itself,
//! or as it registered itself, once for each tenant, server and address to come back to.

pub(super) mod store;

use secrecy::SecretString;
use url::Url;

use super::{Connections, Provider};
use crate::{
    error::Result,
    identity::Actor,
    ids::TenantId,
    oauth::{self, AuthMethod, ClientIdentity, Discovered},
    vault::Binding,
};

pub(crate) const CLIENT_SECRET: &str = "oauth client secret";

/// A secret's place: tenant, server and client.
pub(crate) fn subject(issuer: &str, client_id: &str) -> String {
    serde_json::json!([issuer, client_id]).to_string()
}

fn binding(tenant: TenantId, subject: &str) -> Binding<'_> {
    Binding { tenant, purpose: CLIENT_SECRET, subject }
}

impl Connections {
    /// What to call ourselves at this server; registers if need be.
    pub(super) async fn client(
        &self,
        actor: &Actor,
        provider: &Provider,
        found: &Discovered,
        redirect_uri: &str,
    ) -> Result<ClientIdentity> {
        if let Some(client) = &provider.client {
            return Ok(client.clone());
        }
        if let Some(id) = self.document_address(&provider.name).filter(|_| found.takes_documents) {
            return Ok(ClientIdentity { id, secret: None, method: AuthMethod::None });
        }
        let issuer = &found.endpoints.issuer;
        let mut tx = self.begin(actor).await?;
        let known = store::current(&mut tx, issuer, redirect_uri).await?;
        tx.commit().await?;
        if let Some(known) = known {
            return self.open_registration(actor, issuer, known);
        }
        let parts = &self.0.parts;
        let made =
            oauth::register(&parts.outbound, found, &parts.public_url, redirect_uri, self.timeout()).await?;
        let subject = subject(issuer, &made.client.id);
        let seal = |secret: &SecretString| parts.vault.seal(binding(actor.tenant, &subject), secret);
        let sealed = made.client.secret.as_ref().map(seal).transpose()?;
        let mut tx = self.begin(actor).await?;
        // Somebody else of the tenant may have been faster; then theirs is used, and ours is left to the server to forget.
        store::insert(&mut tx, issuer, redirect_uri, &made, sealed.as_deref()).await?;
        let known = store::current(&mut tx, issuer, redirect_uri).await?;
        tx.commit().await?;
        match known {
            Some(known) => self.open_registration(actor, issuer, known),
            None => Ok(made.client),
        }
    }

    /// The client of this id at this server, if it is one that registered itself; also when it is retired.
    pub(super) async fn registration_of(
        &self,
        actor: &Actor,
        issuer: &str,
        client_id: &str,
    ) -> Result<Option<ClientIdentity>> {
        let mut tx = self.begin(actor).await?;
        let known = store::by_client(&mut tx, issuer, client_id).await?;
        tx.commit().await?;
        known.map(|known| self.open_registration(actor, issuer, known)).transpose()
    }

    /// The server does not know this client any more: whoever connects next registers anew.
    pub(super) async fn retire(&self, actor: &Actor, issuer: &str, client_id: &str) -> Result<()> {
        let mut tx = self.begin(actor).await?;
        store::retire(&mut tx, issuer, client_id).await?;
        tx.commit().await
    }

    /// The address of the document about ourselves, for this server's address to come back to. Other servers have to be
    /// able to fetch it, so there is none without https.
    #[must_use]
    pub fn document_address(&self, server: &str) -> Option<String> {
        let home = &self.0.parts.public_url;
        home.starts_with("https://").then(|| format!("{home}/.well-known/oauth-client/{server}"))
    }

    /// The document at that address.
    #[must_use]
    pub fn document(&self, server: &str) -> Option<serde_json::Value> {
        let id = self.document_address(server)?;
        let redirect_uri = self.redirect_uri(server);
        Some(oauth::client_document(Some(&id), &self.0.parts.public_url, &redirect_uri, AuthMethod::None))
    }

    /// Where people come back to.
    pub(super) fn redirect_uri(&self, server: &str) -> String {
        let text = format!("{}/oauth/{server}/callback", self.0.parts.public_url);
        // In the spelling that browsers and servers will use.
        Url::parse(&text).map_or(text, String::from)
    }

    fn open_registration(&self, actor: &Actor, issuer: &str, known: store::Known) -> Result<ClientIdentity> {
        let subject = subject(issuer, &known.client_id);
        let open = |sealed: &String| self.0.parts.vault.open(binding(actor.tenant, &subject), sealed);
        Ok(ClientIdentity {
            secret: known.client_secret_enc.as_ref().map(open).transpose()?,
            method: AuthMethod::from_word(&known.auth_method).unwrap_or(AuthMethod::None),
            id: known.client_id,
        })
    }
}
