//! Two tenants with people in them, over a database of their own.

use std::sync::Arc;

use secrecy::SecretString;
use serde_json::{Map, Value, json};
use shared::{
    counters::Counters,
    db::{self, DbRole, TenantDb, TenantTx},
    identity::{Actor, Role, Scopes, development},
    ids::{TenantId, UserId},
    testing::TestDb,
    workspace::{
        EntityDef,
        items::{self, Item, ListQuery},
    },
};
use uuid::Uuid;

/// Everything a test of the workspace needs.
pub(crate) struct World {
    /// The way to items.
    pub(crate) db: TenantDb,
    /// A member of the first tenant.
    pub(crate) ann: Actor,
    /// Another member of it.
    pub(crate) bob: Actor,
    /// Its admin.
    pub(crate) admin: Actor,
    /// The admin of the second tenant.
    pub(crate) stranger: Actor,
    // Dropped last, with its database.
    _database: TestDb,
}

impl World {
    pub(crate) async fn new() -> Self {
        let database = TestDb::new().await;
        let (here, there) = (TenantId::generate(), TenantId::generate());
        let ann = person(&database, here, Role::Member, "ann").await;
        let bob = person(&database, here, Role::Member, "bob").await;
        let admin = person(&database, here, Role::Admin, "admin").await;
        let stranger = person(&database, there, Role::Admin, "stranger").await;
        // Short ids are counted as the engine: the app role has no right on the counters.
        let engine = db::options(&database.engine_url, DbRole::Engine, "test").unwrap();
        let counters = Arc::new(Counters::start(db::relaxed_pool(engine)));
        let db = TenantDb::new(database.app.clone(), counters);
        Self { db, ann, bob, admin, stranger, _database: database }
    }

    pub(crate) async fn begin(&self, actor: &Actor) -> TenantTx {
        self.db.begin(actor).await.unwrap()
    }

    /// Makes an item in a transaction of its own.
    pub(crate) async fn make(&self, actor: &Actor, def: &EntityDef, payload: Value) -> Item {
        let mut tx = self.begin(actor).await;
        let item = items::create(&mut tx, def, object(payload)).await.unwrap();
        tx.commit().await.unwrap();
        item
    }

    /// All that this actor sees of a kind, whatever its state.
    pub(crate) async fn all(&self, actor: &Actor, def: &EntityDef) -> Vec<Item> {
        let query = ListQuery { include_archived: true, include_deleted: true, ..ListQuery::default() };
        let mut tx = self.begin(actor).await;
        items::list(&mut tx, def, &query).await.unwrap().items
    }
}

async fn person(database: &TestDb, tenant: TenantId, role: Role, name: &str) -> Actor {
    let user = UserId(Uuid::now_v7());
    let identity = development::Identity {
        tenant,
        user,
        email: &format!("{name}@example.com"),
        role,
        operator: false,
        key: &SecretString::from(format!("key of {name}")),
        running_turns: 1,
    };
    development::ensure(&database.engine, &identity).await.unwrap();
    Actor { tenant, user, role, operator: false, scopes: Scopes::ALL, timezone: "UTC".to_owned() }
}

/// A payload of this kind, told from others by its number.
pub(crate) fn sample(def: &EntityDef, number: usize) -> Value {
    match def.kind {
        "note" => json!({"title": format!("note {number}"), "content": "Salt and bread", "tags": ["a"]}),
        "task" => json!({"title": format!("task {number}"), "description": "Soon", "dueDate": "2031-05-17"}),
        other => panic!("say here what a {other} looks like"),
    }
}

pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        other => panic!("{other} is no object"),
    }
}
