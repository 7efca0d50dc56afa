//! Copying a container: a new one whose root file system is made from another's, or from one of its snapshots. Creation is
//! desired state as everywhere: the specification says what it is made from, a container of the same server or a transfer
//! from another, which goes on after the answer.
//!
//! The copy has an identity, keys and an address of its own. What its origin may reach goes along unless the client says
//! otherwise, so that a copy is never freer than what it was made from by omission; KVM never does.

use super::{
    change::{Progress, check_size, settle},
    create::{generated_name, lock_project, may_use, taken_meanwhile, untouched},
    fields, kvm, moving,
    ssh_key::{self, SshKey},
    transfers,
};
use crate::{
    access::Level,
    app::App,
    caller::Caller,
    error::ServiceError,
    scheduler::{self, Demand},
    service::{network, share, snapshot as snapshots},
    store::{
        StoreError,
        container::{self, Attributes, ContainerRow, Status},
        node,
        reservation::{self, ProjectRow},
        settings, snapshot,
        snapshot::SnapshotRow,
        status_log::{self, Trigger},
        transfer::{self, Transfer},
    },
};
use hoody_protocol::{
    bounded::Text,
    container::{ContainerSpec, Desired},
    firewall::{Direction, FirewallRule, FirewallSpec},
    id::{ContainerId, ProjectId, RuleId, ServerId, TransferId},
    snapshot::Origin,
    time::now_ms,
    version::SpecVersion,
};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// A copy as clients write it.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[schema(as = ContainerCopyInput)]
pub struct CopyInput {
    /// The project of the copy; absent: that of its origin.
    pub target_project_id: Option<String>,
    /// Another name of `target_project_id`.
    pub project_id: Option<String>,
    /// The server of the copy; absent: that of its origin.
    pub target_server_id: Option<String>,
    /// The name; absent: one is made from the origin's.
    #[schema(min_length = 3, max_length = 100, pattern = "^[a-zA-Z0-9-_]+$")]
    pub name: Option<String>,
    /// Another name of `name`.
    pub alias: Option<String>,
    /// A snapshot of the origin, by name or alias; absent: what the origin is when the copy is made.
    pub source_snapshot: Option<String>,
    /// Take the origin's firewall rules along; absent: yes.
    pub copy_firewall_rules: Option<bool>,
    /// Take the origin's network configuration along, credentials included; absent: where the copy has the same owner.
    pub copy_network_rules: Option<bool>,
    /// A key that may log in as root; absent: none, whatever the origin has.
    #[schema(max_length = 4096)]
    pub ssh_public_key: Option<String>,
    /// Virtual machines inside; whether the origin has KVM does not count.
    pub kvm: Option<bool>,
    /// Another name of `kvm`.
    pub dev_kvm: Option<bool>,
}

/// A copy, and what was taken along.
#[derive(Debug)]
pub struct Copied {
    /// The new container.
    pub row: ContainerRow,
    /// It has the origin's firewall rules.
    pub firewall: bool,
    /// It has the origin's network configuration.
    pub network: bool,
}

/// A copy whose every field is valid.
struct Wanted {
    project: Option<ProjectId>,
    server: Option<ServerId>,
    name: Option<String>,
    snapshot: Option<String>,
    firewall: bool,
    network: Option<bool>,
    ssh_public_key: Option<SshKey>,
    kvm: bool,
}

/// Copies the container; waits for its node where it has all it needs.
pub async fn copy(
    app: &App,
    caller: &Caller,
    from: ContainerId,
    input: CopyInput,
) -> Result<(Copied, Progress), ServiceError> {
    let source = container::get(&app.store, from).await?.ok_or(ServiceError::NotFound("container"))?;
    super::authorise(app.store.reader(), caller, &source, Level::Edit).await?;
    let wanted = validate(input)?;
    ssh_key::check_permission(caller, wanted.ssh_public_key.is_some())?;
    kvm::check_permission(caller, wanted.kvm)?;
    let project_id = wanted.project.unwrap_or(source.spec.project);
    let project = reservation::project(&app.store, project_id).await?.ok_or(ServiceError::NotFound("project"))?;
    may_use(app.store.reader(), caller, project_id, &project).await?;
    let server = choose(app, &source, project_id, &project, &wanted).await?;
    let copied = place(app, caller, from, project_id, server, wanted).await?;
    app.nodes.wake(copied.row.server);
    let Copied { row, firewall, network } = copied;
    let (row, progress) = match row.spec.transfer {
        Some(_) if row.server_info.online => (row, Progress::Pending),
        Some(_) => (row, Progress::Offline),
        None => settle(app, row).await?,
    };
    Ok((Copied { row, firewall, network }, progress))
}

