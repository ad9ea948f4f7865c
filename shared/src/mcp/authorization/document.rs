//! Client-id documents: a program whose id is the address of a page about it.

use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::client::{self, Client};
use crate::{
    error::{Error, Result},
    outbound::Outbound,
};

const LARGEST: usize = 16 * 1024;

#[derive(Deserialize)]
struct Document {
    client_id: String,
    #[serde(default)]
    client_name: Option<String>,
    redirect_uris: Vec<String>,
    #[serde(default)]
    token_endpoint_auth_method: Option<String>,
    #[serde(default)]
    client_secret: Option<Value>,
}

/// The address that this id is, if it is one.
pub(super) fn address(id: &str) -> Option<Url> {
    let url = Url::parse(id).ok()?;
    let is_document = matches!(url.scheme(), "https" | "http")
        && url.path().len() > 1
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none()
        // Dots and escapes that were resolved on the way would be a second spelling of the same id.
        && url.as_str() == id
        && id.len() <= 2000;
    is_document.then_some(url)
}

/// Fetches what the program says about itself.
///
/// # Errors
/// 422 when it cannot be fetched, or is about somebody else.
pub(super) async fn fetch(outbound: &Outbound, id: &str, url: &Url) -> Result<Client> {
    let value = outbound.json(url, LARGEST).await?;
    read(id, url, value).map_err(|sentence| Error::unacceptable(format!("{url}: {sentence}")))
}

fn read(id: &str, url: &Url, value: Value) -> Result<Client, String> {
    let document: Document = serde_json::from_value(value)
        .map_err(|_| "is no document about a client: client_id and redirect_uris are missing".to_owned())?;
    if document.client_id != id {
        return Err("its client_id is not its own address".to_owned());
    }
    let method = document.token_endpoint_auth_method.as_deref().unwrap_or("none");
    if method != "none" || document.client_secret.is_some() {
        return Err("token_endpoint_auth_method must be none: a published client has no secret".to_owned());
    }
    client::check_uris(&document.redirect_uris)?;
    let host = url.host_str().unwrap_or_default().to_owned();
    Ok(Client {
        id: id.to_owned(),
        name: client::name(document.client_name.as_deref()).unwrap_or_else(|| host.clone()),
        redirect_uris: document.redirect_uris,
        host: Some(host),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "https://app.example/client.json";

    #[test]
    fn an_id_is_an_address_or_not() {
        assert!(address(ID).is_some());
        for other in [
            "mcp_1234",
            "https://app.example",
            "https://app.example/",
            "https://app.example/x#y",
            "https://u@app.example/x",
            "https://app.example/a/../x",
            "HTTPS://app.example/x",
            "ftp://app.example/x",
        ] {
            assert!(address(other).is_none(), "{other}");
        }
    }

    #[test]
    fn a_document_is_about_its_own_address() {
        let good =
            json!({"client_id": ID, "client_name": "App", "redirect_uris": ["https://app.example/cb"]});
        let read = |change: Value| {
            let mut document = good.clone();
            document.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            read(ID, &ID.parse().unwrap(), document)
        };
        assert_eq!(read(json!({})).unwrap().host.unwrap(), "app.example");
        for change in [
            json!({"client_id": "https://evil.example/client.json"}),
            json!({"redirect_uris": []}),
            json!({"redirect_uris": ["http://evil.example/"]}),
            json!({"redirect_uris": "https://app.example/cb"}),
            json!({"token_endpoint_auth_method": "client_secret_post"}),
            json!({"client_secret": "x"}),
        ] {
            assert!(read(change.clone()).is_err(), "{change}");
        }
    }
}
