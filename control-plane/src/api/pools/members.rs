//! `/pools/{id}/members` and invitations.

use super::data::{DONE, Done, InvitationData, InviteInput, InvitedData};
use crate::{
    access::Role,
    api::{
        caller::Caller,
        envelope::{Failure, Reply, Success},
        json::Json,
        path::{Id, Ids},
    },
    app::App,
    error::ServiceError,
    service::pool::{self as service, Invitee},
};
use axum::extract::State;
use hoody_protocol::id::{PoolId, UserId};
use std::collections::BTreeMap;

/// Characters of the longest user name.
const MAX_USERNAME_CHARS: usize = 100;

fn role(input: &InviteInput, problems: &mut BTreeMap<String, String>) -> Option<Role> {
    let problem = match input.role.as_deref().map(str::parse) {
        Some(Ok(role)) => return Some(role),
        Some(Err(error)) => format!("{error}"),
        None => "is required: admin or user".to_owned(),
    };
    problems.insert("role".to_owned(), problem);
    None
}

fn invitee(input: &InviteInput, problems: &mut BTreeMap<String, String>) -> Option<Invitee> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let (field, problem) = match (&input.username, &input.user_id) {
        (Some(_), Some(_)) => ("user_id", "cannot stand beside username: send one of them".to_owned()),
        (Some(name), None) if (1..=MAX_USERNAME_CHARS).contains(&name.len()) && name.chars().all(plain) => {
            return Some(Invitee::Name(name.clone()));
        }
        (Some(_), None) => ("username", format!("must be 1 to {MAX_USERNAME_CHARS} letters, digits, - or _")),
        (None, Some(id)) => match id.parse() {
            Ok(id) => return Some(Invitee::Id(id)),
            Err(error) => ("user_id", format!("{error}")),
        },
        (None, None) => ("username", "is required".to_owned()),
    };
    problems.insert(field.to_owned(), problem);
    None
}

/// Invite a user to a pool
///
/// Admins invite users, only the owner invites admins.
#[utoipa::path(post, path = "/api/v1/pools/{id}/members", operation_id = "poolMembers.invite", tag = "pools",
    params(("id" = String, Path)), request_body = InviteInput,
    responses((status = 200, body = Success<InvitedData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure), (status = 409, body = Failure),
        (status = 422, body = Failure)))]
pub(super) async fn invite(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<PoolId>,
    Json(input): Json<InviteInput>,
) -> Result<Reply<InvitedData>, ServiceError> {
    let mut problems = BTreeMap::new();
    let (invitee, role) = (invitee(&input, &mut problems), role(&input, &mut problems));
    let (Some(invitee), Some(role)) = (invitee, role) else { return Err(ServiceError::Invalid(problems)) };
    let member = service::invite(&app, &caller, id, invitee, role).await?;
    Ok(Reply::ok(member.into(), "invited"))
}

/// Change a member's role
#[utoipa::path(put, path = "/api/v1/pools/{id}/members/{userId}", operation_id = "poolMembers.updateRole", tag = "pools",
    params(("id" = String, Path), ("userId" = String, Path)), request_body = InviteInput,
    responses((status = 200, body = Success<Done>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure), (status = 409, body = Failure)))]
pub(super) async fn update_role(
    State(app): State<App>,
    caller: Caller,
    Ids(id, user): Ids<PoolId, UserId>,
    Json(input): Json<InviteInput>,
) -> Result<Reply<Done>, ServiceError> {
    let mut problems = BTreeMap::new();
    let role = role(&input, &mut problems).ok_or(ServiceError::Invalid(problems))?;
    service::update_role(&app, &caller, id, user, role).await?;
    Ok(Reply::ok(DONE, "role updated"))
}

/// Change a member's role
#[utoipa::path(patch, path = "/api/v1/pools/{id}/members/{userId}", operation_id = "poolMembers.patchRole",
    tag = "pools", params(("id" = String, Path), ("userId" = String, Path)), request_body = InviteInput,
    responses((status = 200, body = Success<Done>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure), (status = 409, body = Failure)))]
pub(super) async fn patch_role(
    app: State<App>,
    caller: Caller,
    ids: Ids<PoolId, UserId>,
    input: Json<InviteInput>,
) -> Result<Reply<Done>, ServiceError> {
    update_role(app, caller, ids, input).await
}

/// Remove a member, take an invitation back, or leave
#[utoipa::path(delete, path = "/api/v1/pools/{id}/members/{userId}", operation_id = "poolMembers.remove", tag = "pools",
    params(("id" = String, Path), ("userId" = String, Path)),
    responses((status = 200, body = Success<Done>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure), (status = 409, body = Failure)))]
pub(super) async fn remove(
    State(app): State<App>,
    caller: Caller,
    Ids(id, user): Ids<PoolId, UserId>,
) -> Result<Reply<Done>, ServiceError> {
    service::remove(&app, &caller, id, user).await?;
    Ok(Reply::ok(DONE, "removed"))
}

/// Your open invitations
#[utoipa::path(get, path = "/api/v1/pools/invitations/pending", operation_id = "poolInvitations.list", tag = "pools",
    responses((status = 200, body = Success<Vec<InvitationData>>), (status = 401, body = Failure), (status = 403, body = Failure)))]
pub(super) async fn invitations(
    State(app): State<App>,
    caller: Caller,
) -> Result<Reply<Vec<InvitationData>>, ServiceError> {
    let invitations = service::invitations(&app, &caller).await?;
    Ok(Reply::ok(invitations.into_iter().map(InvitationData::from).collect(), "these are your invitations"))
}

/// Accept an invitation
#[utoipa::path(post, path = "/api/v1/pools/{id}/accept", operation_id = "poolInvitations.accept", tag = "pools",
    params(("id" = String, Path)),
    responses((status = 200, body = Success<Done>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure)))]
pub(super) async fn accept(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<PoolId>,
) -> Result<Reply<Done>, ServiceError> {
    service::answer(&app, &caller, id, true).await?;
    Ok(Reply::ok(DONE, "you are a member of the pool"))
}

/// Reject an invitation
#[utoipa::path(post, path = "/api/v1/pools/{id}/reject", operation_id = "poolInvitations.reject", tag = "pools",
    params(("id" = String, Path)),
    responses((status = 200, body = Success<Done>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure)))]
pub(super) async fn reject(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<PoolId>,
) -> Result<Reply<Done>, ServiceError> {
    service::answer(&app, &caller, id, false).await?;
    Ok(Reply::ok(DONE, "invitation rejected"))
}
