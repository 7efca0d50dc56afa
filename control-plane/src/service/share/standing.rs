//! How a share fares: what the servers of its targets have said.

use crate::{
    app::App,
    error::ServiceError,
    store::{
        container::{self, ContainerRow},
        share::{self, Share},
    },
};
use hoody_protocol::{container::State, share::MAX_SHARES, time::now_ms};

/// How a share fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// A target that should mount it does not.
    pub failed: bool,
    /// Why, or why it is mounted nowhere.
    pub message: Option<String>,
}

/// A share, and how it fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The share.
    pub share: Share,
    /// How it fares.
    pub standing: Standing,
}

pub(super) async fn view(app: &App, share: Share) -> Result<View, ServiceError> {
    let standing = standing(app, &share).await?;
    Ok(View { share, standing })
}

async fn standing(app: &App, share: &Share) -> Result<Standing, ServiceError> {
    let idle = |message: &str| Standing { failed: false, message: Some(message.to_owned()) };
    if share.expired || share.expires_at.is_some_and(|at| at <= now_ms() as i64) {
        return Ok(idle("it has expired: set another expires_at to mount it again"));
    }
    if !share.enabled {
        return Ok(idle("it is disabled"));
    }
    let mut rows = Vec::new();
    for id in share::concerned(app.store.reader(), share.source, share.target).await? {
        rows.extend(container::get(&app.store, id).await?);
    }
    if let Some(message) = rows.iter().find_map(|row| failure(share, row)) {
        return Ok(Standing { failed: true, message: Some(message) });
    }
    let elsewhere = rows.iter().filter(|row| row.server != share.server).count();
    if elsewhere > 0 {
        let total = rows.len();
        return Ok(idle(&format!("{elsewhere} of {total} containers are on other servers and do not have it")));
    }
    let (mut refusing, mut full) = (0, 0);
    for row in rows.iter().filter(|row| !mounts(share, row)) {
        let choice = share::choice(app.store.reader(), share.id, row.spec.id).await?;
        let takes_it = choice.map_or(share.accepted, |choice| choice.mount);
        *(if takes_it { &mut full } else { &mut refusing }) += 1;
    }
    let total = rows.len();
    if refusing > 0 {
        return Ok(idle(&format!("{refusing} of {total} containers have not accepted it")));
    }
    if full > 0 {
        let message = format!("{full} of {total} containers mount {MAX_SHARES} older ones already, the most they can");
        return Ok(idle(&message));
    }
    Ok(Standing { failed: false, message: None })
}

/// True where the container's specification has the share.
pub(super) fn mounts(share: &Share, row: &ContainerRow) -> bool {
    row.spec.shares.iter().any(|mount| mount.id == share.id)
}

/// Why the container does not have it although it should, as far as its server has said.
fn failure(share: &Share, row: &ContainerRow) -> Option<String> {
    let report = row.report.as_ref().filter(|report| report.version >= row.spec.version)?;
    if !mounts(share, row) || !matches!(report.state, State::Running | State::Paused) {
        return None;
    }
    let failure = report.share_failures.iter().find(|failure| failure.id == share.id)?;
    Some(format!("in {}: {}", row.name, failure.problem.message()))
}
