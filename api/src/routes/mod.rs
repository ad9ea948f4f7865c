//! One file a resource. Handlers are flat: extract, call, answer.

pub(crate) mod health;
