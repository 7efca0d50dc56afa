//! Shares in the contract's shape.

use crate::{
    api::time::rfc3339,
    service::share::{Incoming, View},
    store::share::{Choice, Target},
};
use hoody_protocol::{id::RealmId, share::MOUNT_POINT};
use serde::Serialize;
use utoipa::ToSchema;

/// A folder of one container that others mount.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ShareData {
    id: String,
    source_container_id: String,
    source_path: String,
    /// `container` or `project`.
    target_type: &'static str,
    target_container_id: Option<String>,
    target_project_id: Option<String>,
    /// `readonly` or `readwrite`.
    mode: &'static str,
    alias: Option<String>,
    /// Where it appears in its targets; one with a place of its own appears below `/mnt/shares`, too. One whose alias an
    /// older share of the same target has appears there by its id.
    mount_path: String,
    label: Option<String>,
    description: Option<String>,
    enabled: bool,
    /// `active`, or `failed`: a target that should have it does not.
    status: &'static str,
    /// Why it failed, or why not every target has it.
    status_message: Option<String>,
    /// When it ends, as its client counts: seconds, or milliseconds, since 1970.
    expires_at: Option<i64>,
    /// It was told that it ends within a day.
    expiry_notified: bool,
    /// The realms of its source.
    realm_ids: Vec<String>,
    created_by: String,
    created_at: String,
    updated_at: String,
}

/// A share from its target's side.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct IncomingShareData {
    #[serde(flatten)]
    share: ShareData,
    /// The container takes it; absent where no container is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    mount: Option<bool>,
}

/// A container's choice.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ShareOverrideData {
    id: String,
    share_id: String,
    container_id: String,
    mount: bool,
    created_at: String,
    updated_at: String,
}

/// A choice, and what it is about.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ShareMountData {
    pub(super) share: ShareData,
    #[serde(rename = "override")]
    pub(super) choice: ShareOverrideData,
}

impl From<View> for ShareData {
    fn from(View { share, standing }: View) -> Self {
        let target_type = match share.target {
            Target::Container(_) => "container",
            Target::Project(_) => "project",
        };
        let unit = if share.expires_in_ms { 1 } else { 1000 };
        let id = share.id.to_string();
        Self {
            source_container_id: share.source.to_string(),
            target_type,
            target_container_id: share.target.container().map(|id| id.to_string()),
            target_project_id: share.target.project().map(|id| id.to_string()),
            mode: share.mode(),
            mount_path: share
                .place
                .unwrap_or_else(|| format!("{MOUNT_POINT}/{}", share.alias.as_deref().unwrap_or(&id))),
            alias: share.alias,
            label: share.label,
            description: share.description,
            enabled: share.enabled,
            status: if standing.failed { "failed" } else { "active" },
            status_message: standing.message,
            expires_at: share.expires_at.map(|at| at / unit),
            expiry_notified: share.expiry_notified,
            realm_ids: share.realms.iter().map(RealmId::to_string).collect(),
            created_by: share.created_by.to_string(),
            created_at: rfc3339(share.created_at),
            updated_at: rfc3339(share.updated_at),
            source_path: share.path,
            id,
        }
    }
}

impl From<Incoming> for IncomingShareData {
    fn from(incoming: Incoming) -> Self {
        Self { share: incoming.view.into(), mount: incoming.mount }
    }
}

impl From<Choice> for ShareOverrideData {
    fn from(choice: Choice) -> Self {
        Self {
            id: choice.id.to_string(),
            share_id: choice.share.to_string(),
            container_id: choice.container.to_string(),
            mount: choice.mount,
            created_at: rfc3339(choice.created_at),
            updated_at: rfc3339(choice.updated_at),
        }
    }
}
