//! What a deployment decides about tenants: how their requests are signed and where memberships come from.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::reader::Reader;

/// See `.env.example`.
#[derive(Debug, Clone)]
pub struct TenantConfig {
    /// `TENANT_HEADER_SECRET`: when set, requests for tenant data need signed headers.
    pub header_secret: Option<SecretString>,
    /// `TENANT_SECRETS_FOLDER`: where new header secrets are delivered to.
    pub secrets_folder: Option<PathBuf>,
    /// `WORKOS_*`: none when memberships come from the database.
    pub workos: Option<WorkosConfig>,
}

/// How WorkOS is asked for memberships.
#[derive(Debug, Clone)]
pub struct WorkosConfig {
    pub api_key: SecretString,
    pub api_url: Url,
}

/// None only when a problem was noted.
pub(super) fn read(reader: &mut Reader<'_>, production: bool) -> Option<TenantConfig> {
    let header_secret = reader.secret("TENANT_HEADER_SECRET");
    let least = if production { 32 } else { 16 };
    if header_secret.as_ref().is_some_and(|secret| secret.expose_secret().len() < least) {
        let problem = format!("is shorter than {least} characters; make one with: openssl rand -hex 32");
        reader.refuse("TENANT_HEADER_SECRET", problem);
    }
    let secrets_folder = reader.text("TENANT_SECRETS_FOLDER").map(PathBuf::from);
    let api_url: Option<Url> = reader.optional("WORKOS_API_URL", "an http or https URL");
    if api_url.as_ref().is_some_and(|url| !matches!(url.scheme(), "http" | "https")) {
        reader.refuse("WORKOS_API_URL", "is not an http or https URL");
    }
    let api_url = api_url?;
    let workos = reader.secret("WORKOS_API_KEY").map(|api_key| WorkosConfig { api_key, api_url });
    Some(TenantConfig { header_secret, secrets_folder, workos })
}
