//! Everything that leaves a server over its uplink, as the other end of the wire sees it.

use anyhow::{Context, Result};
use hoody_tests::{cluster::Server, wait};
use nix::libc;
use std::{
    ffi::CString,
    net::Ipv4Addr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

const DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of a frame that are looked at.
const SNAPSHOT: usize = 128;
const ETHERNET_HEADER: usize = 14;

/// A running capture.
pub(crate) struct Capture {
    strays: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    /// Notes every IPv4 packet from the server that is not of the link between agent and control plane.
    pub(crate) fn start(server: &Server) -> Result<Self> {
        let socket = open(&server.name)?;
        let (strays, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let ours = server.outside();
        let (noted, stopped) = (strays.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut frame = [0; SNAPSHOT];
            while !stopped.load(Ordering::Relaxed) {
                let Some(read) = receive(&socket, &mut frame) else { continue };
                if let Some(stray) = frame.get(ETHERNET_HEADER..read).and_then(|packet| stray(packet, ours)) {
                    noted.lock().expect("nobody panics with it").push(stray);
                }
            }
        });
        Ok(Self { strays, stop, thread: Some(thread) })
    }

    /// What was noted so far.
    pub(crate) fn strays(&self) -> Vec<String> {
        self.strays.lock().expect("nobody panics with it").clone()
    }

    /// Waits until a packet to this address was noted.
    pub(crate) async fn sees(&self, address: &str) -> Result<()> {
        wait::until("a packet on the uplink", DEADLINE, async || {
            Ok(self.strays().iter().any(|stray| stray.contains(address)).then_some(()))
        })
        .await
    }

    /// Forgets what was noted.
    pub(crate) fn forget(&self) {
        self.strays.lock().expect("nobody panics with it").clear();
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Describes a packet that is none of the agent's.
fn stray(packet: &[u8], ours: Ipv4Addr) -> Option<String> {
    let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
    let (source, destination) = (address(12)?, address(16)?);
    let header = usize::from(packet.first()? & 0xf) * 4;
    let port = packet.get(header + 2..header + 4).map(|port| u16::from_be_bytes([port[0], port[1]]))?;
    let (protocol, icmp, udp) = (packet[9], 1, 17);
    // From us to the server; QUIC to the control plane; or the server's word that no agent listens for QUIC now.
    let unreachable = protocol == icmp && packet.get(header) == Some(&3);
    let own = source == ours || (destination == ours && (unreachable || (protocol == udp && port != 53)));
    (!own).then(|| format!("{source} to {destination}, protocol {protocol}, port {port}"))
}

fn open(interface: &str) -> Result<OwnedFd> {
    let protocol = (libc::ETH_P_IP as u16).to_be();
    // SAFETY: plain system calls on a new descriptor, which is owned at once.
    let socket = unsafe {
        let raw = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, i32::from(protocol));
        nix::errno::Errno::result(raw).context("open a packet socket")?;
        OwnedFd::from_raw_fd(raw)
    };
    let name = CString::new(interface)?;
    // SAFETY: the name is a C string; the address is zeroed plain data of the right type and size.
    unsafe {
        let mut address: libc::sockaddr_ll = std::mem::zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = libc::if_nametoindex(name.as_ptr()) as i32;
        let size = size_of::<libc::sockaddr_ll>() as u32;
        let bound = libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size);
        nix::errno::Errno::result(bound).context("bind a packet socket")?;
        let timeout = libc::timeval { tv_sec: 0, tv_usec: 100_000 };
        let set = libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVTIMEO,
            (&raw const timeout).cast(),
            size_of::<libc::timeval>() as u32,
        );
        nix::errno::Errno::result(set).context("set a packet socket's deadline")?;
    }
    Ok(socket)
}

fn receive(socket: &OwnedFd, frame: &mut [u8]) -> Option<usize> {
    // SAFETY: the buffer is ours and its length is given.
    let read = unsafe { libc::recv(socket.as_raw_fd(), frame.as_mut_ptr().cast(), frame.len(), 0) };
    usize::try_from(read).ok().filter(|read| *read > 0)
}
