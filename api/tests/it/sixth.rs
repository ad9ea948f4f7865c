//! A sixth entity over REST: one definition brings its routes.

use http::{Method, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use shared::workspace::{Entity, EntityDef, Projection};

use crate::app::{FOREIGNER, MEMBER, TestApp, config};

/// Something to cook.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct Recipe {
    /// What it makes.
    #[schemars(length(min = 1, max = 200))]
    dish: String,
    /// Whether it turned out well.
    #[serde(default)]
    proven: bool,
    /// Whether lists leave it out.
    #[serde(default)]
    archived: bool,
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl Entity for Recipe {
    const KIND: &'static str = "recipe";
    const PLURAL: &'static str = "recipes";
    const ACTIONS: &'static [&'static str] = &["prove"];

    fn projection(&self) -> Projection {
        Projection { archived: self.archived, ..Projection::default() }
    }

    fn act(&mut self, _: &str) -> Result<(), String> {
        if self.proven {
            return Err("proven already".to_owned());
        }
        self.proven = true;
        Ok(())
    }

    fn archive(&mut self) {
        self.archived = true;
    }
}

#[tokio::test]
async fn a_sixth_entity_gets_its_routes() {
    let mut app = TestApp::start().await;
    app.db.add_kind("recipe").await;
    let entities: &'static [EntityDef] = Box::leak(Box::new([EntityDef::of::<Recipe>()]));
    app.running = api::start_with_entities(config(&app.db, |_| ()), entities).await.unwrap();

    let made = app.post(MEMBER, "/v1/recipes", &json!({"dish": "soup", "salt": "some"})).await;
    assert_eq!((made.status, &made.headers["etag"]), (StatusCode::CREATED, &"\"1\"".parse().unwrap()));
    let one = format!("/v1/recipes/{}", made.json()["id"]);
    assert_eq!(app.get(MEMBER, &one).await.json(), made.json());
    app.get(FOREIGNER, &one).await.is_error(404, "APP-404-NOT-FOUND");
    app.post(MEMBER, "/v1/recipes", &json!({"dish": ""})).await.is_error(422, "APP-4XX-VALIDATION");
    let proven = app.post(MEMBER, &format!("{one}/process"), &json!({"action": "prove"})).await.json();
    assert_eq!(proven["payload"], json!({"dish": "soup", "salt": "some", "proven": true, "archived": false}));
    let patched = app.send_json(MEMBER, Method::PATCH, &one, &json!({"salt": null})).await.json();
    assert_eq!(patched["payload"].get("salt"), None);
    let replaced = app.send_json(MEMBER, Method::PUT, &one, &json!({"dish": "stew"})).await.json();
    assert_eq!((&replaced["version"], &replaced["payload"]["proven"]), (&json!(4), &json!(false)));
    let archived =
        app.send(app.request(Method::POST, &format!("{one}/archive")).header("X-API-Key", MEMBER)).await;
    assert_eq!(archived.json()["payload"]["archived"], true);
    assert_eq!(app.get(MEMBER, "/v1/recipes").await.json()["items"], json!([]));
    let gone = app.send(app.request(Method::DELETE, &one).header("X-API-Key", MEMBER)).await;
    assert_eq!(gone.headers["etag"], "\"6\"");
    app.get(MEMBER, &one).await.is_error(410, "APP-410-GONE");
    app.get(MEMBER, "/v1/notes").await.is_error(404, "APP-404-NOT-FOUND");

    let document = app.get(MEMBER, "/openapi.json").await.json();
    assert!(document["paths"]["/v1/recipes/{id}/process"]["post"].is_object());
    assert_eq!(document["components"]["schemas"]["Recipe"]["required"], json!(["dish"]));
}
