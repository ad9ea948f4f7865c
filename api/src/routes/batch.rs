//! Many operations in one transaction [W6].

use axum::{Json as JsonAnswer, extract::State};
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::workspace::batch::{self, Done, Operation};
use utoipa::ToSchema;

use crate::{
    auth::Caller,
    error::{Answer, ErrorBody},
    extract::Json,
    headers::idempotency,
    state::App,
};

/// The body of POST /v1/batch.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BatchBody {
    /// 1 to 500, carried out in this order.
    #[schema(value_type = Vec<OperationView>)]
    operations: Vec<Operation>,
}

/// One operation.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "describes the shape; shared reads it")]
pub(crate) struct OperationView {
    /// create, update, patch, delete, archive or process.
    #[schema(example = "create")]
    op: String,
    /// The entity, in either number.
    #[schema(example = "task")]
    entity: String,
    /// Which item; `$N` is the one that operation N (from 0) made. Not of create.
    #[schema(example = "$0")]
    uid: Option<String>,
    /// Its short id, instead of uid.
    id: Option<i64>,
    /// The version that it must still have.
    if_match: Option<i64>,
    /// Of create, update and patch. `$N` in a field that names an item is the one that operation N made.
    #[schema(value_type = Option<Object>)]
    payload: Option<Value>,
    /// Of process.
    action: Option<String>,
    /// Of process.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
}

/// What became of the operations.
#[derive(Serialize, ToSchema)]
pub(crate) struct BatchResults {
    /// One an operation, in order.
    #[schema(value_type = Vec<DoneView>)]
    results: Vec<Done>,
}

/// What became of one operation.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the shape; shared writes it")]
pub(crate) struct DoneView {
    /// Its place, from 0.
    index: i64,
    op: String,
    #[schema(example = "task")]
    kind: String,
    /// The item after it.
    #[schema(value_type = Object)]
    item: Value,
}

/// Carries out all operations or none of them. The error of the one that failed is answered, with its place as `index`.
#[utoipa::path(
    post, path = "/v1/batch", tag = "workspace", security(("apiKey" = [])), request_body = BatchBody,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key and body are carried out once, and answered the same for 24 hours")),
    responses(
        (status = 200, description = "All were carried out", body = BatchResults),
        (status = 400, description = "The body or a header cannot be read", body = ErrorBody),
        (status = 404, description = "There is no such item; nothing was carried out", body = ErrorBody),
        (status = 409, description = "An item's state does not allow it, or the key was used with another body; nothing was carried out", body = ErrorBody),
        (status = 410, description = "An item was deleted; nothing was carried out", body = ErrorBody),
        (status = 412, description = "An item has another version; nothing was carried out", body = ErrorBody),
        (status = 413, description = "The body or a payload is too large", body = ErrorBody),
        (status = 422, description = "An operation is not acceptable; nothing was carried out", body = ErrorBody),
    )
)]
pub(crate) async fn post_batch(
    State(app): State<App>,
    Caller(actor): Caller,
    headers: HeaderMap,
    Json(body): Json<BatchBody>,
) -> Answer<JsonAnswer<BatchResults>> {
    let key = idempotency(&headers, "/v1/batch", &body)?;
    let results = batch::commit(&app.tenants, &actor, key.as_ref(), &body.operations).await?;
    Ok(JsonAnswer(BatchResults { results }))
}
