//! A node with a valid certificate and an agent that lies.

use crate::{
    agent::{Agent, Link, answer, enrolled, entry, frame, hello, status},
    plane::{PATIENCE, Plane, eventually},
};
use hoody_control_plane::store::{
    settings, status_log,
    unknown::{self, Decision, Unknown},
};
use hoody_protocol::{
    bounded::Text,
    container::{ContainerSpec, Desired, State, StatusReport},
    enrol::EnrolReply,
    id::{ContainerId, OperationId, ProjectId, ShareId, UserId},
    image::{ImageConfig, ImageSpec},
    link::{
        CommandReply, Heartbeat, Hello, InventoryEntry, Report, ReportAck, ReportBatch, ReportEntry, SpecQuery,
        SpecReply,
    },
    operation::OperationOutcome,
    share::ShareMount,
    stats::StatsBatch,
    stream,
    time::now_ms,
    transport::Close,
    version::SpecVersion,
};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use std::time::{Duration, Instant};

fn stray(generation: u64) -> InventoryEntry {
    let version = SpecVersion { epoch: 1, generation };
    InventoryEntry { container: ContainerId::generate(), version, state: State::Running, sequence: 1 }
}

/// Another server and its agent are served as ever.
async fn others_are_served(plane: &Plane, other: &Agent) {
    let spec = plane.container(other.server, vec![]).await;
    let mut link = other.link(plane, vec![]).await;
    loop {
        let (sent, mut send) = link.spec().await;
        answer(&mut send, &CommandReply::Accepted).await;
        if sent.id == spec.id {
            break;
        }
    }
    link.report(vec![Report::Status(status(spec.id, 1, State::Running))]).await.unwrap();
    assert_eq!(plane.status(spec.id).await, "running");
    Close::Done.close(&link.connection);
}

#[tokio::test]
async fn made_up_changes_of_status_do_not_fill_the_database() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "liar").await;
    let spec = plane.container(agent.server, vec![]).await;
    let mut link = agent.link(&plane, vec![entry(&spec, 1)]).await;
    let begun = now_ms() - 10_000;
    for batch in 0..8 {
        let flips = (0..256).map(|n| {
            let state = if n % 2 == 0 { State::Running } else { State::Stopped };
            Report::Status(StatusReport { at: begun + batch * 256 + n, ..status(spec.id, 1, state) })
        });
        link.report(flips.collect()).await.unwrap();
        // A link whose heartbeats stay away ends, and a busy machine takes its time.
        link.heartbeat().await;
    }
    let count = "SELECT CAST(COUNT(*) AS BIGINT) FROM status_logs".to_owned();
    assert_eq!(plane.number(count).await, status_log::KEPT);
    let newest = "SELECT to_status FROM status_logs ORDER BY transition_time DESC, id DESC LIMIT 1".to_owned();
    assert_eq!(plane.text(newest).await, plane.status(spec.id).await, "the newest are what is kept");
}

#[tokio::test]
async fn reports_without_end_are_taken_at_the_platforms_pace() {
    /// Reports that may come at once, and a second in the long run.
    const BURST: f64 = 4096.0;
    const PER_SECOND: f64 = 200.0;
    const BATCHES: usize = 22;
    let plane = Plane::start().await;
    let (agent, other) = (enrolled(&plane, "liar").await, enrolled(&plane, "other").await);
    let mut link = agent.link(&plane, vec![]).await;
    let begun = Instant::now();
    let mut sent = 0;
    for _ in 0..BATCHES {
        // About nobody's containers: what costs the platform least.
        let lies: Vec<_> =
            (0..256).map(|_| Report::Status(status(ContainerId::generate(), 1, State::Running))).collect();
        sent += lies.len();
        link.report(lies).await.unwrap();
        link.heartbeat().await;
    }
    let most = BURST + PER_SECOND * begun.elapsed().as_secs_f64();
    assert!(sent as f64 <= most, "{sent} reports in {:?}", begun.elapsed());
    others_are_served(&plane, &other).await;
}

#[tokio::test]
async fn measurements_without_end_are_taken_at_the_platforms_pace() {
    /// Batches that may come at once, a second in the long run, and on their way.
    const BURST: f64 = 64.0;
    const PER_SECOND: f64 = 20.0;
    const ON_THE_WAY: f64 = 8.0;
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "liar").await;
    let link = agent.link(&plane, vec![]).await;
    let begun = Instant::now();
    let batch = StatsBatch { at: 1, node: Default::default(), containers: Default::default() };
    let mut sent = 0.0;
    // A stream is had once one of those before was taken.
    while sent < BURST + ON_THE_WAY + 8.0 {
        let mut send = tokio::time::timeout(PATIENCE, link.connection.open_uni()).await.unwrap().unwrap();
        stream::write(&mut send, &batch).await.unwrap();
        send.finish().unwrap();
        sent += 1.0;
    }
    let most = BURST + ON_THE_WAY + PER_SECOND * begun.elapsed().as_secs_f64();
    assert!(sent <= most, "{sent} batches in {:?}", begun.elapsed());
}

