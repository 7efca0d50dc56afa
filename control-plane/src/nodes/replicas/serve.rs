//! What another replica asks of this one, one stream each: a stream to a node that is linked here, or what is known in
//! memory.

use super::pass::pass;
use crate::nodes::{Nodes, known, refusal, transfers::Ends};
use hoody_protocol::{
    codec::{DecodeError, Frame},
    export::ExportOffer,
    flow,
    id::ServerId,
    replica::{KnownQuery, RelayPurpose, RelayReply, RelayRequest},
    stream::{self, StreamError},
    tag::Message,
};
use quinn::Connection;
use std::time::Duration;
use tokio::time::timeout;

/// The time a node has to take a stream; less than the other replica waits.
const OPEN_DEADLINE: Duration = Duration::from_secs(5);
/// How long a node's offer is waited for: longer than whoever ordered it waits.
const OFFER_DEADLINE: Duration = Duration::from_secs(120);
/// What is read ahead of a conversation: all that its node may have sent before the other replica took any.
const AHEAD: usize = 2 * flow::WINDOW as usize;
/// The same of an archive or a file system, which goes at its reader's pace.
const GATHERED: usize = 64 << 10;

/// Answers one stream.
pub(super) async fn serve(nodes: Nodes, (mut send, mut recv): Ends) {
    let asked = match stream::read_frame(&mut recv).await {
        Ok(frame) => Request::of(&frame).map_err(StreamError::from),
        Err(error) => Err(error),
    };
    let served = match asked {
        Ok(Request::Relay(request)) => relay(&nodes, (send, recv), request).await,
        Ok(Request::Known(query)) => known::answer(&nodes, &mut send, query).await,
        Err(StreamError::Finished) => Ok(()),
        Err(error) => {
            refusal::refuse(&mut send, &mut recv, &error).await;
            Err(error)
        }
    };
    if let Err(error) = served {
        tracing::debug!(error = &error as &dyn std::error::Error, "what another replica asked for broke off");
    }
}

enum Request {
    Relay(RelayRequest),
    Known(KnownQuery),
}

impl Request {
    fn of(frame: &Frame) -> Result<Self, DecodeError> {
        match frame.tag {
            RelayRequest::TAG => frame.decode().map(Self::Relay),
            KnownQuery::TAG => frame.decode().map(Self::Known),
            got => Err(DecodeError::UnexpectedTag { got, expected: "RelayRequest or KnownQuery" }),
        }
    }
}

async fn relay(nodes: &Nodes, mut ends: Ends, request: RelayRequest) -> Result<(), StreamError> {
    let RelayRequest { server, purpose } = request;
    let registry = &nodes.registry;
    let reply = match purpose {
        RelayPurpose::Question => match registry.link_of(server) {
            Some((_, connection)) => return give(ends, &connection, 0).await,
            None => RelayReply::NotLinked,
        },
        RelayPurpose::Conversation => match registry.exec_stream(server) {
            // Commands and reports go first.
            Some(Ok((connection, _permit))) => return give(ends, &connection, stream::EXEC_PRIORITY).await,
            Some(Err(_)) => RelayReply::TooMany,
            None => RelayReply::NotLinked,
        },
        RelayPurpose::Transfer(transfer) => {
            let expected = nodes.offers.expect(transfer, server);
            let arrival = async { expected.arrives().await.map(|offered| (offered.ends, offered.offer)) };
            return offer(nodes, ends, server, arrival).await;
        }
        RelayPurpose::Export(export) => {
            let expected = nodes.exports.expect(export, server);
            let arrival = async { expected.arrives().await.map(|ends| (ends, ExportOffer { export })) };
            return offer(nodes, ends, server, arrival).await;
        }
    };
    stream::write(&mut ends.0, &reply).await
}

/// A new stream of the link, to the end of both directions.
async fn give(mut ends: Ends, link: &Connection, priority: i32) -> Result<(), StreamError> {
    let reply = match timeout(OPEN_DEADLINE, link.open_bi()).await {
        Ok(Ok(node)) => {
            let _ = node.0.set_priority(priority);
            stream::write(&mut ends.0, &RelayReply::Opened).await?;
            pass(ends, node, AHEAD).await;
            return Ok(());
        }
        Ok(Err(_)) => RelayReply::NotLinked,
        Err(_) => RelayReply::Late,
    };
    stream::write(&mut ends.0, &reply).await
}

/// Waits for the stream that the node offers, and passes on its offer and what follows. The order itself takes another
/// stream.
async fn offer<O: Message>(
    nodes: &Nodes,
    mut ends: Ends,
    server: ServerId,
    arrival: impl Future<Output = Option<(Ends, O)>>,
) -> Result<(), StreamError> {
    if !nodes.registry.is_linked(server) {
        return stream::write(&mut ends.0, &RelayReply::NotLinked).await;
    }
    stream::write(&mut ends.0, &RelayReply::Opened).await?;
    hoody_fault::point!("relay.waiting");
    let given_up = ends.0.stopped();
    let arrived = tokio::select! {
        arrived = timeout(OFFER_DEADLINE, arrival) => arrived.ok().flatten(),
        _ = given_up => None,
    };
    // Nobody waits any more, or the node has offered nothing: both see the end of the stream.
    let Some((node, offer)) = arrived else { return Ok(()) };
    stream::write(&mut ends.0, &offer).await?;
    hoody_fault::point!("relay.offered");
    pass(ends, node, GATHERED).await;
    Ok(())
}
