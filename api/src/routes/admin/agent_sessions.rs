//! Sessions of agents, for a tenant's admins: who is in, and putting out.

use axum::{
    Json as JsonAnswer,
    extract::{Path, State},
};
use http::StatusCode;
use serde::Deserialize;
use shared::{
    agents::side::{self, SessionFilter},
    error::Error,
};
use utoipa::IntoParams;
use uuid::Uuid;

use super::tenants::Page;
use crate::{
    auth::Admin,
    error::{Answer, ErrorBody},
    extract::Parameters,
    routes::agents::AgentSessionList,
    state::App,
};

/// Which sessions.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SessionsQuery {
    /// Of this agent.
    agent: Option<String>,
    /// Only those that are good now.
    #[serde(default)]
    live: bool,
}

/// Lists sessions of the tenant's agents, newest first.
#[utoipa::path(
    get, path = "/admin/sessions", tag = "agents", security(("apiKey" = [])), params(SessionsQuery, Page),
    responses(
        (status = 200, description = "A page of sessions", body = AgentSessionList),
        (status = 400, description = "An unreadable parameter", body = ErrorBody),
        (status = 404, description = "There is no such agent", body = ErrorBody),
    )
)]
pub(crate) async fn list_agent_sessions(
    State(app): State<App>,
    Admin(admin): Admin,
    Parameters(query): Parameters<SessionsQuery>,
    Parameters(page): Parameters<Page>,
) -> Answer<JsonAnswer<AgentSessionList>> {
    let (limit, before) = page.read()?;
    let agent = query.agent.as_deref().map(super::agents::named).transpose()?;
    let filter = SessionFilter { agent, live: query.live };
    let mut tx = app.tenants.begin(admin.actor()).await?;
    let sessions = side::list(&mut tx, &admin, &filter, before, limit).await?;
    tx.commit().await?;
    Ok(JsonAnswer(AgentSessionList::new(limit, sessions)))
}

/// Revokes a session of an agent: its token is good for nothing from now on.
#[utoipa::path(
    delete, path = "/admin/sessions/{id}", tag = "agents", security(("apiKey" = [])),
    params(("id" = Uuid, Path, description = "The session's id")),
    responses(
        (status = 204, description = "It is over"),
        (status = 404, description = "There is no such session", body = ErrorBody),
    )
)]
pub(crate) async fn delete_agent_session(
    State(app): State<App>,
    Admin(admin): Admin,
    Path(id): Path<String>,
) -> Answer<StatusCode> {
    let id = Uuid::parse_str(&id).map_err(|_| Error::not_found("there is no such session"))?;
    let mut tx = app.tenants.begin(admin.actor()).await?;
    side::revoke(&mut tx, &admin, id).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
