//! Real packets between namespaces, and what became of them.

use super::world::Namespace;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io::{self, Read, Write},
    mem::MaybeUninit,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

/// How long to wait before a packet counts as dropped; on one machine it takes well below 1 ms.
pub(crate) const SILENCE: Duration = Duration::from_millis(250);
/// How long to wait for what must come.
pub(crate) const ARRIVAL: Duration = Duration::from_secs(5);

/// What the sender noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Fate {
    Passed,
    Rejected,
    Dropped,
}
pub(crate) use Fate::{Dropped, Passed, Rejected};

fn fate(error: &io::Error) -> Fate {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Rejected,
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Dropped,
        // A host's own packet that is dropped on the way out.
        io::ErrorKind::PermissionDenied => Dropped,
        _ => panic!("unexpected error of a probe: {error}"),
    }
}

pub(crate) fn listen(at: &Namespace, port: u16) -> TcpListener {
    at.within(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap())
}

pub(crate) fn udp_socket(at: &Namespace, port: u16) -> UdpSocket {
    let socket = at.within(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    socket
}

pub(crate) fn connect_from(at: &Namespace, source_port: u16, to: Ipv4Addr, port: u16) -> io::Result<TcpStream> {
    at.within(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, source_port)).into()).unwrap();
        socket.connect_timeout(&SocketAddr::from((to, port)).into(), SILENCE)?;
        Ok(socket.into())
    })
}

pub(crate) fn connect(at: &Namespace, to: Ipv4Addr, port: u16) -> io::Result<TcpStream> {
    connect_from(at, 0, to, port)
}

/// Whether a TCP connection can be made; somebody must listen.
pub(crate) fn tcp_fate(at: &Namespace, to: Ipv4Addr, port: u16) -> Fate {
    connect(at, to, port).map_or_else(|error| fate(&error), |_| Passed)
}

pub(crate) fn tcp_fate_from(at: &Namespace, source_port: u16, to: Ipv4Addr, port: u16) -> Fate {
    connect_from(at, source_port, to, port).map_or_else(|error| fate(&error), |_| Passed)
}

/// Whether a datagram arrives at the receiver, and its answer at the sender.
pub(crate) fn udp_fate(at: &Namespace, to: Ipv4Addr, receiver: &UdpSocket) -> Fate {
    let port = receiver.local_addr().unwrap().port();
    let socket = udp_socket(at, 0);
    socket.connect((to, port)).unwrap();
    // A host's own datagram that is refused on its way out is an error at once, and the reason follows.
    let sent = socket.send(b"question");
    assert!(sent.is_ok() || sent.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied));
    let mut buffer = [0; 64];
    // A rejected datagram never reaches the receiver, whose silence costs the wait.
    if let Ok((_, peer)) = receiver.recv_from(&mut buffer) {
        receiver.send_to(b"answer", peer).unwrap();
    }
    socket.recv(&mut buffer).map_or_else(|error| fate(&error), |_| Passed)
}

/// Makes a connection to the listener and takes it in at the other end.
pub(crate) fn pair(at: &Namespace, to: Ipv4Addr, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let port = listener.local_addr().unwrap().port();
    let client = connect(at, to, port).unwrap();
    let (server, _) = listener.accept().unwrap();
    (client, server)
}

/// Whether bytes written at one end arrive at the other.
pub(crate) fn flows(from: &mut TcpStream, to: &mut TcpStream, within: Duration) -> bool {
    to.set_read_timeout(Some(within)).unwrap();
    from.write_all(b"x").unwrap();
    to.read(&mut [0; 64]).is_ok_and(|read| read > 0)
}

/// Sends an ICMP message with an echo's body and waits for an echo reply.
pub(crate) fn ping(at: &Namespace, to: Ipv4Addr, icmp_type: u8, icmp_code: u8) -> Fate {
    at.within(|| {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap();
        let identifier: [u8; 2] = rand::random();
        let mut message = vec![icmp_type, icmp_code, 0, 0, identifier[0], identifier[1], 0, 1];
        let checksum = checksum(&message).to_be_bytes();
        message[2..4].copy_from_slice(&checksum);
        if let Err(error) = socket.send_to(&message, &SocketAddr::from((to, 0)).into()) {
            return fate(&error);
        }
        let deadline = Instant::now() + SILENCE;
        let mut buffer = [MaybeUninit::<u8>::uninit(); 256];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Dropped;
            }
            socket.set_read_timeout(Some(left)).unwrap();
            let Ok(read) = socket.recv(&mut buffer) else { return Dropped };
            // SAFETY: the first `read` bytes were written by the kernel.
            let bytes: Vec<u8> = buffer[..read].iter().map(|byte| unsafe { byte.assume_init() }).collect();
            let (from, icmp) = (&bytes[12..16], &bytes[20..]);
            match icmp[0] {
                0 if icmp[4..6] == identifier && from == to.octets() => return Passed,
                3 if icmp[32..34] == identifier => return Rejected,
                _ => {}
            }
        }
    })
}

/// Whether an ICMP error (fragmentation needed) about a TCP packet of `of`, from its port 80 to `port` of `at`'s
/// address `peer`, arrives where that packet came from.
pub(crate) fn error_arrives(at: &Namespace, peer: Ipv4Addr, port: u16, of: (&Namespace, Ipv4Addr)) -> bool {
    let raw = || Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap();
    let (sender, receiver) = (at.within(raw), of.0.within(raw));
    // The next hop takes 1400 bytes.
    let mut message = vec![3, 4, 0, 0, 0, 0, 5, 0x78];
    message.extend([0x45, 0, 5, 0xdc, 0, 1, 0x40, 0, 64, 6, 0, 0]);
    message.extend(of.1.octets());
    message.extend(peer.octets());
    message.extend([0, 80]);
    message.extend(port.to_be_bytes());
    message.extend([0; 4]);
    let checksum = checksum(&message).to_be_bytes();
    message[2..4].copy_from_slice(&checksum);
    sender.send_to(&message, &SocketAddr::from((of.1, 0)).into()).unwrap();
    receiver.set_read_timeout(Some(SILENCE)).unwrap();
    let mut buffer = [MaybeUninit::<u8>::uninit(); 256];
    // Nothing else sends ICMP here.
    receiver.recv(&mut buffer).is_ok()
}

/// Sends a UDP datagram with whatever source address.
pub(crate) fn send_spoofed(at: &Namespace, source: Ipv4Addr, to: Ipv4Addr, port: u16) {
    at.within(|| {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW))).unwrap();
        socket.set_header_included_v4(true).unwrap();
        let mut packet = vec![0x45, 0, 0, 29, 0, 1, 0, 0, 64, 17, 0, 0];
        packet.extend(source.octets());
        packet.extend(to.octets());
        // Source port, destination port, length, no checksum, one byte.
        packet.extend([0x30, 0x39]);
        packet.extend(port.to_be_bytes());
        packet.extend([0, 9, 0, 0, b'x']);
        socket.send_to(&packet, &SocketAddrV4::new(to, 0).into()).unwrap();
    });
}

pub(crate) fn receives(socket: &UdpSocket) -> bool {
    socket.recv_from(&mut [0; 64]).is_ok()
}

fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    !((sum & 0xffff) + (sum >> 16)) as u16
}
