//! The workspace over REST: eight routes for every entity of a list, with one set of handlers. `describe` walks the same
//! list for the OpenAPI document.

mod describe;
mod request;

use axum::{
    Json as JsonAnswer, Router,
    extract::State,
    routing::{get, post},
};
use http::{HeaderMap, HeaderName, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use shared::{
    error::Result,
    idempotency::{self, IdempotencyKey},
    identity::Actor,
    workspace::{
        EntityDef,
        items::{self, Item, Page, Target},
    },
};

pub(crate) use self::describe::describe;
use self::request::{ItemOfPath, Query};
use crate::{
    auth::Caller,
    error::Answer,
    extract::Json,
    headers::{idempotency, if_match},
    state::App,
};

type Def = &'static EntityDef;
type Payload = Map<String, Value>;
/// An item with its version as the entity tag.
type Tagged = ([(HeaderName, String); 1], JsonAnswer<Item>);
/// An item that was just made, with its place.
type Made = (StatusCode, [(HeaderName, String); 2], JsonAnswer<Item>);

/// The routes of these entities.
pub(crate) fn router(entities: &'static [EntityDef]) -> Router<App> {
    entities.iter().fold(Router::new(), |router, def| {
        let all = format!("/v1/{}", def.plural);
        let one = format!("{all}/{{id}}");
        router
            .route(
                &all,
                get(move |app: State<App>, caller: Caller, query: Query| list(def, app, caller, query)).post(
                    move |app: State<App>, caller: Caller, headers: HeaderMap, body: Json<Payload>| {
                        create(def, app, caller, headers, body)
                    },
                ),
            )
            .route(
                &one,
                get(move |app: State<App>, caller: Caller, item: ItemOfPath, query: Query| {
                    read(def, app, caller, item, query)
                })
                .put(
                    move |app: State<App>,
                          caller: Caller,
                          item: ItemOfPath,
                          headers: HeaderMap,
                          body: Json<Payload>| {
                        write(def, app, caller, item, headers, Write::Update(body.0))
                    },
                )
                .patch(
                    move |app: State<App>,
                          caller: Caller,
                          item: ItemOfPath,
                          headers: HeaderMap,
                          body: Json<Payload>| {
                        write(def, app, caller, item, headers, Write::Patch(body.0))
                    },
                )
                .delete(
                    move |app: State<App>, caller: Caller, item: ItemOfPath, headers: HeaderMap| {
                        write(def, app, caller, item, headers, Write::Delete)
                    },
                ),
            )
            .route(
                &format!("{one}/archive"),
                post(move |app: State<App>, caller: Caller, item: ItemOfPath, headers: HeaderMap| {
                    write(def, app, caller, item, headers, Write::Archive)
                }),
            )
            .route(
                &format!("{one}/process"),
                post(
                    move |app: State<App>,
                          caller: Caller,
                          item: ItemOfPath,
                          headers: HeaderMap,
                          body: Json<Process>| {
                        write(def, app, caller, item, headers, Write::Process(body.0))
                    },
                ),
            )
    })
}

/// The body of a process route.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Process {
    action: String,
    #[serde(default)]
    metadata: Option<Payload>,
}

/// What is done to one item.
#[derive(Debug, Serialize)]
enum Write {
    Update(Payload),
    Patch(Payload),
    Delete,
    Archive,
    Process(Process),
}

impl Write {
    /// The routes that are POSTs take an idempotency key; the others are idempotent as they are.
    fn route(&self) -> Option<&'static str> {
        match self {
            Self::Archive => Some("archive"),
            Self::Process(_) => Some("process"),
            Self::Update(_) | Self::Patch(_) | Self::Delete => None,
        }
    }
}

async fn list(
    def: Def,
    State(app): State<App>,
    Caller(actor): Caller,
    query: Query,
) -> Answer<JsonAnswer<Page>> {
    let query = query.of_list(def)?;
    let mut tx = app.tenants.begin(&actor).await?;
    let page = items::list(&mut tx, def, &query).await?;
    tx.commit().await?;
    Ok(JsonAnswer(page))
}

async fn read(
    def: Def,
    State(app): State<App>,
    Caller(actor): Caller,
    item: ItemOfPath,
    query: Query,
) -> Answer<Tagged> {
    let (item, deleted) = (item.of(def)?, query.include_deleted()?);
    let mut tx = app.tenants.begin(&actor).await?;
    let item = if deleted {
        items::get_even_deleted(&mut tx, def, item).await?
    } else {
        items::get(&mut tx, def, item).await?
    };
    tx.commit().await?;
    Ok(tagged(item))
}

async fn create(
    def: Def,
    State(app): State<App>,
    Caller(actor): Caller,
    headers: HeaderMap,
    Json(payload): Json<Payload>,
) -> Answer<Made> {
    let key = idempotency(&headers, &format!("/v1/{}", def.plural), &payload)?;
    let item = once(&app, &actor, key, Work::Create(def, payload)).await?;
    let location = (header::LOCATION, format!("/v1/{}/{}", def.plural, item.uid));
    Ok((StatusCode::CREATED, [location, etag(&item)], JsonAnswer(item)))
}

async fn write(
    def: Def,
    State(app): State<App>,
    Caller(actor): Caller,
    item: ItemOfPath,
    headers: HeaderMap,
    write: Write,
) -> Answer<Tagged> {
    let target = Target { item: item.of(def)?, if_match: if_match(&headers)? };
    let key = match write.route() {
        Some(route) => {
            let asked = (target.item.to_string(), target.if_match, &write);
            idempotency(&headers, &format!("/v1/{}/{{id}}/{route}", def.plural), &asked)?
        }
        None => None,
    };
    Ok(tagged(once(&app, &actor, key, Work::Write(def, target, write)).await?))
}

/// One transaction's work.
enum Work {
    Create(Def, Payload),
    Write(Def, Target, Write),
}

/// Does the work, or answers what it answered when it was done before under the same key.
async fn once(app: &App, actor: &Actor, key: Option<IdempotencyKey>, work: Work) -> Result<Item> {
    let mut tx = app.tenants.begin(actor).await?;
    if let Some(key) = &key
        && let Some(answer) = idempotency::claim(&mut tx, key).await?
    {
        tx.rollback().await?;
        return Ok(serde_json::from_str(&answer)?);
    }
    let item = match work {
        Work::Create(def, payload) => items::create(&mut tx, def, payload).await,
        Work::Write(def, target, write) => match write {
            Write::Update(payload) => items::update(&mut tx, def, target, payload).await,
            Write::Patch(changes) => items::patch(&mut tx, def, target, changes).await,
            Write::Delete => items::delete(&mut tx, def, target).await,
            Write::Archive => items::archive(&mut tx, def, target).await,
            Write::Process(Process { action, metadata }) => {
                items::process_with(&mut tx, def, target, &action, metadata.unwrap_or_default()).await
            }
        },
    };
    // An operation that was refused has written nothing, but its key has been claimed.
    let item = match item {
        Ok(item) => item,
        Err(error) => {
            tx.rollback().await?;
            return Err(error);
        }
    };
    if let Some(key) = &key {
        idempotency::keep(&mut tx, key, &serde_json::to_string(&item)?).await?;
    }
    tx.commit().await?;
    Ok(item)
}

fn tagged(item: Item) -> Tagged {
    ([etag(&item)], JsonAnswer(item))
}

fn etag(item: &Item) -> (HeaderName, String) {
    (header::ETAG, format!("\"{}\"", item.version))
}
