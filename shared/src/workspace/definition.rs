//! What an entity is, typed ([`Entity`], one file each) and erased ([`EntityDef`], what everything else works on).

use chrono::{DateTime, Utc};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{
    payload,
    schema::{self, Problem},
};
use crate::{
    error::{Error, Result},
    identity::Actor,
    ids::ItemUid,
};

/// A kind of item. The implementing struct is the payload: its serde form is what is stored, its schema what is
/// checked, and a flattened map keeps the fields that it does not know.
pub trait Entity: Serialize + DeserializeOwned + JsonSchema + 'static {
    /// As in the table, in short-id counters and in tool names.
    const KIND: &'static str;
    /// As in URLs and in the names of list tools.
    const PLURAL: &'static str;
    /// What `process` may be asked to do.
    const ACTIONS: &'static [&'static str];
    /// The words that a list's status filter understands beside `all`; none: the entity has no status.
    const STATUSES: &'static [StatusFilter] = &[];
    /// A further name for the `id` argument of its tools.
    const ID_ARGUMENT: Option<&'static str> = None;

    /// How it hangs on another item, if it does.
    const PARENT: Option<ParentRule> = None;
    /// Whether an item of this kind is also a conversation that turns can use, under the same short id.
    const IS_CONVERSATION: bool = false;

    /// Fills in what the payload leaves to the caller's identity.
    fn complete(&mut self, _actor: &Actor) {}

    /// What the schema cannot say.
    ///
    /// # Errors
    /// The field that is wrong.
    fn check(&self) -> Result<(), Problem> {
        Ok(())
    }

    /// The columns that lists filter by.
    fn projection(&self) -> Projection;

    /// Carries out one of [`Entity::ACTIONS`].
    ///
    /// # Errors
    /// The state that does not allow it, as in "the task is …".
    fn act(&mut self, action: &str) -> Result<(), String>;

    /// Moves the item out of lists; an archived one stays as it is.
    fn archive(&mut self);
}

/// A word of a list's status filter, and the stored states that it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusFilter {
    /// The word.
    pub word: &'static str,
    /// The states.
    pub states: &'static [&'static str],
    /// Whether these are states of archived items, which a list otherwise leaves out.
    pub archived: bool,
}

/// How items of a kind hang on others. An item belongs to whom its parent belongs to, whoever made it, and stays with
/// that parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParentRule {
    /// The payload's field that names the parent's uid.
    pub field: &'static str,
    /// What the two have to do with each other.
    pub bond: Bond,
}

/// What an item has to do with its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bond {
    /// It is about the parent, and lives on when that is deleted.
    About,
    /// It is a part of the parent: hidden when that is deleted, at a position within it, and a new one moves the
    /// parent's `updatedAt`.
    PartOf {
        /// The one kind that parents are of.
        kind: &'static str,
    },
}

impl ParentRule {
    /// The kind of parent whose deletion also hides the item.
    pub(super) fn hides_with(self) -> Option<&'static str> {
        match self.bond {
            Bond::About => None,
            Bond::PartOf { kind } => Some(kind),
        }
    }
}

/// The item that another hangs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    /// Its kind.
    pub kind: &'static str,
    /// Its uid.
    pub uid: ItemUid,
}

/// Plain columns beside the payload: row-level security lets only leakproof operators use an index, and those of
/// jsonb are not.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Projection {
    /// The entity's state, if it has states.
    pub status: Option<&'static str>,
    /// The item that this one hangs on.
    pub parent: Option<Parent>,
    /// When it is due.
    pub due_at: Option<DateTime<Utc>>,
    /// Whether it is pinned, if it can be.
    pub pinned: Option<bool>,
    /// Whether lists leave it out.
    pub archived: bool,
}

/// A checked payload, ready to be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// The payload as JSON text.
    pub text: String,
    /// Its columns.
    pub projection: Projection,
}

/// What became of an action.
#[derive(Debug, Clone, PartialEq)]
pub enum Acted {
    /// The changed payload.
    Changed(Prepared),
    /// The item was in that state before; nothing to store.
    AlreadySo,
    /// The state does not allow it: the rest of a sentence that begins with "the task is".
    Refused(String),
}

