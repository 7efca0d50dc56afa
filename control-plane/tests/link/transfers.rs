//! File systems from one node to another, through the control plane.

use crate::{
    agent::{Agent, Link, answer, enrolled, fill, frame, soon},
    plane::{Plane, eventually},
};
use hoody_control_plane::store::transfer::{self, Transfer};
use hoody_protocol::{
    container::Cause,
    id::TransferId,
    link::CommandReply,
    stream::{self, StreamError},
    stream_digest::StreamDigest,
    transfer::{SendOrder, TransferData, TransferOffer, TransferProgress, TransferReply, TransferRequest},
    transport::{BULK, Close},
};
use quinn::{Connection, Endpoint, RecvStream, SendStream};

type Ends = (SendStream, RecvStream);

struct World {
    plane: Plane,
    source: Agent,
    target: Agent,
    link: Link,
    from: (Endpoint, Connection),
    to: (Endpoint, Connection),
    row: Transfer,
}

impl World {
    /// Two servers with a container each, and an open transfer from one to the other.
    async fn new() -> Self {
        let plane = Plane::start().await;
        let (source, target) = (enrolled(&plane, "source").await, enrolled(&plane, "target").await);
        let row = plane.transfer(source.server, target.server).await;
        let mut link = source.link(&plane, Vec::new()).await;
        let (_, send) = link.spec().await;
        answer(&mut { send }, &CommandReply::Accepted).await;
        let (from, to) = (source.connect(&plane, BULK).await, target.connect(&plane, BULK).await);
        Self { plane, source, target, link, from, to, row }
    }

    async fn state(&self) -> String {
        self.plane.text(format!("SELECT state FROM transfers WHERE id = '{}'", self.row.id)).await
    }

    /// The target asks; its stream, with the answer still to come.
    async fn request(&self, offset: u64) -> Ends {
        request(&self.to.1, self.row.id, offset).await
    }

    /// The next order on the source's link, accepted.
    async fn order(&self) -> SendOrder {
        let (mut send, mut recv) = soon("an order", self.link.connection.accept_bi()).await.unwrap();
        let order = soon("an order", stream::read(&mut recv)).await.unwrap();
        answer(&mut send, &CommandReply::Accepted).await;
        order
    }

    async fn offer(&self, offset: u64) -> (TransferReply, Ends) {
        offer(&self.from.1, self.row.id, offset).await
    }

    /// Both ends, connected.
    async fn connected(&self, offset: u64) -> (Ends, Ends) {
        let mut target = self.request(offset).await;
        assert_eq!(self.order().await.offset, offset);
        let (begin, source) = self.offer(offset).await;
        assert_eq!(begin, TransferReply::Begin { offset });
        assert_eq!(reply(&mut target).await, begin);
        (target, source)
    }
}

async fn request(connection: &Connection, transfer: TransferId, offset: u64) -> Ends {
    let (mut send, recv) = soon("a stream", connection.open_bi()).await.unwrap();
    stream::write(&mut send, &TransferRequest { transfer, offset }).await.unwrap();
    (send, recv)
}

async fn offer(connection: &Connection, transfer: TransferId, offset: u64) -> (TransferReply, Ends) {
    let (mut send, recv) = soon("a stream", connection.open_bi()).await.unwrap();
    stream::write(&mut send, &TransferOffer { transfer, offset, total: Some(1 << 20) }).await.unwrap();
    let mut ends = (send, recv);
    (reply(&mut ends).await, ends)
}

async fn reply(ends: &mut Ends) -> TransferReply {
    soon("an answer", stream::read(&mut ends.1)).await.unwrap()
}

fn code(reply: TransferReply) -> (String, bool) {
    match reply {
        TransferReply::Refused { cause, retry } => (cause.code.to_string(), retry),
        begin => panic!("{begin:?}"),
    }
}

async fn say(ends: &mut Ends, data: TransferData) {
    soon("to be sent", stream::write(&mut ends.0, &data)).await.unwrap();
}

async fn tell(ends: &mut Ends, progress: TransferProgress) {
    soon("to be told", stream::write(&mut ends.0, &progress)).await.unwrap();
}

async fn hear<M: hoody_protocol::tag::Message>(ends: &mut Ends) -> Result<M, StreamError> {
    soon("a message", stream::read(&mut ends.1)).await
}

fn piece(bytes: &[u8]) -> TransferData {
    TransferData::Piece(bytes.to_vec().try_into().unwrap())
}

