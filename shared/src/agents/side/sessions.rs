//! Sessions of agents: begun with credentials, checked at each use, listed and ended.

use std::net::IpAddr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use chrono::{DateTime, TimeDelta, Utc};
use secrecy::SecretString;
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{AgentActor, AgentSide, allowed, beginning, credentials, not_good, note, store, token};
use crate::{
    agents::{
        AgentName, new_id,
        permissions::{Granted, Level, Permission},
    },
    db::{self, TenantTx},
    error::{Code, Error, Result},
    identity::throttle,
    ids::TenantId,
    tenancy::{
        AdminActor,
        audit::{self, ByAgent, Entry},
    },
};

/// What an agent asks for a session with.
#[derive(Debug)]
pub struct Asked<'a> {
    pub agent_name: &'a str,
    pub api_key: &'a SecretString,
    pub client_secret: &'a SecretString,
    /// In words. None is all that the agent may have.
    pub permissions: Option<&'a [String]>,
    pub address: IpAddr,
    pub request_id: &'a str,
}

/// A session that has just begun.
#[derive(Debug)]
pub struct Begun {
    /// For `X-Agent-Authorization`; shown once.
    pub token: SecretString,
    pub session: Session,
    pub level: Level,
    /// How long the token is good.
    pub life: std::time::Duration,
}

/// A session of an agent.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Session {
    pub id: Uuid,
    pub agent_name: AgentName,
    pub permissions: Vec<String>,
    pub created_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
    /// Right to some seconds.
    pub last_accessed: DateTime<Utc>,
    pub ip_address: Option<String>,
    /// Not ended before its time.
    pub is_active: bool,
}

/// Which sessions; what is none does not matter.
#[derive(Debug, Clone, Default)]
pub struct SessionFilter {
    pub agent: Option<AgentName>,
    /// Those that are good now.
    pub live: bool,
}

impl AgentSide {
    /// Begins a session. Nothing tells who is registered: an unknown agent and a wrong secret have one answer after the same
    /// work.
    ///
    /// # Errors
    /// 401; 422 for a permission that there is not; 403 for one that the agent may not have; 429 after too many tries; the
    /// database's.
    pub async fn begin(&self, asked: &Asked<'_>) -> Result<Begun> {
        let tenant = credentials::tenant_of(asked.api_key).unwrap_or(TenantId(Uuid::nil()));
        let account = format!("agent\n{tenant}\n{}", asked.agent_name);
        let attempt = throttle::attempt(&self.engine, asked.address, &account).await?;
        let known = store::credentials(&self.engine, tenant, asked.agent_name).await?;
        let hashes = known.as_ref().map(|known| &known.hashes);
        let is_good = credentials::are_good(hashes, asked.api_key, asked.client_secret);
        let Some(known) = known else { return Err(wrong()) };
        if !is_good || !known.is_on {
            let because = if is_good { "the agent or its tenant is off" } else { "wrong credentials" };
            self.note_refused(tenant, asked, because).await?;
            return Err(wrong());
        }
        attempt.was_good(&self.engine).await?;
        let granted = match granted(&known, asked.permissions) {
            Ok(granted) => granted,
            Err(error) => {
                self.note_refused(tenant, asked, &error.message).await?;
                return Err(error);
            }
        };
        let id = new_id();
        let life = TimeDelta::from_std(self.settings.token_life).map_err(Error::internal)?;
        let ends = Utc::now() + life;
        let token = token::make(&self.settings, asked.agent_name, tenant.0, id, ends)?;
        let new = store::NewSession {
            id,
            token_hash: credentials::hash(&token),
            permissions: granted.words(),
            expires_at: ends,
            address: asked.address.to_string(),
        };
        let mut tx = db::begin(&self.engine).await?;
        let begun = store::insert_session(&mut tx, tenant, asked.agent_name, &known.hashes, &new).await?;
        let Some(session) = begun else {
            tx.rollback().await?;
            self.note_refused(tenant, asked, "the credentials were replaced, or the agent switched off")
                .await?;
            return Err(wrong());
        };
        let details = json!({ "decision": "allowed", "session": id, "permissions": new.permissions, "address": asked.address });
        note_begin(&mut tx, tenant, asked, details).await?;
        tx.commit().await?;
        Ok(Begun { token, session, level: known.matrix.level(), life: self.settings.token_life })
    }

    async fn note_refused(&self, tenant: TenantId, asked: &Asked<'_>, because: &str) -> Result<()> {
        let mut connection = self.engine.acquire().await?;
        let because = beginning(because);
        let details = json!({ "decision": "refused", "because": because, "address": asked.address });
        note_begin(&mut connection, tenant, asked, details).await
    }

