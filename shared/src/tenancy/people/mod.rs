//! The people of a tenant, as its admins manage them: list, ask in, change the role, remove.
//!
//! Invariant: a tenant keeps an admin. Whoever is asked in belongs once they accept, with the invitation's code or, where
//! their address was checked, by choosing the tenant; so nobody is drawn into a tenant, or out of their own, by somebody
//! else's doing, and nobody comes in by having registered somebody else's address.

mod store;

use chrono::{DateTime, Utc};
use serde_json::json;
use uuid::Uuid;

use super::{
    AdminActor,
    audit::{self, Entry},
    invitations::Invitation,
};
use crate::{
    db::TenantTx,
    error::{Error, Result},
    identity::Role,
    ids::UserId,
};

/// A member, or somebody who was asked in.
#[derive(Debug, Clone)]
pub struct Member {
    pub user: UserId,
    /// Of somebody who was asked in, the one they were asked by. None for a person of an outside issuer that vouched for
    /// none.
    pub email: Option<String>,
    pub role: Role,
    /// When they accepted; none while they were only asked in.
    pub accepted_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
}

/// The tenant's people by id, after the one that the cursor names.
///
/// # Errors
/// The database's.
pub async fn list(
    tx: &mut TenantTx,
    _: &AdminActor,
    after: Option<UserId>,
    most: i64,
) -> Result<Vec<Member>> {
    store::list(tx, after, most).await
}

/// Asks a person in. The code is for the admin to hand to them.
///
/// # Errors
/// 409 when they belong already, or were asked in before; the database's.
pub async fn invite(
    tx: &mut TenantTx,
    admin: &AdminActor,
    email: &str,
    role: Role,
) -> Result<(Member, Invitation)> {
    let invitation = Invitation::new();
    let Some(user) = store::invite(tx, UserId::generate(), email, role, &invitation).await? else {
        let message =
            "this person belongs to the tenant, or was asked in before; remove them first to ask them again";
        return Err(Error::conflict(message));
    };
    let target = user.to_string();
    let entry = Entry::new("member.invited", &target).with(json!({ "role": role.as_str() }));
    audit::record(tx, admin, entry).await?;
    let member = store::one(tx, user).await?.ok_or_else(no_such_member)?;
    Ok((member, invitation))
}

/// Changes a member's role.
///
/// # Errors
/// 404 when there is no such member; 409 when they are the last admin; the database's.
pub async fn set_role(tx: &mut TenantTx, admin: &AdminActor, user: UserId, role: Role) -> Result<Member> {
    let before = store::lock_admins_and(tx, user).await?.ok_or_else(no_such_member)?;
    if before == Role::Admin && role != Role::Admin {
        must_leave_an_admin(tx, user).await?;
    }
    store::set_role(tx, user, role).await?;
    let target = user.to_string();
    let entry = Entry::new("member.role_set", &target).with(json!({ "role": role.as_str() }));
    audit::record(tx, admin, entry).await?;
    store::one(tx, user).await?.ok_or_else(no_such_member)
}

/// Removes a member with their keys and connections of this tenant. What they made stays the tenant's.
///
/// # Errors
/// 404 when there is no such member; 409 when they are the last admin; the database's.
pub async fn remove(tx: &mut TenantTx, admin: &AdminActor, user: UserId) -> Result<()> {
    let role = store::lock_admins_and(tx, user).await?.ok_or_else(no_such_member)?;
    if role == Role::Admin {
        must_leave_an_admin(tx, user).await?;
    }
    store::remove(tx, user).await?;
    audit::record(tx, admin, Entry::new("member.removed", &user.to_string())).await
}

/// The transaction's user leaves the tenant, with their keys and connections there. What they made stays the tenant's.
///
/// # Errors
/// 404 when they do not belong to it, as everybody in the default tenant who belongs to none; 409 when they are the last
/// admin; the database's.
pub async fn leave(tx: &mut TenantTx) -> Result<()> {
    let (tenant, user) = (tx.actor().tenant, tx.actor().user.to_string());
    match store::leave(tx).await?.as_str() {
        "left" => audit::record_of_system(tx.connection(), tenant, Entry::new("member.left", &user)).await,
        "last_admin" => Err(last_admin()),
        _ => Err(Error::not_found("you do not belong to the tenant, so there is nothing to leave")),
    }
}

/// Whether the tenant has an organisation at WorkOS, which then says who belongs.
///
/// # Errors
/// The database's.
pub async fn is_outside(tx: &mut TenantTx) -> Result<bool> {
    store::has_organisation(tx).await
}

async fn must_leave_an_admin(tx: &mut TenantTx, user: UserId) -> Result<()> {
    if store::other_admins(tx, user).await? == 0 {
        return Err(last_admin());
    }
    Ok(())
}

fn last_admin() -> Error {
    Error::conflict("this is the tenant's last admin; make another one first")
}

fn no_such_member() -> Error {
    Error::not_found("the tenant has no such member")
}

/// The id of a member as a path names it; what is no id names nobody.
///
/// # Errors
/// 404.
pub fn member_id(text: &str) -> Result<UserId> {
    Uuid::parse_str(text).map(UserId).map_err(|_| no_such_member())
}
