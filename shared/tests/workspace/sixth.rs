//! A sixth entity is one definition: everything else comes from it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use shared::{
    tools::ToolRun,
    workspace::{self, Entity, EntityDef, Projection},
};

use crate::{conformance, isolation, properties, world::World};

/// Something to cook.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Recipe {
    /// What it makes.
    #[schemars(length(min = 1, max = 200))]
    dish: String,
    /// For how many.
    #[serde(default)]
    servings: i64,
    /// Whether it turned out well.
    #[serde(default)]
    proven: bool,
    /// Whether lists leave it out.
    #[serde(default)]
    archived: bool,
    /// Words to find it by.
    #[serde(default)]
    tags: Vec<String>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl Entity for Recipe {
    const KIND: &'static str = "recipe";
    const PLURAL: &'static str = "recipes";
    const ACTIONS: &'static [&'static str] = &["prove", "doubt"];

    fn projection(&self) -> Projection {
        Projection { archived: self.archived, ..Projection::default() }
    }

    fn act(&mut self, action: &str) -> Result<(), String> {
        let proven = action == "prove";
        if self.proven == proven {
            return Err("so already".to_owned());
        }
        self.proven = proven;
        Ok(())
    }

    fn archive(&mut self) {
        self.archived = true;
    }
}

#[tokio::test]
async fn a_sixth_entity_gets_everything() {
    let entities: &'static [EntityDef] = Box::leak(Box::new([EntityDef::of::<Recipe>()]));
    // A world for each, as for the five.
    for check in [conformance::CHECKS, isolation::CHECKS, properties::CHECKS].concat() {
        let world = World::new().await;
        world.database.add_kind("recipe").await;
        check(world, entities).await;
    }
}

#[tokio::test]
async fn a_sixth_entity_gets_its_tools() {
    let entities: &'static [EntityDef] = Box::leak(Box::new([EntityDef::of::<Recipe>()]));
    let tools = workspace::tools_of(entities);
    let names: Vec<&str> = tools.iter().map(|tool| tool.name.as_ref()).collect();
    assert_eq!(
        names,
        [
            "archive_recipe",
            "batch_workspace",
            "create_recipe",
            "delete_recipe",
            "get_recipe",
            "list_recipes",
            "patch_recipe",
            "process_recipe",
            "search_workspace",
            "update_recipe",
            "workspace_stats"
        ]
    );
    let world = World::new().await;
    world.database.add_kind("recipe").await;
    for (name, arguments, expected) in [
        ("create_recipe", json!({"dish": "Soup", "servings": "4"}), json!({"servings": 4, "proven": false})),
        ("process_recipe", json!({"id": 1, "action": "prove"}), json!({"proven": true})),
        ("patch_recipe", json!({"id": 1, "dish": "Stew"}), json!({"dish": "Stew", "proven": true})),
        ("archive_recipe", json!({"id": 1}), json!({"archived": true})),
        ("update_recipe", json!({"id": 1, "dish": "Pie"}), json!({"dish": "Pie", "archived": false})),
        ("get_recipe", json!({"id": 1}), json!({"dish": "Pie"})),
        ("delete_recipe", json!({"id": 1}), json!({"dish": "Pie"})),
    ] {
        let tool = tools.iter().find(|tool| tool.name == name).unwrap();
        let ToolRun::Workspace(run) = &tool.run else { panic!("{name} runs in process") };
        let mut tx = world.begin(&world.ann).await;
        let output = run(&mut tx, &arguments).await.unwrap();
        tx.commit().await.unwrap();
        let item: Value = serde_json::from_str(&output.content).unwrap_or_else(|_| panic!("{output:?}"));
        for (field, value) in expected.as_object().unwrap() {
            assert_eq!(&item["payload"][field], value, "{name}: {field}");
        }
    }
}
