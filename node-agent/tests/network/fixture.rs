//! Throwaway namespaces: a node, containers and the world outside, all without names, so that the
//! kernel removes them with the last thread or process in them.

use hoody_agent::network::{RoutedVeth, RoutedVethConfig};
use hoody_protocol::id::ContainerId;
use nix::sched::{CloneFlags, setns, unshare};
use std::{
    fs::File,
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::{fd::AsRawFd, unix::process::CommandExt},
    process::{Child, Command},
    time::{Duration, Instant},
};

/// The node's own address in the tests.
pub(crate) const NODE: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);
/// How long a datagram that must arrive may take.
const ARRIVAL: Duration = Duration::from_secs(3);
/// How long a datagram that must not arrive is waited for.
const ABSENCE: Duration = Duration::from_millis(200);

/// Runs a test on a thread in a network namespace of its own, which stands for the node's.
pub(crate) fn on_node<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("the kernel tests need root");
        ip("link set lo up");
        ip(&format!("address add {NODE}/32 dev lo"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// The network under test.
pub(crate) fn network() -> RoutedVeth {
    RoutedVeth::new(RoutedVethConfig::default()).unwrap()
}

/// The n-th container's address.
pub(crate) fn address(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 88, 0, n)
}

/// A process in user and network namespaces of its own, as an OCI runtime leaves one behind.
pub(crate) struct Container {
    child: Child,
    pub(crate) id: ContainerId,
}

impl Container {
    pub(crate) fn start() -> Self {
        Self::start_as(ContainerId::generate())
    }

    pub(crate) fn start_as(id: ContainerId) -> Self {
        let mut command = Command::new("sleep");
        command.arg("infinity");
        // SAFETY: between fork and exec only system calls are made, nothing is allocated.
        unsafe {
            command.pre_exec(|| {
                unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
                end_with_parent()
            });
        }
        Self { child: command.spawn().unwrap(), id }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Runs blocking code inside the network namespace.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/proc/{}/ns/net", self.pid())).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }

    /// `ip` inside.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        let command = arguments.to_owned();
        self.inside(move || ip(&command))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `ip` in the calling thread's namespace and returns what it printed.
pub(crate) fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// `ip -j` in the calling thread's namespace.
pub(crate) fn ip_json(arguments: &str) -> serde_json::Value {
    let printed = ip(&format!("-j {arguments}"));
    if printed.trim().is_empty() { serde_json::json!([]) } else { serde_json::from_str(&printed).unwrap() }
}

/// Links, routes, neighbours and addresses of the calling thread's namespace.
pub(crate) fn everything() -> String {
    ["link", "route show table all", "neigh", "address"].map(ip).concat()
}

/// Sends one datagram from a socket bound to `from` in one place to `to` in another; the time until it
/// arrived, `None` where it did not.
pub(crate) fn deliver(
    sender: Option<&Container>,
    from: Ipv4Addr,
    receiver: Option<&Container>,
    to: Ipv4Addr,
    arrives: bool,
) -> Option<Duration> {
    let bind = |place: Option<&Container>, address: Ipv4Addr| {
        let bind = move || UdpSocket::bind(SocketAddrV4::new(address, 0)).unwrap();
        match place {
            Some(container) => container.inside(bind),
            None => bind(),
        }
    };
    // A socket stays in the namespace it was made in, whichever thread uses it.
    let (sender, receiver) = (bind(sender, from), bind(receiver, to));
    receiver.set_read_timeout(Some(if arrives { ARRIVAL } else { ABSENCE })).unwrap();
    let mut buffer = [0; 16];
    let start = Instant::now();
    // Local refusal is as good as loss.
    if sender.send_to(b"hello", receiver.local_addr().unwrap()).is_err() {
        return None;
    }
    receiver.recv_from(&mut buffer).ok().map(|_| start.elapsed())
}

/// Asserts that datagrams pass both ways between the node and the container.
pub(crate) fn assert_reachable(container: &Container, address: Ipv4Addr) {
    assert!(deliver(None, NODE, Some(container), address, true).is_some(), "node to container");
    assert!(deliver(Some(container), address, None, NODE, true).is_some(), "container to node");
}

/// Sees every ARP frame of the calling thread's namespace.
pub(crate) struct ArpWatch(std::os::fd::OwnedFd);

impl ArpWatch {
    pub(crate) fn start() -> Self {
        use std::os::fd::FromRawFd;
        let protocol = (libc::ETH_P_ARP as u16).to_be();
        // SAFETY: a system call without pointers.
        let fd = unsafe {
            libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, protocol.into())
        };
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        // SAFETY: the descriptor was just made and has no other owner.
        Self(unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) })
    }

    /// True where a frame was seen.
    pub(crate) fn saw_any(&self) -> bool {
        let mut buffer = [0u8; 128];
        // SAFETY: the buffer is valid for its whole length during the call.
        let length = unsafe { libc::recv(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        length >= 0
    }
}

/// The process ends with the thread that made it, however that ends.
fn end_with_parent() -> io::Result<()> {
    // SAFETY: a system call without pointers.
    match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
