//! The pages of a sign-in for a program: sign in, let it in, or why not. Plain forms without scripts.

use std::fmt::Write as _;

use axum::response::{Html, IntoResponse as _, Response};
use http::{HeaderValue, StatusCode, header};
use shared::identity::Scope;

use super::{Asked, GRANTABLE, Parameters};

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;margin:0;display:grid;place-items:center;min-height:100vh;\
    background:light-dark(#f4f4f5,#18181b);color:light-dark(#18181b,#f4f4f5);color-scheme:light dark}\
    main{max-width:26rem;margin:1rem;padding:2rem;border-radius:.75rem;background:light-dark(#fff,#27272a)}\
    h1{font-size:1.25rem;margin:0 0 1rem}label{display:block;margin:.75rem 0}\
    input{display:block;width:100%;box-sizing:border-box;padding:.5rem;font:inherit}\
    button{font:inherit;padding:.5rem 1.25rem;margin:1rem .5rem 0 0}\
    .note{font-size:.875rem;opacity:.8;overflow-wrap:anywhere}.wrong{color:light-dark(#b91c1c,#f87171)}";

/// Asks who is there. `query` is the authorization request, which goes on afterwards.
pub(crate) fn sign_in(status: StatusCode, query: &str, wrong: Option<&str>) -> Response {
    let wrong = wrong.map(|wrong| format!("<p class=\"wrong\" role=\"alert\">{}</p>", escaped(wrong)));
    let body = format!(
        "<h1>Sign in to Alfred</h1><p>A program asks for access to your workspace. Sign in to decide.</p>{}\
         <form method=\"post\" action=\"/oauth/sign-in\"><input type=\"hidden\" name=\"query\" value=\"{}\">\
         <label>E-mail<input name=\"email\" type=\"email\" autocomplete=\"username\" required autofocus></label>\
         <label>Password<input name=\"password\" type=\"password\" autocomplete=\"current-password\" required></label>\
         <button>Sign in</button></form>",
        wrong.unwrap_or_default(),
        escaped(query),
    );
    page(status, &body, None)
}

/// Asks whether the program may.
pub(crate) fn consent(asked: &Asked, request: &Parameters, email: &str, csrf: &str) -> Response {
    let mut body = format!("<h1>Let {} into your workspace?</h1>", escaped(&asked.client.name));
    // Writing to a String cannot fail.
    let _ = match &asked.client.host {
        Some(host) => write!(body, "<p>It is a program of <b>{}</b>.</p>", escaped(host)),
        None => write!(body, "<p class=\"wrong\">It registered itself: nobody has checked its name.</p>"),
    };
    body.push_str("<p>It may then, as you:</p><ul>");
    for scope in GRANTABLE.into_iter().filter(|scope| asked.scopes.contains(*scope)) {
        let what = match scope {
            Scope::Read => "read your notes, tasks, comments and chats",
            _ => "add, change and delete them",
        };
        let _ = write!(body, "<li>{what}</li>");
    }
    let _ = write!(
        body,
        "</ul><p class=\"note\">You are signed in as {}. Afterwards you are sent to {}.</p>\
         <form method=\"post\" action=\"/oauth/authorize\">",
        escaped(email),
        escaped(&place(asked)),
    );
    for (name, value) in request.of_request().chain([("csrf", csrf)]) {
        let _ =
            write!(body, "<input type=\"hidden\" name=\"{}\" value=\"{}\">", escaped(name), escaped(value));
    }
    body.push_str(
        "<button name=\"decision\" value=\"allow\">Let it in</button>\
         <button name=\"decision\" value=\"deny\">Do not</button></form>",
    );
    page(StatusCode::OK, &body, Some(asked))
}

/// Says why not.
pub(crate) fn refusal(status: StatusCode, sentence: &str) -> Response {
    let body = format!("<h1>This did not work</h1><p>{}</p>", escaped(sentence));
    page(status, &body, None)
}

/// Where the browser goes afterwards, as a person can judge it.
fn place(asked: &Asked) -> String {
    let url = &asked.redirect_uri;
    match (url.scheme(), url.host_str()) {
        ("http", Some(_)) => "a program on this computer".to_owned(),
        ("https", Some(host)) => host.to_owned(),
        (scheme, _) => format!("a program on this computer ({scheme})"),
    }
}

fn page(status: StatusCode, body: &str, sends_to: Option<&Asked>) -> Response {
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Alfred</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style nonce=\"{{nonce}}\">{STYLE}</style></head>\
         <body><main>{body}</main></body></html>"
    );
    let nonce = uuid::Uuid::new_v4().simple().to_string();
    // Browsers apply form-action to where a form's answer sends them as well.
    let target = sends_to.map(|asked| match asked.redirect_uri.host_str() {
        Some(_) if matches!(asked.redirect_uri.scheme(), "http" | "https") => {
            format!(" {}", asked.redirect_uri.origin().ascii_serialization())
        }
        _ => format!(" {}:", asked.redirect_uri.scheme()),
    });
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self'{}; base-uri 'none'; frame-ancestors 'none'",
        target.unwrap_or_default()
    );
    // The first of these words is our own, before any text of others.
    let mut response = (status, Html(html.replacen("{nonce}", &nonce, 1))).into_response();
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response.headers_mut().insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    response
}

/// Text as it may stand between tags and in quoted attributes.
fn escaped(text: &str) -> String {
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
