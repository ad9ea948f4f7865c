//! Who belongs to which tenant, and in which of them a request acts [I3].
//!
//! Invariant: only a membership grants a tenant. Headers, host names and claims choose among memberships; they never add
//! one. What cannot be decided is refused.

mod store;

use std::{sync::Arc, time::Duration};

use sqlx::PgPool;

use super::{remembered::Remembered, workos::WorkOs};
use crate::{
    error::{Code, Error, Invalid, Result},
    identity::{Principal, Role},
    ids::{TenantId, UserId},
};

/// What became of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TenantState {
    /// It is served.
    Active,
    /// Its requests are refused; its data stays.
    Suspended,
    /// Its data is being erased.
    Deleting,
}

impl TenantState {
    /// The word of the database and the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Deleting => "deleting",
        }
    }

    pub(super) fn from_word(word: &str) -> Self {
        match word {
            "active" => Self::Active,
            "suspended" => Self::Suspended,
            // A word of tomorrow opens nothing today.
            _ => Self::Deleting,
        }
    }
}

/// A person's place in a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    pub tenant: TenantId,
    /// The tenant's name.
    pub name: String,
    /// The tenant's organisation at WorkOS.
    pub external_id: Option<String>,
    pub state: TenantState,
    pub role: Role,
    /// Whether the person has chosen the tenant. Being asked in by somebody else counts only once they did.
    pub accepted: bool,
}

/// Everything by which a request, or what it came with, names a tenant. All of it has to agree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// By a header, a host name or the key.
    pub named: Vec<TenantId>,
    /// A token's claim: a tenant's id, or its organisation's.
    pub claimed: Option<String>,
}

/// In which tenant, and as what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chosen {
    pub tenant: TenantId,
    pub role: Role,
    /// Whether the person has just accepted being asked in.
    pub accepts: bool,
}

/// Whether somebody with these memberships acts in the tenant that everybody shares who belongs to none. Having been asked
/// into another one changes nothing.
#[must_use]
pub fn shares_the_default(memberships: &[Membership]) -> bool {
    !memberships.iter().any(|membership| membership.accepted)
}

/// Chooses the tenant of a request.
///
/// # Errors
/// 404 when a tenant is named that the person does not belong to, and when what names one does not agree; 400 when one of
/// several has to be named; 403 when the tenant is suspended.
pub fn choose(memberships: &[Membership], choice: &Choice, default_tenant: TenantId) -> Result<Chosen> {
    let mut named = choice.named.clone();
    if let Some(claim) = &choice.claimed {
        let is_claimed = |membership: &&Membership| {
            membership.external_id.as_ref() == Some(claim) || membership.tenant.to_string() == *claim
        };
        match memberships.iter().find(is_claimed) {
            Some(membership) => named.push(membership.tenant),
            None if shares_the_default(memberships) && default_tenant.to_string() == *claim => {
                named.push(default_tenant)
            }
            None => return Err(no_such_tenant()),
        }
    }
    let shared_one = Chosen { tenant: default_tenant, role: Role::Member, accepts: false };
    let membership = match named.split_first() {
        Some((first, others)) => {
            if others.iter().any(|other| other != first) {
                return Err(no_such_tenant());
            }
            match memberships.iter().find(|membership| membership.tenant == *first) {
                Some(membership) => membership,
                None if shares_the_default(memberships) && *first == default_tenant => return Ok(shared_one),
                None => return Err(no_such_tenant()),
            }
        }
        None => {
            let mut accepted = memberships.iter().filter(|membership| membership.accepted);
            match (accepted.next(), accepted.next()) {
                (None, _) => return Ok(shared_one),
                (Some(only), None) => only,
                (Some(_), Some(_)) => return Err(ambiguous()),
            }
        }
    };
    match membership.state {
        TenantState::Active => {
            Ok(Chosen { tenant: membership.tenant, role: membership.role, accepts: !membership.accepted })
        }
        TenantState::Suspended => Err(Error::new(
            Code::Forbidden,
            "the tenant is suspended; whoever operates this service can resume it",
        )),
        TenantState::Deleting => Err(no_such_tenant()),
    }
}