#[tokio::test]
async fn heartbeats_without_end_are_taken_at_the_platforms_pace() {
    const BEATS: u8 = 6;
    /// They are read no quicker.
    const PAUSE: Duration = Duration::from_millis(100);
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "liar").await;
    let mut link = agent.link(&plane, vec![]).await;
    let begun = Instant::now();
    for now in 1..=BEATS.into() {
        stream::write(&mut link.control.0, &Heartbeat { now, unacknowledged: 0 }).await.unwrap();
    }
    let last = async || plane.app.nodes.heartbeat(agent.server).filter(|heartbeat| heartbeat.now == u64::from(BEATS));
    eventually("the last heartbeat", last).await;
    assert!(begun.elapsed() >= PAUSE * u32::from(BEATS - 1), "{BEATS} heartbeats in {:?}", begun.elapsed());
}

#[tokio::test]
async fn made_up_containers_do_not_fill_the_database_and_measurements_of_them_are_not_kept() {
    let plane = Plane::start().await;
    let (agent, other) = (enrolled(&plane, "liar").await, enrolled(&plane, "other").await);
    for _ in 0..3 {
        let many: Vec<_> = (0..hoody_protocol::link::MAX_INVENTORY as u64).map(stray).collect();
        agent.link(&plane, many).await;
    }
    let count = "SELECT CAST(COUNT(*) AS BIGINT) FROM unknown_containers".to_owned();
    assert!(plane.number(count).await <= unknown::MAX_PER_SERVER as i64);
    // More than an inventory can hold is not even read.
    let absurd = Agent::say(&agent, &plane, &hello(vec![])).await.unwrap();
    drop(absurd);
    others_are_served(&plane, &other).await;
}

#[tokio::test]
async fn a_node_cannot_end_the_operations_of_others() {
    let plane = Plane::start().await;
    let (liar, victim) = (enrolled(&plane, "liar").await, enrolled(&plane, "victim").await);
    let mut theirs = plane.container(victim.server, vec![]).await;
    let mut ours = plane.container(liar.server, vec![]).await;
    let wanted = plane.operation(victim.server, &mut theirs, PATIENCE).await;
    let own = plane.operation(liar.server, &mut ours, PATIENCE).await;
    let mut link = liar.link(&plane, vec![entry(&ours, 1)]).await;
    let outcome = |id: OperationId, container: ContainerId| {
        Report::Outcome(OperationOutcome { id, container, failure: None, bytes: None, at: now_ms() })
    };
    // Under the victim's container, under its own, and its own operation under the victim's container.
    let lies = vec![outcome(wanted, theirs.id), outcome(wanted, ours.id), outcome(own, theirs.id)];
    assert_eq!(link.report(lies).await, Ok(3));
    let state = async |id: OperationId| plane.text(format!("SELECT state FROM operations WHERE id = '{id}'")).await;
    assert_eq!(state(wanted).await, "pending");
    assert_ne!(state(own).await, "succeeded");
}

#[tokio::test]
async fn a_node_that_connects_again_and_again_is_put_off_and_others_are_not() {
    let plane = Plane::start().await;
    let (agent, other) = (enrolled(&plane, "liar").await, enrolled(&plane, "other").await);
    let mut put_off = false;
    for _ in 0..200 {
        let (_endpoint, connection) = agent.connect(&plane, hoody_protocol::transport::NODE).await;
        let refused = tokio::time::timeout(Duration::from_millis(50), connection.closed()).await;
        put_off = refused.is_ok_and(|error| Close::of(&error) == Some(Close::Overloaded));
        if put_off {
            break;
        }
    }
    assert!(put_off);
    others_are_served(&plane, &other).await;
}

#[tokio::test]
async fn certificates_are_not_signed_without_end() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "liar").await;
    let link = agent.link(&plane, vec![]).await;
    let mut code = None;
    for _ in 0..20 {
        let reply: EnrolReply = stream::ask(&link.connection, &agent.renewal(&agent.key()), PATIENCE).await.unwrap();
        if let EnrolReply::Refused(cause) = reply {
            code = Some(cause.code.to_string());
            break;
        }
    }
    assert_eq!(code.as_deref(), Some("too_often"));
    assert!(link.connection.close_reason().is_none());
}

