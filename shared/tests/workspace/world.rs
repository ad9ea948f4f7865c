//! Two tenants with people in them, over a database of their own.

use std::{collections::HashMap, sync::Arc};

use futures::future::LocalBoxFuture;
use secrecy::SecretString;
use serde_json::{Map, Value, json};
use shared::{
    counters::Counters,
    db::{self, DbRole, TenantDb, TenantTx},
    identity::{Actor, Role, Scopes, development},
    ids::{ItemUid, TenantId, UserId},
    testing::TestDb,
    workspace::{
        EntityDef, definition,
        items::{self, Item, ListQuery},
    },
};
use tokio::sync::Mutex;
use uuid::Uuid;

/// A check that holds for every entity.
pub(crate) type Check = fn(World, &'static [EntityDef]) -> LocalBoxFuture<'static, ()>;

/// Makes a test of each check for the entities of the product, and a list for those that a test defines.
macro_rules! suite {
    ($($check:ident)*) => {
        pub(crate) const CHECKS: &[$crate::world::Check] =
            &[$(|world, entities| Box::pin($check(world, entities))),*];

        mod of_the_five {
            use shared::workspace::ENTITIES;

            use crate::world::World;

            $(
                #[tokio::test]
                async fn $check() {
                    super::$check(World::new().await, &*ENTITIES).await;
                }
            )*
        }
    };
}
pub(crate) use suite;

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
    chats: Mutex<HashMap<UserId, ItemUid>>,
    /// Dropped last, with its database.
    pub(crate) database: TestDb,
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
        Self { db, ann, bob, admin, stranger, chats: Mutex::default(), database }
    }

    /// One more person of the first tenant.
    pub(crate) async fn somebody(&self, role: Role) -> Actor {
        person(&self.database, self.ann.tenant, role, &Uuid::now_v7().to_string()).await
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

    /// A payload of this kind, told from others by its number. What it hangs on is a chat of the actor's: chats come
    /// first among the entities, so that a suite finds nothing of its later kinds that it did not make itself.
    pub(crate) async fn sample(&self, actor: &Actor, def: &EntityDef, number: usize) -> Value {
        match def.kind {
            "chat" => json!({"title": format!("chat {number}"), "description": "Plans", "tags": ["a"]}),
            "chat_message" => {
                json!({"chatUid": self.chat(actor).await, "content": format!("message {number}")})
            }
            "comment" => json!({
                "content": format!("comment {number}"), "parentType": "chat", "parentUid": self.chat(actor).await,
            }),
            "note" => {
                json!({"title": format!("note {number}"), "content": "Salt and bread", "tags": ["a"]})
            }
            "task" => {
                json!({"title": format!("task {number}"), "description": "Soon", "dueDate": "2031-05-17"})
            }
            "recipe" => json!({"dish": format!("dish {number}"), "servings": 4}),
            other => panic!("say here what a {other} looks like"),
        }
    }

    /// The actor's chat that samples hang on, made when it is first asked for.
    pub(crate) async fn chat(&self, actor: &Actor) -> ItemUid {
        let mut chats = self.chats.lock().await;
        if let Some(chat) = chats.get(&actor.user) {
            return *chat;
        }
        let def = definition("chat").unwrap();
        let chat = self.make(actor, def, json!({"title": "what samples hang on"})).await.uid;
        chats.insert(actor.user, chat);
        chat
    }

    /// Makes a sample in a transaction of its own.
    pub(crate) async fn make_sample(&self, actor: &Actor, def: &EntityDef, number: usize) -> Item {
        let payload = self.sample(actor, def, number).await;
        self.make(actor, def, payload).await
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

pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        other => panic!("{other} is no object"),
    }
}
