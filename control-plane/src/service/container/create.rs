//! Creating a container: validate, find the image, choose a server, and then in one transaction count the
//! project's containers, reserve the capacity and write the row.

use super::{
    change::{Progress, check_size, settle},
    fields, image,
};
use crate::{
    api::caller::Caller,
    app::App,
    error::ServiceError,
    scheduler::{self, Demand},
    store::{
        StoreError,
        container::{self, Attributes, ContainerRow, ServerInfo, Status},
        image::ImageRow,
        reservation::{self, ProjectRow, ServerRow},
        settings,
        status_log::{self, Trigger},
    },
};
use hoody_protocol::{
    bounded::{Map, Text},
    container::{ContainerSpec, Desired, Limits, MAX_ENV},
    firewall::FirewallSpec,
    id::{ContainerId, ProjectId, RealmId, ServerId},
    time::now_ms,
    version::SpecVersion,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// The most that can be asked for; what a server really has decides.
const MAX_CPU_CORES: f64 = 1024.0;
const MAX_MEMORY_MB: u64 = 16 << 20;
const MAX_DISK_MB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
/// The colour of a container whose creation names none.
const DEFAULT_COLOR: &str = "#3B82F6";
/// Random characters of a generated name.
const NAME_SUFFIX_CHARS: usize = 8;

/// A creation as clients write it.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
pub struct CreateInput {
    /// The name; absent: one is made from the image's.
    #[schema(min_length = 3, max_length = 100, pattern = "^[a-zA-Z0-9-_]+$")]
    pub name: Option<String>,
    /// Another name of `name`.
    pub alias: Option<String>,
    /// The server; absent: the scheduler chooses one.
    pub server_id: Option<String>,
    /// The image's name in the catalogue, for example `debian/12`, `debian:12` or `debian`.
    pub container_image: Option<String>,
    /// Another name of `container_image`.
    pub image: Option<String>,
    /// `lxc` (the default) or `docker`.
    pub runtime: Option<String>,
    /// Resource limits; what is absent has the platform's default.
    pub specs: Option<SpecsInput>,
    /// Start it at once, and again whenever its server boots.
    pub autostart: Option<bool>,
    /// Recorded.
    pub ai: Option<bool>,
    /// Recorded.
    pub dev_kit: Option<bool>,
    /// Recorded.
    pub hoody_kit: Option<bool>,
    /// Recorded.
    pub prespawn: Option<bool>,
    /// Recorded.
    pub bypass_prespawn: Option<bool>,
    /// Recorded.
    pub cache: Option<bool>,
    /// Recorded.
    pub cache_image: Option<bool>,
    /// Not built yet.
    pub kvm: Option<bool>,
    /// Not built yet.
    pub dev_kvm: Option<bool>,
    /// Not built yet.
    pub ramdisk: Option<bool>,
    /// Colour for people, hexadecimal.
    pub color: Option<String>,
    /// A remark.
    #[schema(max_length = 16000)]
    pub comment: Option<String>,
    /// Environment of the first process.
    pub environment_vars: Option<BTreeMap<String, Value>>,
    /// The realms it belongs to; absent: the project's.
    pub realm_ids: Option<Vec<String>>,
    /// Not built yet.
    pub ssh_public_key: Option<String>,
}

/// Resource limits as clients write them.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
pub struct SpecsInput {
    /// Processor cores, also fractions.
    pub cpu_cores: Option<f64>,
    /// Memory in MiB.
    pub memory_mb: Option<u64>,
    /// Root file system in MiB.
    pub storage_mb: Option<u64>,
}

/// A creation whose every field is valid.
struct Wanted {
    name: Option<String>,
    server: Option<ServerId>,
    image: Option<String>,
    runtime: &'static str,
    limits: Limits,
    autostart: bool,
    env: BTreeMap<Text<128>, Text<32768>>,
    realms: Option<Vec<RealmId>>,
    attributes: Attributes,
}

/// Creates a container in the project and waits for its node.
pub async fn create(
    app: &App,
    caller: &Caller,
    project_id: ProjectId,
    input: CreateInput,
) -> Result<(ContainerRow, Progress), ServiceError> {
    let wanted = validate(app, input)?;
    let project = reservation::project(&app.store, project_id).await?.filter(|project| may_use(caller, project));
    let project = project.ok_or(ServiceError::NotFound("project"))?;
    let image = image::resolve(app, wanted.image.as_deref()).await?;
    let servers = reservation::servers_of(&app.store, project.owner, project_id).await?;
    let ranked = choose(&servers, &wanted, &image)?;
    let row = place(app, caller, project_id, wanted, image, &servers, &ranked).await?;
    app.nodes.wake(row.server);
    settle(app, row).await
}

fn may_use(caller: &Caller, project: &ProjectRow) -> bool {
    (caller.is_admin || project.owner == caller.user)
        && caller.realm.is_none_or(|realm| project.realm_ids.contains(&realm))
}

/// The servers to try, best first.
fn choose(servers: &[ServerRow], wanted: &Wanted, image: &ImageRow) -> Result<Vec<ServerId>, ServiceError> {
    let demand = Demand { limits: &wanted.limits, architecture: &image.architecture };
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
async fn place(
    app: &App,
    caller: &Caller,
    project_id: ProjectId,
    wanted: Wanted,
    image: ImageRow,
    servers: &[ServerRow],
    ranked: &[ServerId],
) -> Result<ContainerRow, ServiceError> {
    let mut tx = app.store.begin().await?;
    let locked = reservation::lock_project(&mut tx, project_id).await?;
    let (project, containers) =
        locked.filter(|(project, _)| may_use(caller, project)).ok_or(ServiceError::NotFound("project"))?;
    let max = project.max_containers.unwrap_or(i64::from(app.config.container_max_per_project));
    if containers >= max {
        return Err(ServiceError::Conflict(format!(
            "the project has {containers} of at most {max} containers: delete one, or use another project"
        )));
    }
    // A container made from the image in this transaction keeps its blobs from being collected.
    let held = crate::store::image::hold(&mut tx, image.id).await?;
    let image = held.ok_or_else(|| {
        ServiceError::Conflict(format!("the image {} was removed meanwhile: choose another", image.name))
    })?;
    let mut placed = None;
    for server in ranked {
        if reservation::reserve(&mut tx, *server, project.owner, &wanted.limits).await? {
            placed = servers.iter().find(|candidate| candidate.id == *server);
            break;
        }
    }
    let server = placed.ok_or_else(|| ServiceError::Unprocessable {
        message: "the capacity was taken meanwhile: try again".to_owned(),
        details: BTreeMap::new(),
    })?;
    let epoch = settings::epoch(&mut tx).await?;
    let by_scheduler = wanted.server.is_none();
    let row = new_row(caller, project_id, &project, wanted, image, server, epoch)?;
    container::insert(&mut tx, &row).await?;
    let trigger = if by_scheduler { Trigger::Scheduler } else { Trigger::User };
    let metadata = json!({"server": server.name, "image": row.image_name});
    status_log::begin(&mut tx, &row, trigger, Some(metadata)).await?;
    let id = row.spec.id;
    tx.commit().await.map_err(StoreError::from)?;
    container::get(&app.store, id).await?.ok_or(ServiceError::NotFound("container"))
}

fn new_row(
    caller: &Caller,
    project_id: ProjectId,
    project: &ProjectRow,
    wanted: Wanted,
    image: ImageRow,
    server: &ServerRow,
    epoch: u64,
) -> Result<ContainerRow, ServiceError> {
    let now = now_ms() as i64;
    let name = wanted.name.unwrap_or_else(|| generated_name(&image.name));
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
        image: image.spec,
        env,
        limits: wanted.limits,
        dns: Default::default(),
        firewall: FirewallSpec::default(),
    };
    check_size(&spec)?;
    Ok(ContainerRow {
        spec,
        server: server.id,
        name,
        image_name: image.name,
        runtime: wanted.runtime.to_owned(),
        realm_ids,
        attributes: Attributes { runs, ..wanted.attributes },
        sequence: 1,
        status: Status::Creating,
        status_changed_at: now,
        report: None,
        deleted_at: None,
        created_at: now,
        updated_at: now,
        project_alias: project.alias.clone(),
        project_is_default: project.is_default,
        server_info: ServerInfo::default(),
    })
}

/// `debian-12-1f0c93ab` for `debian/12`.
fn generated_name(image: &str) -> String {
    let stem: String = image.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(64).collect();
    // The last half of an id is random.
    let id = ContainerId::generate().to_string();
    format!("{stem}-{}", &id[id.len() - NAME_SUFFIX_CHARS..])
}

fn validate(app: &App, input: CreateInput) -> Result<Wanted, ServiceError> {
    let mut problems = BTreeMap::new();
    let mut check = |field: &str, outcome: Result<(), String>| {
        if let Err(problem) = outcome {
            problems.insert(field.to_owned(), problem);
        }
    };
    if input.name.is_some() && input.alias.is_some() && input.name != input.alias {
        check("alias", Err("is another name of \"name\": give one of them".to_owned()));
    }
    let name_field = if input.name.is_some() { "name" } else { "alias" };
    let name = input.name.or(input.alias);
    if let Some(name) = &name {
        check(name_field, fields::check_name(name, fields::MIN_NEW_NAME_CHARS));
    }
    let image_field = if input.container_image.is_some() { "container_image" } else { "image" };
    let image = input.container_image.or(input.image);
    if let Some(image) = &image {
        check(image_field, image::check_name(image));
    }
    let mut server = None;
    if let Some(text) = &input.server_id {
        match text.parse() {
            Ok(id) => server = Some(id),
            Err(error) => check("server_id", Err(format!("{error}"))),
        }
    }
    let runtime = match input.runtime.as_deref() {
        None | Some("lxc") => "lxc",
        Some("docker") => "docker",
        Some(_) => {
            check("runtime", Err("must be lxc or docker".to_owned()));
            "lxc"
        }
    };
    if let Some(color) = &input.color {
        check("color", fields::check_color(color));
    }
    if let Some(comment) = &input.comment {
        check("comment", fields::check_comment(comment));
    }
    let mut realms = None;
    if let Some(texts) = &input.realm_ids {
        match fields::parse_realms(texts) {
            Ok(ids) => realms = Some(ids),
            Err(problem) => check("realm_ids", Err(problem)),
        }
    }
    let limits = limits(app.config.default_limits, input.specs.unwrap_or_default(), &mut check);
    let env = crate::service::environment::parse_all(input.environment_vars.unwrap_or_default(), "environment_vars.");
    let env = env.unwrap_or_else(|found| {
        problems.extend(found);
        BTreeMap::new()
    });
    if !problems.is_empty() {
        return Err(ServiceError::Invalid(problems));
    }
    fields::not_built(&[
        (input.kvm == Some(true), "kvm", "virtual machines inside containers"),
        (input.dev_kvm == Some(true), "dev_kvm", "virtual machines inside containers"),
        (input.ramdisk == Some(true), "ramdisk", "RAM disks"),
        (input.ssh_public_key.is_some_and(|key| !key.is_empty()), "ssh_public_key", "SSH keys"),
    ])?;
    Ok(Wanted {
        name,
        server,
        image,
        runtime,
        limits,
        autostart: input.autostart.unwrap_or(false),
        env,
        realms,
        attributes: Attributes {
            color: input.color.unwrap_or_else(|| DEFAULT_COLOR.to_owned()),
            comment: input.comment,
            ai: input.ai.unwrap_or(false),
            dev_kit: input.dev_kit.unwrap_or(false),
            hoody_kit: input.hoody_kit.unwrap_or(false),
            prespawn: input.prespawn.unwrap_or(false),
            bypass_prespawn: input.bypass_prespawn.unwrap_or(false),
            cache: input.cache.unwrap_or(false),
            cache_image: input.cache_image.unwrap_or(false),
            ..Attributes::default()
        },
    })
}

fn limits(default: Limits, specs: SpecsInput, check: &mut impl FnMut(&str, Result<(), String>)) -> Limits {
    let mut limits = default;
    if let Some(cores) = specs.cpu_cores {
        let min = f64::from(Limits::MIN_CPU_MILLIS) / 1000.0;
        if (min..=MAX_CPU_CORES).contains(&cores) {
            limits.cpu_millis = (cores * 1000.0).round() as u32;
        } else {
            check("specs.cpu_cores", Err(format!("must be from {min} to {MAX_CPU_CORES}")));
        }
    }
    for (field, wanted, min_bytes, max, target) in [
        ("specs.memory_mb", specs.memory_mb, Limits::MIN_MEMORY_BYTES, MAX_MEMORY_MB, &mut limits.memory_bytes),
        ("specs.storage_mb", specs.storage_mb, Limits::MIN_DISK_BYTES, MAX_DISK_MB, &mut limits.disk_bytes),
    ] {
        let Some(wanted) = wanted else { continue };
        let min = min_bytes / MIB;
        if (min..=max).contains(&wanted) {
            *target = wanted * MIB;
        } else {
            check(field, Err(format!("must be from {min} to {max}")));
        }
    }
    limits
}
