//! Creating a container: validate ([`super::creation`]), find the image, choose a server, and then in one transaction count the
//! project's containers, reserve the capacity and write the row.

use super::{
    change::{Progress, check_size, settle},
    creation::{self, CreateInput, Wanted},
    fields,
    image::{self, Source},
    kvm, pull, ssh_key,
};
use crate::{
    access::{
        Level,
        object::{self, InProject},
    },
    app::App,
    caller::Caller,
    error::ServiceError,
    scheduler::{self, Demand},
    service::share,
    store::{
        Queries, StoreError,
        container::{self, Attributes, ContainerRow, ServerInfo, Status},
        image_pull,
        reservation::{self, ProjectRow, ServerRow},
        settings,
        status_log::{self, Trigger},
    },
    timing::step,
};
use hoody_protocol::{
    bounded::{Map, Text},
    container::{ContainerSpec, Desired, MAX_ENV},
    firewall::FirewallSpec,
    id::{ContainerId, ProjectId, ServerId},
    time::now_ms,
    version::SpecVersion,
};
use serde_json::json;
use sqlx::AnyConnection;
use std::collections::BTreeMap;

/// Random characters of a generated name.
const NAME_SUFFIX_CHARS: usize = 8;

/// Creates a container in the project and waits for its node.
pub async fn create(
    app: &App,
    caller: &Caller,
    project_id: ProjectId,
    input: CreateInput,
) -> Result<(ContainerRow, Progress), ServiceError> {
    let wanted = creation::validate(app.config.default_limits, input)?;
    ssh_key::check_permission(caller, wanted.ssh_public_key.is_some())?;
    kvm::check_permission(caller, wanted.kvm)?;
    let project = reservation::project(&app.store, project_id).await?.ok_or(ServiceError::NotFound("project"))?;
    may_use(app.store.reader(), caller, project_id, &project).await?;
    if let Some(realms) = &wanted.realms {
        object::check_realms(caller, &project.realm_ids, realms)?;
    }
    let image = image::resolve(app, &wanted).await?;
    let servers = reservation::servers_of(app.store.reader(), project.owner, project_id).await?;
    let ranked = choose(&servers, &wanted, image.architecture())?;
    let row = step("api: written", place(app, caller, project_id, wanted, image, &servers, &ranked)).await?;
    app.nodes.wake(row.server);
    app.pulls.wake();
    step("api: node answered", settle(app, row)).await
}

pub(super) async fn may_use<'e>(
    queries: impl Queries<'e>,
    caller: &Caller,
    id: ProjectId,
    project: &ProjectRow,
) -> Result<(), ServiceError> {
    let (owner, realms) = (project.owner, &project.realm_ids[..]);
    let object = InProject { what: "project", project: id, owner, realms, for_operators: false };
    object::in_project(queries, caller, object, Level::Edit).await
}

/// The servers to try, best first; `architecture` is the image's.
pub(super) fn choose(
    servers: &[ServerRow],
    wanted: &Wanted,
    architecture: Option<&str>,
) -> Result<Vec<ServerId>, ServiceError> {
    let demand = Demand { limits: &wanted.limits, architecture, kvm: wanted.kvm };
    if let Some(id) = wanted.server {
        let server = servers.iter().find(|server| server.id == id).ok_or(ServiceError::NotFound("server"))?;
        return match scheduler::check(server, demand) {
            Ok(()) => Ok(vec![id]),
            Err(reason) => Err(ServiceError::Unprocessable {
                message: format!("server {} cannot take the container: {reason}", server.name),
                details: [(server.name.clone(), reason.to_string())].into(),
            }),
        };
    }
    scheduler::rank(servers, demand).map_err(|rejections| {
        let message = match rejections.len() {
            0 => "you have no server yet: rent one, then create the container".to_owned(),
            _ => "none of your servers can take the container: see details".to_owned(),
        };
        let details = rejections.into_iter().map(|rejection| (rejection.server, rejection.reason.to_string()));
        ServiceError::Unprocessable { message, details: details.collect() }
    })
}

/// Writes the container on the first of the servers that still has room, all in one transaction.
pub(super) async fn place(
    app: &App,
    caller: &Caller,
    project_id: ProjectId,
    wanted: Wanted,
    image: Source,
    servers: &[ServerRow],
    ranked: &[ServerId],
) -> Result<ContainerRow, ServiceError> {
    let mut tx = app.store.begin().await?;
    let project = lock_project(app, &mut tx, caller, project_id).await?;
    let image = image.hold(&mut tx).await?;
    let mut placed = None;
    for server in ranked {
        if reservation::reserve(&mut tx, *server, project.owner, &wanted.limits).await? {
            placed = servers.iter().find(|candidate| candidate.id == *server);
            break;
        }
    }
    let server = placed.ok_or_else(taken_meanwhile)?;
    let epoch = settings::epoch(&mut tx).await?;
    let by_scheduler = wanted.server.is_none();
    let credentials = wanted.registry_credentials.clone();
    let mut row = new_row(caller, project_id, &project, wanted, &image, server, epoch)?;
    if let Source::Archive { restored, .. } = &image {
        restored.put_into(&mut row)?;
        check_size(&row.spec)?;
    }
    // What is shared with every container of the project.
    row.spec.shares = share::mounts(&mut tx, &row).await?.try_into().map_err(ServiceError::internal)?;
    container::insert(&mut tx, &row).await?;
    if let Source::Registry(_) = &image {
        let pull = pull::new(&app.keys, &row, &server.architecture, credentials.as_ref());
        image_pull::insert(&mut tx, &pull).await?;
    }
    let trigger = if by_scheduler { Trigger::Scheduler(caller.user) } else { Trigger::User(caller.user) };
    let metadata = json!({"server": server.name, "image": row.image_name});
    status_log::begin(&mut tx, &row, trigger, Some(metadata)).await?;
    let id = row.spec.id;
    hoody_fault::point!("create.writing");
    tx.commit().await.map_err(StoreError::from)?;
    hoody_fault::point!("create.committed");
    container::get(&app.store, id).await?.ok_or(ServiceError::NotFound("container"))
}

