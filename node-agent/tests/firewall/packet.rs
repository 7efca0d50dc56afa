//! Packets made and read byte by byte, so that thousands of them can be told apart.

use socket2::{Domain, Protocol as SocketProtocol, Socket, Type};
use std::{
    io::ErrorKind,
    mem::MaybeUninit,
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, Instant},
};

/// Begins the part of a packet that carries its number.
const MARK: u32 = 0x6879_0000;
const OPENING: u32 = 0x6f70_656e;
const CLOSING: u32 = 0x636c_6f73;
/// Ports of the connection along which the last packet goes; no packet of a policy has them.
const OPENING_PORTS: (u16, u16) = (40_001, 40_002);
const RECEIVE_BYTES: usize = 8 << 20;
const TCP_SYN: u8 = 2;
const TCP_RST: u8 = 4;
const ICMP_UNREACHABLE: u8 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Icmp = 1,
    Tcp = 6,
    Udp = 17,
}

/// The first packet of a connection between a container and an address outside.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packet {
    pub(crate) protocol: Protocol,
    /// The address outside.
    pub(crate) far: Ipv4Addr,
    /// Of TCP and UDP.
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    /// Of ICMP.
    pub(crate) icmp_type: u8,
    pub(crate) icmp_code: u8,
}

impl Packet {
    /// Opens the connection along which the last packet of the round goes.
    pub(crate) fn opening() -> Self {
        let (source_port, destination_port) = OPENING_PORTS;
        let far = Ipv4Addr::UNSPECIFIED;
        Self { protocol: Protocol::Udp, far, source_port, destination_port, icmp_type: 0, icmp_code: 0 }
    }

    fn is_opening(&self) -> bool {
        (self.source_port, self.destination_port) == OPENING_PORTS
    }

    fn transport(&self, source: Ipv4Addr, destination: Ipv4Addr, number: u32) -> Vec<u8> {
        let ports = [self.source_port.to_be_bytes(), self.destination_port.to_be_bytes()].concat();
        match self.protocol {
            Protocol::Udp => {
                let body = if self.is_opening() { [OPENING, number] } else { [MARK, number] };
                udp(&ports, body)
            }
            Protocol::Tcp => {
                let mut segment = ports;
                segment.extend((MARK | number).to_be_bytes());
                segment.extend([0, 0, 0, 0, 5 << 4, TCP_SYN, 0xff, 0xff, 0, 0, 0, 0]);
                let pseudo = [&source.octets()[..], &destination.octets(), &[0, 6, 0, segment.len() as u8]].concat();
                let sum = checksum(&[pseudo, segment.clone()].concat());
                segment[16..18].copy_from_slice(&sum.to_be_bytes());
                segment
            }
            Protocol::Icmp => {
                let mut message = vec![self.icmp_type, self.icmp_code, 0, 0];
                message.extend(number.to_be_bytes());
                message.extend([MARK, number].map(u32::to_be_bytes).concat());
                // As long as a timestamp.
                message.extend([0; 4]);
                let sum = checksum(&message);
                message[2..4].copy_from_slice(&sum.to_be_bytes());
                message
            }
        }
    }
}

fn udp(ports: &[u8], body: [u32; 2]) -> Vec<u8> {
    // Length, no checksum.
    [ports, &[0, 16, 0, 0], &body.map(u32::to_be_bytes).concat()].concat()
}

fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Sends packets with whatever addresses, from the namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Wire(Socket);

impl Wire {
    pub(crate) fn open() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(SocketProtocol::from(libc::IPPROTO_RAW))).unwrap();
        socket.set_header_included_v4(true).unwrap();
        Self(socket)
    }

    pub(crate) fn send(&self, packet: &Packet, source: Ipv4Addr, destination: Ipv4Addr, number: u32) {
        let transport = packet.transport(source, destination, number);
        self.put(packet.protocol, source, destination, &transport);
    }

    /// Answers an opening packet.
    pub(crate) fn answer(&self, opening: &Heard, round: u32) {
        let ports = [&opening.transport()[2..4], &opening.transport()[..2]].concat();
        self.put(Protocol::Udp, opening.destination(), opening.source(), &udp(&ports, [CLOSING, round]));
    }

    fn put(&self, protocol: Protocol, source: Ipv4Addr, destination: Ipv4Addr, transport: &[u8]) {
        // The kernel fills in length, identification and checksum.
        let mut bytes = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol as u8, 0, 0];
        bytes.extend(source.octets());
        bytes.extend(destination.octets());
        bytes.extend(transport);
        self.0.send_to(&bytes, &SocketAddrV4::new(destination, 0).into()).unwrap();
    }
}

