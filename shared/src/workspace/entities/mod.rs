//! The kinds of items. A further one is one more file, one more line here, and one more partition.

mod chat;
mod chat_message;
mod comment;
mod note;
mod task;

use std::sync::LazyLock;

pub use chat::Chat;
pub use chat_message::{ChatMessage, MessageToolCall, Speaker};
pub use comment::{Comment, ParentType};
pub use note::Note;
pub use task::{Priority, Status, Task};

use super::EntityDef;

/// Every entity, sorted by kind.
pub static ENTITIES: LazyLock<[EntityDef; 5]> = LazyLock::new(|| {
    [
        EntityDef::of::<Chat>(),
        EntityDef::of::<ChatMessage>(),
        EntityDef::of::<Comment>(),
        EntityDef::of::<Note>(),
        EntityDef::of::<Task>(),
    ]
});

/// The entity of this kind.
#[must_use]
pub fn definition(kind: &str) -> Option<&'static EntityDef> {
    ENTITIES.iter().find(|def| def.kind == kind)
}
