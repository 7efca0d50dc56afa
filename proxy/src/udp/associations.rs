//! A container's UDP associations: one for each address and port that it sends from, as a NAT has one mapping.

use super::association;
use crate::{container::Container, counts::count};
use std::{collections::HashMap, net::SocketAddrV4, sync::Arc, time::Instant};
use tokio::sync::mpsc;

/// Packets of one association that wait, while it is made and while its relay is slow.
const WAITING: usize = 32;

/// A packet on its way out.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) to: SocketAddrV4,
    pub(super) content: Vec<u8>,
}

/// The associations. Dropping one's sender ends it.
#[derive(Debug)]
pub(super) struct Associations {
    container: Arc<Container>,
    all: HashMap<SocketAddrV4, Entry>,
}

#[derive(Debug)]
struct Entry {
    packets: mpsc::Sender<Outgoing>,
    used: Instant,
}

impl Associations {
    pub(super) fn new(container: Arc<Container>) -> Self {
        Self { container, all: HashMap::new() }
    }

    /// Forwards a packet, or drops it.
    pub(super) fn forward(&mut self, from: SocketAddrV4, to: SocketAddrV4, content: &[u8]) {
        let packet = Outgoing { to, content: content.to_vec() };
        let packet = match self.all.get_mut(&from) {
            Some(entry) => {
                entry.used = Instant::now();
                match entry.packets.try_send(packet) {
                    Ok(()) => return,
                    Err(mpsc::error::TrySendError::Full(_)) => return count(&self.container.counts.packets_dropped),
                    Err(mpsc::error::TrySendError::Closed(packet)) => packet,
                }
            }
            None => packet,
        };
        self.begin(from, packet);
    }

    fn begin(&mut self, from: SocketAddrV4, first: Outgoing) {
        let route = self.container.route();
        if !route.session.may_associate() {
            self.all.remove(&from);
            return count(&self.container.counts.packets_dropped);
        }
        if self.all.len() >= self.container.shared.config.associations_per_container {
            self.make_room();
        }
        let (sender, packets) = mpsc::channel(WAITING);
        if sender.try_send(first).is_err() {
            return count(&self.container.counts.packets_dropped);
        }
        self.all.insert(from, Entry { packets: sender, used: Instant::now() });
        let ended = route.session.ended.clone();
        tokio::spawn(ended.run_until_cancelled_owned(association::run(self.container.clone(), route, from, packets)));
    }

    /// Forgets those that ended, otherwise the one that was not used for longest.
    fn make_room(&mut self) {
        let before = self.all.len();
        self.all.retain(|_, entry| !entry.packets.is_closed());
        if self.all.len() == before
            && let Some(oldest) = self.all.iter().min_by_key(|(_, entry)| entry.used).map(|(from, _)| *from)
        {
            self.all.remove(&oldest);
        }
    }
}
