//! Changing which servers there are: a tenant's admin theirs, an operator the deployment's. Each change is in the audit
//! log, without the token.

use secrecy::SecretString;
use serde_json::{Map, Value, json};
use sqlx::{PgConnection, PgPool};

use super::{DEPLOYMENT, Registry, Scope, binding, store, subject};
use crate::{
    db::TenantTx,
    error::{Error, Result},
    ids::TenantId,
    remote::definition::{Auth, ServerDefinition},
    tenancy::{
        AdminActor, OperatorActor,
        audit::{self, Entry},
    },
};

/// Servers that a tenant may use, its own and the deployment's.
const MOST: usize = 64;

/// What is to change of a server.
#[derive(Debug, Default)]
pub struct Change {
    /// Members of the definition, each whole; the others stay.
    pub members: Map<String, Value>,
    /// A new bearer token.
    pub bearer: Option<SecretString>,
}

/// The definition with the change.
///
/// # Errors
/// 422 with the member that is wrong.
pub fn amended(current: &ServerDefinition, members: Map<String, Value>) -> Result<ServerDefinition> {
    let mut whole = serde_json::to_value(current)?;
    if let Value::Object(whole) = &mut whole {
        whole.extend(members);
    }
    let definition: ServerDefinition =
        serde_json::from_value(whole).map_err(|error| Error::unacceptable(error.to_string()))?;
    definition.check()?;
    if definition.name != current.name {
        return Err(Error::unacceptable("name: a server keeps its name; make another"));
    }
    Ok(definition)
}

/// Adds a server of the admin's tenant.
///
/// # Errors
/// 409 when there is one of that name, also the deployment's; 422 when something is wrong with it; the database's.
pub async fn create(
    registry: &Registry,
    tx: &mut TenantTx,
    admin: &AdminActor,
    definition: &ServerDefinition,
    bearer: Option<SecretString>,
) -> Result<()> {
    let listed = registry.list(tx).await?;
    if listed.iter().any(|listed| listed.server.name() == definition.name) {
        return Err(taken(&definition.name));
    }
    if listed.len() >= MOST {
        return Err(Error::conflict(format!("a tenant has at most {MOST} servers")));
    }
    let tenant = tx.actor().tenant;
    insert(registry, tx.connection(), tenant, definition, bearer).await?;
    audit::record(tx, admin, entry("mcp_server.created", definition)).await
}

/// Adds a server for every tenant.
///
/// # Errors
/// As [`create`].
pub async fn create_for_all(
    registry: &Registry,
    engine: &PgPool,
    operator: &OperatorActor,
    definition: &ServerDefinition,
    bearer: Option<SecretString>,
) -> Result<()> {
    if registry.fixed().iter().any(|server| server.name() == definition.name) {
        return Err(taken(&definition.name));
    }
    let mut tx = crate::db::begin(engine).await?;
    insert(registry, &mut tx, DEPLOYMENT, definition, bearer).await?;
    let home = operator.actor().tenant;
    audit::record_for(&mut tx, operator, home, entry("mcp_server.created", definition)).await?;
    tx.commit().await?;
    registry.forget(Scope::Deployment);
    Ok(())
}

/// Changes a server of the admin's tenant.
///
/// # Errors
/// 404 when the tenant has none of that name; 422 when something is wrong with the change; the database's.
pub async fn update(
    registry: &Registry,
    tx: &mut TenantTx,
    admin: &AdminActor,
    name: &str,
    change: Change,
) -> Result<()> {
    let tenant = tx.actor().tenant;
    let definition = change_one(registry, tx.connection(), tenant, name, change).await?;
    audit::record(tx, admin, entry("mcp_server.changed", &definition)).await
}

/// Changes a server of the deployment.
///
/// # Errors
/// As [`update`].
pub async fn update_for_all(
    registry: &Registry,
    engine: &PgPool,
    operator: &OperatorActor,
    name: &str,
    change: Change,
) -> Result<()> {
    let mut tx = crate::db::begin(engine).await?;
    let definition = change_one(registry, &mut tx, DEPLOYMENT, name, change).await?;
    let home = operator.actor().tenant;
    audit::record_for(&mut tx, operator, home, entry("mcp_server.changed", &definition)).await?;
    tx.commit().await?;
    registry.forget(Scope::Deployment);
    Ok(())
}

