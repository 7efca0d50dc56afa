//! Moving a node to the next authority over its live link, and ending links whose authority was retired.

use super::link::Link;
use hoody_protocol::{
    link::{CommandReply, RenewalOrder},
    stream,
    transport::Close,
};
use std::time::Duration;

/// Time for the agent to say that it renews.
const ORDER_DEADLINE: Duration = Duration::from_secs(20);
/// Pause before an agent that did not renew is asked again.
const AGAIN: Duration = Duration::from_secs(60);
/// Links are asked this much apart on average, so that not all of them connect anew at once.
const SPREAD: Duration = Duration::from_millis(10);
/// The longest spread.
const LONGEST_SPREAD: Duration = Duration::from_secs(60);

/// Follows the authorities until the link's own is retired.
pub(super) async fn follow(link: &Link) {
    let mut authorities = link.context.authorities.clone();
    loop {
        let (trusted, newest) = {
            let present = authorities.borrow_and_update();
            (present.trusts(&link.peer.issuer), present.issuing().name())
        };
        if !trusted {
            tracing::info!(server = %link.server(), "the authority of the link's certificate was retired");
            return Close::Expired.close(&link.connection);
        }
        let order = async {
            if newest == link.peer.issuer {
                return std::future::pending().await;
            }
            let linked = link.context.app.nodes.registry.connected().len() as u32;
            let spread = (SPREAD * linked).min(LONGEST_SPREAD);
            tokio::time::sleep(spread.mul_f64(rand::random())).await;
            loop {
                match Box::pin(stream::ask::<_, CommandReply>(&link.connection, &RenewalOrder {}, ORDER_DEADLINE)).await
                {
                    Ok(_) => tracing::info!(server = %link.server(), "the node renews its certificate"),
                    // An agent that does not know the order renews when its certificate is due.
                    Err(error) => tracing::warn!(server = %link.server(), error = &error as &dyn std::error::Error,
                        "the node was not told to renew its certificate"),
                }
                tokio::time::sleep(AGAIN).await;
            }
        };
        tokio::select! {
            changed = authorities.changed() => if changed.is_err() {
                // The listener has ended, and the link with it.
                return std::future::pending().await;
            },
            () = order => {}
        }
    }
}
