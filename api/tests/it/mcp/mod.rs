//! The MCP server as clients of both eras see it.

mod calls;
mod client;
mod doors;
mod eras;
mod picked;

use http::Method;
use serde_json::{Value, json};

use crate::app::{Answered, TestApp};

/// The revision without sessions.
pub(crate) const MODERN: &str = "2026-07-28";
/// The newest revision that begins with `initialize`.
pub(crate) const LEGACY: &str = "2025-11-25";

/// A revision of the protocol, as a client speaks it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Era {
    /// Every request says all there is to say.
    Modern,
    /// The version is in a header, and everything else was said in `initialize`.
    Legacy(&'static str),
}

pub(crate) const ERAS: [Era; 4] =
    [Era::Modern, Era::Legacy(LEGACY), Era::Legacy("2025-06-18"), Era::Legacy("2025-03-26")];

/// A request with the headers that every client sends.
pub(crate) fn posted(app: &TestApp, key: &str) -> reqwest::RequestBuilder {
    app.request(Method::POST, "/mcp")
        .header("X-API-Key", key)
        .header("Accept", "application/json, text/event-stream")
        .header("Content-Type", "application/json")
}

/// A message as this era writes it, with its headers.
pub(crate) fn message(
    app: &TestApp,
    key: &str,
    era: Era,
    method: &str,
    params: &Value,
) -> reqwest::RequestBuilder {
    let mut params = params.clone();
    let mut request = posted(app, key);
    match era {
        Era::Modern => {
            params["_meta"] = json!({
                "io.modelcontextprotocol/protocolVersion": MODERN,
                "io.modelcontextprotocol/clientCapabilities": {},
                "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
            });
            request = request.header("MCP-Protocol-Version", MODERN).header("Mcp-Method", method);
            if let Some(name) = params.get("name").or_else(|| params.get("uri")).and_then(Value::as_str) {
                request = request.header("Mcp-Name", name);
            }
        }
        Era::Legacy(version) => request = request.header("MCP-Protocol-Version", version),
    }
    request.body(json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string())
}

/// Sends a message and answers the whole answer.
pub(crate) async fn send(app: &TestApp, key: &str, era: Era, method: &str, params: &Value) -> Answered {
    app.send(message(app, key, era, method, params)).await
}

/// Sends a message and answers its result.
#[track_caller]
pub(crate) fn result(answered: &Answered) -> Value {
    assert_eq!(answered.status, 200, "{answered:?}");
    let body = answered.json();
    assert_eq!((&body["jsonrpc"], &body["id"]), (&json!("2.0"), &json!(1)), "{body}");
    assert!(body.get("error").is_none(), "{body}");
    body["result"].clone()
}

/// Calls a tool and answers the call's result.
pub(crate) async fn call(app: &TestApp, key: &str, era: Era, tool: &str, arguments: &Value) -> Value {
    result(&send(app, key, era, "tools/call", &json!({"name": tool, "arguments": arguments})).await)
}

/// The sentence of a refusal.
#[track_caller]
pub(crate) fn refused(result: &Value) -> &str {
    assert_eq!(result["isError"], true, "{result}");
    assert!(result.get("structuredContent").is_none(), "{result}");
    result["content"][0]["text"].as_str().unwrap()
}

/// What a call answered, which its text says as well.
#[track_caller]
pub(crate) fn structured(result: &Value) -> &Value {
    assert_eq!(result["isError"], false, "{result}");
    let text = result["content"][0]["text"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(text).unwrap(), result["structuredContent"]);
    &result["structuredContent"]
}
