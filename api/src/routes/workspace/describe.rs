//! The description of the workspace's routes, out of the same list of entities as the routes.

use serde_json::{Map, Value, json};
use shared::workspace::{EntityDef, items};
use utoipa::openapi::{Components, OpenApi, Paths};

/// What every description of an item needs besides.
const MOMENT: &str = "2031-05-17T09:30:00Z";

/// Adds routes and schemas of these entities to a description.
pub(crate) fn describe(description: &mut OpenApi, entities: &[EntityDef]) {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    for def in entities {
        schemas.extend(schemas_of(def));
        paths.extend(paths_of(def));
    }
    // A test reads every entity's back, so that this cannot fail for one of ours.
    let read = serde_json::from_value::<Paths>(Value::Object(paths)).and_then(|paths| {
        let components = serde_json::from_value::<Components>(json!({ "schemas": schemas }))?;
        Ok((paths, components))
    });
    match read {
        Ok((paths, components)) => {
            description.paths.paths.extend(paths.paths);
            description.components.get_or_insert_default().schemas.extend(components.schemas);
        }
        Err(error) => tracing::error!(%error, "the workspace cannot be described"),
    }
}

/// `ChatMessage` of `chat_message`.
fn type_name(def: &EntityDef) -> String {
    let words = def.kind.split('_').map(|word| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect::<String>()
    });
    words.collect()
}

fn schemas_of(def: &EntityDef) -> [(String, Value); 3] {
    let name = type_name(def);
    let mut payload = def.schema.clone();
    if let Some(payload) = payload.as_object_mut() {
        payload.remove("title");
    }
    let moment = json!({"type": "string", "format": "date-time", "example": MOMENT});
    let item = json!({
        "type": "object",
        "required": ["uid", "id", "version", "createdAt", "updatedAt", "payload"],
        "properties": {
            "uid": {"type": "string", "format": "uuid", "description": "Sorts by age"},
            "id": {"type": "integer", "format": "int64", "description": "Short, for people and models"},
            "version": {"type": "integer", "format": "int64", "description": "One more with every change"},
            "createdAt": moment,
            "updatedAt": moment,
            "deletedAt": {"type": ["string", "null"], "format": "date-time"},
            "payload": {"$ref": format!("#/components/schemas/{name}")},
        },
    });
    let page = json!({
        "type": "object",
        "required": ["items"],
        "properties": {
            "items": {
                "type": "array",
                "items": {"$ref": format!("#/components/schemas/{name}Item")},
                "description": "Newest first",
            },
            "nextCursor": {"type": ["string", "null"], "description": "cursor of the next page; null on the last"},
        },
    });
    [(name.clone(), payload), (format!("{name}Item"), item), (format!("{name}Page"), page)]
}

fn paths_of(def: &EntityDef) -> [(String, Value); 4] {
    let (one, many) = (def.kind.replace('_', " "), def.plural.replace('_', " "));
    let (kind, plural) = (def.kind, def.plural);
    let name = type_name(def);
    let place = json!({
        "name": "id", "in": "path", "required": true, "schema": {"type": "string"},
        "description": format!("The {one}'s uid or short id"),
    });
    let seen = json!({
        "name": "If-Match", "in": "header", "required": false, "schema": {"type": "string"},
        "description": "The version that the item must still have, as ETag said",
    });
    let key = json!({
        "name": "Idempotency-Key", "in": "header", "required": false,
        "schema": {"type": "string", "minLength": 1, "maxLength": 255},
        "description": "Names the request for 24 hours: sent again, it is answered as before",
    });
    let deleted = parameter("includeDeleted", "Also what was deleted", &json!({"type": "boolean"}));
    let body = |schema: Value| json!({"required": true, "content": {"application/json": {"schema": schema}}});
    let whole = body(json!({"$ref": format!("#/components/schemas/{name}")}));
    let changes = body(json!({"type": "object", "description": "A JSON merge patch (RFC 7396)"}));
    let process = body(json!({
        "type": "object",
        "required": ["action"],
        "properties": {
            "action": {"type": "string", "enum": def.actions},
            "metadata": {"type": ["object", "null"], "description": "Kept in the payload, as metadata.{action}"},
        },
    }));
    let item = format!("{name}Item");
    let writes = ["400", "404", "409", "410", "412"];
    let writes_body = ["400", "404", "409", "410", "412", "413", "415", "422"];

    let all = json!({
        "get": operation(
            &format!("list_{plural}"),
            &format!("Lists {many}, newest first; archived and deleted ones only when asked for."),
            &list_parameters(def, &deleted), None,
            &answers("200", "A page", &format!("{name}Page"), false, &["400", "422"]),
        ),
        "post": operation(
            &format!("create_{kind}"), &format!("Makes a {one}."), std::slice::from_ref(&key), Some(whole.clone()),
            &answers("201", "The item", &item, true, &["400", "409", "413", "415", "422"]),
        ),
    });
    let single = json!({
        "get": operation(
            &format!("get_{kind}"), &format!("Reads a {one}."), &[place.clone(), deleted.clone()], None,
            &answers("200", "The item", &item, true, &["400", "404", "410"]),
        ),
        "put": operation(
            &format!("update_{kind}"),
            &format!("Replaces a {one}: fields that are not given fall back to their defaults."),
            &[place.clone(), seen.clone()], Some(whole),
            &answers("200", "The item as it is now", &item, true, &writes_body),
        ),
        "patch": operation(
            &format!("patch_{kind}"), &format!("Changes the given fields of a {one} and keeps the rest."),
            &[place.clone(), seen.clone()], Some(changes),
            &answers("200", "The item as it is now", &item, true, &writes_body),
        ),
        "delete": operation(
            &format!("delete_{kind}"), &format!("Deletes a {one}: it is hidden, and answered once more."),
            &[place.clone(), seen.clone()], None,
            &answers("200", "The deleted item", &item, true, &writes),
        ),
    });
    let archive = json!({"post": operation(
        &format!("archive_{kind}"), &format!("Archives a {one}; an archived one stays as it is."),
        &[place.clone(), seen.clone(), key.clone()], None,
        &answers("200", "The item as it is now", &item, true, &writes),
    )});
    let processing = json!({"post": operation(
        &format!("process_{kind}"), &format!("Moves a {one} to another state: {}.", def.actions.join(", ")),
        &[place, seen, key], Some(process),
        &answers("200", "The item as it is now", &item, true, &writes_body),
    )});
    let base = format!("/v1/{plural}");
    [
        (base.clone(), all),
        (format!("{base}/{{id}}"), single),
        (format!("{base}/{{id}}/archive"), archive),
        (format!("{base}/{{id}}/process"), processing),
    ]
}

