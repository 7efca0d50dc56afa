//! Destinations in the outside: threads of the test in its namespace. They end with the test's process.

use crate::world::{DESTINATION, World};
use sha2::{Digest, Sha256};
use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Shutdown, TcpListener, TcpStream, UdpSocket},
    sync::mpsc::{Receiver, channel},
};

impl World {
    /// Serves connections with `serve`, each on a thread. Gives the port and the peers seen.
    pub(crate) fn serve(&self, serve: impl Fn(TcpStream) + Send + Sync + Copy + 'static) -> (u16, Receiver<IpAddr>) {
        self.serve_at(DESTINATION, serve)
    }

    pub(crate) fn serve_at(
        &self,
        address: Ipv4Addr,
        serve: impl Fn(TcpStream) + Send + Sync + Copy + 'static,
    ) -> (u16, Receiver<IpAddr>) {
        let listener = self.outside.within(|| TcpListener::bind((address, 0))).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, peers) = channel();
        std::thread::spawn(move || {
            while let Ok((stream, peer)) = listener.accept() {
                let _ = sender.send(peer.ip());
                std::thread::Builder::new().stack_size(256 << 10).spawn(move || serve(stream)).unwrap();
            }
        });
        (port, peers)
    }

    /// Sends back UDP packets. Gives the port.
    pub(crate) fn udp_echo(&self) -> u16 {
        let socket = self.outside.within(|| UdpSocket::bind((DESTINATION, 0))).unwrap();
        let port = socket.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let mut buffer = [0; 65_536];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&buffer[..length], from);
            }
        });
        port
    }
}

/// Sends back what comes, until its end.
pub(crate) fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..read]).is_err() {
            return;
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
}

/// Bytes of a part of a transfer.
pub(crate) const PART: usize = 64 << 10;

/// A part of a transfer; each is another one.
pub(crate) fn pattern(number: usize) -> Vec<u8> {
    let seed = number.wrapping_mul(0x9e37_79b9).to_le_bytes();
    (0..PART).map(|at| seed[at % seed.len()] ^ (at >> 3) as u8).collect()
}

/// Receives as many bytes as it is told, answers with their digest, and sends the same number of its own.
pub(crate) fn up_and_down(mut stream: TcpStream) {
    let mut length = [0; 8];
    stream.read_exact(&mut length).unwrap();
    let parts = u64::from_be_bytes(length) as usize / PART;
    let (mut hasher, mut part) = (Sha256::new(), vec![0; PART]);
    for _ in 0..parts {
        stream.read_exact(&mut part).unwrap();
        hasher.update(&part);
    }
    stream.write_all(&hasher.finalize()).unwrap();
    for number in 0..parts {
        stream.write_all(&pattern(number)).unwrap();
    }
}

/// Reads to the end, and only then answers with the digest.
pub(crate) fn digest_at_the_end(mut stream: TcpStream) {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        hasher.update(&buffer[..read]);
    }
    let _ = stream.write_all(&hasher.finalize());
}

/// Ends its side at once, and sends the length of what still comes to a second connection: a mark in the log.
pub(crate) fn end_first(mut stream: TcpStream) {
    stream.write_all(b"goodbye").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"still here", "what the container sent after the destination's end");
    // Heard by nobody: it shows in the container as a clean end, where a panic above would be a reset.
}