fn validate(input: CopyInput) -> Result<Wanted, ServiceError> {
    let mut problems = BTreeMap::new();
    let mut note = |field: &str, problem: String| _ = problems.insert(field.to_owned(), problem);
    let twice = |one: &Option<String>, other: &Option<String>| one.is_some() && other.is_some() && one != other;
    if twice(&input.target_project_id, &input.project_id) {
        note("project_id", "is another name of \"target_project_id\": give one of them".to_owned());
    }
    if twice(&input.name, &input.alias) {
        note("alias", "is another name of \"name\": give one of them".to_owned());
    }
    let field = if input.target_project_id.is_some() { "target_project_id" } else { "project_id" };
    let project = input
        .target_project_id
        .or(input.project_id)
        .and_then(|text| text.parse().map_err(|error| note(field, format!("{error}"))).ok());
    let server = input
        .target_server_id
        .and_then(|text| text.parse().map_err(|error| note("target_server_id", format!("{error}"))).ok());
    let field = if input.name.is_some() { "name" } else { "alias" };
    let name = input.name.or(input.alias);
    if let Some(name) = &name
        && let Err(problem) = fields::check_name(name, fields::MIN_NEW_NAME_CHARS)
    {
        note(field, problem);
    }
    if input.source_snapshot.as_deref().is_some_and(|called| called.is_empty() || called.chars().count() > 100) {
        note("source_snapshot", "takes the name or alias of a snapshot".to_owned());
    }
    let ssh_public_key =
        ssh_key::parse(input.ssh_public_key.as_deref().unwrap_or_default()).unwrap_or_else(|problem| {
            note("ssh_public_key", problem);
            None
        });
    let kvm = kvm::agreed(input.kvm, input.dev_kvm).unwrap_or_else(|problem| {
        note("dev_kvm", problem);
        None
    });
    if !problems.is_empty() {
        return Err(ServiceError::Invalid(problems));
    }
    Ok(Wanted {
        project,
        server,
        name,
        snapshot: input.source_snapshot,
        firewall: input.copy_firewall_rules.unwrap_or(true),
        network: input.copy_network_rules,
        ssh_public_key,
        kvm: kvm.unwrap_or(false),
    })
}

/// The server of the copy, its origin's where none is named: the owner of the copy may use it and it has room.
async fn choose(
    app: &App,
    source: &ContainerRow,
    project_id: ProjectId,
    project: &ProjectRow,
    wanted: &Wanted,
) -> Result<ServerId, ServiceError> {
    let servers = reservation::servers_of(app.store.reader(), project.owner, project_id).await?;
    let id = wanted.server.unwrap_or(source.server);
    let Some(server) = servers.iter().find(|server| server.id == id) else {
        if id != source.server {
            return Err(ServiceError::NotFound("server"));
        }
        return Err(ServiceError::Unprocessable {
            message: "the owner of the project cannot use the container's server: copy it into another project, or to \
                another server"
                .to_owned(),
            details: [("target_project_id".to_owned(), "its owner has no use of the server".to_owned())].into(),
        });
    };
    // The root file system is there already, or comes: of the image only what machine its programs are for matters.
    let architecture = match id == source.server {
        true => server.architecture.clone(),
        false => node::architecture(app.store.reader(), source.server).await?,
    };
    let architecture = Some(architecture.as_str()).filter(|architecture| !architecture.is_empty());
    let demand = Demand { limits: &source.spec.limits, architecture, kvm: wanted.kvm };
    if let Err(reason) = scheduler::check(server, demand) {
        return Err(ServiceError::Unprocessable {
            message: format!("server {} cannot take the copy: {reason}", server.name),
            details: [(server.name.clone(), reason.to_string())].into(),
        });
    }
    transfers::check_reachable(app, source.server, id).await?;
    Ok(id)
}

