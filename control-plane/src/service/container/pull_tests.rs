//! A pull while the database does not take what is written.

use super::*;
use crate::{
    app::testing,
    store::{
        link_testing::{self, execute, server},
        testing::sqlite,
    },
};

#[tokio::test]
async fn a_note_that_is_not_taken_ends_no_pull() {
    let (_folder, store) = sqlite().await;
    let app = testing::app(&store).await;
    let server = server(&store, "one").await;
    let id = link_testing::container(&store, server, 1, Vec::new()).await.id;
    let mut tx = store.begin().await.unwrap();
    let pull = NewPull {
        container: id,
        reference: "a.example/b:c".to_owned(),
        architecture: String::new(),
        credentials: String::new(),
    };
    image_pull::insert(&mut tx, &pull).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(image_pull::claim(&store, &app.replica, &[], 1).await.unwrap().len(), 1);
    let refused = "CREATE TRIGGER refused BEFORE UPDATE ON image_pulls WHEN NEW.bytes_done = 5 \
                   BEGIN SELECT RAISE(ABORT, 'staged'); END";
    execute(&store, refused.to_owned()).await;

    let progress = Progress::at(5, 10);
    let mut watching = Box::pin(watch(&app, id, &progress));
    let refused = tokio::time::timeout(2 * NOTE_INTERVAL, &mut watching).await;
    assert!(refused.is_err(), "it ended: {refused:?}");
    progress.set(6);
    let noted = async {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        let six = app.nodes.changes.wait_for(id, deadline, || async {
            let pull = container::get(&store, id).await?.and_then(|row| row.pull);
            Ok::<_, StoreError>(pull.filter(|pull| pull.bytes_done == 6))
        });
        six.await.unwrap().expect("nothing is noted any more");
    };
    tokio::select! {
        ended = &mut watching => panic!("{ended:?}"),
        () = noted => {}
    }
    // Side by side: it may be at an event, with the one connection that writes.
    let delete = execute(&store, format!("DELETE FROM image_pulls WHERE container_id = '{id}'"));
    let (ended, ()) = tokio::join!(watching, delete);
    assert_eq!(ended, Ended::Gone);
}
