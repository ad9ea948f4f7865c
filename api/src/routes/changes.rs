//! The change feed [W8]: a stream, or page by page with `?since=`.

use axum::{
    Json as JsonAnswer,
    extract::State,
    response::{IntoResponse as _, Response},
};
use chrono::{DateTime, Utc};
use http::request::Parts;
use serde::Deserialize;
use serde_json::Value;
use shared::{
    db::TenantTx,
    workspace::changes::{self, Cursor, PageQuery},
};
use utoipa::ToSchema;

use crate::{
    auth::{self, Reader},
    changes::ChangeStream,
    error::{Answer, ErrorBody, unreadable},
    extract::parameters,
    headers,
    sse::{self, Opening},
    state::App,
};

/// The query of GET /v1/changes.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChangesQuery {
    /// A cursor that the feed gave, or `now`: answers a page of JSON instead of a stream.
    since: Option<String>,
    /// With `since`: how many changes at most, 1 to 1000; 100 unless given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<i64>,
    /// `items`: each item as it is now comes with its last change of the page.
    #[param(example = "items")]
    include: Option<String>,
    /// As the header Last-Event-ID, for clients that cannot set it.
    last_event_id: Option<String>,
}

/// A page of the change feed.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "describes the shape; shared writes it")]
pub(crate) struct ChangePage {
    /// In the order in which they are told, the same for every reader.
    changes: Vec<ChangeView>,
    /// For the next page; also when there were no changes.
    next_cursor: String,
    /// Whether the next page has changes already.
    more: bool,
}

/// One version of an item.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "describes the shape; shared writes it")]
pub(crate) struct ChangeView {
    /// Goes on after this change.
    cursor: String,
    #[schema(example = "task")]
    kind: String,
    uid: uuid::Uuid,
    version: i64,
    /// created, updated or deleted.
    #[schema(example = "updated")]
    change: String,
    user_id: uuid::Uuid,
    at: DateTime<Utc>,
    /// The item as it is now, with `include=items` and its last change of the page.
    #[schema(value_type = Option<Object>)]
    item: Option<Value>,
}

/// The caller's changes, or for an admin the tenant's: as a stream that goes on until it is closed, or with `since` a page.
#[utoipa::path(
    get, path = "/v1/changes", tag = "workspace", security(("apiKey" = [])),
    params(ChangesQuery, ("Last-Event-ID" = Option<String>, Header, description = "Go on after this event")),
    responses(
        (status = 200, description = "With `since` a page; otherwise events: ready, change, error", content((ChangePage = "application/json"), (String = "text/event-stream"))),
        (status = 400, description = "A cursor or parameter cannot be read", body = ErrorBody),
        (status = 410, description = "What came after the cursor is no longer known: list again", body = ErrorBody),
        (status = 422, description = "The limit is not one", body = ErrorBody),
    )
)]
pub(crate) async fn get_changes(State(app): State<App>, parts: Parts) -> Response {
    auth::note_route(&parts);
    match page(&app, &parts).await {
        Ok(Some(page)) => JsonAnswer(page).into_response(),
        Ok(None) => sse::open(&app, || begin(&app, &parts)).await,
        Err(failure) => failure.into_response(),
    }
}

/// The page that was asked for; none: a stream was.
async fn page(app: &App, parts: &Parts) -> Answer<Option<changes::Page>> {
    let Ok(ChangesQuery { since: Some(_), .. }) = parameters(parts) else { return Ok(None) };
    let actor = app.callers.of(parts).await?;
    let query: ChangesQuery = parameters(parts)?;
    let asked = PageQuery { limit: query.limit.unwrap_or(changes::PAGE), items: items(&query)? };
    let mut tx = app.tenants.begin(&actor).await?;
    let since = cursor(&mut tx, query.since.as_deref()).await?;
    let page = changes::page(&mut tx, &since, asked).await?;
    tx.commit().await?;
    Ok(Some(page))
}

async fn begin(app: &App, parts: &Parts) -> Answer<Opening<ChangeStream>> {
    let actor = app.callers.of(parts).await?;
    let query: ChangesQuery = parameters(parts)?;
    let items = items(&query)?;
    let last = headers::last_event_text(&parts.headers, query.last_event_id.as_deref());
    // Before looking, so that no change can be missed.
    let follower = app.changes.follow(&actor);
    let mut tx = app.tenants.begin(&actor).await?;
    let cursor = cursor(&mut tx, last).await?;
    // A cursor that is gone is refused now, when there is a status to say so with.
    changes::page(&mut tx, &cursor, PageQuery { limit: 1, items: false }).await?;
    tx.commit().await?;
    let reader = Reader::new(app, parts, &actor)?;
    Ok(Opening::Stream(ChangeStream::new(app, reader, follower, cursor, items)))
}

async fn cursor(tx: &mut TenantTx, since: Option<&str>) -> Answer<Cursor> {
    Ok(match since {
        None | Some("now") => changes::now(tx).await?,
        Some(text) => Cursor::read(text)?,
    })
}

fn items(query: &ChangesQuery) -> Answer<bool> {
    match query.include.as_deref() {
        None => Ok(false),
        Some("items") => Ok(true),
        Some(_) => Err(unreadable("include: takes `items`")),
    }
}
