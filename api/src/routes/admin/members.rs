//! The people of a tenant, for its admins.

use axum::{
    Json as JsonAnswer,
    extract::{Path, State},
};
use chrono::{DateTime, Utc};
use http::StatusCode;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use shared::{
    db::TenantTx,
    error::{Error, Result},
    identity::Role,
    ids::UserId,
    tenancy::people::{self, Member},
};
use utoipa::ToSchema;

use super::tenants::Page;
use crate::{
    auth::Admin,
    error::{Answer, ErrorBody},
    extract::{Json, Parameters},
    state::App,
};

/// A role in a tenant.
#[derive(Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RoleView {
    Member,
    Admin,
}

impl From<Role> for RoleView {
    fn from(role: Role) -> Self {
        match role {
            Role::Member => Self::Member,
            Role::Admin => Self::Admin,
        }
    }
}

impl From<RoleView> for Role {
    fn from(role: RoleView) -> Self {
        match role {
            RoleView::Member => Self::Member,
            RoleView::Admin => Self::Admin,
        }
    }
}

/// A member, or somebody who was asked in.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MemberView {
    /// Of somebody who was asked in, a user made for the invitation: whoever accepts it with an account they have is a
    /// member by that account's id.
    #[schema(value_type = Uuid)]
    user_id: UserId,
    /// Of somebody who was asked in, the address they were asked by.
    #[schema(required = true)]
    email: Option<String>,
    role: RoleView,
    /// When they accepted; null while they were only asked in.
    #[schema(required = true)]
    accepted_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
}

impl From<Member> for MemberView {
    fn from(member: Member) -> Self {
        let Member { user, email, role, accepted_at, created_at } = member;
        Self { user_id: user, email, role: role.into(), accepted_at, created_at }
    }
}

/// What opens the tenant to whoever was asked in. The code is shown this once.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct InvitationView {
    /// To hand to the person, who registers with it, or accepts it at POST /api/v1/auth/invitations/accept.
    #[schema(example = "inv_5f0c…")]
    code: String,
    /// When the code is good no more.
    expires_at: DateTime<Utc>,
}

impl From<shared::tenancy::invitations::Invitation> for InvitationView {
    fn from(invitation: shared::tenancy::invitations::Invitation) -> Self {
        Self { code: invitation.code.expose_secret().to_owned(), expires_at: invitation.expires_at }
    }
}

/// Somebody who was asked in.
#[derive(Serialize, ToSchema)]
pub(crate) struct InvitedView {
    #[serde(flatten)]
    member: MemberView,
    invitation: InvitationView,
}

/// A page of members.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MemberList {
    items: Vec<MemberView>,
    /// For the next page; null on the last.
    #[schema(required = true)]
    next_cursor: Option<String>,
}

/// Whom to ask in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Invitation {
    #[schema(example = "ann@example.com")]
    email: String,
    role: RoleView,
}

/// A role to set.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RoleBody {
    role: RoleView,
}

/// Lists the tenant's members and those who were asked in.
#[utoipa::path(
    get, path = "/admin/members", tag = "admin", security(("apiKey" = [])),
    params(Page),
    responses(
        (status = 200, description = "A page of members", body = MemberList),
        (status = 400, description = "An unreadable parameter", body = ErrorBody),
    )
)]
pub(crate) async fn list_members(
    State(app): State<App>,
    Admin(admin): Admin,
    Parameters(page): Parameters<Page>,
) -> Answer<JsonAnswer<MemberList>> {
    let (limit, after) = page.read()?;
    let mut tx = app.tenants.begin(admin.actor()).await?;
    let members = people::list(&mut tx, &admin, after.map(UserId), limit).await?;
    tx.commit().await?;
    let next_cursor = Page::next(limit, members.len(), members.last().map(|member| member.user.0));
    Ok(JsonAnswer(MemberList { items: members.into_iter().map(MemberView::from).collect(), next_cursor }))
}

