//! A server: a network namespace with an uplink, a pool, a state folder and the agent.

use super::{
    Plan, capabilities,
    disk::Disk,
    process::{Process, run},
    proxy::Proxy,
    slot::Slot,
};
use crate::traces;
use anyhow::{Context, Result};
use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
};

/// Table of the rule that loses packets.
/// The time in which a running agent answers its status.
const STATUS_DEADLINE: std::time::Duration = std::time::Duration::from_secs(5);
const LOSS: &str = "tests_loss";

/// One server of the cluster.
#[derive(Debug)]
pub struct Server {
    /// Its name: also that of its namespace and cgroup.
    pub name: String,
    /// Its id; empty until the cluster has learnt it.
    pub id: String,
    /// Its end of the uplink.
    pub address: Ipv4Addr,
    /// Where its files are.
    pub folder: PathBuf,
    /// How far off the agent's clock is from its next start on, for example `-8m`.
    pub clock: Option<String>,
    /// Added to the environment of the agent's program, from now on.
    pub environment: Vec<(String, String)>,
    /// The agent's program; `None`: the one beside this program.
    pub program: Option<PathBuf>,
    agent: Option<Process>,
    proxy: Proxy,
    /// The network of its containers.
    containers: String,
    // Dropped in this order.
    pool: Disk,
    _state: Option<Disk>,
    namespace: Namespace,
    boots: u32,
}

/// A network namespace with a veth to ours; removed when dropped.
#[derive(Debug)]
struct Namespace {
    name: String,
    cgroup: String,
    /// Our end of the uplink, and the server's.
    ours: Ipv4Addr,
    theirs: Ipv4Addr,
    /// The network of its containers.
    containers: String,
    /// Bytes of the largest packets of the uplink.
    packet_bytes: u16,
}

/// The boot id that an agent believes.
const BOOT_ID: &str = "HOODY_FAULT_BOOT_ID";

impl Server {
    pub(super) fn make(slot: &Slot, number: usize, cluster: &Path, plan: &Plan) -> Result<Self> {
        let name = slot.name(number);
        let folder = cluster.join(&name);
        fs::create_dir_all(&folder)?;
        remains(&name)?;
        let namespace = Namespace::make(slot, number, plan.packet_bytes)?;
        let proxy = Proxy::make(&name, &folder)?;
        let pool = Disk::pool(&folder, plan.pool_bytes, plan.pool_disks)?;
        let state = plan.state_bytes.map(|bytes| Disk::state(&folder, bytes)).transpose()?;
        let config = format!(
            "state_dir = {state:?}\nrun_dir = {run:?}\npool = {pool:?}\nnode_cidr = {cidr:?}\ncgroup_parent = {name:?}\n\
             first_id = {first_id}\ncommands_policy = {policy:?}\nstop_timeout_s = 5\ndns = [\"{dns}\"]\nproxy_socket = {socket:?}\n{more}\n",
            state = folder.join("state"),
            run = format!("/run/{name}"),
            pool = pool.mounted,
            cidr = slot.containers(number),
            first_id = slot.first_id(number),
            policy = folder.join("commands.toml"),
            dns = slot.uplink_host(number),
            socket = proxy.socket(),
            more = plan.agent_settings,
        );
        fs::write(folder.join("agent.toml"), config)?;
        fs::write(folder.join("commands.toml"), &plan.commands)?;
        let address = slot.uplink_server(number);
        Ok(Self {
            name,
            id: String::new(),
            address,
            folder,
            environment: plan.agent_environment.clone(),
            program: None,
            clock: None,
            agent: None,
            proxy,
            containers: slot.containers(number),
            pool,
            _state: state,
            namespace,
            boots: 1,
        })
    }

