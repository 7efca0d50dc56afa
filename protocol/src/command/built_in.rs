//! The commands that every node knows. Only name and parameters of one travel: each side takes the command line
//! from here, so that a control plane in wrong hands cannot put another program behind a known name.

use super::{
    Account, MAX_TIMEOUT_S, Parameters,
    schema::{Problems, Schema},
    template::{Arguments, Template},
};
use serde_json::{Value, json};

/// A command that every node knows.
#[derive(Debug, Clone, PartialEq)]
pub struct BuiltIn {
    /// Its name in requests and policies.
    pub slug: &'static str,
    /// For people.
    pub name: &'static str,
    /// What it does.
    pub description: &'static str,
    /// `diagnostics`, `maintenance`, `setup` or `storage`.
    pub category: &'static str,
    /// How much it can break.
    pub risk: Risk,
    /// The command line's template; empty where the agent does it itself.
    pub argv: &'static [&'static str],
    /// JSON Schema of its parameters, the subset of [`super::schema`].
    pub parameters: Value,
    /// Parameters that it can be called with.
    pub example: Value,
    /// As whom it runs.
    pub account: Account,
    /// What becomes of the agent meanwhile.
    pub effect: Effect,
    /// Seconds that it may run where the caller names none.
    pub default_timeout_s: u32,
    /// Seconds that it may run at most.
    pub max_timeout_s: u32,
    /// Seconds between two runs on one server.
    pub cooldown_s: Option<u32>,
    /// Runs in an hour on one server.
    pub per_hour: Option<u32>,
    /// Runs in a day on one server.
    pub per_day: Option<u32>,
}

/// Stands in command lines for the folder of the node's storage pool, which the agent puts in its place.
pub const POOL: &str = "@pool";

/// How much a command can break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Risk {
    /// Only reads.
    Low,
    /// Changes settings, or interrupts the agent.
    Medium,
    /// Interrupts containers.
    High,
    /// Interrupts the whole server.
    Critical,
}

impl Risk {
    /// All of them, lowest first.
    pub const ALL: [Self; 4] = [Self::Low, Self::Medium, Self::High, Self::Critical];

    /// The contract's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// True where it must be confirmed, whatever else is set.
    pub fn needs_confirmation(self) -> bool {
        self >= Self::High
    }
}

/// What becomes of the agent while a command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// It ends, and is started again: it succeeded where another process of the agent is there.
    RestartsAgent,
    /// The server goes down: it succeeded where the kernel's boot id is another one.
    Reboots,
}

/// Why a built-in command cannot be run with these parameters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuiltInError {
    /// Parameters are missing or wrong.
    #[error("parameters: {0:?}")]
    Parameters(Problems),
    /// There is no command line with these values.
    #[error(transparent)]
    Render(#[from] super::template::RenderError),
}

impl BuiltIn {
    /// The schema of its parameters.
    pub fn schema(&self) -> Schema {
        Schema::parse(&self.parameters).expect("a test parses every schema")
    }

    /// The command line with these parameters; empty where the agent does it itself.
    pub fn arguments(&self, parameters: &Parameters) -> Result<Arguments, BuiltInError> {
        let schema = self.schema();
        schema.validate(parameters).map_err(BuiltInError::Parameters)?;
        if self.argv.is_empty() {
            return Ok(Arguments::default());
        }
        Ok(Template::parse(self.argv, &schema).expect("a test parses every template").render(parameters)?)
    }
}

/// The built-in command of this name.
pub fn find(slug: &str) -> Option<BuiltIn> {
    all().into_iter().find(|command| command.slug == slug)
}

/// Units whose log can be read.
const UNITS: [&str; 7] =
    ["hoody-agent", "hoody-proxy", "ssh", "cron", "nftables", "systemd-networkd", "systemd-timesyncd"];
/// One label of a host name, and more of them (RFC 1123, section 2.1).
const HOST_NAME: &str = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*";
/// A name of the time zone database.
const TIME_ZONE: &str = r"[A-Za-z0-9_+-]{1,32}(/[A-Za-z0-9_+-]{1,32}){0,2}";

