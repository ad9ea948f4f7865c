//! What requests on items say: the item of the path, the parameters of the query.

use std::collections::BTreeMap;

use axum::extract::{FromRequestParts, Path};
use http::request::Parts;
use serde::Deserialize;
use shared::{
    error::Error,
    ids::ItemUid,
    workspace::{
        EntityDef,
        items::{ItemRef, ListQuery},
    },
};

use crate::{
    error::{Answer, Failure, unreadable},
    extract::parameters,
    state::App,
};

/// The item that the path names, by its uid or its short id.
pub(super) struct ItemOfPath(String);

impl FromRequestParts<App> for ItemOfPath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        #[derive(Deserialize)]
        struct Id {
            id: String,
        }
        match Path::<Id>::from_request_parts(parts, app).await {
            Ok(Path(Id { id })) => Ok(Self(id)),
            // Not UTF-8: no item has such a name.
            Err(_) => Ok(Self("\u{fffd}".to_owned())),
        }
    }
}

impl ItemOfPath {
    /// What is neither a uid nor a number names no item.
    pub(super) fn of(&self, def: &EntityDef) -> Answer<ItemRef> {
        ItemRef::parse(&self.0).ok_or_else(|| {
            let kind = def.kind.replace('_', " ");
            Error::not_found(format!("there is no {kind} of this name; a uid or a short id names one")).into()
        })
    }
}

/// The parameters of a query, not yet read.
pub(super) struct Query(BTreeMap<String, String>);

impl FromRequestParts<App> for Query {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Failure> {
        parameters(parts).map(Self)
    }
}

impl Query {
    /// The query of a list.
    pub(super) fn of_list(mut self, def: &EntityDef) -> Answer<ListQuery> {
        let limit = self.take("limit").map(|text| text.parse().map_err(|_| wrong("limit", "a whole number")));
        let query = ListQuery {
            limit: limit.transpose()?,
            cursor: self.take("cursor"),
            status: self.take("status"),
            include_deleted: self.flag("includeDeleted")?,
            include_archived: self.flag("includeArchived")?,
            parent: match def.parent {
                Some(rule) => {
                    let parent = self.take(rule.field).map(|text| text.parse::<ItemUid>());
                    parent.transpose().map_err(|_| wrong(rule.field, "a uid"))?
                }
                None => None,
            },
        };
        self.end()?;
        Ok(query)
    }

    /// The query of a single item.
    pub(super) fn include_deleted(mut self) -> Answer<bool> {
        let deleted = self.flag("includeDeleted")?;
        self.end()?;
        Ok(deleted)
    }

    fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    fn flag(&mut self, name: &'static str) -> Answer<bool> {
        match self.take(name).as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(wrong(name, "true or false")),
        }
    }

    fn end(self) -> Answer<()> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(unreadable(format!("the query has no parameter {name}"))),
        }
    }
}

fn wrong(name: &str, wanted: &str) -> Failure {
    unreadable(format!("{name}: must be {wanted}"))
}
