//! Pools on the wire.

use crate::{
    access::Role,
    api::{json::present, time::rfc3339},
    service::pool::{Details, Input},
    store::pool::{Invitation, Listed, Member, Pool, PoolServer},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// A pool.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PoolData {
    id: String,
    owner_id: String,
    name: String,
    description: Option<String>,
    #[schema(value_type = Object)]
    settings: Map<String, Value>,
    /// Made with the account; it stays.
    is_default: bool,
    created_at: String,
    updated_at: String,
}

impl From<Pool> for PoolData {
    fn from(pool: Pool) -> Self {
        Self {
            id: pool.id.to_string(),
            owner_id: pool.owner.to_string(),
            name: pool.name,
            description: pool.description,
            settings: pool.settings,
            is_default: pool.is_default,
            created_at: rfc3339(pool.created_at),
            updated_at: rfc3339(pool.updated_at),
        }
    }
}

/// A pool in a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ListedData {
    #[serde(flatten)]
    pool: PoolData,
    /// owner, admin or user.
    user_role: &'static str,
    /// The owner too; invitations not.
    member_count: i64,
    server_count: i64,
}

impl From<Listed> for ListedData {
    fn from(listed: Listed) -> Self {
        Self {
            pool: listed.pool.into(),
            user_role: listed.role.as_str(),
            member_count: listed.members,
            server_count: listed.servers,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
struct PersonData {
    id: String,
    username: String,
    alias: String,
}

/// Somebody in a pool.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PoolMemberData)]
pub(super) struct MemberData {
    id: String,
    role: &'static str,
    /// False: invited, and nothing yet.
    is_authorized: bool,
    joined_at: Option<String>,
    user: PersonData,
}

impl From<Member> for MemberData {
    fn from(member: Member) -> Self {
        Self {
            id: member.id.to_string(),
            role: member.role.as_str(),
            is_authorized: member.is_authorized,
            joined_at: member.joined_at.map(rfc3339),
            user: PersonData { id: member.user.to_string(), username: member.username, alias: member.user_alias },
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PoolServerData)]
pub(super) struct ServerData {
    id: String,
    name: String,
    /// Its agent is connected and it is in service.
    is_ready: bool,
    rental_status: String,
}

impl From<PoolServer> for ServerData {
    fn from(server: PoolServer) -> Self {
        Self {
            id: server.id.to_string(),
            name: server.name,
            is_ready: server.online && server.status == "enrolled",
            rental_status: server.status,
        }
    }
}

/// A pool with all that is in it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DetailsData {
    #[serde(flatten)]
    pool: PoolData,
    members: Vec<MemberData>,
    servers: Vec<ServerData>,
}

impl From<Details> for DetailsData {
    fn from(details: Details) -> Self {
        let Details { pool, owner: (username, alias), members, servers } = details;
        let owner_id = pool.owner.to_string();
        let owner = MemberData {
            // The owner has no membership of its own.
            id: owner_id.clone(),
            role: Role::Owner.as_str(),
            is_authorized: true,
            joined_at: Some(rfc3339(pool.created_at)),
            user: PersonData { id: owner_id, username, alias },
        };
        Self {
            pool: pool.into(),
            members: std::iter::once(owner).chain(members.into_iter().map(MemberData::from)).collect(),
            servers: servers.into_iter().map(ServerData::from).collect(),
        }
    }
}

/// An invitation that was sent.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct InvitedData {
    id: String,
    role: &'static str,
    is_authorized: bool,
    invited_at: String,
}

impl From<Member> for InvitedData {
    fn from(member: Member) -> Self {
        Self {
            id: member.id.to_string(),
            role: member.role.as_str(),
            is_authorized: member.is_authorized,
            invited_at: rfc3339(member.invited_at),
        }
    }
}

/// An invitation as the invited sees it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct InvitationData {
    id: String,
    pool_id: String,
    pool_name: String,
    pool_description: Option<String>,
    role: &'static str,
    invited_at: String,
    invited_by: Option<PersonData>,
}

impl From<Invitation> for InvitationData {
    fn from(invitation: Invitation) -> Self {
        let Invitation { member, pool_name, pool_description, invited_by } = invitation;
        Self {
            id: member.id.to_string(),
            pool_id: member.pool.to_string(),
            pool_name,
            pool_description,
            role: member.role.as_str(),
            invited_at: rfc3339(member.invited_at),
            invited_by: invited_by.map(|(id, username, alias)| PersonData { id, username, alias }),
        }
    }
}

/// Done.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Done {
    success: bool,
}

pub(super) const DONE: Done = Done { success: true };

/// A pool as sent. An update changes what is there and keeps the rest.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct PoolInput {
    #[schema(max_length = 100)]
    name: Option<String>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, max_length = 500)]
    description: Option<Option<String>>,
    #[schema(value_type = Option<Object>)]
    settings: Option<Map<String, Value>>,
}

impl From<PoolInput> for Input {
    fn from(input: PoolInput) -> Self {
        Self { name: input.name, description: input.description, settings: input.settings }
    }
}

/// Who is invited, and as what.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct InviteInput {
    #[schema(min_length = 1, max_length = 100, pattern = "^[a-zA-Z0-9_-]+$")]
    pub(super) username: Option<String>,
    /// In place of the name.
    pub(super) user_id: Option<String>,
    /// admin or user; member is another word for user.
    pub(super) role: Option<String>,
}