/// All of them.
pub fn all() -> Vec<BuiltIn> {
    let nothing = BuiltIn {
        slug: "",
        name: "",
        description: "",
        category: "diagnostics",
        risk: Risk::Low,
        argv: &[],
        parameters: json!({"type": "object", "additionalProperties": false}),
        example: json!({}),
        account: Account::Nobody,
        effect: Effect::None,
        default_timeout_s: 30,
        max_timeout_s: 300,
        cooldown_s: None,
        per_hour: Some(120),
        per_day: None,
    };
    let object = |properties: Value, required: &[&str]| json!({"type": "object", "additionalProperties": false, "properties": properties, "required": required});
    vec![
        BuiltIn {
            slug: "agent-restart",
            name: "Restart the agent",
            description: "Ends the node agent; systemd starts it again. Containers go on meanwhile.",
            category: "maintenance",
            risk: Risk::Medium,
            account: Account::Root,
            effect: Effect::RestartsAgent,
            default_timeout_s: 120,
            cooldown_s: Some(60),
            per_hour: Some(10),
            ..nothing.clone()
        },
        BuiltIn {
            slug: "disk-usage",
            name: "Disk usage",
            description: "Size, used and free bytes of every local file system.",
            category: "storage",
            argv: &["/usr/bin/df", "--local", "--block-size=1", "--output=source,fstype,size,used,avail,pcent,target"],
            // The pool is below a folder that only root enters.
            account: Account::Root,
            ..nothing.clone()
        },
        BuiltIn {
            slug: "hostname",
            name: "Set the host name",
            description: "Sets the server's host name, now and for later boots.",
            category: "setup",
            risk: Risk::Medium,
            argv: &["/usr/bin/hostnamectl", "set-hostname", "{hostname}"],
            parameters: object(
                json!({"hostname": {"type": "string", "pattern": HOST_NAME, "maxLength": 64}}),
                &["hostname"],
            ),
            example: json!({"hostname": "web-1.example.com"}),
            account: Account::Root,
            per_hour: Some(20),
            ..nothing.clone()
        },
        BuiltIn {
            slug: "log-tail",
            name: "End of a log",
            description: "The last lines of a system service's log.",
            argv: &[
                "/usr/bin/journalctl",
                "--no-pager",
                "--quiet",
                "--output=short-iso",
                "--unit={unit}.service",
                "--lines={lines}",
            ],
            parameters: object(
                json!({
                    "unit": {"type": "string", "enum": UNITS, "default": "hoody-agent"},
                    "lines": {"type": "integer", "minimum": 1, "maximum": 2000, "default": 100},
                }),
                &[],
            ),
            example: json!({"unit": "hoody-agent", "lines": 50}),
            // The journal of the system is for root and its group.
            account: Account::Root,
            ..nothing.clone()
        },
        BuiltIn {
            slug: "network-diagnosis",
            name: "Network diagnosis",
            description: "Addresses, links, routes or neighbours of the server.",
            argv: &["/usr/sbin/ip", "-brief", "{object}"],
            parameters: object(
                json!({"object": {"type": "string", "enum": ["address", "link", "route", "neighbour"], "default": "address"}}),
                &[],
            ),
            example: json!({"object": "route"}),
            ..nothing.clone()
        },
        BuiltIn {
            slug: "packages-available",
            name: "Available upgrades",
            description: "What an upgrade of the Debian packages would do, from the lists that the server has; changes nothing.",
            category: "maintenance",
            argv: &[
                "/usr/bin/apt-get",
                "--simulate",
                "--quiet",
                "--option=APT::Get::Show-User-Simulation-Note=false",
                "upgrade",
            ],
            default_timeout_s: 120,
            per_hour: Some(30),
            ..nothing.clone()
        },
        BuiltIn {
            slug: "pool-balance",
            name: "Balance the storage pool",
            description: "Gathers what is left in chunks that are at most so full, so that whole ones become free. Containers go on meanwhile, slower.",
            category: "storage",
            risk: Risk::Medium,
            argv: &["/usr/bin/btrfs", "balance", "start", "-dusage={percent}", "-musage={percent}", POOL],
            parameters: object(
                json!({"percent": {"type": "integer", "minimum": 1, "maximum": 90, "default": 50}}),
                &[],
            ),
            example: json!({"percent": 50}),
            account: Account::Root,
            default_timeout_s: MAX_TIMEOUT_S as u32,
            max_timeout_s: MAX_TIMEOUT_S as u32,
            cooldown_s: Some(60),
            per_hour: Some(10),
            ..nothing.clone()
        },
        BuiltIn {
            slug: "pool-errors",
            name: "Errors of the storage pool",
            description: "What the kernel has counted of errors on each device of the storage pool.",
            category: "storage",
            argv: &["/usr/bin/btrfs", "device", "stats", POOL],
            account: Account::Root,
            ..nothing.clone()
        },
        BuiltIn {
            slug: "pool-scrub",
            name: "Scrub the storage pool",
            description: "Reads everything that the storage pool holds and compares checksums. One that was ended goes on with \"resume\".",
            category: "storage",
            risk: Risk::Medium,
            argv: &["/usr/bin/btrfs", "scrub", "{action}", "-B", "-d", POOL],
            parameters: object(
                json!({"action": {"type": "string", "enum": ["start", "resume"], "default": "start"}}),
                &[],
            ),
            example: json!({"action": "start"}),
            account: Account::Root,
            default_timeout_s: MAX_TIMEOUT_S as u32,
            max_timeout_s: MAX_TIMEOUT_S as u32,
            cooldown_s: Some(60),
            per_hour: Some(10),
            ..nothing.clone()
        },
        BuiltIn {
            slug: "pool-scrub-status",
            name: "The last scrub",
            description: "How far the scrub of the storage pool is, or what the last one found.",
            category: "storage",
            argv: &["/usr/bin/btrfs", "scrub", "status", "-d", POOL],
            account: Account::Root,
            ..nothing.clone()
        },
        BuiltIn {
            slug: "reboot",
            name: "Reboot the server",
            description: "Restarts the whole server. Containers with autostart come back with it, others stay stopped.",
            category: "maintenance",
            risk: Risk::Critical,
            argv: &["/usr/bin/systemctl", "reboot"],
            account: Account::Root,
            effect: Effect::Reboots,
            default_timeout_s: 600,
            max_timeout_s: 3600,
            cooldown_s: Some(300),
            per_hour: Some(4),
            per_day: Some(12),
            ..nothing.clone()
        },
        BuiltIn {
            slug: "storage-devices",
            name: "Storage devices",
            description: "The btrfs file systems of the server and the devices they are on.",
            category: "storage",
            argv: &["/usr/bin/btrfs", "filesystem", "show", "--raw"],
            account: Account::Root,
            ..nothing.clone()
        },
        BuiltIn {
            slug: "time-zone",
            name: "Set the time zone",
            description: "Sets the time zone in which the server's own logs are written.",
            category: "setup",
            risk: Risk::Medium,
            argv: &["/usr/bin/timedatectl", "set-timezone", "{time_zone}"],
            parameters: object(json!({"time_zone": {"type": "string", "pattern": TIME_ZONE}}), &["time_zone"]),
            example: json!({"time_zone": "Europe/Berlin"}),
            account: Account::Root,
            per_hour: Some(20),
            ..nothing
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_can_be_run_with_its_example_and_nothing_else() {
        for command in all() {
            let parameters = command.schema().read(command.example.as_object().unwrap()).unwrap();
            let arguments = command.arguments(&parameters).unwrap();
            assert_eq!(arguments.is_empty(), command.effect == Effect::RestartsAgent, "{}", command.slug);
            assert!(command.default_timeout_s <= command.max_timeout_s, "{}", command.slug);
            let other = serde_json::Map::from_iter([("no_such_parameter".to_owned(), json!("x"))]);
            assert!(command.schema().read(&other).is_err(), "{}", command.slug);
            assert_eq!(find(command.slug), Some(command));
        }
    }

    #[test]
    fn hostile_parameters_are_refused() {
        let refused = |slug: &str, name: &str, value: &str| {
            let values = serde_json::Map::from_iter([(name.to_owned(), json!(value))]);
            find(slug).unwrap().schema().read(&values).unwrap_err();
        };
        for value in
            ["", "-x", "--static", "a b", "a;reboot", "$(id)", "a\nb", "A", "a..b", "a-", ".a", &"a".repeat(65)]
        {
            refused("hostname", "hostname", value);
        }
        for value in
            ["", "-UTC", "../../etc/passwd", "/etc/passwd", "Europe/../x", "Europe/Berlin\n", "UTC;id", "a/b/c/d"]
        {
            refused("time-zone", "time_zone", value);
        }
        for value in ["hoody-agent --vacuum-size=1", "-all", "*", "hoody-agent.service", ""] {
            refused("log-tail", "unit", value);
        }
        for value in ["link set eth0 down", "netns", "-all", ""] {
            refused("network-diagnosis", "object", value);
        }
    }
}
