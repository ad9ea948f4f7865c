//! The table from our errors to MCP's [design 15]: what a model can mend is a tool result that says so, what a client
//! got wrong is a protocol error, and what is ours to mend is an internal one with the request's id.

use std::error::Error as _;

use rmcp::model::{ErrorCode, ErrorData};
use serde_json::json;
use shared::error::{Code, Error};

/// Who can do something about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mender {
    /// The model: other arguments, another item, another moment.
    Model,
    /// Nobody on that side of the wire.
    Us,
}

/// Who can mend errors of this code.
pub(super) fn mender(code: Code) -> Mender {
    match code {
        Code::Malformed
        | Code::Auth
        | Code::Forbidden
        | Code::NotFound
        | Code::Conflict
        | Code::Gone
        | Code::Precondition
        | Code::Rate => Mender::Model,
        // What lies beyond us, and codes to come: the client learns the code, and can try again.
        _ => Mender::Us,
    }
}

/// The error as JSON-RPC has it, where there is no tool result to put it into. Ours are logged here and nowhere else.
pub(super) fn data(error: &Error, request_id: &str) -> ErrorData {
    if error.code == Code::Internal {
        tracing::error!(
            error = error as &dyn std::error::Error,
            cause = error.source(),
            "a call over MCP failed"
        );
    }
    metrics::counter!("errors_total", "origin" => error.origin.as_str(), "code" => error.code.as_str())
        .increment(1);
    let code = match error.code {
        Code::NotFound | Code::Gone => ErrorCode::RESOURCE_NOT_FOUND,
        _ if mender(error.code) == Mender::Model => ErrorCode::INVALID_PARAMS,
        _ => ErrorCode::INTERNAL_ERROR,
    };
    let data = json!({
        "error": error.code.as_str(),
        "origin": error.origin.as_str(),
        "requestId": request_id,
    });
    ErrorData::new(code, error.message.clone(), Some(data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole() {
        let lines: Vec<String> = Code::ALL
            .iter()
            .map(|code| {
                let data = data(&Error::new(*code, "x"), "r");
                format!("{} {} {:?}", code.as_str(), data.code.0, mender(*code))
            })
            .filter(|line| line.starts_with("APP-"))
            .collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        APP-4XX-VALIDATION -32602 Model
        APP-401-AUTH -32602 Model
        APP-403-FORBIDDEN -32602 Model
        APP-404-NOT-FOUND -32002 Model
        APP-409-CONFLICT -32602 Model
        APP-410-GONE -32002 Model
        APP-412-PRECONDITION -32602 Model
        APP-429-RATE -32602 Model
        APP-5XX -32603 Us
        ");
    }

    #[test]
    fn causes_stay_with_us() {
        let data = data(&Error::internal("the password is hunter2"), "r1");
        let text = serde_json::to_string(&data).unwrap();
        assert!(!text.contains("hunter2") && text.contains("r1"), "{text}");
    }
}
