//! Proxies and a name server of Debian's, started in the outside.

use crate::{
    namespace::wait_for,
    world::{NAME_SERVER, UPSTREAM, World},
};
use std::{
    fs,
    net::{SocketAddrV4, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Stdio},
};

/// A program that is killed when it is dropped.
pub(crate) struct Program(Child);

impl Program {
    pub(crate) fn spawn(mut command: std::process::Command) -> Self {
        Self(command.spawn().unwrap())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl World {
    fn start(&self, port: u16, program: &str, arguments: &[&str]) -> Program {
        let log = self.folder.path().join(format!("{}.log", Path::new(program).file_name().unwrap().display()));
        let log = fs::File::create(log).unwrap();
        let mut command = self.outside.command(program);
        command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let program = Program::spawn(command);
        self.wait_listening(SocketAddrV4::new(UPSTREAM, port));
        program
    }

    pub(crate) fn wait_listening(&self, address: SocketAddrV4) {
        wait_for(&format!("{address}"), || self.outside.within(|| TcpStream::connect(address)).ok());
    }

    fn settings(&self, name: &str, content: &str) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// A small SOCKS5 server: TCP only.
    pub(crate) fn microsocks(&self, port: u16, credentials: Option<(&str, &str)>) -> Program {
        let (address, port_text) = (UPSTREAM.to_string(), port.to_string());
        let mut arguments = vec!["-i", &address, "-p", &port_text];
        if let Some((user, password)) = credentials {
            arguments.extend(["-u", user, "-P", password]);
        }
        self.start(port, "microsocks", &arguments)
    }

    /// A SOCKS5 server with UDP.
    pub(crate) fn dante(&self, port: u16) -> Program {
        let settings = self.settings(
            "danted.conf",
            &format!(
                "logoutput: stderr\ninternal: {UPSTREAM} port = {port}\nexternal: {UPSTREAM}\nclientmethod: none\n\
                 socksmethod: none\nuser.privileged: root\nuser.unprivileged: nobody\n\
                 client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}\n\
                 socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 command: connect udpassociate }}\n\
                 socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 command: udpreply }}\n"
            ),
        );
        let pid = self.folder.path().join("danted.pid");
        self.start(port, "/usr/sbin/danted", &["-f", &settings, "-p", pid.to_str().unwrap()])
    }

    /// An HTTP proxy.
    pub(crate) fn tinyproxy(&self, port: u16, credentials: Option<(&str, &str)>) -> Program {
        let auth = credentials.map(|(user, password)| format!("BasicAuth {user} {password}\n")).unwrap_or_default();
        let settings = self.settings(
            "tinyproxy.conf",
            &format!("Listen {UPSTREAM}\nPort {port}\nTimeout 600\nMaxClients 1000\nLogLevel Info\n{auth}"),
        );
        self.start(port, "tinyproxy", &["-d", "-c", &settings])
    }

    /// An HTTP proxy behind TLS, with a certificate for `name`. The authority is one that the proxy trusts from its next
    /// reload on.
    pub(crate) fn squid(&self, port: u16, name: &str) -> Program {
        let folder = self.folder.path();
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::default();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = rcgen::CertifiedIssuer::self_signed(parameters, key).unwrap();
        fs::write(self.authority(), authority.pem()).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
        fs::write(folder.join("squid.pem"), format!("{}{}", certificate.pem(), key.serialize_pem())).unwrap();
        let own = folder.join("squid");
        fs::create_dir_all(&own).unwrap();
        fs::set_permissions(&own, fs::Permissions::from_mode(0o777)).unwrap();
        let own = own.display();
        let settings = self.settings(
            "squid.conf",
            &format!(
                "https_port {UPSTREAM}:{port} tls-cert={}\nhttp_access allow all\nacl all_hosts dst all\n\
                 cache deny all\ncache_mem 1 MB\npid_filename {own}/pid\naccess_log stdio:{own}/access.log\n\
                 cache_log {own}/cache.log\ncoredump_dir {own}\nshutdown_lifetime 0 seconds\npinger_enable off\n\
                 visible_hostname upstream.test\nworkers 1\nnetdb_filename none\nmime_table /usr/share/squid/mime.conf\n",
                folder.join("squid.pem").display()
            ),
        );
        self.start(port, "/usr/sbin/squid", &["--foreground", "-f", &settings])
    }

    /// A name server outside, at [`NAME_SERVER`].
    pub(crate) fn name_server(&self) -> Program {
        let long = "x".repeat(250);
        let long: Vec<String> = (0..8).map(|number| format!("--txt-record=long.test,{number}{long}")).collect();
        let mut arguments = vec![
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
            "--user=root",
            "--pid-file",
            "--address=/example.test/203.0.113.77",
            "--edns-packet-max=4096",
        ];
        arguments.extend(long.iter().map(String::as_str));
        let log = fs::File::create(self.folder.path().join("dnsmasq.log")).unwrap();
        let mut command = self.outside.command("dnsmasq");
        command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let program = Program::spawn(command);
        self.wait_listening(SocketAddrV4::new(NAME_SERVER, 53));
        program
    }
}
