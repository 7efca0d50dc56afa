//! The resolver against name servers of this test's, and a packet filter that only takes notes.

use super::{Ask, Names, Path, Resolver};
use crate::{
    dial::DialPolicy,
    egress::Relay,
    firewall::{Answer, Firewall, FirewallError, Policy},
};
use async_trait::async_trait;
use hoody_protocol::{firewall::RuleCounter, id::ContainerId};
use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddrV4},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
    sync::watch,
};

const ID: ContainerId = ContainerId::from_bytes([7; 12]);
const PUBLIC: [u8; 4] = [93, 184, 216, 34];
const PRIVATE: [u8; 4] = [10, 1, 2, 3];
const DEADLINE: Duration = Duration::from_secs(20);

/// What the packet filter was told: name and answer, the newest last.
#[derive(Debug, Default)]
struct Notes(watch::Sender<Vec<(String, Answer)>>);

#[async_trait]
impl Firewall for Notes {
    async fn resolved(&self, _: ContainerId, host: &str, answer: Answer) -> Result<(), FirewallError> {
        self.0.send_modify(|notes| notes.push((host.to_owned(), answer)));
        Ok(())
    }
    async fn prepare(&self) -> Result<(), FirewallError> {
        unreachable!()
    }
    async fn is_prepared(&self) -> Result<bool, FirewallError> {
        unreachable!()
    }
    async fn close_endpoints(&self, _: Vec<SocketAddrV4>) -> Result<(), FirewallError> {
        unreachable!()
    }
    async fn changed(&self) {
        unreachable!()
    }
    async fn apply(&self, _: &Policy) -> Result<(), FirewallError> {
        unreachable!()
    }
    async fn is_applied(&self, _: ContainerId) -> Result<bool, FirewallError> {
        unreachable!()
    }
    async fn remove(&self, _: ContainerId) -> Result<(), FirewallError> {
        unreachable!()
    }
    async fn counters(&self, _: ContainerId) -> Result<Vec<RuleCounter>, FirewallError> {
        unreachable!()
    }
    async fn inventory(&self) -> Result<Vec<ContainerId>, FirewallError> {
        unreachable!()
    }
}

/// What a name server says.
#[derive(Debug, Clone)]
enum Says {
    /// These addresses, for so many seconds.
    At(Vec<[u8; 4]>, u32),
    /// No such name.
    Nothing,
    Failure,
    /// Over UDP nothing but to ask over TCP; there, this address.
    OverTcp([u8; 4]),
    /// First the answer to another question, then this address.
    Forged([u8; 4]),
}

/// A name server on a loopback address.
struct Server {
    says: Arc<Mutex<Says>>,
    port: u16,
}

fn answer(query: &[u8], says: &Says, tcp: bool) -> Vec<u8> {
    let mut answer = query.to_vec();
    let (flags, addresses, seconds) = match says {
        Says::At(addresses, seconds) => ([0x81, 0x80], addresses.clone(), *seconds),
        Says::Nothing => ([0x81, 0x83], vec![], 0),
        Says::Failure => ([0x81, 0x82], vec![], 0),
        Says::OverTcp(address) if tcp => ([0x81, 0x80], vec![*address], 60),
        Says::OverTcp(_) => ([0x83, 0x80], vec![], 0),
        Says::Forged(address) => ([0x81, 0x80], vec![*address], 60),
    };
    answer[2..4].copy_from_slice(&flags);
    answer[7] = addresses.len() as u8;
    for address in addresses {
        answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
        answer.extend_from_slice(&seconds.to_be_bytes());
        answer.extend_from_slice(&[0, 4]);
        answer.extend_from_slice(&address);
    }
    answer
}

impl Server {
    async fn start(says: Says) -> Self {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = udp.local_addr().unwrap().port();
        let tcp = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let says = Arc::new(Mutex::new(says));
        let said = says.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
                let says = said.lock().unwrap().clone();
                if matches!(says, Says::Forged(_)) {
                    let mut forged = answer(&buffer[..length], &Says::At(vec![[6, 6, 6, 6]], 60), false);
                    forged[0] ^= 0xff;
                    udp.send_to(&forged, from).await.unwrap();
                }
                udp.send_to(&answer(&buffer[..length], &says, false), from).await.unwrap();
            }
        });
        let said = says.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let length = stream.read_u16().await.unwrap();
                let mut query = vec![0; usize::from(length)];
                stream.read_exact(&mut query).await.unwrap();
                let answer = answer(&query, &said.lock().unwrap().clone(), true);
                stream.write_all(&[&(answer.len() as u16).to_be_bytes(), answer.as_slice()].concat()).await.unwrap();
            }
        });
        Self { says, port }
    }

    fn says(&self, says: Says) {
        *self.says.lock().unwrap() = says;
    }
}

