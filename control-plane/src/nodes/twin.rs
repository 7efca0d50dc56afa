//! Two agents with one identity: a server whose disk, or state folder, was copied. The one whose link is up
//! keeps it; the other is refused and written down for an operator.
//!
//! How they are told apart: every process of the agent gives a random instance with its hello (the boot id
//! where it is older). The same instance is one agent that connects again, and replaces its link at once. Another
//! instance is either the same server after a restart of its agent, or a twin; which of them, only the older
//! link can say: its agent is asked a question, and one that answers is alive. Facts of the machine would not
//! do: a copied disk copies them, and a renamed or repaired server changes them.

use super::{listener::Context, refusal};
use crate::store::node::{self, IdentityConflict, Node};
use hoody_protocol::{
    container::Cause,
    id::{ContainerId, ServerId},
    link::{Hello, SpecQuery, SpecReply},
    stream::{self, AskError},
    time::now_ms,
};
use quinn::Connection;
use std::time::Duration;

/// Time for the agent of the older link to show that it is alive. A restarted agent waits this long where its
/// process before was killed without a word.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

/// Which process of an agent a link belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Instance {
    /// As the hello said.
    Named(String),
    /// The agent is older than instances: the kernel's boot.
    Boot(String),
}

impl Instance {
    pub(super) fn of(hello: &Hello) -> Self {
        match &hello.instance {
            Some(instance) => Self::Named(instance.to_string()),
            None => Self::Boot(hello.boot_id.to_string()),
        }
    }
}

/// Refuses a hello where another living agent has the server's link.
pub(super) async fn check(context: &Context, node: &Node, newcomer: &Connection, hello: &Hello) -> Result<(), Cause> {
    let server = node.id;
    let elsewhere = node.linked_to.as_deref().is_some_and(|replica| replica != &*context.replica);
    let alive = match context.app.nodes.registry.link_of(server) {
        Some((instance, _)) if instance == Instance::of(hello) => false,
        Some((_, older)) => is_alive(&older).await,
        // Another replica has it and cannot be asked; its lease, and the link's idle timeout, bound the wait.
        None => elsewhere && node.instance.is_some() && node.instance.as_deref() != hello.instance.as_deref(),
    };
    if !alive {
        return Ok(());
    }
    report(context, server, newcomer, hello).await;
    Err(Cause::new(
        refusal::IDENTITY_IN_USE,
        "another agent with this server's identity is linked: was this server copied? give it an identity of its own",
    ))
}

/// Any answer is a sign of life, a refusal too.
async fn is_alive(older: &Connection) -> bool {
    let question = SpecQuery { container: ContainerId::from_bytes([0; 12]) };
    matches!(stream::ask::<_, SpecReply>(older, &question, ANSWER_DEADLINE).await, Ok(_) | Err(AskError::Refused(_)))
}

async fn report(context: &Context, server: ServerId, newcomer: &Connection, hello: &Hello) {
    let remote = newcomer.remote_address();
    metrics::counter!("hoody_node_identity_conflicts_total").increment(1);
    tracing::error!(%server, %remote, hostname = ?hello.facts.hostname.as_str(),
        "a second agent came with the identity of a linked server and was refused: was the server copied?");
    let conflict = IdentityConflict {
        at: now_ms(),
        remote: remote.to_string(),
        hostname: hello.facts.hostname.to_string(),
        boot_id: hello.boot_id.to_string(),
    };
    if let Err(error) = node::record_conflict(&context.app.store, server, &conflict).await {
        tracing::error!(%server, error = &error as &dyn std::error::Error, "write down an identity conflict");
    }
}