#[tokio::test]
async fn what_the_source_sends_arrives_and_the_verdict_is_stored() {
    let world = World::new().await;
    let mut target = world.request(0).await;
    let order = world.order().await;
    assert_eq!((order.transfer, order.container), (world.row.id, world.row.source_container));
    assert_eq!((order.snapshot, order.base, order.offset, order.keep.len()), (None, None, 0, 0));
    let (begin, mut source) = world.offer(0).await;
    assert_eq!([begin, reply(&mut target).await], [(); 2].map(|()| TransferReply::Begin { offset: 0 }));
    let end = TransferData::End { bytes: 300_000, digest: StreamDigest::of(b""), own_bytes: None };
    for data in [piece(&[1; 200_000]), piece(&[2; 100_000]), end] {
        say(&mut source, data.clone()).await;
        assert_eq!(hear::<TransferData>(&mut target).await.unwrap(), data);
    }
    tell(&mut target, TransferProgress::Taken(200_000)).await;
    assert_eq!(hear::<TransferProgress>(&mut source).await.unwrap(), TransferProgress::Taken(200_000));
    let progress = world.plane.app.nodes.progress(world.row.target, world.row.id).await.unwrap();
    assert_eq!((progress.bytes, progress.total), (200_000, Some(1 << 20)));
    assert!(progress.rate.is_some() && progress.eta_s.is_some());
    assert_eq!(world.state().await, "open");
    tell(&mut target, TransferProgress::Kept).await;
    assert_eq!(hear::<TransferProgress>(&mut source).await.unwrap(), TransferProgress::Kept);
    eventually("the end", async || (world.state().await == "kept").then_some(())).await;
    let (target, id) = (world.row.target, world.row.id);
    let progress = async || world.plane.app.nodes.progress(target, id).await;
    eventually("no progress", async || progress().await.is_none().then_some(())).await;
    // It cannot be had a second time.
    let mut again = world.request(0).await;
    assert_eq!(code(reply(&mut again).await), ("transfer_unknown".to_owned(), false));
}

#[tokio::test]
async fn only_the_two_servers_of_a_transfer_open_its_ends() {
    let world = World::new().await;
    let stranger = enrolled(&world.plane, "stranger").await;
    let (_endpoint, strange) = stranger.connect(&world.plane, BULK).await;
    let unknown = ("transfer_unknown".to_owned(), false);
    for connection in [&strange, &world.from.1] {
        let mut asked = request(connection, world.row.id, 0).await;
        assert_eq!(code(reply(&mut asked).await), unknown, "asked for by another server");
    }
    let mut other = request(&world.to.1, TransferId::generate(), 0).await;
    assert_eq!(code(reply(&mut other).await), unknown, "a transfer that does not exist");
    assert_eq!(code(world.offer(0).await.0), unknown, "offered before it was asked for");
    let mut target = world.request(0).await;
    world.order().await;
    for connection in [&strange, &world.to.1] {
        assert_eq!(code(offer(connection, world.row.id, 0).await.0), unknown, "offered by another server");
    }
    let (begin, _source) = world.offer(0).await;
    assert_eq!([begin, reply(&mut target).await], [(); 2].map(|()| TransferReply::Begin { offset: 0 }));
    assert_eq!(code(world.offer(0).await.0), unknown, "offered twice");
    let mut tx = world.plane.app.store.begin().await.unwrap();
    assert!(transfer::end(&mut tx, world.row.id, 9).await.unwrap());
    tx.commit().await.unwrap();
    let mut late = world.request(0).await;
    assert_eq!(code(reply(&mut late).await), unknown, "after its end");
}

#[tokio::test]
async fn a_lost_end_breaks_the_other_and_the_transfer_goes_on() {
    let mut world = World::new().await;
    let (mut target, mut source) = world.connected(0).await;
    say(&mut source, piece(b"first")).await;
    assert_eq!(hear::<TransferData>(&mut target).await.unwrap(), piece(b"first"));
    // The source's agent dies.
    Close::Done.close(&world.from.1);
    assert!(hear::<TransferData>(&mut target).await.is_err());
    world.from = world.source.connect(&world.plane, BULK).await;
    let (mut target, mut source) = world.connected(5).await;
    say(&mut source, piece(b"second")).await;
    assert_eq!(hear::<TransferData>(&mut target).await.unwrap(), piece(b"second"));
    // The target's.
    Close::Done.close(&world.to.1);
    assert!(hear::<TransferProgress>(&mut source).await.is_err());
    world.to = world.target.connect(&world.plane, BULK).await;
    let (mut target, mut source) = world.connected(11).await;
    // The target has a new stream before the end of the old one was noticed.
    let (mut newer, _) = world.connected(11).await;
    assert!(hear::<TransferData>(&mut target).await.is_err());
    assert!(hear::<TransferProgress>(&mut source).await.is_err());
    tell(&mut newer, TransferProgress::Kept).await;
    eventually("the end", async || (world.state().await == "kept").then_some(())).await;
}

