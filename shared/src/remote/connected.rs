//! Where the gateway and people's connections meet: the gateway asks for a person's token, the connections ask which servers
//! want one.

use futures::{FutureExt as _, future::BoxFuture};

use super::{
    definition::Auth,
    gateway::{Connection, UserCredentials},
    registry::{Registry, Server},
};
use crate::{
    connections::{self, Connections, Credential, Provider, Servers, Way},
    error::Result,
    identity::Actor,
    ids::SessionId,
    oauth::{AuthMethod, ClientIdentity},
};

impl UserCredentials for Connections {
    fn credential<'a>(
        &'a self,
        actor: &'a Actor,
        session: Option<SessionId>,
        server: &'a Server,
    ) -> BoxFuture<'a, Result<Connection>> {
        async move { standing(self.credential_for(actor, server.name(), session).await, server) }.boxed()
    }

    fn refused<'a>(
        &'a self,
        actor: &'a Actor,
        _: Option<SessionId>,
        server: &'a Server,
        credential: &'a Credential,
    ) -> BoxFuture<'a, Result<Connection>> {
        async move {
            // The connections' own, which the trait's has the name of.
            let newer = Self::refused(self, actor, credential).await;
            standing(newer, server)
        }
        .boxed()
    }
}

/// A token is sent to the server that it was issued for and to no other.
fn standing(asked: Result<Option<Credential>>, server: &Server) -> Result<Connection> {
    match asked {
        Ok(Some(credential)) if credential.server_url == server.definition.url.as_str() => {
            Ok(Connection::Good(credential))
        }
        Ok(Some(_)) => Ok(Connection::SignInAgain),
        Ok(None) => Ok(Connection::None),
        Err(error) if connections::wants_sign_in(&error) => Ok(Connection::SignInAgain),
        Err(error) => Err(error),
    }
}

impl Servers for Registry {
    fn of<'a>(&'a self, actor: &'a Actor) -> BoxFuture<'a, Result<Vec<Provider>>> {
        async move {
            let servers = self.servers(actor).await?;
            let providers = servers.list.iter().filter_map(|server| {
                let Auth::OAuth(settings) = &server.definition.auth else { return None };
                Some(Provider {
                    name: server.name().to_owned(),
                    title: server.name().to_owned(),
                    url: server.definition.url.clone(),
                    way: Way::Discovered,
                    client: settings.client_id.clone().map(|id| ClientIdentity {
                        id,
                        secret: None,
                        method: AuthMethod::None,
                    }),
                    scopes: settings.scopes.clone(),
                })
            });
            Ok(providers.collect())
        }
        .boxed()
    }
}
