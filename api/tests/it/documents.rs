//! The committed description is the served one.

use std::{fs, path::Path};

#[test]
fn docs_openapi_json_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let committed = fs::read_to_string(path).unwrap_or_default();
    let current = api::openapi_document();
    assert!(
        committed == current,
        "docs/openapi.json is not current: cargo run -p api -- openapi > docs/openapi.json"
    );
}

#[test]
fn docs_mcp_tools_json_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/mcp-tools.json");
    let committed = fs::read_to_string(path).unwrap_or_default();
    let current = api::tools_document();
    assert!(
        committed == current,
        "docs/mcp-tools.json is not current: cargo run -p api -- tools > docs/mcp-tools.json"
    );
}

#[test]
fn every_operation_is_described() {
    let document: serde_json::Value = serde_json::from_str(&api::openapi_document()).unwrap();
    let mut ids = std::collections::BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = format!("{method} {path}");
            assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{name} has another's id");
            assert!(
                operation["summary"].as_str().is_some_and(|text| !text.is_empty()),
                "{name} has no summary"
            );
            assert_eq!(operation["tags"].as_array().map(Vec::len), Some(1), "{name} has no tag");
            for (status, response) in operation["responses"].as_object().unwrap() {
                let is_error =
                    status.starts_with(['4', '5']) && path != "/readyz" && !path.starts_with("/oauth/");
                let body = &response["content"]["application/json"]["schema"]["$ref"];
                assert!(!is_error || body == "#/components/schemas/ErrorBody", "{name} {status}: {response}");
            }
        }
    }
}
