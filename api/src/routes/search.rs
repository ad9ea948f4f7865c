//! Search over all entities, by words and by meaning [W7].

use axum::{Json as JsonAnswer, extract::State};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use shared::{
    error::Error,
    workspace::search::{self, Found, Meaning, Mode, Query},
};
use utoipa::ToSchema;

use crate::{
    auth::Caller,
    error::{Answer, ErrorBody},
    extract::Parameters,
    state::App,
};

/// The query of GET /v1/search.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SearchQuery {
    /// Words, all of which must occur; `"a phrase"`, `or` between alternatives, `-word` for what must not occur.
    #[param(example = "\"bank holiday\" invoice -draft")]
    q: String,
    /// Kinds to search, separated by commas; all unless given.
    #[param(example = "notes,tasks")]
    kinds: Option<String>,
    /// A state, or `pending`, `completed`, `all`, as lists understand them.
    status: Option<String>,
    /// Also what was archived.
    #[serde(default)]
    include_archived: bool,
    /// How many results at most; 20 unless given.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<usize>,
    /// `nextCursor` of the page before, with the same query; for the mode text.
    cursor: Option<String>,
    /// `text` looks for the words and is the default, `semantic` for what they mean, `hybrid` for both. The latter two
    /// need a model of embeddings, and have one page.
    mode: Option<String>,
}

/// A page of results.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "describes the shape; shared writes it")]
pub(crate) struct SearchPage {
    /// The best first, within the newest matches.
    results: Vec<SearchResult>,
    /// For the next page; null: this was the last.
    next_cursor: Option<String>,
}

/// An item that matches.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "describes the shape; shared writes it")]
pub(crate) struct SearchResult {
    #[schema(example = "note")]
    kind: String,
    uid: uuid::Uuid,
    id: i64,
    /// As it is: not escaped.
    title: Option<String>,
    /// HTML: the text around the matches, escaped, with each match between `<mark>` and `</mark>`.
    #[schema(example = "the <mark>invoice</mark> of March &amp; April")]
    snippet: String,
    /// To be compared within a page only.
    rank: f32,
    status: Option<String>,
    archived: bool,
    parent_uid: Option<uuid::Uuid>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

/// Searches the caller's items, or for an admin the tenant's.
#[utoipa::path(
    get, path = "/v1/search", tag = "workspace", security(("apiKey" = [])), params(SearchQuery),
    responses(
        (status = 200, description = "The results", body = SearchPage),
        (status = 400, description = "A parameter is missing or cannot be read", body = ErrorBody),
        (status = 422, description = "A parameter is not acceptable, or the mode needs a model that is not set up", body = ErrorBody),
        (status = 503, description = "The model of embeddings is not available; the mode text is", body = ErrorBody),
        (status = 504, description = "The model of embeddings took too long; the mode text needs none", body = ErrorBody),
    )
)]
pub(crate) async fn get_search(
    State(app): State<App>,
    Caller(actor): Caller,
    Parameters(query): Parameters<SearchQuery>,
) -> Answer<JsonAnswer<Found>> {
    let kinds = query.kinds.as_deref().unwrap_or_default().split(',').map(str::trim);
    let mode = query.mode.as_deref().map_or(Ok(Mode::Text), Mode::from_word).map_err(Error::from)?;
    // Before the transaction begins, which must not wait for a model.
    let meaning = Meaning::of(app.embedder.as_ref(), mode, &query.q).await?;
    let query = Query {
        text: query.q,
        kinds: kinds.filter(|kind| !kind.is_empty()).map(str::to_owned).collect(),
        status: query.status,
        include_archived: query.include_archived,
        limit: query.limit,
        cursor: query.cursor,
        mode,
        meaning,
    };
    let mut tx = app.tenants.begin(&actor).await?;
    let found = search::search(&mut tx, &query).await?;
    tx.commit().await?;
    Ok(JsonAnswer(found))
}
