//! The pages of connections: what is connected, and how connecting something went.

use std::fmt::Write as _;

use axum::response::Response;
use http::StatusCode;
use shared::{
    connections::{Connection, Provider, Status},
    tenancy::memberships::Membership,
};

use super::{escaped, page};

/// What a person needs to change something on the page.
pub(crate) struct Forms<'a> {
    pub(crate) csrf: &'a str,
    /// Written into links and forms when the person had to choose a tenant.
    pub(crate) tenant: Option<&'a str>,
}

/// What is connected. Without `forms` there is nothing to press: whoever looks came with a program's credential.
pub(crate) fn overview(
    providers: &[Provider],
    connections: &[Connection],
    forms: Option<&Forms<'_>>,
) -> Response {
    let mut body = "<h1>Connections</h1>".to_owned();
    if providers.is_empty() {
        body.push_str("<p>There is nothing to connect.</p>");
    }
    let tenant = forms.and_then(|forms| forms.tenant);
    for provider in providers {
        let of_it: Vec<&Connection> =
            connections.iter().filter(|connection| connection.server == provider.name).collect();
        // Writing to a String cannot fail.
        let _ = write!(body, "<h2>{}</h2>", escaped(&provider.title));
        if of_it.is_empty() {
            body.push_str("<p class=\"note\">Not connected.</p>");
        } else {
            body.push_str("<ul>");
            for connection in &of_it {
                body.push_str(&line(connection, of_it.len(), forms));
            }
            body.push_str("</ul>");
        }
        let word = match of_it.as_slice() {
            [] => format!("Connect {}", provider.title),
            some if some.iter().any(|connection| connection.status == Status::Invalid) => {
                format!("Sign in to {} again", provider.title)
            }
            _ => "Connect another workspace".to_owned(),
        };
        let place = format!("/connect/{}{}", provider.name, query(tenant));
        let _ = write!(body, "<a class=\"button\" href=\"{}\">{}</a>", escaped(&place), escaped(&word));
    }
    page(StatusCode::OK, &body, None)
}

fn line(connection: &Connection, of: usize, forms: Option<&Forms<'_>>) -> String {
    let name = match (&connection.workspace_name, connection.workspace_id.as_str()) {
        (Some(name), _) => name.as_str(),
        (None, "") => "Connected",
        (None, id) => id,
    };
    let mut line = format!("<li><b>{}</b>", escaped(name));
    match connection.status {
        Status::Active if connection.chosen && of > 1 => line.push_str(" · in use"),
        Status::Active => {}
        Status::Invalid => line.push_str(" · <span class=\"wrong\">needs you to sign in again</span>"),
    }
    if let Some(forms) = forms {
        if !connection.chosen && connection.status == Status::Active {
            line.push_str(&form(connection, forms, "choose", "Use this one"));
        }
        line.push_str(&form(connection, forms, "disconnect", "Disconnect"));
    }
    line + "</li>"
}

fn form(connection: &Connection, forms: &Forms<'_>, action: &str, word: &str) -> String {
    format!(
        "<form method=\"post\" action=\"{}\"><input type=\"hidden\" name=\"csrf\" value=\"{}\">\
         <input type=\"hidden\" name=\"connection\" value=\"{}\"><button name=\"action\" value=\"{action}\">{word}</button></form>",
        escaped(&format!("/connect/{}{}", connection.server, query(forms.tenant))),
        escaped(forms.csrf),
        connection.id,
    )
}

/// A server was connected.
pub(crate) fn connected(title: &str, connection: &Connection) -> Response {
    let mut body = format!("<h1>{} is connected</h1>", escaped(title));
    if let Some(name) = &connection.workspace_name {
        let _ = write!(body, "<p>Tools use the workspace <b>{}</b> from now on.</p>", escaped(name));
    }
    body.push_str("<p>You can close this page.</p><a class=\"button\" href=\"/connect\">Connections</a>");
    page(StatusCode::OK, &body, None)
}

/// Something did not work.
pub(crate) fn failed(status: StatusCode, heading: &str, sentence: &str) -> Response {
    let body = format!(
        "<h1>{}</h1><p>{}</p><a class=\"button\" href=\"/connect\">Connections</a>",
        escaped(heading),
        escaped(sentence)
    );
    page(status, &body, None)
}

/// The person has to say in which tenant.
pub(crate) fn tenants(memberships: &[Membership], place: &str) -> Response {
    let mut body = "<h1>Connections</h1><p>Of which tenant?</p><ul>".to_owned();
    for membership in memberships.iter().filter(|membership| membership.accepted) {
        let place = format!("{place}{}", query(Some(&membership.tenant.to_string())));
        let _ = write!(body, "<li><a href=\"{}\">{}</a></li>", escaped(&place), escaped(&membership.name));
    }
    body.push_str("</ul>");
    page(StatusCode::OK, &body, None)
}

fn query(tenant: Option<&str>) -> String {
    tenant.map(|tenant| format!("?tenant={tenant}")).unwrap_or_default()
}
