//! The keys of a deployment, and the development ones that production refuses.

use secrecy::{ExposeSecret as _, SecretString};

use super::reader::Reader;

/// Keys that everybody knows, so production refuses them.
pub(super) const DEVELOPMENT_API_KEY: &str = "alfred-development-key";
pub(super) const DEVELOPMENT_FERNET_KEY: &str = "YWxmcmVkLWRldmVsb3BtZW50LW9ubHktZmVybmV0LWs=";

/// `API_KEY`; none only in production.
pub(super) fn api(reader: &mut Reader<'_>, production: bool) -> Option<SecretString> {
    let key =
        if production { reader.given("API_KEY").map(SecretString::from) } else { reader.secret("API_KEY") }?;
    let text = key.expose_secret();
    let least = if production { 32 } else { 16 };
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        reader.refuse("API_KEY", "may hold visible ASCII characters only, as it travels in a header");
    } else if production && text == DEVELOPMENT_API_KEY {
        reader.refuse(
            "API_KEY",
            "is the development key, which everybody knows; make one with: openssl rand -hex 32",
        );
    } else if text.len() < least {
        reader.refuse("API_KEY", format!("is shorter than {least} characters"));
    }
    Some(key)
}

/// `FERNET_KEY`: newest first, never empty unless a problem was noted.
pub(super) fn fernet(
    reader: &mut Reader<'_>,
    production: bool,
    warnings: &mut Vec<String>,
) -> Vec<SecretString> {
    let hint = "make one with: openssl rand -base64 32 | tr '+/' '-_'";
    let Some(text) = reader.text("FERNET_KEY") else {
        if production {
            reader.refuse("FERNET_KEY", format!("is required in prod; {hint}"));
        } else {
            warnings
                .push("FERNET_KEY is unset: the development key, which everybody knows, is used".to_owned());
        }
        return vec![DEVELOPMENT_FERNET_KEY.into()];
    };
    let keys: Vec<&str> = text.split(',').map(str::trim).filter(|key| !key.is_empty()).collect();
    for key in &keys {
        let body = key.strip_suffix('=').unwrap_or_default();
        let readable = body.len() == 43
            && body.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if !readable {
            reader.refuse(
                "FERNET_KEY",
                format!("has a key that is not 32 bytes in base64 with - and _; {hint}"),
            );
        } else if production && *key == DEVELOPMENT_FERNET_KEY {
            reader.refuse("FERNET_KEY", format!("has the development key, which everybody knows; {hint}"));
        }
    }
    if keys.is_empty() {
        reader.refuse("FERNET_KEY", format!("holds no key; {hint}"));
    }
    keys.into_iter().map(SecretString::from).collect()
}
