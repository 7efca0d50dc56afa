//! News of the kernel about changes that others make to the table (nf_tables' multicast group).
//!
//! The kernel names in each notice the socket that ordered the change; what our own ordered is no news. News
//! that did not fit the socket's buffer are reported as a change: somebody has to look at everything then.

use super::{
    FirewallError,
    netlink::{attribute::Attributes, connection::notices, wire::*},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use std::{io, os::fd::AsRawFd, os::fd::RawFd};

/// Bytes of one read; a notice is about one object and at most some KiB.
const READ_BYTES: usize = 128 << 10;

/// The socket on which news arrive.
#[derive(Debug)]
pub(super) struct Watch {
    socket: Socket,
    table: String,
    /// Port of the socket by which this process changes the table.
    own: u32,
    buffer: Vec<u8>,
}

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Watch {
    /// Subscribes in the calling thread's network namespace.
    pub(super) fn open(table: &str, own: u32) -> Result<Self, FirewallError> {
        let failed = |action| move |source| FirewallError::Socket { action, source };
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(failed("open"))?;
        socket.bind(&SocketAddr::new(0, 0)).map_err(failed("bind"))?;
        socket.add_membership(NFNLGRP_NFTABLES).map_err(failed("subscribe with"))?;
        socket.set_non_blocking(true).map_err(failed("configure"))?;
        Ok(Self { socket, table: table.to_owned(), own, buffer: vec![0; READ_BYTES] })
    }

    /// Reads what has arrived; true where others changed the table, or may have.
    pub(super) fn read(&mut self) -> io::Result<bool> {
        let mut changed = false;
        loop {
            match self.socket.recv_from(&mut &mut self.buffer[..], 0) {
                // Only the kernel's word counts.
                Ok((_, sender)) if sender.port_number() != 0 => {}
                Ok((read, _)) => changed |= foreign(&self.buffer[..read], &self.table, self.own),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(changed),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => changed = true,
                Err(error) => return Err(error),
            }
        }
    }
}

/// True where one of the notices is about the table and was not caused by the socket `own`.
fn foreign(bytes: &[u8], table: &str, own: u32) -> bool {
    notices(bytes).any(|notice| {
        // Attribute 1 is the table's name in each kind of message but that of a new generation.
        let is_change = notice.kind != NFNL_SUBSYS_NFTABLES << 8 | u16::from(NFT_MSG_NEWGEN);
        is_change && notice.port != own && Attributes(notice.body).text(NFTA_TABLE_NAME) == Some(table)
    })
}

#[cfg(test)]
mod tests {
    use super::{super::netlink::batch::Batch, *};

    /// The bytes of a change as the kernel repeats them, with the port of who ordered it.
    fn notice(table: &str, port: u32) -> Vec<u8> {
        let mut batch = Batch::new(table);
        batch.add_chain("forward", None);
        let mut bytes = batch.bytes_of_first_change();
        bytes[12..16].copy_from_slice(&port.to_ne_bytes());
        bytes
    }

    #[test]
    fn only_changes_of_the_table_by_others_count() {
        assert!(foreign(&notice("hoody", 7), "hoody", 8));
        assert!(!foreign(&notice("hoody", 8), "hoody", 8), "our own");
        assert!(!foreign(&notice("hoody2", 7), "hoody", 8), "of another table");
        let both = [notice("hoody", 8), notice("hoody", 7)].concat();
        assert!(foreign(&both, "hoody", 8), "behind one of our own");
    }

    #[test]
    fn what_is_no_notice_is_skipped() {
        assert!(!foreign(&[], "hoody", 8));
        assert!(!foreign(&[0xff; 40], "hoody", 8));
        assert!(!foreign(&notice("hoody", 7)[..30], "hoody", 8));
    }
}
