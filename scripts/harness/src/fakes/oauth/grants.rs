//! What was granted: codes, and families of refresh tokens of which one is good.

use std::collections::HashMap;

/// A person's grant: tokens come and go, the family stays until it is revoked.
#[derive(Debug, Clone)]
pub struct Family {
    /// Who was let in.
    pub client: String,
    /// What the person chose: (id, name).
    pub workspace: (String, String),
    /// The good refresh token, if there are refresh tokens.
    pub refresh: Option<String>,
    /// The one before, while it may be shown once more.
    pub former: Option<String>,
    /// How its access tokens begin.
    prefix: &'static str,
    /// The access tokens that were given.
    pub access: Vec<String>,
    /// Nothing of it is good any more.
    pub revoked: bool,
}

/// A code that was given to a browser.
#[derive(Debug, Clone)]
pub(super) struct Code {
    pub(super) client: String,
    pub(super) redirect_uri: String,
    pub(super) challenge: Option<String>,
    pub(super) resource: Option<String>,
    pub(super) workspace: (String, String),
}

/// Everything that was granted.
#[derive(Debug, Default)]
pub struct Grants {
    pub(super) codes: HashMap<String, Code>,
    /// In the order of their making.
    pub families: Vec<Family>,
    made: usize,
}

/// A pair of tokens.
pub(super) struct Pair {
    pub(super) access: String,
    pub(super) refresh: Option<String>,
    pub(super) workspace: (String, String),
}

/// What happens to a refresh token that was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) gives_refresh: bool,
    pub(super) rotates: bool,
    /// The one before is good once more, as after a lost answer.
    pub(super) forgives: bool,
}

impl Grants {
    fn next(&mut self, marker: &str) -> usize {
        self.made += 1;
        debug_assert!(!marker.is_empty());
        self.made
    }

    pub(super) fn begin(&mut self, marker: &str, code: &Code, rules: Rules) -> Pair {
        let number = self.next(marker);
        // Notion's own, whose integrations know no challenges, begin so; its MCP server takes no others.
        let prefix = if code.challenge.is_some() { "at-" } else { "ntn_" };
        let access = format!("{prefix}{marker}-{number}");
        let refresh = rules.gives_refresh.then(|| format!("rt-{marker}-{number}"));
        self.families.push(Family {
            client: code.client.clone(),
            workspace: code.workspace.clone(),
            refresh: refresh.clone(),
            former: None,
            prefix,
            access: vec![access.clone()],
            revoked: false,
        });
        Pair { access, refresh, workspace: code.workspace.clone() }
    }

    /// None is invalid_grant.
    pub(super) fn refresh(&mut self, marker: &str, token: &str, client: &str, rules: Rules) -> Option<Pair> {
        let number = self.next(marker);
        let belongs = |family: &&mut Family| {
            family.refresh.as_deref() == Some(token) || family.former.as_deref() == Some(token)
        };
        let family = self.families.iter_mut().find(belongs)?;
        if family.revoked || family.client != client {
            return None;
        }
        let is_former = family.refresh.as_deref() != Some(token);
        if is_former && !rules.forgives {
            // Somebody has an old token: nobody keeps anything.
            family.revoked = true;
            return None;
        }
        let access = format!("{}{marker}-{number}", family.prefix);
        family.access.push(access.clone());
        if rules.rotates {
            family.former = (!is_former).then(|| token.to_owned());
            family.refresh = Some(format!("rt-{marker}-{number}"));
        }
        let refresh = family.refresh.clone().filter(|_| rules.rotates);
        Some(Pair { access, refresh, workspace: family.workspace.clone() })
    }

    pub(super) fn revoke(&mut self, token: &str) -> bool {
        let mut known = false;
        for family in &mut self.families {
            let has = family.refresh.as_deref() == Some(token)
                || family.former.as_deref() == Some(token)
                || family.access.iter().any(|access| access == token);
            if has {
                family.revoked = true;
                known = true;
            }
        }
        known
    }

    /// The family whose newest access token this is.
    #[must_use]
    pub fn of_access(&self, token: &str) -> Option<&Family> {
        self.families
            .iter()
            .find(|family| !family.revoked && family.access.last().is_some_and(|access| access == token))
    }
}