/// Removes a server of the admin's tenant, with what was approved of its tools.
///
/// # Errors
/// 404 when the tenant has none of that name; the database's.
pub async fn delete(tx: &mut TenantTx, admin: &AdminActor, name: &str) -> Result<()> {
    let tenant = tx.actor().tenant;
    delete_one(tx.connection(), tenant, name).await?;
    audit::record(tx, admin, Entry::new("mcp_server.deleted", name)).await
}

/// Removes a server of the deployment.
///
/// # Errors
/// As [`delete`].
pub async fn delete_for_all(
    registry: &Registry,
    engine: &PgPool,
    operator: &OperatorActor,
    name: &str,
) -> Result<()> {
    let mut tx = crate::db::begin(engine).await?;
    delete_one(&mut tx, DEPLOYMENT, name).await?;
    let home = operator.actor().tenant;
    audit::record_for(&mut tx, operator, home, Entry::new("mcp_server.deleted", name)).await?;
    tx.commit().await?;
    registry.forget(Scope::Deployment);
    Ok(())
}

async fn insert(
    registry: &Registry,
    connection: &mut PgConnection,
    owner: TenantId,
    definition: &ServerDefinition,
    bearer: Option<SecretString>,
) -> Result<()> {
    definition.check()?;
    fits(&definition.auth, bearer.is_some())?;
    let sealed = seal(registry, owner, definition, bearer)?;
    let whole = serde_json::to_value(definition)?;
    if store::insert(
        connection,
        owner,
        &definition.name,
        &whole,
        sealed.as_deref(),
        &subject(&definition.name, &definition.url),
    )
    .await?
    {
        Ok(())
    } else {
        Err(taken(&definition.name))
    }
}

async fn change_one(
    registry: &Registry,
    connection: &mut PgConnection,
    owner: TenantId,
    name: &str,
    change: Change,
) -> Result<ServerDefinition> {
    let row = store::locked(connection, owner, name).await?.ok_or_else(unknown)?;
    let current: ServerDefinition = serde_json::from_value(row.definition)?;
    let definition = amended(&current, change.members)?;
    let moved = subject(name, &definition.url) != subject(name, &current.url);
    let kept = row.bearer_enc.filter(|_| definition.auth != Auth::None);
    let sealed = match (seal(registry, owner, &definition, change.bearer)?, kept) {
        (Some(sealed), _) => Some(sealed),
        (None, Some(_)) if moved => {
            let sentence = "auth.token: the token was given for another address; give it again";
            return Err(Error::unacceptable(sentence));
        }
        (None, kept) => kept,
    };
    fits(&definition.auth, sealed.is_some())?;
    let whole = serde_json::to_value(&definition)?;
    store::update(connection, owner, name, &whole, sealed.as_deref(), &subject(name, &definition.url))
        .await?;
    if definition.url != current.url {
        store::drop_pins(connection, owner, name).await?;
    }
    Ok(definition)
}

async fn delete_one(connection: &mut PgConnection, owner: TenantId, name: &str) -> Result<()> {
    if !store::delete(connection, owner, name).await? {
        return Err(unknown());
    }
    store::drop_pins(connection, owner, name).await
}

fn seal(
    registry: &Registry,
    owner: TenantId,
    definition: &ServerDefinition,
    bearer: Option<SecretString>,
) -> Result<Option<String>> {
    let subject = subject(&definition.name, &definition.url);
    bearer.map(|bearer| registry.vault().seal(binding(owner, &subject), &bearer)).transpose()
}

fn fits(auth: &Auth, has_bearer: bool) -> Result<()> {
    match (auth, has_bearer) {
        (Auth::Bearer, false) => Err(Error::unacceptable("auth.token: type bearer needs one")),
        (Auth::None, true) => Err(Error::unacceptable("auth.token: type none takes none")),
        (Auth::OAuth(settings), true) if settings.token_header.is_none() => Err(Error::unacceptable(
            "auth.token: the person's own token goes into Authorization unless auth.tokenHeader names another header",
        )),
        _ => Ok(()),
    }
}

fn entry<'a>(action: &'static str, definition: &'a ServerDefinition) -> Entry<'a> {
    let auth = match definition.auth {
        Auth::None => "none",
        Auth::Bearer => "bearer",
        Auth::OAuth(_) => "oauth",
    };
    let details = json!({"url": definition.url.as_str(), "auth": auth, "enabled": definition.enabled});
    Entry::new(action, &definition.name).with(details)
}

fn taken(name: &str) -> Error {
    Error::conflict(format!("there is a server {name} already"))
}

fn unknown() -> Error {
    Error::not_found("there is no such server")
}
