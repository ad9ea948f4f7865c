//! Where the deployment is for people, and whose pages may call it.

use url::Url;

use super::reader::Reader;

/// Where people reach this deployment.
pub(super) fn own(reader: &mut Reader<'_>, app_port: u16) -> Option<Url> {
    let text =
        reader.text("PUBLIC_URL").map_or_else(|| format!("http://localhost:{app_port}"), str::to_owned);
    match Url::parse(&text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.host().is_some() => Some(url),
        _ => {
            reader.refuse("PUBLIC_URL", format!("{text:?} is not an http or https URL"));
            None
        }
    }
}

/// Whose pages may call from a browser.
pub(super) fn of_browsers(reader: &mut Reader<'_>) -> Vec<String> {
    let mut origins = Vec::new();
    for url in reader.list::<Url>("CORS_ORIGINS", "an origin such as https://app.example.com") {
        if !matches!(url.scheme(), "http" | "https") || url.path() != "/" || url.query().is_some() {
            reader.refuse(
                "CORS_ORIGINS",
                format!("{:?} is not an origin: scheme, host and port only", url.as_str()),
            );
        }
        origins.push(url.origin().ascii_serialization());
    }
    origins
}