/// Unknown and forbidden look alike.
#[must_use]
pub fn no_such_tenant() -> Error {
    Error::not_found("there is no such tenant, or you do not belong to it; GET /v1/auth/tenant lists yours")
}

fn ambiguous() -> Error {
    let message =
        "you belong to several tenants: name one with the header X-Tenant-ID; GET /v1/auth/tenant lists them";
    Error::invalid(Invalid::Unreadable, message)
}

/// How long a membership that ended may still be believed, at most; a look-up's own time comes to it.
const BELIEVED: Duration = Duration::from_secs(5);
/// The same of what WorkOS said.
const BELIEVED_OF_WORKOS: Duration = Duration::from_secs(300);
/// People remembered at most.
const REMEMBERED: usize = 20_000;

/// Where memberships are looked up.
pub struct Directory {
    app: PgPool,
    workos: Option<WorkOs>,
    local: Remembered<UserId, Arc<[Membership]>>,
    mirrored: Remembered<UserId, ()>,
}

impl Directory {
    /// Over the pool of the app role.
    #[must_use]
    pub fn new(app: PgPool, workos: Option<WorkOs>) -> Self {
        Self {
            app,
            workos,
            local: Remembered::new(BELIEVED, REMEMBERED),
            mirrored: Remembered::new(BELIEVED_OF_WORKOS, REMEMBERED),
        }
    }

    /// Whether tenants that have an organisation get their members from WorkOS.
    #[must_use]
    pub fn is_outside(&self) -> bool {
        self.workos.is_some()
    }

    /// The person's memberships, of tenants that are not deleted. Having been asked in by address counts for those alone
    /// whose address was checked; everybody else shows the invitation's code.
    ///
    /// With WorkOS, what it says of a user of the outside issuer is written to the local table first, where keys, roles
    /// and lists of members read it too.
    ///
    /// # Errors
    /// The database's; an internal one when WorkOS does not answer.
    pub async fn memberships(&self, principal: &Principal) -> Result<Arc<[Membership]>> {
        let user = principal.user;
        if let Some(workos) = &self.workos {
            let mirror = async || {
                // A key of an outside user says nothing of them; what WorkOS says of its owner holds for it too.
                let subject = match &principal.outside {
                    Some(outside) => Some(outside.subject.clone()),
                    None => store::outside_subject(&self.app, user).await?,
                };
                if let Some(subject) = subject {
                    let said = workos.memberships(&subject).await?;
                    store::mirror(&self.app, user, &said).await?;
                    self.local.forget(&user);
                }
                Ok(())
            };
            self.mirrored.get(&user, mirror).await?;
        }
        let memberships = self.local.get(&user, || store::of_user(&self.app, user)).await?;
        if principal.email_verified || memberships.iter().all(|membership| membership.accepted) {
            return Ok(memberships);
        }
        Ok(memberships.iter().filter(|membership| membership.accepted).cloned().collect())
    }

    /// The person chose a tenant that they were asked into.
    ///
    /// # Errors
    /// The database's.
    pub async fn accept(&self, tenant: TenantId, user: UserId) -> Result<()> {
        store::accept(&self.app, tenant, user).await?;
        self.local.forget(&user);
        Ok(())
    }

    /// A membership of this person was changed here: looks again at once.
    pub fn forget(&self, user: UserId) {
        self.local.forget(&user);
    }