/// An entity without its type.
pub struct EntityDef {
    /// See [`Entity::KIND`].
    pub kind: &'static str,
    /// See [`Entity::PLURAL`].
    pub plural: &'static str,
    /// One sentence on what it is, for models and people.
    pub description: String,
    /// JSON Schema (2020-12) of the payload, without references.
    pub schema: Value,
    /// The fields that a payload must have.
    pub required: Vec<String>,
    /// See [`Entity::ACTIONS`].
    pub actions: &'static [&'static str],
    /// See [`Entity::STATUSES`].
    pub statuses: &'static [StatusFilter],
    /// See [`Entity::ID_ARGUMENT`].
    pub id_argument: Option<&'static str>,
    /// See [`Entity::PARENT`].
    pub parent: Option<ParentRule>,
    /// See [`Entity::IS_CONVERSATION`].
    pub is_conversation: bool,
    prepare: fn(Map<String, Value>, &Actor) -> Result<Prepared>,
    projection: fn(Map<String, Value>) -> Result<Projection>,
    act: fn(Map<String, Value>, &str) -> Result<Acted>,
    archive: fn(Map<String, Value>) -> Result<Acted>,
}

impl EntityDef {
    /// Erases an entity.
    #[must_use]
    pub fn of<T: Entity>() -> Self {
        let settings = SchemaSettings::draft2020_12().with(|settings| {
            settings.inline_subschemas = true;
            settings.meta_schema = None;
        });
        let schema = settings.into_generator().into_root_schema_for::<T>().to_value();
        let required = schema["required"].as_array().into_iter().flatten();
        Self {
            kind: T::KIND,
            plural: T::PLURAL,
            description: schema["description"].as_str().unwrap_or_default().to_owned(),
            required: required.filter_map(Value::as_str).map(str::to_owned).collect(),
            schema,
            actions: T::ACTIONS,
            statuses: T::STATUSES,
            id_argument: T::ID_ARGUMENT,
            parent: T::PARENT,
            is_conversation: T::IS_CONVERSATION,
            prepare: prepare::<T>,
            projection: projection::<T>,
            act: act::<T>,
            archive: archive::<T>,
        }
    }

    /// The schema of one field, if the entity knows the field.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.schema["properties"].get(name)
    }

    /// The known fields by name, with their schemas.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.schema["properties"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, field)| (name.as_str(), field))
    }

    /// Cleans, checks and completes a payload.
    ///
    /// # Errors
    /// 422 naming the field, 413 when it is too large.
    pub fn prepare(&self, mut payload: Map<String, Value>, actor: &Actor) -> Result<Prepared> {
        payload::clean_object(&mut payload);
        // A known field that is null is one that was not given.
        payload.retain(|name, value| !value.is_null() || self.field(name).is_none());
        schema::check_object(&self.schema, &payload)?;
        (self.prepare)(payload, actor)
    }

    /// The columns of a stored payload.
    ///
    /// # Errors
    /// When the payload is not one of this entity.
    pub fn projection(&self, stored: Map<String, Value>) -> Result<Projection> {
        (self.projection)(stored)
    }

    /// Carries out an action on a stored payload.
    ///
    /// # Errors
    /// 422 for an action that the entity does not have.
    pub fn act(&self, stored: Map<String, Value>, action: &str) -> Result<Acted> {
        if self.actions.contains(&action) {
            return (self.act)(stored, action);
        }
        Err(Problem::new("action", format!("must be one of {}", self.actions.join(", "))).into())
    }

    /// Archives a stored payload.
    ///
    /// # Errors
    /// When the payload is not one of this entity.
    pub fn archive(&self, stored: Map<String, Value>) -> Result<Acted> {
        (self.archive)(stored)
    }
}

fn prepare<T: Entity>(payload: Map<String, Value>, actor: &Actor) -> Result<Prepared> {
    // The schema was checked before, so that what fails here is a schema that says less than its type.
    let mut entity: T = serde_json::from_value(Value::Object(payload))
        .map_err(|error| Error::unacceptable(format!("the {} is not acceptable: {error}", T::KIND)))?;
    entity.complete(actor);
    entity.check()?;
    finish(&entity)
}

fn projection<T: Entity>(stored: Map<String, Value>) -> Result<Projection> {
    let entity: T = serde_json::from_value(Value::Object(stored))?;
    Ok(entity.projection())
}

fn act<T: Entity>(stored: Map<String, Value>, action: &str) -> Result<Acted> {
    let mut entity: T = serde_json::from_value(Value::Object(stored))?;
    match entity.act(action) {
        Ok(()) => finish(&entity).map(Acted::Changed),
        Err(state) => Ok(Acted::Refused(state)),
    }
}

fn archive<T: Entity>(stored: Map<String, Value>) -> Result<Acted> {
    let mut entity: T = serde_json::from_value(Value::Object(stored))?;
    if entity.projection().archived {
        return Ok(Acted::AlreadySo);
    }
    entity.archive();
    finish(&entity).map(Acted::Changed)
}

fn finish<T: Entity>(entity: &T) -> Result<Prepared> {
    let Value::Object(payload) = serde_json::to_value(entity)? else {
        return Err(Error::internal("an entity must serialise to an object"));
    };
    Ok(Prepared { text: payload::text(&payload)?, projection: entity.projection() })
}
