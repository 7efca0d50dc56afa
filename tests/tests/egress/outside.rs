//! What lies outside of a server: a namespace of upstream proxies that the server reaches, and behind it one with a
//! web and name server that only they reach. From the server itself the way to the web leads over its uplink.

use anyhow::{Context, Result, ensure};
use hoody_tests::{
    cluster::{Process, Server, run},
    wait,
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

/// Where the web is; a documentation address, so that nothing else is there.
pub(crate) const WEB: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);
/// The name that its name server knows.
pub(crate) const NAME: &str = "web.test";
pub(crate) const PAGE: &str = "through the upstream";
/// The proxies' sides: towards the server, and towards the web.
const TO_SERVER: &str = "10.241.0";
pub(crate) const TO_WEB: &str = "10.242.0";
/// How long a client of the web has to ask.
const CLIENT_DEADLINE: Duration = Duration::from_secs(5);
const DEADLINE: Duration = Duration::from_secs(30);

/// The outside of one server; gone when dropped.
pub(crate) struct Outside {
    folder: tempfile::TempDir,
    upstreams: String,
    web: String,
    running: BTreeMap<&'static str, Process>,
    peers: Arc<Mutex<Vec<IpAddr>>>,
}

/// An upstream proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Microsocks,
    Tinyproxy,
    Squid,
    Dante,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Microsocks => "microsocks",
            Self::Tinyproxy => "tinyproxy",
            Self::Squid => "squid",
            Self::Dante => "dante",
        }
    }

    /// Its address towards the server.
    pub(crate) fn address(self) -> SocketAddr {
        let (last, port) = match self {
            Self::Microsocks => (2, 1080),
            Self::Tinyproxy => (3, 8888),
            Self::Squid => (4, 3129),
            Self::Dante => (5, 1080),
        };
        format!("{TO_SERVER}.{last}:{port}").parse().expect("an address")
    }
}

impl Outside {
    pub(crate) fn make(server: &Server) -> Result<Self> {
        let (upstreams, web) = (format!("{}-up", server.name), format!("{}-web", server.name));
        let this = Self {
            folder: tempfile::Builder::new().prefix("hoody-outside-").tempdir()?,
            upstreams,
            web,
            running: BTreeMap::new(),
            peers: Arc::default(),
        };
        fs::set_permissions(this.folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
        this.remove();
        let (up, web) = (&this.upstreams, &this.web);
        for line in [
            format!("netns add {up}"),
            format!("netns add {web}"),
            format!("-n {up} link set lo up"),
            format!("-n {web} link set lo up"),
            format!("-n {} link add outside type veth peer name server netns {up}", server.name),
            format!("-n {} addr add {TO_SERVER}.1/24 dev outside", server.name),
            format!("-n {} link set outside up", server.name),
            format!("-n {up} link set server up"),
            format!("-n {up} link add web type veth peer name upstreams netns {web}"),
            format!("-n {up} link set web up"),
            format!("-n {web} link set upstreams up"),
            format!("-n {web} addr add {TO_WEB}.1/24 dev upstreams"),
            format!("-n {web} addr add {WEB}/32 dev lo"),
        ] {
            ip(&line)?;
        }
        for last in 2..=5 {
            ip(&format!("-n {up} addr add {TO_SERVER}.{last}/24 dev server"))?;
        }
        ip(&format!("-n {up} addr add {TO_WEB}.2/24 dev web"))?;
        ip(&format!("-n {up} route add {WEB} via {TO_WEB}.1"))?;
        this.serve(80, page)?;
        this.serve(53, names)?;
        Ok(this)
    }

    /// Starts an upstream; with a user and password, it asks for them.
    pub(crate) async fn start(&mut self, kind: Kind, credentials: Option<(&str, &str)>) -> Result<()> {
        let address = kind.address();
        let (host, port) = (address.ip(), address.port());
        let config = self.folder.path().join(format!("{}.conf", kind.name()));
        let words: Vec<String> = match kind {
            Kind::Microsocks => {
                let mut words = vec!["microsocks".into(), "-i".into(), host.to_string(), "-p".into(), port.to_string()];
                if let Some((user, password)) = credentials {
                    words.extend(["-u".into(), user.into(), "-P".into(), password.into()]);
                }
                words
            }
            Kind::Tinyproxy => {
                let auth =
                    credentials.map_or(String::new(), |(user, password)| format!("BasicAuth {user} {password}\n"));
                fs::write(&config, format!("Port {port}\nListen {host}\nTimeout 600\nMaxClients 100\n{auth}"))?;
                vec!["tinyproxy".into(), "-d".into(), "-c".into(), config.display().to_string()]
            }
            Kind::Squid => {
                let (certificate, key) = self.certificate()?;
                let folder = self.folder.path().display();
                fs::write(
                    &config,
                    format!(
                        "https_port {address} tls-cert={certificate} tls-key={key}\nhttp_access allow all\ncache deny all\n\
                         pid_filename none\naccess_log none\ncache_log {folder}/squid.log\nshutdown_lifetime 0 seconds\n\
                         netdb_filename none\npinger_enable off\ncoredump_dir {folder}\n",
                        certificate = certificate.display(),
                        key = key.display(),
                    ),
                )?;
                vec!["squid".into(), "-N".into(), "-f".into(), config.display().to_string()]
            }
            Kind::Dante => {
                fs::write(
                    &config,
                    format!(
                        "logoutput: stderr\ninternal: {host} port = {port}\nexternal: web\nsocksmethod: none\nclientmethod: none\n\
                         user.privileged: root\nuser.unprivileged: nobody\n\
                         client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}\nsocks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}\n"
                    ),
                )?;
                vec!["danted".into(), "-f".into(), config.display().to_string()]
            }
        };
        let mut command = self.command(&words[0]);
        command.args(&words[1..]);
        let log = self.folder.path().join(format!("{}.log", kind.name()));
        self.running.insert(kind.name(), Process::start(kind.name(), &mut command, &log)?);
        wait::until(kind.name(), DEADLINE, async || {
            let process = self.running.get_mut(kind.name()).context("it runs")?;
            process.check()?;
            let upstreams = self.upstreams.clone();
            let up = std::thread::spawn(move || within(&upstreams, || TcpStream::connect(address).is_ok())).join();
            Ok(up.is_ok_and(|up| up.is_ok_and(|up| up)).then_some(()))
        })
        .await
    }

    /// Kills an upstream without warning.
    pub(crate) fn kill(&mut self, kind: Kind) -> Result<()> {
        self.running.remove(kind.name()).context("the upstream does not run")?.kill()
    }

    /// The addresses from which the web was asked so far.
    pub(crate) fn peers(&self) -> Vec<IpAddr> {
        self.peers.lock().expect("nobody panics with it").clone()
    }

    /// The certificate of the upstream over TLS and its key; the certificate is its own authority.
    pub(crate) fn certificate(&self) -> Result<(PathBuf, PathBuf)> {
        let (certificate, key) = (self.folder.path().join("cert.pem"), self.folder.path().join("key.pem"));
        if !certificate.exists() {
            let made = rcgen::generate_simple_self_signed(vec![Kind::Squid.address().ip().to_string()])?;
            fs::write(&certificate, made.cert.pem())?;
            fs::write(&key, made.signing_key.serialize_pem())?;
            fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        }
        Ok((certificate, key))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.upstreams)).arg("--").arg(program);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    /// Another page at an address of the upstreams' side, which the server reaches without them.
    pub(crate) fn serve_near(&self, address: Ipv4Addr) -> Result<()> {
        ip(&format!("-n {} addr replace {address}/32 dev lo", self.upstreams))?;
        self.serve_in(&self.upstreams, address, 80, page)
    }