struct World {
    server: Server,
    resolver: Resolver,
    dial: DialPolicy,
    notes: watch::Receiver<Vec<(String, Answer)>>,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new(says: Says) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(says).await;
        let dial = DialPolicy::open(folder.path().join("allowed"), Vec::new());
        let relay = Relay::start(folder.path().join("nobody"), dial.clone());
        let filter = Notes::default();
        let notes = filter.0.subscribe();
        let ask = Ask { relay, port: server.port };
        Self { resolver: Resolver::new(ask, dial.clone(), Arc::new(filter)), server, dial, notes, _folder: folder }
    }

    async fn set(&self, hosts: &[&str]) {
        let hosts: BTreeSet<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
        self.resolver.set(ID, hosts, Path::Direct(vec![Ipv4Addr::LOCALHOST])).await;
    }

    /// The newest answer, as what was permitted and what was found.
    fn last(&self) -> Option<(Vec<[u8; 4]>, Vec<[u8; 4]>)> {
        let octets = |set: &BTreeSet<Ipv4Addr>| set.iter().map(Ipv4Addr::octets).collect();
        self.notes.borrow().last().map(|(_, answer)| (octets(&answer.permitted), octets(&answer.addresses)))
    }

    async fn wait_last(&mut self, permitted: &[[u8; 4]]) {
        let wanted: BTreeSet<Ipv4Addr> = permitted.iter().copied().map(Ipv4Addr::from).collect();
        let told = self.notes.wait_for(|notes| notes.last().is_some_and(|(_, answer)| answer.permitted == wanted));
        tokio::time::timeout(DEADLINE, told).await.expect("another answer").unwrap();
    }
}

#[tokio::test]
async fn the_first_answer_is_there_when_the_names_are_set_and_changes_follow() {
    let mut world = World::new(Says::At(vec![PUBLIC], 1)).await;
    world.set(&["api.example.com"]).await;
    assert_eq!(world.last(), Some((vec![PUBLIC], vec![PUBLIC])));
    assert!(world.notes.borrow()[0].1.holds >= Duration::from_secs(60));
    world.server.says(Says::At(vec![[1, 1, 1, 1]], 1));
    world.wait_last(&[[1, 1, 1, 1]]).await;
    // The same again asks nobody: the task goes on.
    let told = world.notes.borrow().len();
    world.set(&["api.example.com"]).await;
    assert_eq!(world.notes.borrow().len(), told);
}

#[tokio::test]
async fn addresses_that_nobody_may_be_led_to_are_not_permitted_until_the_operator_allows_them() {
    let mut world = World::new(Says::At(vec![PRIVATE, PUBLIC, [127, 0, 0, 1]], 3600)).await;
    world.set(&["rebinds.example"]).await;
    let (permitted, found) = world.last().unwrap();
    assert_eq!((permitted, found.len()), (vec![PUBLIC], 3));
    world.dial.allow(vec!["10.1.0.0/16".parse().unwrap()]);
    world.wait_last(&[PRIVATE, PUBLIC]).await;
}

#[tokio::test]
async fn no_such_name_is_told_and_a_failure_is_not() {
    let world = World::new(Says::Nothing).await;
    world.set(&["nothing.example"]).await;
    assert_eq!(world.last(), Some((vec![], vec![])));
    let world = World::new(Says::Failure).await;
    world.set(&["fails.example"]).await;
    assert_eq!(world.last(), None);
}

#[tokio::test]
async fn long_answers_come_over_tcp_and_forged_ones_are_passed_over() {
    let world = World::new(Says::OverTcp(PUBLIC)).await;
    world.set(&["long.example"]).await;
    assert_eq!(world.last().unwrap().0, [PUBLIC]);
    let world = World::new(Says::Forged(PUBLIC)).await;
    world.set(&["forged.example"]).await;
    assert_eq!(world.last().unwrap().0, [PUBLIC]);
}

#[tokio::test]
async fn names_that_are_in_no_rule_are_asked_for_no_more() {
    let world = World::new(Says::At(vec![PUBLIC], 1)).await;
    world.set(&["a.example", "b.example"]).await;
    world.set(&["b.example"]).await;
    let names = |world: &World| world.notes.borrow().iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let before = names(&world).len();
    let mut notes = world.notes.clone();
    let more = notes.wait_for(|notes| notes.len() >= before + 2);
    tokio::time::timeout(DEADLINE, more).await.expect("b is asked for again").unwrap();
    assert!(names(&world)[before..].iter().all(|name| name == "b.example"), "{:?}", names(&world));
    // Without a relay nothing of a proxied container's is resolved, and by nobody else.
    let upstream = hoody_protocol::egress::Upstream {
        kind: hoody_protocol::egress::UpstreamKind::Socks5,
        host: hoody_protocol::bounded::Text::truncated("proxy.example"),
        port: 1080,
        credentials: None,
        dns: Default::default(),
    };
    let before = names(&world).len();
    let path = Path::Proxy(Box::new(upstream), Some(Ipv4Addr::LOCALHOST));
    world.resolver.set(ID, ["b.example".to_owned()].into(), path).await;
    assert_eq!(names(&world).len(), before);
}
