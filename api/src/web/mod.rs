//! What pages for people have in common: plain HTML without scripts, nothing from other hosts, and a policy that keeps it
//! so.

pub(crate) mod connect;

use axum::response::{Html, IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;margin:0;display:grid;place-items:center;min-height:100vh;\
    background:light-dark(#f4f4f5,#18181b);color:light-dark(#18181b,#f4f4f5);color-scheme:light dark}\
    main{max-width:26rem;margin:1rem;padding:2rem;border-radius:.75rem;background:light-dark(#fff,#27272a)}\
    h1{font-size:1.25rem;margin:0 0 1rem}h2{font-size:1rem;margin:1.5rem 0 .5rem}label{display:block;margin:.75rem 0}\
    input{display:block;width:100%;box-sizing:border-box;padding:.5rem;font:inherit}\
    button,.button{font:inherit;padding:.5rem 1.25rem;margin:1rem .5rem 0 0}\
    .button{display:inline-block;border-radius:.25rem;text-decoration:none;color:#fff;background:#2563eb}\
    ul{margin:.5rem 0;padding-left:1.25rem}li form{display:inline}li button{margin:0 0 0 .5rem;padding:.125rem .5rem}\
    .note{font-size:.875rem;opacity:.8;overflow-wrap:anywhere}.wrong{color:light-dark(#b91c1c,#f87171)}";

/// A page. `body` is HTML; `sends_to` is where a form's answer may send the browser, beside ourselves.
pub(crate) fn page(status: StatusCode, body: &str, sends_to: Option<&str>) -> Response {
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Alfred</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style nonce=\"{{nonce}}\">{STYLE}</style></head>\
         <body><main>{body}</main></body></html>"
    );
    let nonce = uuid::Uuid::new_v4().simple().to_string();
    // Browsers apply form-action to where a form's answer sends them as well.
    let target = sends_to.map(|target| format!(" {target}")).unwrap_or_default();
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self'{target}; base-uri 'none'; frame-ancestors 'none'"
    );
    // The first of these words is our own, before any text of others.
    let mut response = (status, Html(html.replacen("{nonce}", &nonce, 1))).into_response();
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response.headers_mut().insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Whether a person looks at the answer.
pub(crate) fn wants_page(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(header::ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    accepted.any(|value| value.contains("text/html"))
}

/// Text as it may stand between tags and in quoted attributes.
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}