/// Writes the copy, all in one transaction.
async fn place(
    app: &App,
    caller: &Caller,
    from: ContainerId,
    project_id: ProjectId,
    server: ServerId,
    wanted: Wanted,
) -> Result<Copied, ServiceError> {
    let mut tx = app.store.begin().await?;
    let project = lock_project(app, &mut tx, caller, project_id).await?;
    let source = container::lock(&mut tx, from).await?.ok_or(ServiceError::NotFound("container"))?;
    super::authorise(&mut *tx, caller, &source, Level::Edit).await?;
    snapshots::check_present(&source)?;
    moving::check_arrived(&mut tx, &source).await?;
    let taken = match &wanted.snapshot {
        Some(called) => Some(snapshots::ready(snapshot::list(&mut *tx, from).await?, called)?),
        None => None,
    };
    let is_local = server == source.server;
    if !is_local {
        transfers::check_room(&mut tx, &source, None).await?;
    }
    if !reservation::reserve(&mut tx, server, project.owner, &source.spec.limits).await? {
        return Err(taken_meanwhile());
    }
    let epoch = settings::epoch(&mut tx).await?;
    let firewall = wanted.firewall;
    let network = wanted.network.unwrap_or(project.owner == source.spec.owner);
    let mut row = new_row(app, caller, project_id, &project, &source, taken.as_ref(), wanted, network, epoch)?;
    row.server = server;
    let transfer = Transfer {
        id: TransferId::generate(),
        container: row.spec.id,
        target: server,
        source_container: from,
        source: source.server,
        snapshot: taken.as_ref().map(|taken| taken.id),
        base: None,
    };
    if is_local {
        row.spec.origin = row.spec.origin.map(|origin| Origin { kept: Some(transfer.id), ..origin });
    } else {
        (row.spec.origin, row.spec.transfer) = (None, Some(transfer.id));
    }
    // What is shared with every container of its project; what the source alone was given is not the copy's.
    row.spec.shares = share::mounts(&mut tx, &row).await?.try_into().map_err(ServiceError::internal)?;
    container::insert(&mut tx, &row).await?;
    transfer::insert(&mut tx, &transfer, row.created_at).await?;
    if is_local {
        // There is nothing to move: it is kept by whom it is for from the first moment of the copy.
        transfer::keep(&mut tx, transfer.id, 0, row.created_at).await?;
    }
    let snapshot_name = taken.as_ref().map(|taken| taken.name.clone());
    let mut metadata = json!({"source_container": from.to_string(), "source_snapshot": snapshot_name});
    if !is_local {
        metadata["source_server"] = json!(source.server_info.name);
    }
    status_log::begin(&mut tx, &row, Trigger::User(caller.user), Some(metadata)).await?;
    if let Some(taken) = &taken {
        snapshot::used(&mut tx, taken, now_ms() as i64).await?;
    }
    let id = row.spec.id;
    hoody_fault::point!("copy.writing");
    tx.commit().await.map_err(StoreError::from)?;
    hoody_fault::point!("copy.committed");
    let row = container::get(&app.store, id).await?.ok_or(ServiceError::NotFound("container"))?;
    Ok(Copied { row, firewall, network })
}

#[expect(clippy::too_many_arguments, reason = "a row has as many sources")]
fn new_row(
    app: &App,
    caller: &Caller,
    project_id: ProjectId,
    project: &ProjectRow,
    source: &ContainerRow,
    taken: Option<&SnapshotRow>,
    wanted: Wanted,
    network: bool,
    epoch: u64,
) -> Result<ContainerRow, ServiceError> {
    let (id, from) = (ContainerId::generate(), &source.spec);
    let name = wanted.name.unwrap_or_else(|| generated_name(&source.name));
    let mut realm_ids = if project_id == from.project { source.realm_ids.clone() } else { project.realm_ids.clone() };
    realm_ids.extend(caller.realm.filter(|realm| !realm_ids.contains(realm)));
    let runs = u64::from(from.autostart);
    let (firewall, rule_texts) = if wanted.firewall { copied_rules(source)? } else { Default::default() };
    let egress_credentials = if network {
        network::sealed_for(&app.keys, from.id, id, &source.egress_credentials).map_err(ServiceError::internal)?
    } else {
        String::new()
    };
    let attributes = Attributes {
        runs,
        rule_texts,
        copied_from: Some(from.id),
        network: source.attributes.network.clone().filter(|_| network),
        ..source.attributes.clone()
    };
    let spec = ContainerSpec {
        id,
        project: project_id,
        owner: project.owner,
        version: SpecVersion { epoch, generation: 1 },
        sequence: 1,
        desired: if from.autostart { Desired::Running { run: runs } } else { Desired::Stopped { force: false } },
        hostname: Text::truncated(fields::hostname(&name)),
        firewall,
        egress: from.egress.clone().filter(|_| network),
        ssh_public_key: wanted.ssh_public_key,
        kvm: wanted.kvm,
        origin: Some(Origin { container: from.id, snapshot: taken.map(|taken| taken.id), kept: None }),
        transfer: None,
        moved: false,
        snapshots: Default::default(),
        shares: Default::default(),
        ..from.clone()
    };
    check_size(&spec)?;
    Ok(ContainerRow {
        image_name: source.image_name.clone(),
        runtime: source.runtime.clone(),
        realm_ids,
        attributes,
        egress_credentials,
        ..untouched(spec, source.server, name, Status::Copying, project)
    })
}

type RuleTexts = BTreeMap<RuleId, crate::store::firewall_texts::RuleTexts>;

/// The rules with identities of their own, and what clients wrote in them.
fn copied_rules(source: &ContainerRow) -> Result<(FirewallSpec, RuleTexts), ServiceError> {
    let mut texts = RuleTexts::new();
    let mut copied = |direction| {
        let rules = source.spec.firewall.rules(direction).iter().map(|rule| {
            let id = RuleId::generate();
            if let Some(text) = source.attributes.rule_texts.get(&rule.id) {
                texts.insert(id, text.clone());
            }
            FirewallRule { id, ..rule.clone() }
        });
        rules.collect::<Vec<_>>().try_into().map_err(ServiceError::internal)
    };
    let (ingress, egress) = (copied(Direction::Ingress)?, copied(Direction::Egress)?);
    Ok((FirewallSpec { ingress, egress }, texts))
}
