//! What clients wrote while they were away [W8].

use axum::{Json as JsonAnswer, extract::State};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::workspace::push::{self, Pushed};
use utoipa::ToSchema;

use crate::{
    auth::Caller,
    error::{Answer, ErrorBody},
    extract::Json,
    state::App,
};

/// The body of POST /v1/sync/push.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PushBody {
    /// 1 to 500.
    #[schema(value_type = Vec<PushedView>)]
    items: Vec<Pushed>,
}

/// An item as the client has it.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "describes the shape; shared reads it")]
pub(crate) struct PushedView {
    /// The entity, in either number.
    #[schema(example = "note")]
    entity: String,
    /// Of a new item: a UUIDv7 that the client made.
    uid: uuid::Uuid,
    /// When the client wrote it; at most a minute ahead of the server's clock.
    updated_ts: DateTime<Utc>,
    /// Whether the client deleted it.
    deleted: Option<bool>,
    /// The whole payload; not needed of a deleted item.
    #[schema(value_type = Option<Object>)]
    payload: Option<Value>,
}

/// What became of the items.
#[derive(Serialize, ToSchema)]
pub(crate) struct PushResults {
    /// One an item, in order.
    #[schema(value_type = Vec<PushResult>)]
    results: Vec<push::Answer>,
}

/// What became of one item.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the shape; shared writes it")]
pub(crate) struct PushResult {
    /// Its place, from 0.
    index: i64,
    uid: uuid::Uuid,
    /// created, updated, deleted, unchanged, superseded (`item` was written later: take it) or refused.
    #[schema(example = "updated")]
    outcome: String,
    /// The item as it is now.
    #[schema(value_type = Option<Object>)]
    item: Option<Value>,
    /// Why it was refused: error and message.
    #[schema(value_type = Option<Object>)]
    error: Option<Value>,
}

/// Takes over what a client wrote, item by item: the later `updatedTs` wins. The same push again changes nothing.
#[utoipa::path(
    post, path = "/v1/sync/push", tag = "workspace", security(("apiKey" = [])), request_body = PushBody,
    responses(
        (status = 200, description = "What became of each item", body = PushResults),
        (status = 400, description = "The body cannot be read", body = ErrorBody),
        (status = 422, description = "The body is not acceptable", body = ErrorBody),
    )
)]
pub(crate) async fn post_push(
    State(app): State<App>,
    Caller(actor): Caller,
    Json(body): Json<PushBody>,
) -> Answer<JsonAnswer<PushResults>> {
    let mut tx = app.tenants.begin(&actor).await?;
    let results = push::push(&mut tx, body.items).await?;
    tx.commit().await?;
    Ok(JsonAnswer(PushResults { results }))
}
