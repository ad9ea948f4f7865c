//! What agents read and change of users, and what they acknowledge.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{AgentActor, AgentSide, allowed, note, store};
use crate::{
    agents::{
        contexts::{self, Change, ChangedBy, Context},
        permissions::{Granted, Part},
    },
    db,
    error::{Error, Result},
    identity::Actor,
    ids::UserId,
};

/// What an agent sees of a user.
#[derive(Debug, Clone)]
pub struct SeenContext {
    pub user: UserId,
    pub email: Option<String>,
    pub version: i64,
    pub updated_at: Option<DateTime<Utc>>,
    /// The parts that it may see, by name.
    pub parts: Map<String, Value>,
}

/// An event that an agent has dealt with.
#[derive(Debug, Clone, Copy)]
pub struct Acknowledged {
    pub event: Uuid,
    /// When it said so first.
    pub at: DateTime<Utc>,
}

impl AgentSide {
    /// What the agent may see of a user.
    ///
    /// # Errors
    /// 404 for somebody who is not of the agent's tenant; the database's.
    pub async fn read_context(&self, actor: &AgentActor, user: UserId) -> Result<SeenContext> {
        let seen = async {
            self.must_know(actor, user).await?;
            let mut tx = self.tenants.begin(&Actor::served_by_agent(actor.tenant, user)).await?;
            let context = contexts::get(&mut tx).await?;
            tx.commit().await?;
            self.seen(actor, &context).await
        };
        let seen = seen.await;
        self.decided(actor, "context.read", &user.to_string(), seen).await
    }

    /// Changes what the agent may change of a user; answers what it sees then, and the context when it is a new one, of which
    /// the caller tells the other processes.
    ///
    /// # Errors
    /// 403 for a part that it may not change, whatever is there; 404, 412 and 422 as for the user's own changes; the
    /// database's.
    pub async fn change_context(
        &self,
        actor: &AgentActor,
        user: UserId,
        changes: Map<String, Value>,
        if_match: Option<i64>,
    ) -> Result<(SeenContext, Option<Context>)> {
        let changed = self.try_to_change(actor, user, changes, if_match).await;
        self.or_refused(actor, "context.change", &user.to_string(), changed).await
    }

    async fn try_to_change(
        &self,
        actor: &AgentActor,
        user: UserId,
        changes: Map<String, Value>,
        if_match: Option<i64>,
    ) -> Result<(SeenContext, Option<Context>)> {
        self.must_know(actor, user).await?;
        let mut tx = self.tenants.begin(&Actor::served_by_agent(actor.tenant, user)).await?;
        let by = ChangedBy::Agent(actor.agent.as_str(), &actor.granted);
        let changed =
            contexts::change(&mut tx, by, Change::Merge(changes), if_match, &actor.request_id).await?;
        let target = user.to_string();
        if !changed.is_new {
            tx.rollback().await?;
            let mut connection = self.engine.acquire().await?;
            note(&mut connection, actor, "context.change", &target, allowed(actor)).await?;
            return Ok((self.seen(actor, &changed.context).await?, None));
        }
        let mut details = allowed(actor);
        details["version"] = json!(changed.context.version);
        note(tx.connection(), actor, "context.change", &target, details).await?;
        tx.commit().await?;
        Ok((self.seen(actor, &changed.context).await?, Some(changed.context)))
    }

    /// Notes that the agent has dealt with an event; doing so again changes nothing. An event whose delivery we took for
    /// failed is delivered by that.
    ///
    /// # Errors
    /// 404 for an event that was not for this agent; the database's.
    pub async fn acknowledge(&self, actor: &AgentActor, event: Uuid) -> Result<Acknowledged> {
        let target = event.to_string();
        let noted = async {
            let mut tx = db::begin(&self.engine).await?;
            let at = store::acknowledge(&mut tx, actor.tenant, &actor.agent, event).await?;
            let at = at.ok_or_else(|| Error::not_found("this agent has no such event"))?;
            note(&mut tx, actor, "event.acknowledge", &target, allowed(actor)).await?;
            tx.commit().await?;
            Ok(Acknowledged { event, at })
        };
        let noted = noted.await;
        self.or_refused(actor, "event.acknowledge", &target, noted).await
    }

    async fn must_know(&self, actor: &AgentActor, user: UserId) -> Result<()> {
        match store::knows(&self.engine, actor.tenant, user, self.settings.default_tenant).await? {
            true => Ok(()),
            false => Err(Error::not_found("the tenant has no such user")),
        }
    }

    async fn seen(&self, actor: &AgentActor, context: &Context) -> Result<SeenContext> {
        let agent = actor.agent.as_str();
        let mut parts = context.document.seen_by(agent, actor.granted.clone());
        if self.sees_session(actor, context).reads(Part::Session) {
            let sign_in = contexts::newest_sign_in(&self.engine, context.user).await?;
            parts.insert("is_active".to_owned(), json!(sign_in.is_some()));
            parts.insert("session_id".to_owned(), json!(sign_in));
        }
        Ok(SeenContext {
            user: context.user,
            email: context.email.clone(),
            version: context.version,
            updated_at: context.updated_at,
            parts,
        })
    }

    fn sees_session(&self, actor: &AgentActor, context: &Context) -> Granted {
        actor.granted.clone().narrowed(context.document.level_of(actor.agent.as_str()))
    }
}
