//! Archives of containers on their way from a node, and nodes that lie about them.

use crate::{
    agent::{Link, answer, enrolled, soon},
    plane::Plane,
};
use hoody_control_plane::nodes::{Export, ExportError, NoExport};
use hoody_protocol::{
    export::{ExportOffer, ExportOrder},
    id::{ContainerId, ExportId},
    link::CommandReply,
    stream,
    stream_digest::StreamDigest,
    transfer::{TransferData, TransferReply},
    transport::BULK,
};
use quinn::{Connection, RecvStream, SendStream};
use tokio::task::JoinHandle;

const CONTENT: &[u8] = b"an archive";

/// Orders an export of the server's; its id, and what comes of it.
pub fn ordered(
    plane: &Plane,
    server: hoody_protocol::id::ServerId,
) -> (ExportId, JoinHandle<Result<Export, NoExport>>) {
    let order = ExportOrder {
        export: ExportId::generate(),
        container: ContainerId::generate(),
        document: b"{}".to_vec().try_into().unwrap(),
    };
    let nodes = plane.app.nodes.clone();
    (order.export, tokio::spawn(async move { nodes.export(server, &order).await }))
}

/// Takes the order that came over the link.
async fn accept(link: &Link) {
    let (mut send, mut recv) = soon("an order", link.connection.accept_bi()).await.unwrap();
    soon("an order", stream::read::<ExportOrder>(&mut recv)).await.unwrap();
    answer(&mut send, &CommandReply::Accepted).await;
}

async fn offer(connection: &Connection, export: ExportId) -> (TransferReply, SendStream, RecvStream) {
    let (mut send, mut recv) = soon("a stream", connection.open_bi()).await.unwrap();
    stream::write(&mut send, &ExportOffer { export }).await.unwrap();
    (soon("an answer", stream::read(&mut recv)).await.unwrap(), send, recv)
}

#[tokio::test]
async fn only_the_server_that_was_asked_sends_the_archive_and_what_is_damaged_is_said_so() {
    let plane = Plane::start().await;
    let (agent, liar) = (enrolled(&plane, "one").await, enrolled(&plane, "liar").await);
    let link = agent.link(&plane, vec![]).await;
    let ((_own, own), (_others, others)) = (agent.connect(&plane, BULK).await, liar.connect(&plane, BULK).await);
    for (said, whole) in [(CONTENT, true), (b"another one".as_slice(), false)] {
        let (export, begun) = ordered(&plane, agent.server);
        accept(&link).await;
        let (refused, ..) = offer(&others, export).await;
        assert!(
            matches!(&refused, TransferReply::Refused { cause, .. } if &*cause.code == "export_unknown"),
            "{refused:?}"
        );
        let (reply, mut send, _recv) = offer(&own, export).await;
        assert_eq!(reply, TransferReply::Begin { offset: 0 });
        let mut archive = soon("the beginning", begun).await.unwrap().unwrap();
        stream::write(&mut send, &TransferData::Piece(CONTENT.to_vec().try_into().unwrap())).await.unwrap();
        let end = TransferData::End { bytes: CONTENT.len() as u64, digest: StreamDigest::of(said), own_bytes: None };
        stream::write(&mut send, &end).await.unwrap();
        assert_eq!(soon("a piece", archive.next()).await.unwrap().as_deref(), Some(CONTENT));
        let end = soon("the end", archive.next()).await;
        assert!(if whole { matches!(end, Ok(None)) } else { matches!(end, Err(ExportError::Damaged)) }, "{end:?}");
        // Once: who comes later finds nobody who waits.
        assert!(matches!(offer(&own, export).await.0, TransferReply::Refused { .. }));
    }
}