/// Hears every IPv4 packet that comes into the namespace in which it was opened, before any rule of that
/// namespace.
#[derive(Debug)]
pub(crate) struct Ear(Socket);

impl Ear {
    pub(crate) fn open() -> Self {
        let protocol = i32::from((libc::ETH_P_IP as u16).to_be());
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(SocketProtocol::from(protocol))).unwrap();
        // Beyond what the system allows others.
        let bytes = RECEIVE_BYTES as libc::c_int;
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &(bytes as usize)).unwrap();
        Self(socket)
    }

    /// What is heard until a packet is the awaited one, which is the last.
    pub(crate) fn until(&self, within: Duration, awaited: impl Fn(&Heard) -> bool) -> Vec<Heard> {
        let deadline = Instant::now() + within;
        let mut all = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the awaited packet did not come; heard {all:?}");
            self.0.set_nonblocking(false).unwrap();
            self.0.set_read_timeout(Some(left)).unwrap();
            if let Some(heard) = self.next() {
                let found = awaited(&heard);
                all.push(heard);
                if found {
                    return all;
                }
            }
        }
    }

    /// What has been heard already.
    pub(crate) fn rest(&self) -> Vec<Heard> {
        self.0.set_nonblocking(true).unwrap();
        std::iter::from_fn(|| self.next()).collect()
    }

    /// Forgets what has been heard already.
    pub(crate) fn clear(&self) {
        self.rest();
    }

    fn next(&self) -> Option<Heard> {
        let mut buffer = [MaybeUninit::<u8>::uninit(); 2048];
        match self.0.recv(&mut buffer) {
            // SAFETY: the first `read` bytes were written by the kernel.
            Ok(read) => Some(Heard(buffer[..read].iter().map(|byte| unsafe { byte.assume_init() }).collect())),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            Err(error) => panic!("hear packets: {error}"),
        }
    }
}

/// An IPv4 packet.
#[derive(Debug, Clone)]
pub(crate) struct Heard(Vec<u8>);

impl Heard {
    fn source(&self) -> Ipv4Addr {
        Ipv4Addr::from(<[u8; 4]>::try_from(&self.0[12..16]).unwrap())
    }

    fn destination(&self) -> Ipv4Addr {
        Ipv4Addr::from(<[u8; 4]>::try_from(&self.0[16..20]).unwrap())
    }

    fn transport(&self) -> &[u8] {
        &self.0[usize::from(self.0[0] & 0xf) * 4..]
    }

    fn is(&self, protocol: Protocol) -> bool {
        self.0[9] == protocol as u8
    }

    fn word(&self, at: usize) -> Option<u32> {
        self.transport().get(at..at + 4).map(|bytes| u32::from_be_bytes(bytes.try_into().unwrap()))
    }

    fn is_marked(&self, mark: u32, number: u32) -> bool {
        self.is(Protocol::Udp) && self.word(8) == Some(mark) && self.word(12) == Some(number)
    }

    pub(crate) fn opens(&self, round: u32) -> bool {
        self.is_marked(OPENING, round)
    }

    pub(crate) fn closes(&self, round: u32) -> bool {
        self.is_marked(CLOSING, round)
    }

    /// The packet's number, where it is one of ours.
    pub(crate) fn number(&self) -> Option<u32> {
        if self.is(Protocol::Tcp) {
            let is_syn = self.transport().get(13) == Some(&TCP_SYN);
            return self.word(4).filter(|word| is_syn && word & 0xffff_0000 == MARK).map(|word| word & 0xffff);
        }
        (self.word(8) == Some(MARK)).then(|| self.word(12)).flatten()
    }

    /// The number of the packet that this one says was refused.
    pub(crate) fn refused(&self) -> Option<u32> {
        if self.is(Protocol::Tcp) && self.transport().get(13).is_some_and(|flags| flags & TCP_RST != 0) {
            let acknowledged = self.word(8)?.wrapping_sub(1);
            return (acknowledged & 0xffff_0000 == MARK).then_some(acknowledged & 0xffff);
        }
        let is_error = self.is(Protocol::Icmp) && self.transport()[0] == ICMP_UNREACHABLE;
        is_error.then(|| Self(self.transport()[8..].to_vec()).number()).flatten()
    }
}
