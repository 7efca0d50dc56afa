//! Agent and control plane are killed with SIGKILL at every fault point, in every verb that reaches it, and
//! started again. Each time the container comes to what was asked, the server holds what it holds after the
//! same verb without a fault and nothing else, no operation has two outcomes, and a container beside it never
//! loses a request.
//!
//! Which verb reaches which points is found out first, by doing each once; a point of the registry that none
//! reaches fails the test.

#[path = "fault_walk/verb.rs"]
mod verb;
#[path = "fault_walk/walk.rs"]
mod walk;

use anyhow::Result;
use verb::Verb;
use walk::{Program, walk};

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_while_it_creates_deletes_or_starts_itself() -> Result<()> {
    walk(Program::Agent, &[Verb::Create, Verb::Delete, Verb::Return, Verb::Rules, Verb::Pause, Verb::Resume]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_while_it_starts_or_stops() -> Result<()> {
    walk(Program::Agent, &[Verb::Start, Verb::Stop, Verb::ForceStop]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_while_it_restarts() -> Result<()> {
    walk(Program::Agent, &[Verb::Restart]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_while_egress_or_shares_change() -> Result<()> {
    walk(Program::Agent, &[Verb::Proxy, Verb::Direct, Verb::Share, Verb::Unshare]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_while_it_takes_restores_deletes_or_copies() -> Result<()> {
    walk(Program::Agent, &[Verb::Keep, Verb::Restore, Verb::Forget, Verb::Copy]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_killed_during_any_request() -> Result<()> {
    walk(Program::ControlPlane, &Verb::ALL).await
}