    /// Answers connections to a port of the web's for as long as this process runs.
    fn serve(&self, port: u16, answer: fn(&mut TcpStream) -> std::io::Result<()>) -> Result<()> {
        self.serve_in(&self.web, WEB, port, answer)
    }

    fn serve_in(
        &self,
        namespace: &str,
        address: Ipv4Addr,
        port: u16,
        answer: fn(&mut TcpStream) -> std::io::Result<()>,
    ) -> Result<()> {
        let listener = std::thread::scope(|scope| {
            scope.spawn(move || within(namespace, || TcpListener::bind((address, port)))).join().expect("a thread ends")
        })??;
        let peers = self.peers.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let peers = peers.clone();
                std::thread::spawn(move || {
                    let mut stream = stream;
                    if let Ok(peer) = stream.peer_addr() {
                        peers.lock().expect("nobody panics with it").push(peer.ip());
                    }
                    let _ = stream.set_read_timeout(Some(CLIENT_DEADLINE));
                    // A client that goes away is the test's business.
                    let _ = answer(&mut stream);
                });
            }
        });
        Ok(())
    }

    fn remove(&self) {
        for name in [&self.upstreams, &self.web] {
            // Absent is what is wanted.
            let _ = Command::new("ip").args(["netns", "del", name]).stderr(std::process::Stdio::null()).status();
        }
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        for (_, mut process) in std::mem::take(&mut self.running) {
            let _ = process.kill();
        }
        // Some serve with children of their own.
        let inside = Command::new("ip").args(["netns", "pids", &self.upstreams]).output();
        let inside = inside.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        for pid in inside.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        self.remove();
    }
}

/// A page, whatever is asked.
fn page(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut request = [0; 4096];
    let read = stream.read(&mut request)?;
    if read > 0 {
        write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{PAGE}", PAGE.len())?;
    }
    Ok(())
}

/// The web's address, for whichever name, over TCP (RFC 1035, 4.2.2; RFC 7766).
fn names(stream: &mut TcpStream) -> std::io::Result<()> {
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query)?;
        // Header of 12 bytes, then the name, its type and its class.
        let name_end = 12 + query.iter().skip(12).position(|byte| *byte == 0).unwrap_or(0) + 1;
        let Some(kind) = query.get(name_end..name_end + 2) else { return Ok(()) };
        let is_a = kind == [0, 1];
        let mut answer = Vec::from(&query[..2]);
        answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
        answer.extend(&query[12..name_end + 4]);
        if is_a {
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            answer.extend(WEB.octets());
        }
        stream.write_all(&(answer.len() as u16).to_be_bytes())?;
        stream.write_all(&answer)?;
    }
}

/// Runs on this thread, which stays within the namespace.
fn within<T>(namespace: &str, work: impl FnOnce() -> T) -> Result<T> {
    let file = File::open(format!("/run/netns/{namespace}"))?;
    nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET)?;
    Ok(work())
}

fn ip(line: &str) -> Result<()> {
    ensure!(!line.is_empty());
    run(Command::new("ip").args(line.split_whitespace())).map(drop)
}
