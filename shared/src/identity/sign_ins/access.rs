//! Access tokens: JWTs that are good for minutes, signed by us (RFC 9068).

use std::time::Duration;

use chrono::Utc;
use jsonwebtoken::{Algorithm, Validation};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    SignIns,
    store::{self, SignInRow},
};
use crate::{
    error::Result,
    identity::{Credential, Principal, Scopes},
    ids::SignInId,
};

/// The header's `typ`, which no other token of ours has.
const TYP: &str = "at+jwt";

/// What an access token says.
#[derive(Debug, Serialize, Deserialize)]
pub struct AccessClaims {
    /// Who issued it: the public URL.
    pub iss: String,
    /// The user.
    pub sub: Uuid,
    /// What it is good for: the public URL, or one resource under it.
    pub aud: String,
    /// The sign-in it belongs to.
    pub sid: Uuid,
    /// Words with spaces between them.
    pub scope: String,
    /// The program that acts for the user, when it is not ours.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub client_id: Option<String>,
    /// When it was made, in seconds since 1970.
    pub iat: i64,
    /// When it ends.
    pub exp: i64,
    /// Its own id.
    pub jti: Uuid,
}

impl AccessClaims {
    /// For how long the token is good from now on.
    #[must_use]
    pub fn good_for(&self) -> Duration {
        let milliseconds = self.exp.saturating_mul(1000) - Utc::now().timestamp_millis();
        Duration::from_millis(u64::try_from(milliseconds).unwrap_or_default())
    }
}

impl SignIns {
    pub(super) async fn access_token(&self, row: &SignInRow) -> Result<SecretString> {
        let now = Utc::now().timestamp();
        let life = i64::try_from(self.0.settings.access_life.as_secs()).unwrap_or(i64::MAX / 2);
        let scopes = row
            .scopes
            .as_ref()
            .map_or(Scopes::ALL, |words| Scopes::of_words(words.iter().map(String::as_str)));
        let claims = AccessClaims {
            iss: self.0.settings.issuer.clone(),
            sub: row.user_id.0,
            aud: row.audience.clone().unwrap_or_else(|| self.0.settings.issuer.clone()),
            sid: row.id.0,
            scope: scopes.to_string(),
            client_id: row.client_id.clone(),
            iat: now,
            exp: now + life,
            jti: Uuid::new_v4(),
        };
        Ok(self.0.signing.sign(TYP, &claims).await?.into())
    }

    /// Who an access token of ours belongs to, while its sign-in lasts. Where it may be shown is for
    /// [`Self::is_for`] to say, at every use.
    ///
    /// # Errors
    /// The database's.
    pub async fn by_access_token(&self, token: &SecretString) -> Result<Option<(Principal, AccessClaims)>> {
        let Some(claims) = self.claims(token).await? else { return Ok(None) };
        let row = store::by_id(&self.0.engine, SignInId(claims.sid)).await?;
        let Some(row) = row.filter(|row| row.is_live && row.user_id.0 == claims.sub) else { return Ok(None) };
        let mut principal = row.principal(Credential::Bearer);
        principal.scopes = principal.scopes.and(Scopes::of_words(claims.scope.split(' ')));
        Ok(Some((principal, claims)))
    }

    /// Whether a token for `audience` is good at this path: one for all of Alfred is good everywhere, one for a
    /// resource opens that one and what is below it.
    #[must_use]
    pub fn is_for(&self, audience: &str, path: &str) -> bool {
        is_for(audience, &self.0.settings.issuer, path)
    }

    /// The claims of a token that we signed and that has not expired.
    async fn claims(&self, token: &SecretString) -> Result<Option<AccessClaims>> {
        let text = token.expose_secret();
        let Ok(header) = jsonwebtoken::decode_header(text) else { return Ok(None) };
        if header.alg != Algorithm::EdDSA || header.typ.as_deref() != Some(TYP) || header.crit.is_some() {
            return Ok(None);
        }
        let Some(kid) = header.kid else { return Ok(None) };
        let Some(key) = self.0.signing.checking(&kid).await? else { return Ok(None) };
        let mut validation = Validation::new(Algorithm::EdDSA);
        // Both ends are our own clocks, and a client refreshes before the end.
        validation.leeway = 0;
        validation.set_issuer(&[&self.0.settings.issuer]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // Which audience is right depends on the route; the caller asks.
        validation.validate_aud = false;
        Ok(jsonwebtoken::decode::<AccessClaims>(text, &key, &validation).ok().map(|decoded| decoded.claims))
    }
}

fn is_for(audience: &str, all: &str, path: &str) -> bool {
    let Some(resource) = audience.trim_end_matches('/').strip_prefix(all) else { return false };
    let below = || path.strip_prefix(resource).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    resource.is_empty() || (resource.starts_with('/') && below())
}

#[cfg(test)]
mod tests {
    use super::is_for;

    #[test]
    fn a_token_for_a_resource_opens_that_one() {
        let all = "https://a.example";
        assert!(is_for(all, all, "/jobs/1"));
        assert!(is_for("https://a.example/mcp", all, "/mcp"));
        assert!(is_for("https://a.example/mcp/", all, "/mcp/x"));
        for (audience, path) in [
            ("https://a.example/mcp", "/mcpx"),
            ("https://a.example/mcp", "/jobs"),
            ("https://a.example.evil", "/jobs"),
            ("https://b.example", "/jobs"),
            ("", "/jobs"),
        ] {
            assert!(!is_for(audience, all, path), "{audience} {path}");
        }
    }
}