#[tokio::test]
async fn words_that_would_break_a_line_of_the_log_are_refused() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "liar").await;
    for word in ["1.0\nINFO link up", "\u{1b}[31m", "nul\0"] {
        let lies: [fn(&mut Hello, &str); 4] = [
            |said, word| said.agent_version = Text::truncated(word),
            |said, word| said.boot_id = Text::truncated(word),
            |said, word| said.instance = Some(Text::truncated(word)),
            |said, word| said.facts.architecture = Text::truncated(word),
        ];
        for (index, lie) in lies.into_iter().enumerate() {
            let mut said = hello(vec![]);
            lie(&mut said, word);
            assert_eq!(agent.refusal(&plane, &said).await, ("malformed_message".to_owned(), false), "{index} {word:?}");
        }
    }
}

/// What the node answers when it is asked for the specification of a container that an operator adopts.
async fn adopted(
    plane: &Plane,
    link: &mut Link,
    agent: &Agent,
    container: ContainerId,
    lie: SpecReply,
) -> Option<Unknown> {
    let mut tx = plane.app.store.begin().await.unwrap();
    let decision = Decision::Adopt { project: plane.project, name: format!("a-{container}") };
    assert!(unknown::decide(&mut tx, agent.server, container, &decision).await.unwrap());
    tx.commit().await.unwrap();
    plane.app.nodes.wake_for_decisions(agent.server);
    let (mut send, mut recv) = crate::agent::soon("the question", link.connection.accept_bi()).await.unwrap();
    assert_eq!(stream::read::<SpecQuery>(&mut recv).await.unwrap().container, container);
    answer(&mut send, &lie).await;
    eventually("the decision is carried out", async || {
        let rows = unknown::list(&plane.app.store, agent.server).await.unwrap();
        let row = rows.into_iter().find(|row| row.container == container);
        row.as_ref().is_none_or(|row| row.decision.is_none()).then_some(row)
    })
    .await
}

#[tokio::test]
async fn what_a_node_says_of_a_container_that_is_adopted_is_not_believed() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "liar").await;
    let victim = plane.container(enrolled(&plane, "victim").await.server, vec![]).await;
    plane.execute(format!("UPDATE servers SET owner_id = '{}', cpu_millis = 1000", plane.user)).await;
    let held: Vec<_> = (0..5).map(|_| stray(4)).collect();
    let mut link = agent.link(&plane, held.clone()).await;
    // The facts that a hello gives are the capacity.
    let good = |id: ContainerId| ContainerSpec {
        id,
        project: ProjectId::generate(),
        owner: UserId::generate(),
        version: SpecVersion { epoch: 1, generation: 4 },
        image: ImageSpec::new(Default::default(), ImageConfig::default()),
        ..victim.clone()
    };
    let refuse = async |link: &mut Link, index: usize, spec: ContainerSpec| {
        let row = adopted(&plane, link, &agent, held[index].container, SpecReply { spec: Some(spec) }).await;
        row.and_then(|row| row.problem).expect("a problem")
    };
    // Another's container; nonsense; a version from nowhere.
    let problem = refuse(&mut link, 0, ContainerSpec { id: victim.id, ..good(victim.id) }).await;
    assert!(problem.contains("another container"), "{problem}");
    let mut broken = good(held[1].container);
    broken.limits.pids = 0;
    let problem = refuse(&mut link, 1, broken).await;
    assert!(problem.contains("not valid"), "{problem}");
    let mut ahead = good(held[2].container);
    ahead.version = SpecVersion { epoch: u64::MAX, generation: u64::MAX };
    let problem = refuse(&mut link, 2, ahead).await;
    assert!(problem.contains("ahead"), "{problem}");
    let mut large = good(held[3].container);
    large.limits.memory_bytes = u64::MAX;
    let problem = refuse(&mut link, 3, large).await;
    assert!(problem.contains("room"), "{problem}");
    // Not here before an epoch begins: a node would refuse another project.
    let problem = refuse(&mut link, 4, good(held[4].container)).await;
    assert!(problem.contains("project"), "{problem}");
    let mut tx = plane.app.store.begin().await.unwrap();
    settings::set_epoch(&mut tx, 2).await.unwrap();
    tx.commit().await.unwrap();
    // What only the platform gives: nothing of it is taken over.
    let mut greedy = good(held[4].container);
    greedy.kvm = true;
    greedy.ssh_public_key = Some(Text::truncated("ssh-ed25519 AAAA liar"));
    let share = ShareMount {
        id: ShareId::generate(),
        source: victim.id,
        path: Text::truncated("/data"),
        name: Text::truncated("data"),
        place: None,
        readonly: false,
        until: None,
    };
    greedy.shares = vec![share].try_into().unwrap();
    assert_eq!(greedy.check(), Ok(()));
    let row = adopted(&plane, &mut link, &agent, held[4].container, SpecReply { spec: Some(greedy) });
    assert_eq!(row.await, None);
    let (sent, _send) = link.spec().await;
    assert_eq!((sent.id, sent.project, sent.owner), (held[4].container, plane.project, plane.user));
    assert_eq!(sent.version, SpecVersion { epoch: 2, generation: 5 });
    assert_eq!((sent.kvm, sent.ssh_public_key, sent.shares.len()), (false, None, 0));
    let containers = "SELECT CAST(COUNT(*) AS BIGINT) FROM containers".to_owned();
    assert_eq!(plane.number(containers).await, 2);
}

