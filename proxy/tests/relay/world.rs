//! A container, its server with the proxy and the packet filter's rules, and the outside with upstreams and
//! destinations: three namespaces. The test is the agent.
//!
//! ```text
//! container 10.88.0.2 ── 10.88.0.1 server 198.51.100.1 ── 198.51.100.2 outside (203.0.113.10, 9.9.9.9)
//! ```
//! The server does not forward: what arrives outside came through the proxy.

use crate::namespace::{Namespace, wait_for};
use hoody_protocol::id::ContainerId;
use hoody_proxy::control::{
    Client, ControlError, Credentials, Egress, Events, Health, Policy, Secret, Status, Upstream, UpstreamKind,
    open_listeners,
};
use std::{
    fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket},
    os::unix::fs::{PermissionsExt, chown},
    path::PathBuf,
    process::{Child, Stdio},
    time::Duration,
};
use tempfile::TempDir;

pub(crate) const CONTAINER: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 2);
/// The server's own address on the container's side.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);
pub(crate) const UPSTREAM: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
pub(crate) const DESTINATION: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
pub(crate) const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(9, 9, 9, 9);
/// The same one, as whoever is at the upstream reaches it.
pub(crate) const PRIVATE_NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// The container's listeners.
pub(crate) const LISTENERS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 15_001);
/// The user that the proxy runs as: nobody.
const USER: u32 = 65_534;
/// Settings with which failures show quickly.
const QUICK: &str = "connect_timeout_ms = 4000\nanswer_timeout_ms = 3000\nretry_ms = 100\nretry_max_ms = 400\n";