fn list_parameters(def: &EntityDef, deleted: &Value) -> Vec<Value> {
    let limit =
        json!({"type": "integer", "minimum": 1, "maximum": items::LARGEST_PAGE, "default": items::PAGE});
    let words: Vec<&str> = ["all"].into_iter().chain(def.statuses.iter().map(|status| status.word)).collect();
    let mut parameters = vec![
        parameter("limit", "How many at most", &limit),
        parameter("cursor", "nextCursor of the page before", &json!({"type": "string"})),
        parameter("status", "Only those in this state", &json!({"type": "string", "enum": words})),
        parameter("includeArchived", "Also what was archived", &json!({"type": "boolean"})),
        deleted.clone(),
    ];
    if let Some(rule) = def.parent {
        let uid = json!({"type": "string", "format": "uuid"});
        parameters.push(parameter(rule.field, "Only those on the item with this uid", &uid));
    }
    parameters
}

fn parameter(name: &str, description: &str, schema: &Value) -> Value {
    json!({"name": name, "in": "query", "required": false, "description": description, "schema": schema})
}

fn operation(id: &str, summary: &str, parameters: &[Value], body: Option<Value>, responses: &Value) -> Value {
    let mut operation = json!({
        "tags": ["workspace"], "summary": summary, "operationId": id, "parameters": parameters,
        "responses": responses, "security": [{"apiKey": []}],
    });
    if let Some(body) = body {
        operation["requestBody"] = body;
    }
    operation
}

fn answers(status: &str, sentence: &str, schema: &str, is_item: bool, errors: &[&str]) -> Value {
    let mut success = json!({
        "description": sentence,
        "content": {"application/json": {"schema": {"$ref": format!("#/components/schemas/{schema}")}}},
    });
    let header = |sentence: &str| json!({"description": sentence, "schema": {"type": "string"}});
    if is_item {
        success["headers"]["ETag"] = header("The item's version, for If-Match");
    }
    if status == "201" {
        success["headers"]["Location"] = header("The item's place");
    }
    let mut answers = Map::from_iter([(status.to_owned(), success)]);
    for error in errors {
        let sentence = match *error {
            "400" => "A header, a parameter or the JSON cannot be read",
            "404" => "There is no such item",
            "409" => "The state does not allow it, or the Idempotency-Key was used with another body",
            "410" => "The item was deleted",
            "412" => "The item has another version",
            "413" => "The body or the payload is too large",
            "415" => "The body is not JSON",
            _ => "A field or parameter is not acceptable",
        };
        let body = json!({"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}});
        answers.insert((*error).to_owned(), json!({"description": sentence, "content": body}));
    }
    Value::Object(answers)
}

#[cfg(test)]
mod tests {
    use shared::workspace::ENTITIES;

    use super::*;

    #[test]
    fn nothing_is_lost_between_us_and_the_document() {
        for def in ENTITIES.iter() {
            for (path, item) in paths_of(def) {
                let paths: Paths = serde_json::from_value(json!({ path.as_str(): item })).unwrap();
                assert_eq!(serde_json::to_value(&paths).unwrap()[&path], item, "{path}");
            }
            let schemas = Map::from_iter(schemas_of(def));
            let components: Components = serde_json::from_value(json!({ "schemas": schemas })).unwrap();
            let written = serde_json::to_value(&components).unwrap();
            for (name, schema) in &schemas {
                assert_eq!(&written["schemas"][name], schema, "{name}");
            }
        }
    }
}
