//! The official SDK's client, in both of its lifecycles.

use std::collections::HashMap;

use http::{HeaderName, HeaderValue};
use rmcp::{
    model::{CallToolRequestParams, ProtocolVersion},
    service::{ClientLifecycleMode, ClientServiceExt as _},
    transport::{StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig},
};
use serde_json::json;

use crate::app::{MEMBER, TestApp};

#[tokio::test]
async fn the_official_client_works_in_both_lifecycles() {
    let app = TestApp::start().await;
    let modern = ClientLifecycleMode::Auto {
        preferred_versions: vec![ProtocolVersion::V_2026_07_28],
        legacy_version: Some(ProtocolVersion::V_2025_11_25),
    };
    for (lifecycle, version) in [
        (modern, ProtocolVersion::V_2026_07_28),
        (ClientLifecycleMode::Initialize, ProtocolVersion::V_2025_11_25),
    ] {
        let key = HashMap::from([(HeaderName::from_static("x-api-key"), HeaderValue::from_static(MEMBER))]);
        let settings = StreamableHttpClientTransportConfig::with_uri(app.url("/mcp")).custom_headers(key);
        let transport = StreamableHttpClientTransport::with_client(app.client.clone(), settings);
        let client = ().serve_with_lifecycle(transport, lifecycle).await.unwrap();
        assert_eq!(client.peer_info().unwrap().protocol_version, version);
        let tools = client.list_all_tools().await.unwrap();
        assert!(tools.iter().any(|tool| tool.name == "add_task"));
        let arguments = json!({"title": "from a client"}).as_object().unwrap().clone();
        let made =
            client.call_tool(CallToolRequestParams::new("add_task").with_arguments(arguments)).await.unwrap();
        assert_eq!(made.structured_content.unwrap()["payload"]["title"], "from a client");
        client.cancel().await.unwrap();
    }
}
