//! Identifiers as types: a tenant's id cannot be handed where a turn's is wanted.
//!
//! Uuids that name rows made over time are version 7, so that they sort by age and index well.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! uuid_ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, sqlx::Type)]
        #[serde(transparent)]
        #[sqlx(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id, later than every id made before it on this machine.
            #[must_use]
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    )*};
}

uuid_ids! {
    /// A customer of the deployment: everything that row-level security keeps apart.
    TenantId;
    /// A person, deployment-wide; membership ties them to tenants.
    UserId;
    /// An API key's row.
    ApiKeyId;
    /// One sign-in of a user, from login to logout; its tokens come and go.
    SignInId;
    /// A user's session, bound to one conversation.
    SessionId;
    /// A chat turn; to clients it is the job's id.
    TurnId;
    /// An item of the workspace, whatever its kind.
    ItemUid;
    /// One call to a model that was sent.
    ModelCallId;
    /// A person's account at another service.
    ConnectionId;
    /// A process that runs turns, new at every start.
    ProcessId;
}

/// A conversation: the short integer id of its chat, unique within the tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, sqlx::Type)]
#[serde(transparent)]
#[sqlx(transparent)]
pub struct ConversationId(pub i64);

impl std::fmt::Display for ConversationId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