#[tokio::test]
async fn a_source_may_begin_anew_but_nowhere_else() {
    let world = World::new().await;
    let mut target = world.request(500).await;
    world.order().await;
    let (_, _source) = world.offer(0).await;
    assert_eq!(reply(&mut target).await, TransferReply::Begin { offset: 0 });
    let mut target = world.request(500).await;
    world.order().await;
    let (mut send, _recv) = soon("a stream", world.from.1.open_bi()).await.unwrap();
    let offer = TransferOffer { transfer: world.row.id, offset: 400, total: None };
    stream::write(&mut send, &offer).await.unwrap();
    let refused = reply(&mut target).await;
    assert_eq!(code(refused), ("node_answer".to_owned(), false));
}

#[tokio::test]
async fn failures_are_typed_and_leave_the_transfer_open() {
    let world = World::new().await;
    let mut target = world.request(0).await;
    let (mut send, mut recv) = soon("an order", world.link.connection.accept_bi()).await.unwrap();
    let _: SendOrder = stream::read(&mut recv).await.unwrap();
    let gone = Cause::new("transfer_source_missing", "gone");
    answer(&mut send, &CommandReply::Refused(gone)).await;
    assert_eq!(code(reply(&mut target).await), ("transfer_source_missing".to_owned(), false));
    let (mut target, mut source) = world.connected(0).await;
    let full = TransferProgress::Failed(Cause::new("transfer_too_large", "full"));
    tell(&mut target, full.clone()).await;
    assert_eq!(hear::<TransferProgress>(&mut source).await.unwrap(), full);
    let failure = format!("SELECT failure FROM transfers WHERE id = '{}'", world.row.id);
    let noted = async || world.plane.text(failure.clone()).await.contains("transfer_too_large").then_some(());
    eventually("the failure", noted).await;
    assert_eq!(world.state().await, "open");
    // The source's link goes: its bulk connection alone does not make it reachable.
    Close::Done.close(&world.link.connection);
    let offline = async || {
        let mut target = world.request(0).await;
        (code(reply(&mut target).await) == ("source_offline".to_owned(), true)).then_some(())
    };
    eventually("the source to be offline", offline).await;
}

#[tokio::test]
async fn a_target_that_takes_nothing_holds_up_the_source_and_nothing_else() {
    let world = World::new().await;
    let (_target, mut source) = world.connected(0).await;
    // A window of the source's stream, one of the target's, and what is passed on at once.
    fill(&mut source.0, &frame(&piece(&[7; 256 << 10])), (1 << 20) + (4 << 20) + (256 << 10)).await;
    let layer = world.plane.blob(b"blob");
    world.plane.container(world.target.server, vec![layer.clone()]).await;
    let (mut send, mut recv) = soon("a stream", world.to.1.open_bi()).await.unwrap();
    let asked = hoody_protocol::blob::BlobRequest { digest: layer.digest, offset: 0 };
    stream::write(&mut send, &asked).await.unwrap();
    let _: hoody_protocol::blob::BlobReply = soon("an answer", stream::read(&mut recv)).await.unwrap();
    assert_eq!(soon("the blob", recv.read_to_end(100)).await.unwrap(), b"blob");
}

#[tokio::test]
async fn one_server_has_few_transfers_at_a_time() {
    const MOST: usize = 4;
    let world = World::new().await;
    let mut waiting = vec![world.request(0).await];
    for _ in 0..MOST {
        let id = world.plane.transfer(world.source.server, world.target.server).await.id;
        waiting.push(request(&world.to.1, id, 0).await);
    }
    // The others wait for their source, which says nothing.
    let answers = waiting.iter_mut().map(|ends| Box::pin(reply(ends)));
    let (first, ..) = futures::future::select_all(answers).await;
    assert_eq!(code(first), ("transfer_busy".to_owned(), true));
}
