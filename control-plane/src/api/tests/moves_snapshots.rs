//! `/containers/{id}/move` of containers with snapshots: what is sent in which order, and what becomes of snapshots that are
//! taken, deleted or expire meanwhile. What the link of the target does is done by the tests.

use super::moves::{Two, id};
use crate::{
    service::container::moving::steps,
    store::{
        moves::{Move, State},
        snapshot,
        testing::{each_backend, sqlite},
        transfer::{self, Transfer},
    },
};
use hoody_protocol::{container::Cause, id::SnapshotId};
use serde_json::{Value, json};

impl Two {
    async fn take(&self, path: &str, name: &str) -> SnapshotId {
        let body = json!({"name": name, "alias": format!("{name} it"), "expiry": 7});
        self.world.client.post(&format!("{path}/snapshots"), body).await.expect(200);
        self.snapshot(path, name).await
    }

    async fn snapshot(&self, path: &str, name: &str) -> SnapshotId {
        let all = snapshot::list(self.world.app.store.reader(), id(path)).await.unwrap();
        all.into_iter().find(|row| row.name == name).unwrap().id
    }

    async fn listed(&self, path: &str) -> Value {
        self.world.client.get(&format!("{path}/snapshots")).await.expect(200).data()["snapshots"].clone()
    }

    async fn sent(&self, now: &Move) -> Transfer {
        transfer::get(self.world.app.store.reader(), now.transfer.unwrap()).await.unwrap().unwrap()
    }

    /// What is on its way arrives; the move afterwards, and what is on its way then.
    async fn arrives(&self, path: &str) -> (Move, Transfer) {
        steps::arrived(&self.world.app, &self.last(path).await).await.unwrap();
        let now = self.last(path).await;
        let sent = self.sent(&now).await;
        (now, sent)
    }

    async fn begin(&self, path: &str) -> Transfer {
        self.world.client.post(&format!("{path}/move"), json!({})).await.expect(200);
        self.sent(&self.last(path).await).await
    }
}

#[tokio::test]
async fn snapshots_are_sent_the_oldest_first_each_as_the_difference_from_the_one_before_it() {
    each_backend(|store| async move {
        let two = Two::new(&store).await;
        let path = two.running().await;
        let (one, other) = (two.take(&path, "one").await, two.take(&path, "other").await);
        let listed = two.listed(&path).await;
        let first = two.begin(&path).await;
        assert_eq!((first.snapshot, first.base), (Some(one), None));
        let (now, second) = two.arrives(&path).await;
        assert_eq!((now.state, second.snapshot, second.base), (State::Copying, Some(other), Some(first.id)));
        let (now, live) = two.arrives(&path).await;
        assert_eq!((now.state, live.snapshot, live.base), (State::Copying, None, Some(second.id)));
        // Taken while the file system is copied: it goes before what comes next.
        let late = two.take(&path, "late").await;
        let (now, third) = two.arrives(&path).await;
        assert_eq!((now.state, third.snapshot, third.base), (State::Syncing, Some(late), Some(live.id)));
        let (now, synced) = two.arrives(&path).await;
        assert_eq!((now.state, synced.snapshot, synced.base), (State::Syncing, None, Some(third.id)));
        // Taken just before it is held.
        let last = two.take(&path, "last").await;
        let now = two.to(&path, State::Finishing).await;
        let fourth = two.sent(&now).await;
        assert_eq!((fourth.snapshot, fourth.base), (Some(last), Some(synced.id)));
        let (now, finished) = two.arrives(&path).await;
        assert_eq!((now.state, finished.snapshot, finished.base), (State::Finishing, None, Some(fourth.id)));
        assert_eq!(two.row(&path).await.server, two.world.server);

        assert_eq!(two.to(&path, State::Done).await.state, State::Done);
        let row = two.row(&path).await;
        let moved: Vec<_> = row.spec.snapshots.iter().map(|moved| (moved.id, moved.transfer)).collect();
        let transfers = [(one, first.id), (other, second.id), (late, third.id), (last, fourth.id)];
        assert_eq!((row.server, row.spec.transfer, moved), (two.other, Some(finished.id), transfers.to_vec()));
        let after = two.listed(&path).await;
        assert_eq!(after.as_array().unwrap()[..2], listed.as_array().unwrap()[..], "they are other snapshots");
        // There they are what they were: restored, deleted, taken, and they move on.
        let world = &two.world;
        world.client.put(&format!("{path}/snapshots/one"), json!({})).await.expect(200);
        world.client.delete(&format!("{path}/snapshots/other")).await.expect(200);
        two.take(&path, "new").await;
        world
            .client
            .post(&format!("{path}/copy"), json!({"name": "copy", "source_snapshot": "late"}))
            .await
            .expect(200);
        let copies = world.client.get("/api/v1/containers?limit=50").await.expect(200).json.to_string();
        assert!(copies.contains("\"copy\""), "{copies}");
    })
    .await;
}