/// The project, locked: the caller may make a container in it, and it has room for one more (409 otherwise).
pub(super) async fn lock_project(
    app: &App,
    tx: &mut AnyConnection,
    caller: &Caller,
    id: ProjectId,
) -> Result<ProjectRow, ServiceError> {
    let locked = reservation::lock_project(&mut *tx, id).await?;
    let (project, containers) = locked.ok_or(ServiceError::NotFound("project"))?;
    may_use(&mut *tx, caller, id, &project).await?;
    let max = project.max_containers.unwrap_or(i64::from(app.config.container_max_per_project));
    if containers < max {
        return Ok(project);
    }
    Err(ServiceError::Conflict(format!(
        "the project has {containers} of at most {max} containers: delete one, or use another project"
    )))
}

fn new_row(
    caller: &Caller,
    project_id: ProjectId,
    project: &ProjectRow,
    wanted: Wanted,
    image: &Source,
    server: &ServerRow,
    epoch: u64,
) -> Result<ContainerRow, ServiceError> {
    let name = wanted.name.unwrap_or_else(|| generated_name(&image.short_name()));
    let mut realm_ids = wanted.realms.unwrap_or_else(|| project.realm_ids.clone());
    realm_ids.extend(caller.realm.filter(|realm| !realm_ids.contains(realm)));
    let runs = u64::from(wanted.autostart);
    let too_long =
        |error: hoody_protocol::bounded::TooLong| ServiceError::invalid("environment_vars", error.to_string());
    let env: Map<_, _, MAX_ENV> = wanted.env.try_into().map_err(too_long)?;
    let spec = ContainerSpec {
        id: ContainerId::generate(),
        project: project_id,
        owner: project.owner,
        version: SpecVersion { epoch, generation: 1 },
        sequence: 1,
        desired: if wanted.autostart { Desired::Running { run: runs } } else { Desired::Stopped { force: false } },
        autostart: wanted.autostart,
        hostname: Text::truncated(fields::hostname(&name)),
        image: image.spec(),
        env,
        limits: wanted.limits,
        dns: Default::default(),
        firewall: FirewallSpec::default(),
        egress: None,
        ssh_public_key: wanted.ssh_public_key,
        kvm: wanted.kvm,
        shares: Default::default(),
        ramdisk: wanted.ramdisk,
        origin: None,
        transfer: None,
        moved: false,
        snapshots: Default::default(),
    };
    check_size(&spec)?;
    Ok(ContainerRow {
        image_name: image.name(),
        runtime: wanted.runtime.to_owned(),
        realm_ids,
        attributes: Attributes { runs, ..wanted.attributes },
        ..untouched(spec, server.id, name, Status::Creating, project)
    })
}

/// The conflict of a server that others filled since it was chosen.
pub(super) fn taken_meanwhile() -> ServiceError {
    ServiceError::Unprocessable {
        message: "the capacity was taken meanwhile: try again".to_owned(),
        details: BTreeMap::new(),
    }
}

/// The row of a container that nothing has happened to yet; what it is of beside its specification is for the caller.
pub(super) fn untouched(
    spec: ContainerSpec,
    server: ServerId,
    name: String,
    status: Status,
    project: &ProjectRow,
) -> ContainerRow {
    let now = now_ms() as i64;
    ContainerRow {
        spec,
        server,
        name,
        image_name: String::new(),
        runtime: String::new(),
        realm_ids: Vec::new(),
        attributes: Attributes::default(),
        egress_credentials: String::new(),
        sequence: 1,
        status,
        status_changed_at: now,
        report: None,
        deleted_at: None,
        snapshot_count: 0,
        last_used_snapshot: None,
        created_at: now,
        updated_at: now,
        project_alias: project.alias.clone(),
        project_is_default: project.is_default,
        server_info: ServerInfo::default(),
        pull: None,
    }
}

/// `debian-12-1f0c93ab` for `debian/12`.
pub(super) fn generated_name(image: &str) -> String {
    let stem: String = image.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(64).collect();
    // The last half of an id is random.
    let id = ContainerId::generate().to_string();
    format!("{stem}-{}", &id[id.len() - NAME_SUFFIX_CHARS..])
}
