//! Requests that may be repeated: a client's key names one request of its user on one route for 24 hours.
//!
//! The key is claimed by the first statement of the transaction that does the work, so that of many at once one does it
//! and the others wait for its commit. A request that is refused stores nothing and leaves its key free.

mod store;

use crate::{
    db::TenantTx,
    error::{Error, Result},
};

/// A client's key for a request that may be repeated.
#[derive(Debug, Clone)]
pub struct IdempotencyKey {
    /// The route, without ids that the body's hash does not cover.
    pub route: String,
    /// As the client sent it.
    pub key: String,
    /// Of the canonical body.
    pub body_hash: [u8; 32],
}

/// Claims a key for the work of this transaction. Some: the work was done before, and this was its answer.
///
/// # Errors
/// 409 when the key was used with another body, or by a request that is just being rolled back.
pub async fn claim(tx: &mut TenantTx, key: &IdempotencyKey) -> Result<Option<String>> {
    if store::claim(tx, key).await? {
        return Ok(None);
    }
    match store::answer(tx, key).await? {
        Some((hash, _)) if hash != key.body_hash => {
            Err(Error::conflict("this Idempotency-Key was used with another body"))
        }
        Some((_, Some(answer))) => Ok(Some(answer)),
        _ => Err(Error::conflict("a request with this Idempotency-Key just failed; send it again")),
    }
}

/// Keeps the answer of the work that a claimed key names.
///
/// # Errors
/// The database's.
pub async fn keep(tx: &mut TenantTx, key: &IdempotencyKey, answer: &str) -> Result<()> {
    store::keep(tx, key, answer).await
}
