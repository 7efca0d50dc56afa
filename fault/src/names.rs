//! Every fault point. A name is `<step>.<what was just done, or is about to be>`.

/// Points of the agent.
pub const AGENT: &[&str] = &[
    // Start of the agent.
    "firewall.prepared",
    "journal.opened",
    "agent.adopted",
    // Commands and reports on the link.
    "command.received",
    "command.answering",
    "command.answered",
    "reports.sending",
    "reports.acknowledged",
    // Persisted state.
    "file.beside",
    "record.writing",
    "record.written",
    "record.removing",
    "record.removed",
    "journal.writing",
    "journal.written",
    "journal.synced",
    // Snapshots, restorations and copies.
    "snapshot.folder",
    "snapshot.taken",
    "snapshot.gone",
    "swap.staged",
    "swap.aside",
    "swap.done",
    "swap.forgotten",
    "restoration.swapped",
    "restoration.started",
    "copy.staged",
    "root.copied",
    // Operations.
    "operation.stopped",
    "outcome.journaled",
    "outcome.recorded",
    // Image and root file system.
    "image.staged",
    "image.fetched",
    "image.unpacked",
    "image.renamed",
    "image.ready",
    "root.created",
    "mount.gate",
    "mount.mounted",
    // Shares.
    "share.mounting",
    "share.mounted",
    "share.unmounted",
    "place.made",
    "place.mounting",
    "place.mounted",
    "place.detached",
    // Processes.
    "bundle.recorded",
    "bundle.written",
    "conmon.spawned",
    "conmon.reported",
    "process.created",
    "process.starting",
    "process.started",
    "process.frozen",
    "process.thawed",
    // Firewall.
    "firewall.sets",
    "firewall.committed",
    "firewall.purged",
    "firewall.applied",
    "firewall.removed",
    "firewall.cut",
    // Relaying of egress.
    "egress.handing_over",
    "egress.handed_over",
    "egress.removed",
    "egress.set",
    "egress.cleared",
    // Link.
    "link.paired",
    "link.configured",
    "link.up",
    "link.routed",
    "link.attached",
    // Stop and delete.
    "stop.marked",
    "stop.asked",
    "stop.killed",
    "stop.ended",
    "link.detached",
    "processes.killed",
    "conmon.ended",
    "runtime.deleted",
    "cgroups.removed",
    "mount.unmounted",
    "run.cleared",
    "root.deleted",
    "deletion.reported",
    "deletion.acknowledged",
];

/// Points of the control plane.
pub const CONTROL_PLANE: &[&str] = &[
    // A request with an idempotency key.
    "key.claimed",
    "key.answered",
    // A tenant's request, before and after its commit.
    "create.writing",
    "create.committed",
    "change.writing",
    "change.committed",
    "tombstone.writing",
    "tombstone.committed",
    "restart.writing",
    "restart.committed",
    "share.writing",
    "share.committed",
    "snapshot.writing",
    "snapshot.committed",
    "copy.writing",
    "copy.committed",
    // A node's hello.
    "hello.received",
    "hello.recorded",
    "hello.answered",
    // What is sent to a node.
    "spec.sending",
    "spec.answered",
    "spec.acknowledged",
    "operation.marking",
    "operation.marked",
    "operation.accepted",
    // What a node reports.
    "batch.received",
    "batch.stored",
    "batch.committed",
    "batch.acknowledged",
];

/// Points of the control plane that a pull from a registry reaches.
pub const REGISTRY: &[&str] = &["pull.received", "pull.fetched", "pull.writing", "pull.committed"];

/// Points of the agent that commands on the server reach.
pub const AGENT_COMMANDS: &[&str] = &[
    "execution.received",
    "execution.recorded",
    "execution.spawned",
    "execution.exited",
    "execution.ended",
    "execution.told",
    "execution.stored",
];

/// Points of the agent that transfers between servers reach.
pub const AGENT_TRANSFERS: &[&str] = &[
    // On the source.
    "transfer.kept",
    "transfer.ordered",
    // On the target.
    "transfer.staged",
    "transfer.received",
    "snapshot.received",
    "root.received",
    "sync.kept",
];

/// Points of the control plane that copies to another server and syncs reach.
pub const CONTROL_PLANE_TRANSFERS: &[&str] =
    &["transfer.connected", "transfer.recorded", "sync.writing", "sync.committed", "sync.received", "sync.begun"];

/// Points of the control plane that a move of a container to another server reaches.
pub const CONTROL_PLANE_MOVES: &[&str] = &[
    "move.writing",
    "move.committed",
    "move.arrived",
    "move.snapshot_sent",
    "move.copied",
    "move.holding",
    "move.held",
    "move.stopped",
    "move.switching",
    "move.switched",
    "move.done",
    "move.failing",
    "move.failed",
];

/// Points of a replica of the control plane that passes on to another what a server of its own offers.
pub const CONTROL_PLANE_RELAYS: &[&str] = &["relay.waiting", "relay.offered"];

/// Points of the agent that an export of a container reaches.
pub const AGENT_EXPORTS: &[&str] = &["export.kept", "export.sending"];

/// Points of the control plane that an import of a container reaches.
pub const IMPORTS: &[&str] = &["import.spooled", "import.adopted", "import.committed"];

/// Points of the control plane that commands on a server reach.
pub const CONTROL_PLANE_COMMANDS: &[&str] = &[
    "execution.writing",
    "execution.committed",
    "execution.marked",
    "execution.sent",
    "execution.accepted",
    "execution.output",
    "execution.storing",
    "execution.finished",
];

/// Points of what operators do: commands, and decisions that a link carries out.
pub const OPERATOR: &[&str] = &[
    // A backup, whole beside its name, and under it.
    "backup.written",
    "backup.named",
    // A restore, before and after its commit.
    "restore.loaded",
    "restore.committed",
    // A new master key: its file, and what is sealed with it.
    "master.made",
    "master.sealed",
    "master.committed",
    // An unknown container that becomes somebody's, or goes.
    "decision.committed",
    "adoption.writing",
    "adoption.committed",
    "removal.sending",
    "removal.accepted",
    "removal.forgotten",
];
