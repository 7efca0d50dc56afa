//! The agent is killed at every call to the kernel, before and after its effect, and once more after
//! that: it always comes to what was asked, leaves nothing behind and gives every operation one outcome.

use crate::reconcile::testing::*;
use hoody_protocol::{
    container::{ContainerSpec, Desired, State},
    operation::OperationRequest,
};

/// What the control plane asks, one after the other, again after a crash until it is reached.
enum Ask {
    Reach(Box<ContainerSpec>, State),
    Operate(OperationRequest),
}

fn script() -> Vec<Ask> {
    vec![
        Ask::Reach(Box::new(running(1, 1)), State::Running),
        Ask::Operate(restart(1, 2)),
        Ask::Reach(Box::new(spec(3, Desired::Paused { run: 1 })), State::Paused),
        Ask::Operate(restart(2, 4)),
        Ask::Reach(Box::new(stopped(5, false)), State::Stopped),
        Ask::Reach(Box::new(running(6, 2)), State::Running),
        Ask::Reach(Box::new(stopped(7, true)), State::Stopped),
        Ask::Reach(Box::new(running(8, 3)), State::Running),
        Ask::Reach(Box::new(spec(9, Desired::Deleted)), State::Deleted),
    ]
}

/// Starts that the script asks for.
const STARTS: usize = 5;

/// Goes on with the script; `done` counts what was reached, over all lives.
async fn proceed(agent: &Agent<'_>, script: &[Ask], done: &std::cell::Cell<usize>) {
    while let Some(ask) = script.get(done.get()) {
        match ask {
            Ask::Reach(spec, state) => assert_eq!(agent.reach(spec).await.state, *state),
            Ask::Operate(request) => {
                agent.reconciler.operate(request.clone()).await;
                assert_eq!(agent.outcome(request.id).await.failure, None);
            }
        }
        done.set(done.get() + 1);
    }
    agent.forgotten().await;
}

/// Runs the script with deaths at these calls; true where the first one was reached.
fn dies_at(deaths: &[CrashAt], reboots: bool) -> bool {
    let (node, script, done) = (Node::new(), script(), std::cell::Cell::new(0));
    let mut died = false;
    let mut deaths = deaths.iter();
    loop {
        let death = deaths.next().copied();
        {
            let mut world = node.kernel.world();
            let so_far = world.calls.len();
            world.crash = death.map(|death| CrashAt { call: so_far + death.call, ..death });
        }
        let ended = node.life(async |agent| proceed(&agent, &script, &done).await);
        if ended.is_some() {
            break;
        }
        died = true;
        if reboots {
            node.kernel.reboot();
            node.boot.set(node.boot.get() + 1);
        }
    }
    let world = node.kernel.world();
    world.assert_empty();
    assert!(reboots || world.starts == STARTS, "started {} times: {:?}", world.starts, world.calls);
    for id in [restart(1, 0).id, restart(2, 0).id] {
        assert_eq!(outcomes(&node, id).len(), 1);
    }
    died
}

/// Every call in turn; gives how many there are.
fn walk(reboots: bool) -> usize {
    let mut call = 1;
    loop {
        let before = dies_at(&[CrashAt { call, after_effect: false }], reboots);
        let after = dies_at(&[CrashAt { call, after_effect: true }], reboots);
        if !before && !after {
            return call - 1;
        }
        call += 1;
    }
}

#[test]
fn an_agent_killed_at_any_call_converges_without_leaks() {
    let calls = walk(false);
    assert!(calls > 80, "only {calls} calls");
}

#[test]
fn a_server_that_goes_down_at_any_call_converges_without_leaks() {
    assert!(walk(true) > 80);
}

#[test]
fn an_agent_killed_again_soon_after_it_came_back_converges_too() {
    for call in (1..120).step_by(3) {
        for again in 1..6 {
            let death = |call, after_effect| CrashAt { call, after_effect };
            dies_at(&[death(call, true), death(again, false), death(again, true)], false);
        }
    }
}
