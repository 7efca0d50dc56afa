//! The way from a commit to a listener, on both databases.

use super::*;
use crate::{
    event::{Actor, EventKind, NewEvent},
    live::{End, Next, Subscription},
    store::{event::Filter, testing::each_backend, user},
};
use hoody_protocol::id::{ContainerId, UserId};
use tokio::task::JoinHandle;

const DEADLINE: Duration = Duration::from_secs(20);

async fn account(store: &Store, name: &str) -> UserId {
    let mut tx = store.begin().await.unwrap();
    let new = user::NewUser { username: name, email: None, password_hash: "x", is_admin: false };
    let id = user::insert(&mut tx, &new).await.unwrap();
    tx.commit().await.unwrap();
    id
}

async fn write(store: &Store, owner: UserId, container: ContainerId, number: i64) {
    let event = NewEvent::new(EventKind::ContainerRunning, container, Some(owner), Actor::System);
    let mut tx = store.begin().await.unwrap();
    crate::store::event::insert(&mut tx, &event.with("number", number)).await.unwrap();
    tx.commit().await.unwrap();
}

fn of(owner: UserId) -> Filter {
    Filter { owner: Some(owner), kind: Some(EventKind::ContainerRunning), ..Filter::default() }
}

/// A feed that is running.
async fn feed(store: &Store) -> (Live, JoinHandle<()>) {
    let live = Live::default();
    let task = tokio::spawn(run(store.clone(), live.clone()));
    let started = async {
        while live.subscribe(Filter::default(), None).is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, started).await.expect("the feed starts");
    (live, task)
}

async fn next(subscription: &mut Subscription, store: &Store) -> Next {
    tokio::time::timeout(DEADLINE, subscription.next(store)).await.expect("something comes").unwrap()
}

async fn numbers(subscription: &mut Subscription, store: &Store, count: usize) -> Vec<i64> {
    let mut found = Vec::new();
    for _ in 0..count {
        match next(subscription, store).await {
            Next::Event(_, event) => found.push(event.payload["number"].as_i64().unwrap()),
            end => panic!("{end:?} after {found:?}"),
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_at_the_same_time_lose_nothing_and_reorder_nothing() {
    const WRITERS: usize = 4;
    const EACH: i64 = 50;
    each_backend(|store| async move {
        let ann = account(&store, "ann").await;
        let (live, task) = feed(&store).await;
        let mut subscription = live.subscribe(of(ann), None).unwrap();
        let writers = (0..WRITERS).map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let container = ContainerId::generate();
                for number in 0..EACH {
                    write(&store, ann, container, number).await;
                }
            })
        });
        let writers: Vec<_> = writers.collect();
        let mut expected = std::collections::HashMap::new();
        let mut last = 0;
        for _ in 0..WRITERS as i64 * EACH {
            let Next::Event(sequence, event) = next(&mut subscription, &store).await else { panic!("ended") };
            assert!(sequence > last);
            last = sequence;
            let number = event.payload["number"].as_i64().unwrap();
            assert_eq!(*expected.entry(event.resource.clone()).or_insert(0), number, "of one subject, in order");
            *expected.get_mut(&event.resource).unwrap() += 1;
        }
        for writer in writers {
            writer.await.unwrap();
        }
        task.abort();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_resumes_gets_what_was_missed_once_and_then_what_is_new() {
    each_backend(|store| async move {
        let (ann, bob) = (account(&store, "ann").await, account(&store, "bob").await);
        let one = ContainerId::generate();
        let (live, task) = feed(&store).await;
        let mut first = live.subscribe(of(ann), None).unwrap();
        for number in 0..3 {
            write(&store, ann, one, number).await;
            write(&store, bob, one, 100 + number).await;
        }
        assert_eq!(numbers(&mut first, &store, 2).await, [0, 1]);
        let position = first.position();
        drop(first);
        // More than one page is missed.
        for number in 3..250 {
            write(&store, ann, one, number).await;
        }
        let mut again = live.subscribe(of(ann), Some(position)).unwrap();
        write(&store, ann, one, 250).await;
        assert_eq!(numbers(&mut again, &store, 249).await, (2..=250).collect::<Vec<_>>());
        task.abort();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_does_not_keep_up_is_told_where_to_resume() {
    each_backend(|store| async move {
        let (ann, bob) = (account(&store, "ann").await, account(&store, "bob").await);
        let (live, task) = feed(&store).await;
        let mut slow = live.subscribe(of(ann), None).unwrap();
        let mut other = live.subscribe(of(bob), None).unwrap();
        for number in 0..300 {
            write(&store, ann, ContainerId::generate(), number).await;
        }
        write(&store, bob, ContainerId::generate(), 1).await;
        // Behind the others in the order: by now the slow one's queue has overflowed.
        assert_eq!(numbers(&mut other, &store, 1).await, [1]);
        let mut got = 0;
        let end = loop {
            match next(&mut slow, &store).await {
                Next::Event(..) => got += 1,
                Next::End(end) => break end,
            }
        };
        assert_eq!((got, end), (256, End::Lagged));
        let mut again = live.subscribe(of(ann), Some(slow.position())).unwrap();
        assert_eq!(numbers(&mut again, &store, 44).await, (256..300).collect::<Vec<_>>());
        live.close();
        assert_eq!(next(&mut other, &store).await, Next::End(End::Stopping));
        assert!(live.subscribe(of(ann), None).is_err());
        task.abort();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_user_cannot_take_every_place() {
    let (_folder, store) = crate::store::testing::sqlite().await;
    let (live, task) = feed(&store).await;
    let (ann, bob) = (UserId::generate(), UserId::generate());
    let mut taken: Vec<_> = (0..1_000).map(|_| live.subscribe(of(ann), None).unwrap()).collect();
    assert!(live.subscribe(of(ann), None).is_err());
    live.subscribe(of(bob), None).unwrap();
    taken.pop();
    live.subscribe(of(ann), None).unwrap();
    task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_left_unpublished_is_delivered_by_another() {
    each_backend(|store| async move {
        let ann = account(&store, "ann").await;
        write(&store, ann, ContainerId::generate(), 7).await;
        // Nobody published it: its process was killed after the commit.
        assert!(crate::store::event::after(&store, 0, 10).await.unwrap().is_empty());
        let (live, task) = feed(&store).await;
        let mut subscription = live.subscribe(of(ann), Some(0)).unwrap();
        assert_eq!(numbers(&mut subscription, &store, 1).await, [7]);
        task.abort();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_deliver_each_others_events() {
    each_backend(|store| async move {
        let ann = account(&store, "ann").await;
        // Two feeds on one database, as two replicas have; a commit wakes only one of them.
        let (one, first) = feed(&store).await;
        let (two, second) = feed(&store).await;
        let mut subscriptions = [one.subscribe(of(ann), None).unwrap(), two.subscribe(of(ann), None).unwrap()];
        for number in 0..20 {
            write(&store, ann, ContainerId::generate(), number).await;
        }
        for subscription in &mut subscriptions {
            assert_eq!(numbers(subscription, &store, 20).await, (0..20).collect::<Vec<_>>());
        }
        first.abort();
        second.abort();
    })
    .await;
}