#[tokio::test]
async fn nothing_takes_or_deletes_a_snapshot_while_the_container_is_held() {
    each_backend(|store| async move {
        let two = Two::new(&store).await;
        let (world, app) = (&two.world, &two.world.app);
        let path = two.running().await;
        two.take(&path, "kept").await;
        two.begin(&path).await;
        let at = two.to(&path, State::Finishing).await;
        let kept = format!("{path}/snapshots/kept");
        world.client.post(&format!("{path}/snapshots"), json!({})).await.expect(409);
        world.client.delete(&kept).await.expect(409);
        world.client.put(&kept, json!({})).await.expect(409);
        // Its name is the control plane's alone.
        world.client.patch(&format!("{kept}/alias"), json!({"alias": "renamed"})).await.expect(200);
        world.sql("UPDATE snapshots SET expires_at = 1").await;
        crate::tasks::snapshots::once(app).await.unwrap();
        assert_eq!(two.listed(&path).await[0]["alias"], "renamed");
        // A move that fails leaves it, and what is due is deleted then.
        steps::fail(app, &at, Cause::new("test", "it was not to be")).await.unwrap();
        assert_eq!(two.listed(&path).await.as_array().unwrap().len(), 1);
        assert!(two.row(&path).await.spec.snapshots.is_empty());
        two.until(&path, |row| row.report.as_ref().is_some_and(|report| report.version == row.spec.version)).await;
        crate::tasks::snapshots::once(app).await.unwrap();
        two.until(&path, |row| row.snapshot_count == 0).await;
        assert_eq!(two.listed(&path).await, json!([]));
    })
    .await;
}

#[tokio::test]
async fn a_snapshot_that_is_deleted_meanwhile_is_dropped() {
    let (_folder, store) = sqlite().await;
    let two = Two::new(&store).await;
    let (world, app) = (&two.world, &two.world.app);
    let path = two.running().await;
    let mut taken = Vec::new();
    for name in ["one", "two", "three"] {
        taken.push(two.take(&path, name).await);
    }
    let delete = async |name: &str| _ = world.client.delete(&format!("{path}/snapshots/{name}")).await.expect(200);
    let first = two.begin(&path).await;
    // Nothing is skipped that is there.
    steps::skip(app, &two.last(&path).await).await.unwrap();
    assert_eq!(two.sent(&two.last(&path).await).await, first);
    let (_, second) = two.arrives(&path).await;
    // It was sent, and the next one is on its way.
    delete("one").await;
    delete("two").await;
    let found = two.last(&path).await;
    steps::skip(app, &found).await.unwrap();
    let third = two.sent(&two.last(&path).await).await;
    assert_eq!((third.snapshot, third.base), (Some(taken[2]), Some(first.id)));
    assert_eq!(transfer::open(&app.store, second.id).await.unwrap(), None);
    // What was found before is over.
    steps::skip(app, &found).await.unwrap();
    assert_eq!(two.sent(&two.last(&path).await).await, third);
    two.to(&path, State::Done).await;
    let row = two.row(&path).await;
    assert_eq!(row.spec.snapshots.iter().map(|moved| moved.id).collect::<Vec<_>>(), [taken[2]]);
    assert_eq!(two.listed(&path).await.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_container_does_not_move_before_it_is_known_which_snapshots_it_has() {
    each_backend(|store| async move {
        let two = Two::new(&store).await;
        let (world, app) = (&two.world, &two.world.app);
        let path = two.running().await;
        let kept = two.take(&path, "kept").await;
        two.begin(&path).await;
        let at = two.to(&path, State::Stopping).await;
        two.until(&path, |row| steps::is_stopped(&at, row)).await;
        // It was asked to be deleted before, and the answer is not here.
        world.sql("UPDATE snapshots SET state = 'deleting'").await;
        assert!(steps::stopped(app, &at).await.is_err());
        assert_eq!(two.last(&path).await.state, State::Stopping);
        world.sql("UPDATE snapshots SET state = 'ready'").await;
        steps::stopped(app, &at).await.unwrap();
        assert_eq!(two.last(&path).await.state, State::Finishing);
        // Nor where one turns up that was not sent.
        world.sql(&format!("UPDATE transfers SET state = 'ended' WHERE snapshot_id = '{kept}'")).await;
        let (ended, _) = two.arrives(&path).await;
        assert_eq!((ended.state, &*ended.failure.unwrap().code), (State::Failed, "changed"));
        assert_eq!(two.row(&path).await.server, world.server);
        assert_eq!(two.listed(&path).await.as_array().unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn nothing_is_copied_from_it_before_it_was_seen_on_its_new_server() {
    let (_folder, store) = sqlite().await;
    let two = Two::new(&store).await;
    let world = &two.world;
    let path = two.running().await;
    two.take(&path, "kept").await;
    two.begin(&path).await;
    two.to(&path, State::Starting).await;
    let copy = json!({"name": "copy", "source_snapshot": "kept"});
    world.client.post(&format!("{path}/copy"), copy.clone()).await.expect(409);
    two.to(&path, State::Done).await;
    world.client.post(&format!("{path}/copy"), copy).await.expect(200);
}