    /// The agent of a token.
    ///
    /// # Errors
    /// 401 for a token that is not ours, expired or revoked, of an agent that is off or gone, or of a tenant that is not
    /// active; the database's.
    pub async fn actor(&self, token: &SecretString, request_id: &str) -> Result<AgentActor> {
        let claims = token::read(&self.settings, token).ok_or_else(not_good)?;
        let tenant = TenantId(claims.tenant);
        let live = store::live_session(&self.engine, tenant, claims.sid, &claims.sub).await?;
        let live =
            live.filter(|live| verify_slices_are_equal(&live.token_hash, &credentials::hash(token)).is_ok());
        let Some(live) = live else {
            // The signature is ours, so the tenant is no invention.
            let by = ByAgent { agent: &claims.sub, request_id: Some(request_id) };
            let details =
                json!({ "decision": "refused", "because": "the session is over, or the agent is off" });
            let target = claims.sid.to_string();
            let mut connection = self.engine.acquire().await?;
            let entry = Entry::new("agent_session.use", &target).with(details);
            audit::record_of_agent(&mut connection, tenant, &by, entry).await?;
            return Err(not_good());
        };
        let session = Granted::of_words(live.permissions.iter().map(String::as_str));
        Ok(AgentActor {
            tenant,
            agent: live.agent,
            session: claims.sid,
            level: live.matrix.level(),
            granted: live.matrix.granted().and(&session),
            request_id: request_id.to_owned(),
        })
    }

    /// The sessions that the agent may see: its own one, at the level admin all of the agent's; newest first.
    ///
    /// # Errors
    /// The database's.
    pub async fn sessions(
        &self,
        actor: &AgentActor,
        before: Option<Uuid>,
        limit: i64,
    ) -> Result<Vec<Session>> {
        let only = (actor.level < Level::Admin).then_some(actor.session);
        let sessions =
            store::sessions_of(&self.engine, actor.tenant, &actor.agent, only, before, limit).await;
        self.decided(actor, "agent_session.list", actor.agent.as_str(), sessions).await
    }

    /// One of them.
    ///
    /// # Errors
    /// 404; the database's.
    pub async fn session(&self, actor: &AgentActor, id: Uuid) -> Result<Session> {
        let found = self.may_see(actor, id).await;
        self.decided(actor, "agent_session.read", &id.to_string(), found).await
    }

    /// Ends one of them: its token is good for nothing from now on.
    ///
    /// # Errors
    /// 404; the database's.
    pub async fn end_session(&self, actor: &AgentActor, id: Uuid) -> Result<()> {
        let target = id.to_string();
        let ended = async {
            self.may_see(actor, id).await?;
            let mut tx = db::begin(&self.engine).await?;
            store::end_session(&mut tx, actor.tenant, &actor.agent, id).await?;
            note(&mut tx, actor, "agent_session.end", &target, allowed(actor)).await?;
            Ok(tx.commit().await?)
        };
        let ended = ended.await;
        self.or_refused(actor, "agent_session.end", &target, ended).await
    }

    async fn may_see(&self, actor: &AgentActor, id: Uuid) -> Result<Session> {
        let is_open = actor.level >= Level::Admin || id == actor.session;
        let found = match is_open {
            true => store::session_of(&self.engine, actor.tenant, &actor.agent, id).await?,
            false => None,
        };
        found.ok_or_else(no_such_session)
    }
}

async fn note_begin(
    connection: &mut PgConnection,
    tenant: TenantId,
    asked: &Asked<'_>,
    details: serde_json::Value,
) -> Result<()> {
    let by = ByAgent { agent: asked.agent_name, request_id: Some(asked.request_id) };
    let entry = Entry::new("agent_session.begin", asked.agent_name).with(details);
    audit::record_of_agent(connection, tenant, &by, entry).await
}

/// What a session gets: what is required always, what else it asks for.
fn granted(known: &store::KnownAgent, asked: Option<&[String]>) -> Result<Granted> {
    let all = known.matrix.granted();
    let Some(words) = asked else { return Ok(all) };
    let asked = words.iter().map(|word| word.parse()).collect::<Result<Vec<Permission>>>()?;
    if let Some(denied) = asked.iter().find(|one| !all.contains(**one)) {
        return Err(Error::new(
            Code::Forbidden,
            format!("requested_permissions: this agent may not have {denied}"),
        ));
    }
    let required = known.matrix.permissions().required;
    let wanted: Granted = required.into_iter().chain(asked.iter().copied()).collect();
    Ok(all.and(&wanted))
}

/// A page of the tenant's sessions of agents, newest first, for its admins.
///
/// # Errors
/// The database's.
pub async fn list(
    tx: &mut TenantTx,
    _: &AdminActor,
    filter: &SessionFilter,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Session>> {
    store::list(tx, filter, before, limit).await
}

/// Revokes a session: its token is good for nothing from now on. One that is over stays as it is.
///
/// # Errors
/// 404; the database's.
pub async fn revoke(tx: &mut TenantTx, admin: &AdminActor, id: Uuid) -> Result<()> {
    let Some(agent) = store::revoke(tx, id).await? else { return Err(no_such_session()) };
    let target = id.to_string();
    let entry = Entry::new("agent_session.revoked", &target).with(json!({ "agent": agent }));
    audit::record(tx, admin, entry).await
}

fn wrong() -> Error {
    Error::new(Code::Auth, "the agent, its key or its secret is wrong")
}

fn no_such_session() -> Error {
    Error::not_found("there is no such session")
}