    /// A command in the server's network namespace.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace.name)).arg("--").arg(program);
        command
    }

    /// The agent's program with the server's configuration.
    pub fn agent_command(&self) -> Command {
        let mut command = self.command(self.agent_program());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.arg("--config").arg(self.folder.join("agent.toml"));
        command
    }

    /// The folder of the agent's identity.
    pub fn identity_dir(&self) -> PathBuf {
        self.folder.join("state/identity")
    }

    /// Loses this share of the packets between agent and control plane, in both directions; 0 loses none.
    pub fn lose(&self, percent: u8, node_port: u16) -> Result<()> {
        // Absent is what is wanted.
        let _ = self.command("nft").args(["delete", "table", "inet", "loss"]).output();
        if percent == 0 {
            return Ok(());
        }
        run(self.command("nft").args(["add", "table", "inet", "loss"]))?;
        for (hook, port) in [("input", "sport"), ("output", "dport")] {
            let chain = format!("add chain inet loss {hook} {{ type filter hook {hook} priority 0; }}");
            let rule =
                format!("add rule inet loss {hook} udp {port} {node_port} numgen random mod 100 < {percent} drop");
            run(self.command("nft").arg(chain))?;
            run(self.command("nft").arg(rule))?;
        }
        Ok(())
    }

    fn agent_program(&self) -> PathBuf {
        self.program.clone().unwrap_or_else(|| super::control_plane::program("hoody-agent"))
    }

    /// Enrols the agent.
    pub fn join(&self, token: &str) -> Result<()> {
        run(self.agent_command().args(["join", token])).map(|_| ())
    }

    /// Starts the agent, with the capabilities of its unit, and the relay beside it where it does not run.
    pub fn start(&mut self) -> Result<()> {
        if self.proxy.pid().is_none() {
            self.start_proxy()?;
        }
        let log = self.log();
        let mut agent = Command::new(self.agent_program());
        agent.arg("--config").arg(self.folder.join("agent.toml")).arg("run");
        let mut command = capabilities::confine(self.command("setpriv"), &agent)?;
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        super::clock::shift(&mut command, self.clock.as_deref())?;
        self.agent = Some(Process::start(&format!("the agent of {}", self.name), &mut command, &log)?);
        Ok(())
    }

    /// Starts the relay program, without any capability.
    pub fn start_proxy(&mut self) -> Result<()> {
        let command = self.command("setpriv");
        self.proxy.start(command)
    }

    /// Starts the relay program anew, trusting this authority in place of the system's from now on.
    pub fn restart_proxy_trusting(&mut self, authority: &Path) -> Result<()> {
        self.proxy.trust(authority)?;
        if self.proxy.pid().is_some() {
            self.kill_proxy()?;
        }
        self.start_proxy()
    }

    /// Kills the relay program without warning.
    pub fn kill_proxy(&mut self) -> Result<()> {
        self.proxy.kill()
    }

    /// The relay program's process id, where it runs.
    pub fn proxy_pid(&self) -> Option<i32> {
        self.proxy.pid()
    }

    /// The relay program's log file.
    pub fn proxy_log(&self) -> PathBuf {
        self.proxy.log()
    }

    /// The agent's log file.
    pub fn log(&self) -> PathBuf {
        self.folder.join("agent.log")
    }

    /// The folder of its pool.
    pub fn pool(&self) -> &Path {
        &self.pool.mounted
    }

    /// Its run folder.
    pub fn run_dir(&self) -> PathBuf {
        PathBuf::from(format!("/run/{}", self.name))
    }

    /// Cuts the uplink, or mends it.
    pub fn set_uplink(&self, up: bool) -> Result<()> {
        let ip = |arguments: &str| run(Command::new("ip").args(arguments.split_whitespace())).map(|_| ());
        ip(&format!("link set {} {}", self.name, if up { "up" } else { "down" }))?;
        // The route to the containers went with the link.
        if up { ip(&format!("route replace {} via {}", self.containers, self.address)) } else { Ok(()) }
    }

    /// Loses this many of a hundred packets that come over the uplink; 0 ends it.
    pub fn set_loss(&self, percent: u8) -> Result<()> {
        let rules = format!(
            "add table inet {LOSS}\ndelete table inet {LOSS}\n{}",
            if percent == 0 {
                String::new()
            } else {
                format!(
                    "add table inet {LOSS}\nadd chain inet {LOSS} loss {{ type filter hook prerouting priority -400; }}\n\
                     add rule inet {LOSS} loss iifname \"uplink\" numgen random mod 100 < {percent} drop\n"
                )
            }
        );
        let path = self.folder.join("loss.nft");
        fs::write(&path, rules)?;
        run(self.command("nft").arg("-f").arg(path)).map(|_| ())
    }

    /// The running agent.
    pub fn agent(&mut self) -> Result<&mut Process> {
        self.agent.as_mut().context("the agent does not run")
    }

    /// The agent's process id, where it runs.
    pub fn agent_pid(&self) -> Option<i32> {
        self.agent.as_ref().map(Process::pid)
    }

    /// Asks the agent to end and waits.
    pub fn stop_agent(&mut self) -> Result<()> {
        self.agent.take().context("the agent does not run")?.stop()
    }

    /// A program of the workspace in the server's network, with a configuration of its own beside the
    /// agent's: another identity, or none. Nothing else of the server is touched.
    pub fn stranger(&self, name: &str) -> Result<Command> {
        let own = fs::read_to_string(self.folder.join("agent.toml"))?;
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder)?;
        let rest = own.lines().filter(|line| !line.starts_with("state_dir") && !line.starts_with("run_dir"));
        let config = format!(
            "state_dir = {:?}\nrun_dir = {:?}\n{}\n",
            folder.join("state"),
            folder.join("run"),
            rest.collect::<Vec<_>>().join("\n")
        );
        let path = folder.join("agent.toml");
        fs::write(&path, config)?;
        let mut command = self.command(super::control_plane::program("hoody-agent"));
        command.arg("--config").arg(path);
        Ok(command)
    }

    /// Kills the agent without warning.
    pub fn kill_agent(&mut self) -> Result<()> {
        let mut agent = self.agent.take().context("the agent does not run")?;
        agent.kill()
    }

    /// Takes everything of the server away but its disk, as a reboot does: processes, mounts, cgroups, the network
    /// namespace with links, routes and rules. Agents that are started from now on see another boot id.
    pub fn reboot(&mut self) -> Result<()> {
        if self.agent.is_some() {
            self.kill_agent()?;
        }
        if self.proxy.pid().is_some() {
            self.kill_proxy()?;
        }
        traces::end_all(&self.name, &self.run_dir())?;
        traces::remove_cgroups(&self.name);
        self.namespace.make_anew()?;
        self.boots += 1;
        let boot_id = format!("00000000-0000-0000-0000-{:012}", self.boots);
        self.environment.retain(|(name, _)| name != BOOT_ID);
        self.environment.push((BOOT_ID.to_owned(), boot_id));
        Ok(())
    }

    /// Our end of its uplink.
    pub fn outside(&self) -> Ipv4Addr {
        self.namespace.ours
    }

    /// Runs a program in a container, as an operator does on the server; gives what it printed.
    pub fn exec(&self, container: &str, argv: &[&str]) -> Result<String> {
        run(self.agent_command().args(["exec", container, "--"]).args(argv))
    }

    /// Leaves a program running in a container.
    pub fn exec_detached(&self, container: &str, argv: &[&str]) -> Result<()> {
        run(self.agent_command().args(["exec", "--detach", container, "--"]).args(argv)).map(|_| ())
    }

    /// The same as [`Server::status`], without starting a program: for those who ask again and again.
    pub fn status_now(&self) -> Result<serde_json::Value> {
        let mut stream = std::os::unix::net::UnixStream::connect(self.run_dir().join("status.sock"))?;
        stream.set_read_timeout(Some(STATUS_DEADLINE))?;
        let mut text = String::new();
        std::io::Read::read_to_string(&mut stream, &mut text)?;
        Ok(serde_json::from_str(&text)?)
    }

    /// What `hoody-agent status --json` says.
    pub fn status(&self) -> Result<serde_json::Value> {
        Ok(serde_json::from_str(&run(self.agent_command().args(["status", "--json"]))?)?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.agent.take());
        self.proxy.end();
        // Containers outlive the agent: end what still runs, then what it stood on.
        if let Err(error) = traces::end_all(&self.name, &self.run_dir()) {
            eprintln!("{}: {error:#}", self.name);
        }
    }
}

