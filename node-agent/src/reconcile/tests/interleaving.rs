//! Whatever comes in whatever order: the container ends as the last specification says.

use crate::{reconcile::testing::*, runtime::Process};
use hoody_protocol::{
    container::{ContainerSpec, Desired, State},
    link::CommandReply,
};
use proptest::prelude::*;
use std::time::Duration;

/// Steps that can fail or, where a request interrupts them, hang.
const STEPS: [&str; 14] = [
    "exists", "root", "state", "mount", "create", "policy", "attach", "start", "stop", "kill", "detach", "remove",
    "unpolicy", "unmount",
];

#[derive(Debug, Clone)]
enum Event {
    Run,
    Freeze,
    Stop { force: bool },
    Change { pids: u32 },
    Restart,
    Fail { step: usize, times: usize },
    Slow { step: usize, times: usize },
    SlowImage,
    Damage(Damage),
    Reachable(bool),
    End,
    Stubborn(bool),
    Wake,
    Later { ms: u64 },
    Die { calls: usize, after_effect: bool, reboot: bool },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => Just(Event::Run),
        1 => Just(Event::Freeze),
        3 => any::<bool>().prop_map(|force| Event::Stop { force }),
        2 => (8u32..99).prop_map(|pids| Event::Change { pids }),
        3 => Just(Event::Restart),
        3 => (0..STEPS.len(), 1usize..4).prop_map(|(step, times)| Event::Fail { step, times }),
        1 => (0..STEPS.len(), 1usize..4).prop_map(|(step, times)| Event::Slow { step, times }),
        1 => Just(Event::SlowImage),
        3 => (0..DAMAGES.len()).prop_map(|which| Event::Damage(DAMAGES[which])),
        1 => any::<bool>().prop_map(Event::Reachable),
        2 => Just(Event::End),
        1 => any::<bool>().prop_map(Event::Stubborn),
        1 => Just(Event::Wake),
        4 => (0u64..20_000).prop_map(|ms| Event::Later { ms }),
        2 => (1usize..30, any::<bool>(), any::<bool>())
            .prop_map(|(calls, after_effect, reboot)| Event::Die { calls, after_effect, reboot }),
    ]
}

/// The control plane's side: what it last asked, and the operations it is owed an outcome of.
struct Asked {
    spec: ContainerSpec,
    run: u64,
    sequence: u64,
    restarts: u8,
    /// Restarts that the agent accepted: persisted, so each has an outcome to come.
    accepted: Vec<u8>,
}

impl Asked {
    fn next(&mut self, desired: Desired) -> ContainerSpec {
        self.sequence += 1;
        self.spec.sequence = self.sequence;
        self.spec.version.generation += 1;
        self.spec.desired = desired;
        self.spec.clone()
    }

    fn start(&mut self) -> Desired {
        self.run += 1;
        Desired::Running { run: self.run }
    }
}

/// Does events until the first death, which is the life's end.
async fn play(agent: &Agent<'_>, events: &mut std::vec::IntoIter<Event>, asked: &mut Asked) {
    let kernel = &agent.node.kernel;
    agent.apply(&asked.spec).await;
    for event in events.by_ref() {
        match event {
            Event::Run => {
                let desired = asked.start();
                agent.apply(&asked.next(desired)).await;
            }
            Event::Freeze => {
                asked.run += 1;
                let run = asked.run;
                agent.apply(&asked.next(Desired::Paused { run })).await;
            }
            Event::Stop { force } => agent.apply(&asked.next(Desired::Stopped { force })).await,
            Event::Change { pids } => {
                asked.spec.limits.pids = pids;
                let desired = asked.spec.desired;
                agent.apply(&asked.next(desired)).await;
            }
            Event::Restart => {
                asked.restarts += 1;
                asked.sequence += 1;
                let reply = agent.reconciler.operate(restart(asked.restarts, asked.sequence)).await;
                if reply == CommandReply::Accepted {
                    asked.accepted.push(asked.restarts);
                }
            }
            Event::Fail { step, times } => kernel.fault(STEPS[step], Fault::Fail, times),
            Event::Slow { step, times } => kernel.fault(STEPS[step], Fault::Slow, times),
            Event::Damage(damage) => kernel.damage(ID, damage),
            // A deletion then waits, and what is asked goes on.
            Event::Reachable(reachable) => _ = agent.node.reachable.send_replace(reachable),
            Event::SlowImage => kernel.fault("image", Fault::Hang, 1),
            Event::End => {
                if kernel.world().is_alive(ID) {
                    kernel.exit(ID, 9, false);
                }
            }
            Event::Stubborn(stubborn) => kernel.world().stubborn = stubborn,
            Event::Wake => agent.reconciler.wake_all(),
            Event::Later { ms } => tokio::time::sleep(Duration::from_millis(ms)).await,
            Event::Die { calls, after_effect, reboot } => {
                let call = kernel.world().calls.len() + calls;
                kernel.world().crash = Some(CrashAt { call, after_effect });
                // It dies there, or a minute later where nothing is done.
                let died = kernel.until("the crash", |world| world.crashed);
                let _ = tokio::time::timeout(Duration::from_secs(60), died).await;
                if reboot {
                    agent.node.boot.set(agent.node.boot.get() + 1);
                }
                return;
            }
        }
    }
}

fn ends_as_asked(events: Vec<Event>, last: usize) {
    let node = Node::new();
    let mut asked = Asked { spec: running(1, 1), run: 1, sequence: 1, restarts: 0, accepted: Vec::new() };
    let mut events = events.into_iter();
    while events.len() > 0 {
        let boot = node.boot.get();
        node.life(async |agent| play(&agent, &mut events, &mut asked).await);
        if node.boot.get() != boot {
            node.kernel.reboot();
        }
    }
    node.kernel.world().faults.clear();
    node.reachable.send_replace(true);
    node.run(async |agent| {
        let desired = match last {
            0 => asked.start(),
            1 => Desired::Paused { run: asked.run + 1 },
            2 => Desired::Stopped { force: false },
            _ => Desired::Deleted,
        };
        let spec = asked.next(desired);
        let state = agent.reach(&spec).await.state;
        for number in 1..=asked.restarts {
            let id = restart(number, 0).id;
            if asked.accepted.contains(&number) {
                agent.outcome(id).await;
            }
            assert_eq!(outcomes(agent.node, id).len(), usize::from(asked.accepted.contains(&number)));
        }
        if state == State::Deleted {
            agent.forgotten().await;
        } else {
            // A restart that was accepted before may still have been under way.
            agent.in_state(state).await;
        }
        let record = agent.node.records().load().unwrap().pop().map(Result::unwrap);
        let world = agent.node.kernel.world();
        match desired {
            Desired::Running { .. } => {
                assert!(matches!(world.processes[&ID], Process::Running { .. }));
                assert_eq!(world.rules[&ID], spec.firewall);
                assert!(world.links.contains_key(&ID) && world.bundles.contains_key(&ID), "{world:?}");
                assert_eq!(world.limits[&ID], spec.limits);
            }
            Desired::Paused { .. } => assert!(matches!(world.processes[&ID], Process::Paused { .. })),
            Desired::Stopped { .. } => {
                assert!(world.processes.is_empty() && world.mounts.is_empty() && world.roots.len() == 1);
                assert!(world.links.is_empty() && world.rules.is_empty());
            }
            Desired::Deleted => world.assert_empty(),
        }
        assert!(record.is_none_or(|record| record.operations.is_empty()), "every operation was ended");
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_last_specification_wins(events in prop::collection::vec(event(), 1..24), last in 0usize..4) {
        ends_as_asked(events, last);
    }
}