pub(crate) struct World {
    pub(crate) server: Namespace,
    pub(crate) container: Namespace,
    pub(crate) outside: Namespace,
    pub(crate) folder: TempDir,
    pub(crate) id: ContainerId,
    proxy: Option<Child>,
    runtime: tokio::runtime::Runtime,
    agent: Option<(Client, Events)>,
    revision: u64,
    log: &'static str,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::logging("debug")
    }

    /// With this much in the proxy's log.
    pub(crate) fn logging(log: &'static str) -> Self {
        let server = Namespace::new("server");
        let container = Namespace::new("container");
        let outside = Namespace::new("outside");
        server.run(&format!("ip link add toc type veth peer name eth0 netns {}", container.0));
        server.run(&format!("ip link add out type veth peer name in netns {}", outside.0));
        for line in [
            "ip addr add 10.88.0.1/24 dev toc",
            "ip link set toc up",
            "ip addr add 198.51.100.1/24 dev out",
            "ip link set out up",
            "sysctl -qw net.ipv4.ip_forward=0",
            "ip route add default via 198.51.100.2",
            "ip rule add fwmark 1 lookup 100",
            "ip route add local 0.0.0.0/0 dev lo table 100",
            "nft add table ip relay",
            "nft add chain ip relay prerouting { type filter hook prerouting priority mangle; }",
        ] {
            server.run(line);
        }
        for line in ["ip addr add 10.88.0.2/24 dev eth0", "ip link set eth0 up", "ip route add default via 10.88.0.1"] {
            container.run(line);
        }
        for line in [
            "ip addr add 198.51.100.2/24 dev in",
            "ip link set in up",
            "ip addr add 203.0.113.10/32 dev lo",
            "ip addr add 9.9.9.9/32 dev lo",
            "ip addr add 10.99.0.1/32 dev lo",
        ] {
            outside.run(line);
        }
        server.etc("hosts", "127.0.0.1 localhost\n198.51.100.2 upstream.test\n127.0.0.1 inside.test\n");
        // A name server that refuses at once.
        server.etc("resolv.conf", "nameserver 127.0.0.1\n");
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let run = folder.path().join("run");
        fs::create_dir(&run).unwrap();
        chown(&run, Some(USER), Some(USER)).unwrap();
        fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).unwrap();
        let name = server.0.clone();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .on_thread_start(move || Namespace::enter(&name))
            .enable_all()
            .build()
            .unwrap();
        let id = ContainerId::generate();
        let mut world =
            Self { server, container, outside, folder, id, proxy: None, runtime, agent: None, revision: 0, log };
        world.direct_to_listeners();
        world.start_proxy();
        world
    }

    /// The packet filter's part: everything from the container goes to its listeners.
    pub(crate) fn direct_to_listeners(&self) {
        self.server.run(&format!(
            "nft add rule ip relay prerouting iifname toc meta l4proto {{ tcp, udp }} tproxy to {LISTENERS} meta mark set 1 accept"
        ));
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("run/control.sock")
    }

    /// The authority that the proxy trusts, beside none.
    pub(crate) fn authority(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("proxy.log")).unwrap()
    }

    /// Starts the proxy, without privileges, and connects to it.
    pub(crate) fn start_proxy(&mut self) {
        let settings = self.folder.path().join("proxy.toml");
        fs::write(&settings, format!("socket = '{}'\n{QUICK}", self.socket().display())).unwrap();
        if !self.authority().exists() {
            fs::write(self.authority(), "").unwrap();
        }
        let log = fs::File::options().create(true).append(true).open(self.folder.path().join("proxy.log")).unwrap();
        let proxy = self
            .server
            .command("setpriv")
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--no-new-privs"])
            .args(["--inh-caps", "-all", "--bounding-set", "-all", env!("CARGO_BIN_EXE_hoody-proxy")])
            .arg("--config")
            .arg(settings)
            .env("SSL_CERT_FILE", self.authority())
            .env("HOODY_LOG", self.log)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.proxy = Some(proxy);
        self.connect();
    }

    pub(crate) fn proxy_pid(&self) -> u32 {
        self.proxy.as_ref().unwrap().id()
    }

    pub(crate) fn kill_proxy(&mut self) {
        let mut proxy = self.proxy.take().unwrap();
        proxy.kill().unwrap();
        proxy.wait().unwrap();
    }

    /// Asks the authorities to be read again.
    pub(crate) fn reload(&self) {
        let before = self.log().matches("authorities were read again").count();
        crate::namespace::run(&["kill", "-HUP", &self.proxy_pid().to_string()]);
        wait_for("the authorities", || {
            (self.log().matches("authorities were read again").count() > before).then_some(())
        });
    }

    /// Connects as a new agent, once the proxy answers.
    pub(crate) fn connect(&mut self) {
        self.agent = None;
        let socket = self.socket();
        let agent = wait_for("the proxy's control socket", || {
            let socket = socket.clone();
            self.on_runtime(async move { Client::connect(&socket).await }).ok()
        });
        self.agent = Some(agent);
    }

    /// The agent goes away.
    pub(crate) fn disconnect(&mut self) {
        self.agent = None;
    }

    fn on_runtime<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        let task = self.runtime.spawn(work);
        self.runtime.block_on(task).unwrap()
    }

    pub(crate) fn client(&self) -> &Client {
        &self.agent.as_ref().unwrap().0
    }

    pub(crate) fn events(&mut self) -> &mut Events {
        &mut self.agent.as_mut().unwrap().1
    }

    /// Blocks on something that needs no namespace.
    pub(crate) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    pub(crate) fn egress(&mut self, policy: Policy) -> Egress {
        self.revision += 1;
        Egress { container: self.id, address: CONTAINER, revision: self.revision, policy }
    }

    /// Sets the policy with new listeners.
    pub(crate) fn set(&mut self, policy: Policy) {
        let egress = self.egress(policy);
        // A program that another test is about to start still has what was open here when it was forked off.
        let open = || self.server.within(|| open_listeners(LISTENERS));
        let free = |opened: &io::Result<_>| !matches!(opened, Err(error) if error.kind() == io::ErrorKind::AddrInUse);
        let listeners = wait_for("the listeners' address", || Some(open()).filter(free)).unwrap();
        self.block_on(self.client().set(egress, Some(listeners))).unwrap();
    }

    /// Sets the policy with the listeners of before.
    pub(crate) fn change(&mut self, policy: Policy) -> Result<(), ControlError> {
        let egress = self.egress(policy);
        self.block_on(self.client().set(egress, None))
    }

    pub(crate) fn status(&self) -> Status {
        let list = self.block_on(self.client().list()).unwrap();
        list.into_iter().find(|status| status.container == self.id).unwrap()
    }

    /// Waits until the upstream is as it should be.
    #[track_caller]
    pub(crate) fn wait_health(&self, what: &str, is: impl Fn(&Health) -> bool) -> Status {
        wait_for(what, || Some(self.status()).filter(|status| is(&status.health)))
    }

    /// Sets the policy and waits until its upstream answers.
    #[track_caller]
    pub(crate) fn set_up(&mut self, policy: Policy) {
        self.set(policy);
        self.wait_health("an upstream that works", |health| *health == Health::Ok);
    }

    /// A connection from the container.
    pub(crate) fn dial(&self, port: u16) -> TcpStream {
        self.dial_address(SocketAddrV4::new(DESTINATION, port))
    }

    pub(crate) fn dial_address(&self, address: SocketAddrV4) -> TcpStream {
        let stream = self.container.within(|| TcpStream::connect(address)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// Whether a connection from the container gets anywhere. Packets that the filter finds no listener for are lost.
    pub(crate) fn reaches(&self, port: u16) -> bool {
        let address = SocketAddrV4::new(DESTINATION, port).into();
        self.container.within(|| TcpStream::connect_timeout(&address, Duration::from_millis(300))).is_ok()
    }

    /// A UDP socket in the container.
    pub(crate) fn udp(&self) -> UdpSocket {
        let socket = self.container.within(|| UdpSocket::bind((CONTAINER, 0))).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket
    }

    /// Sends `text` to the echo destination and expects it back.
    #[track_caller]
    pub(crate) fn echo(&self, stream: &mut TcpStream, text: &str) {
        stream.write_all(text.as_bytes()).unwrap();
        let mut back = vec![0; text.len()];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(String::from_utf8_lossy(&back), text);
    }

    /// Expects that the connection is refused: reset, and not ended as if that were all.
    #[track_caller]
    pub(crate) fn expect_reset(&self, stream: &mut TcpStream) {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let error = match stream.read(&mut [0; 16]) {
            Err(error) => error,
            Ok(read) => panic!("{read} bytes where a reset is expected"),
        };
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- proxy.log\n{}", self.log());
        }
        if self.proxy.is_some() {
            self.kill_proxy();
        }
    }
}

/// A policy for an upstream at the outside's address, which the operator allows.
pub(crate) fn policy(kind: UpstreamKind, port: u16) -> Policy {
    Policy {
        upstream: Upstream {
            kind,
            host: UPSTREAM.to_string().try_into().unwrap(),
            port,
            credentials: None,
            server_name: None,
        },
        dns_servers: Default::default(),
        allowed: vec!["198.51.100.0/24".parse().unwrap()].try_into().unwrap(),
        own: Default::default(),
    }
}

pub(crate) fn with_credentials(mut policy: Policy, user: &str, password: &str) -> Policy {
    let secret = |text: &str| Secret::try_from(text.to_owned()).unwrap();
    policy.upstream.credentials = Some(Credentials { user: secret(user), password: secret(password) });
    policy
}