    /// A tenant was changed here: looks again at all of its people at once.
    pub fn forget_all(&self) {
        self.local.forget_all();
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const DEFAULT: TenantId = TenantId(Uuid::from_u128(1));
    const A: TenantId = TenantId(Uuid::from_u128(0xa));
    const B: TenantId = TenantId(Uuid::from_u128(0xb));

    fn of(tenant: TenantId) -> Membership {
        Membership {
            tenant,
            name: "one".to_owned(),
            external_id: Some(format!("org_{tenant}")),
            state: TenantState::Active,
            role: Role::Admin,
            accepted: true,
        }
    }

    fn named(tenants: &[TenantId]) -> Choice {
        Choice { named: tenants.to_vec(), claimed: None }
    }

    fn claimed(claim: &str) -> Choice {
        Choice { named: vec![], claimed: Some(claim.to_owned()) }
    }

    fn code(memberships: &[Membership], choice: &Choice) -> Code {
        choose(memberships, choice, DEFAULT).unwrap_err().code
    }

    #[test]
    fn none_is_the_shared_tenant_as_a_member() {
        let shared = Chosen { tenant: DEFAULT, role: Role::Member, accepts: false };
        for choice in [Choice::default(), named(&[DEFAULT]), claimed(&DEFAULT.to_string())] {
            assert_eq!(choose(&[], &choice, DEFAULT).unwrap(), shared);
        }
        assert_eq!(code(&[], &named(&[A])), Code::NotFound);
        assert_eq!(code(&[], &claimed("org_a")), Code::NotFound);
    }

    #[test]
    fn one_is_that_one_and_nothing_else() {
        let mine = [of(A)];
        let there = Chosen { tenant: A, role: Role::Admin, accepts: false };
        for choice in [Choice::default(), named(&[A]), named(&[A, A]), claimed(&format!("org_{A}"))] {
            assert_eq!(choose(&mine, &choice, DEFAULT).unwrap(), there);
        }
        for choice in [named(&[B]), named(&[DEFAULT]), named(&[A, B]), claimed("org_elsewhere")] {
            assert_eq!(code(&mine, &choice), Code::NotFound);
        }
    }

    #[test]
    fn several_need_a_choice_that_agrees_with_itself() {
        let mine = [of(A), of(B)];
        assert_eq!(code(&mine, &Choice::default()), Code::Malformed);
        assert_eq!(choose(&mine, &named(&[B]), DEFAULT).unwrap().tenant, B);
        assert_eq!(choose(&mine, &claimed(&B.to_string()), DEFAULT).unwrap().tenant, B);
        let torn = Choice { named: vec![A], claimed: Some(format!("org_{B}")) };
        assert_eq!(code(&mine, &torn), Code::NotFound);
    }

    #[test]
    fn being_asked_in_counts_once_it_is_chosen() {
        let asked = Membership { accepted: false, ..of(B) };
        assert_eq!(choose(&[of(A), asked.clone()], &Choice::default(), DEFAULT).unwrap().tenant, A);
        assert_eq!(
            choose(std::slice::from_ref(&asked), &Choice::default(), DEFAULT).unwrap().tenant,
            DEFAULT
        );
        for choice in [named(&[DEFAULT]), claimed(&DEFAULT.to_string())] {
            let chosen = choose(std::slice::from_ref(&asked), &choice, DEFAULT).unwrap();
            assert_eq!((chosen.tenant, chosen.accepts), (DEFAULT, false));
            assert_eq!(code(&[of(A), asked.clone()], &choice), Code::NotFound);
        }
        let chosen = choose(&[of(A), asked], &named(&[B]), DEFAULT).unwrap();
        assert_eq!((chosen.tenant, chosen.accepts), (B, true));
    }

    #[test]
    fn a_suspended_tenant_says_so_and_a_deleted_one_is_unknown() {
        let suspended = Membership { state: TenantState::Suspended, ..of(A) };
        assert_eq!(code(&[suspended], &Choice::default()), Code::Forbidden);
        let deleting = Membership { state: TenantState::Deleting, ..of(A) };
        assert_eq!(code(&[deleting], &named(&[A])), Code::NotFound);
    }
}
