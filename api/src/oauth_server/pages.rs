//! The pages of a sign-in for a program: sign in, let it in, or why not. Plain forms without scripts.

use std::fmt::Write as _;

use axum::response::Response;
use http::StatusCode;
use shared::{identity::Scope, tenancy::memberships::Membership};

use super::{Asked, GRANTABLE, Parameters, own_place};
use crate::web::{escaped, page};

/// Asks who is there. `query` is the authorization request, or the page of ours, that it goes on with afterwards.
pub(crate) fn sign_in(status: StatusCode, query: &str, wrong: Option<&str>) -> Response {
    let wrong = wrong.map(|wrong| format!("<p class=\"wrong\" role=\"alert\">{}</p>", escaped(wrong)));
    let why = match own_place(query) {
        Some(_) => "Sign in to see your connections.",
        None => "A program asks for access to your workspace. Sign in to decide.",
    };
    let body = format!(
        "<h1>Sign in to Alfred</h1><p>{why}</p>{}\
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
pub(crate) fn consent(
    asked: &Asked,
    request: &Parameters,
    tenants: &[Membership],
    email: &str,
    csrf: &str,
) -> Response {
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
    if tenants.len() > 1 {
        body.push_str(&choice(tenants));
    }
    body.push_str(
        "<button name=\"decision\" value=\"allow\">Let it in</button>\
         <button name=\"decision\" value=\"deny\" formnovalidate>Do not</button></form>",
    );
    page(StatusCode::OK, &body, Some(&target(asked)))
}

/// Asks into which of the person's workspaces. None is chosen beforehand: the wrong one would not be noticed.
fn choice(tenants: &[Membership]) -> String {
    let options = tenants.iter().map(|membership| {
        format!("<option value=\"{}\">{}</option>", membership.tenant, escaped(&membership.name))
    });
    format!(
        "<label>Workspace<select name=\"tenant\" required><option value=\"\" disabled selected>Choose</option>{}</select></label>",
        options.collect::<String>()
    )
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

/// Where the answer to the form sends the browser, as a policy names it.
fn target(asked: &Asked) -> String {
    match asked.redirect_uri.host_str() {
        Some(_) if matches!(asked.redirect_uri.scheme(), "http" | "https") => {
            asked.redirect_uri.origin().ascii_serialization()
        }
        _ => format!("{}:", asked.redirect_uri.scheme()),
    }
}