#[tokio::test]
async fn a_removed_unknown_container_gets_a_tombstone_of_its_own_version() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "one").await;
    let template = plane.container(agent.server, vec![]).await;
    let held = stray(7);
    let mut link = agent.link(&plane, vec![entry(&template, 1), held]).await;
    let mut tx = plane.app.store.begin().await.unwrap();
    assert!(unknown::decide(&mut tx, agent.server, held.container, &Decision::Remove).await.unwrap());
    tx.commit().await.unwrap();
    // By another process: found without a wake-up.
    let (mut send, mut recv) = crate::agent::soon("the question", link.connection.accept_bi()).await.unwrap();
    stream::read::<SpecQuery>(&mut recv).await.unwrap();
    let spec = ContainerSpec { id: held.container, version: held.version, sequence: 30, ..template };
    answer(&mut send, &SpecReply { spec: Some(spec) }).await;
    let (tombstone, mut send) = link.spec().await;
    assert_eq!((tombstone.id, tombstone.desired), (held.container, Desired::Deleted));
    assert_eq!((tombstone.version.generation, tombstone.sequence), (8, 31));
    answer(&mut send, &CommandReply::Accepted).await;
    eventually("it is forgotten", async || {
        unknown::list(&plane.app.store, agent.server).await.unwrap().is_empty().then_some(())
    })
    .await;
}

/// Messages of every kind, in any order, true and false, on streams of both kinds.
fn anything(random: &mut StdRng, own: ContainerId) -> Vec<u8> {
    let id = if random.random() { own } else { ContainerId::generate() };
    let states = [State::Running, State::Stopped, State::Deleted, State::Failed, State::Creating];
    let state = *states.choose(random).unwrap();
    let mut report = status(id, if random.random() { 1 } else { random.random() }, state);
    report.version.epoch = if random.random() { 1 } else { random.random() };
    (report.at, report.started_at) = (random.random(), Some(random.random()));
    let outcome = OperationOutcome {
        id: OperationId::generate(),
        container: id,
        failure: None,
        bytes: None,
        at: random.random(),
    };
    let report = if random.random() { Report::Status(report) } else { Report::Outcome(outcome.clone()) };
    let entries = vec![ReportEntry { position: random.random(), report }];
    match random.random_range(0..9) {
        0 | 1 => frame(&ReportBatch { entries: entries.try_into().unwrap() }),
        2 => frame(&hello(vec![stray(1)])),
        3 => frame(&Heartbeat { now: random.random(), unacknowledged: random.random() }),
        4 => frame(&StatsBatch { at: random.random(), node: Default::default(), containers: Default::default() }),
        5 => frame(&CommandReply::Done(outcome)),
        6 => frame(&ReportAck { position: random.random() }),
        7 => frame(&SpecQuery { container: id }),
        _ => {
            let mut bytes = vec![0; random.random_range(0..64)];
            random.fill_bytes(&mut bytes);
            bytes
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_order_of_messages_ends_more_than_the_nodes_own_link() {
    const LINKS: u64 = 8;
    const MESSAGES: usize = 60;
    let plane = Plane::start().await;
    let (agent, other) = (enrolled(&plane, "liar").await, enrolled(&plane, "other").await);
    let own = plane.container(agent.server, vec![]).await;
    for seed in 0..LINKS {
        let mut random = StdRng::seed_from_u64(seed);
        let mut link = agent.link(&plane, vec![entry(&own, 1)]).await;
        for _ in 0..MESSAGES {
            let bytes = anything(&mut random, own.id);
            let sent = match random.random_range(0..4) {
                0 => link.control.0.write_all(&bytes).await.is_ok(),
                1 => match tokio::time::timeout(PATIENCE, link.connection.open_uni()).await {
                    Ok(Ok(mut send)) => send.write_all(&bytes).await.is_ok(),
                    _ => false,
                },
                _ => match tokio::time::timeout(PATIENCE, link.connection.open_bi()).await {
                    Ok(Ok((mut send, _recv))) => send.write_all(&bytes).await.is_ok(),
                    _ => false,
                },
            };
            if !sent {
                // Cut off for nonsense: the next link.
                break;
            }
        }
        Close::Done.close(&link.connection);
    }
    others_are_served(&plane, &other).await;
    agent.link(&plane, vec![entry(&own, 1)]).await;
}