/// Asks a person into the tenant. They belong once they accept with the code; a user of an outside issuer that vouches for
/// the address also by choosing the tenant, with X-Tenant-ID or a token for it.
#[utoipa::path(
    post, path = "/admin/members", tag = "admin", security(("apiKey" = [])),
    request_body = Invitation,
    responses(
        (status = 201, description = "Whom was asked in", body = InvitedView),
        (status = 409, description = "They belong already or were asked in before, or WorkOS says who belongs", body = ErrorBody),
    )
)]
pub(crate) async fn post_member(
    State(app): State<App>,
    Admin(admin): Admin,
    Json(body): Json<Invitation>,
) -> Answer<(StatusCode, JsonAnswer<InvitedView>)> {
    let email = email(&body.email)?;
    let mut tx = app.tenants.begin(admin.actor()).await?;
    must_be_ours(&app, &mut tx).await?;
    let (member, invitation) = people::invite(&mut tx, &admin, &email, body.role.into()).await?;
    tx.commit().await?;
    app.callers.tenants.directory.forget(member.user);
    let view = InvitedView { member: member.into(), invitation: invitation.into() };
    Ok((StatusCode::CREATED, JsonAnswer(view)))
}

/// Changes a member's role.
#[utoipa::path(
    patch, path = "/admin/members/{userId}", tag = "admin", security(("apiKey" = [])),
    params(("userId" = Uuid, Path, description = "The member's id")),
    request_body = RoleBody,
    responses(
        (status = 200, description = "The member", body = MemberView),
        (status = 404, description = "The tenant has no such member", body = ErrorBody),
        (status = 409, description = "They are the last admin, or WorkOS says who belongs", body = ErrorBody),
    )
)]
pub(crate) async fn patch_member(
    State(app): State<App>,
    Admin(admin): Admin,
    Path(user): Path<String>,
    Json(body): Json<RoleBody>,
) -> Answer<JsonAnswer<MemberView>> {
    let user = people::member_id(&user)?;
    let mut tx = app.tenants.begin(admin.actor()).await?;
    must_be_ours(&app, &mut tx).await?;
    let member = people::set_role(&mut tx, &admin, user, body.role.into()).await?;
    tx.commit().await?;
    app.callers.tenants.directory.forget(user);
    Ok(JsonAnswer(member.into()))
}

/// Removes a member and their keys. What they made stays the tenant's.
#[utoipa::path(
    delete, path = "/admin/members/{userId}", tag = "admin", security(("apiKey" = [])),
    params(("userId" = Uuid, Path, description = "The member's id")),
    responses(
        (status = 204, description = "They belong to it no more"),
        (status = 404, description = "The tenant has no such member", body = ErrorBody),
        (status = 409, description = "They are the last admin, or WorkOS says who belongs", body = ErrorBody),
    )
)]
pub(crate) async fn delete_member(
    State(app): State<App>,
    Admin(admin): Admin,
    Path(user): Path<String>,
) -> Answer<StatusCode> {
    let user = people::member_id(&user)?;
    let mut tx = app.tenants.begin(admin.actor()).await?;
    must_be_ours(&app, &mut tx).await?;
    people::remove(&mut tx, &admin, user).await?;
    tx.commit().await?;
    app.callers.tenants.directory.forget(user);
    Ok(StatusCode::NO_CONTENT)
}

/// Where WorkOS says who belongs, a change here would be undone at the next look.
pub(crate) async fn must_be_ours(app: &App, tx: &mut TenantTx) -> Result<()> {
    if app.callers.tenants.directory.is_outside() && people::is_outside(tx).await? {
        return Err(Error::conflict("WorkOS says who belongs to this tenant; change it there"));
    }
    Ok(())
}

/// What can be checked of an address without writing to it.
pub(super) fn email(text: &str) -> Result<String> {
    let text = text.trim();
    let is_whole = text
        .split_once('@')
        .is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty() && !domain.contains('@'));
    let is_visible = !text.chars().any(|letter| letter.is_whitespace() || letter.is_control());
    if is_whole && is_visible && text.len() <= 254 {
        Ok(text.to_owned())
    } else {
        Err(Error::unacceptable("the email is not an address such as ann@example.com"))
    }
}