impl Namespace {
    fn make(slot: &Slot, number: usize, packet_bytes: u16) -> Result<Self> {
        let name = slot.name(number);
        let (ours, theirs) = (slot.uplink_host(number), slot.uplink_server(number));
        let this =
            Self { name: name.clone(), cgroup: name, ours, theirs, containers: slot.containers(number), packet_bytes };
        this.make_anew()?;
        Ok(this)
    }

    /// Removes what there is of it and makes it.
    fn make_anew(&self) -> Result<()> {
        let Self { name, ours, theirs, containers, packet_bytes, .. } = self;
        remove(name);
        let ip = |arguments: &str| run(Command::new("ip").args(arguments.split_whitespace())).map(|_| ());
        ip(&format!("netns add {name}"))?;
        ip(&format!("link add {name} mtu {packet_bytes} type veth peer name uplink mtu {packet_bytes} netns {name}"))?;
        ip(&format!("addr add {ours}/30 dev {name}"))?;
        ip(&format!("link set {name} up"))?;
        ip(&format!("-n {name} addr add {theirs}/30 dev uplink"))?;
        ip(&format!("-n {name} link set uplink up"))?;
        ip(&format!("-n {name} link set lo up"))?;
        ip(&format!("-n {name} route add default via {ours}"))?;
        // Containers are reached from here, as from the outside of a server whose network is routed.
        ip(&format!("route add {containers} via {theirs}"))
    }
}

/// Removes what an earlier cluster with this name left when it was killed.
fn remains(name: &str) -> Result<()> {
    let inside = Command::new("ip").args(["netns", "pids", name]).output()?;
    for pid in String::from_utf8_lossy(&inside.stdout).split_whitespace() {
        let pid = nix::unistd::Pid::from_raw(pid.parse()?);
        // It may have ended meanwhile.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    }
    traces::end_all(name, Path::new(&format!("/run/{name}")))?;
    for disk in ["pool", "state"] {
        for mount in traces::mounts(&format!("/{name}/{disk} "))? {
            nix::mount::umount2(&mount, nix::mount::MntFlags::MNT_DETACH)?;
        }
    }
    traces::remove_cgroups(name);
    Ok(())
}

/// Removes a namespace and its uplink; what is not there is fine.
fn remove(name: &str) {
    for arguments in [["link", "del", name], ["netns", "del", name]] {
        // Absent is what is wanted.
        let _ = Command::new("ip").args(arguments).stderr(std::process::Stdio::null()).status();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
        traces::remove_cgroups(&self.cgroup);
    }
}
