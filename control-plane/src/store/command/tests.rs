use super::{
    execution::{self, Execution, NewExecution},
    output, *,
};
use crate::store::{
    link_testing::{number, server, user},
    testing::each_backend,
};
use hoody_protocol::{
    bounded::Text,
    command::{CommandOutcome, Ending, MAX_CHUNK_BYTES, MAX_OUTPUT_BYTES, Order, OutputChunk, OutputStream},
    container::Cause,
    id::{ExecutionId, ServerId},
};

async fn add(store: &Store, server: ServerId, begin_before: i64) -> ExecutionId {
    let command = by_slug(store.reader(), "disk-usage").await.unwrap().unwrap();
    let execution = NewExecution {
        id: ExecutionId::generate(),
        command: command.id,
        slug: command.slug,
        server,
        user: user(store).await.parse().unwrap(),
        parameters: serde_json::json!({}),
        order: Order::BuiltIn { slug: Text::truncated("disk-usage"), parameters: Default::default() },
        timeout_ms: 1000,
        created_at: 10,
        begin_before,
    };
    let mut tx = store.begin().await.unwrap();
    execution::insert(&mut tx, &execution).await.unwrap();
    tx.commit().await.unwrap();
    execution.id
}

fn chunk(index: u32, text: &str) -> OutputChunk {
    OutputChunk { index, stream: OutputStream::Stdout, text: Text::truncated(text) }
}

async fn append(store: &Store, id: ExecutionId, chunk: OutputChunk) -> bool {
    let mut tx = store.begin().await.unwrap();
    let done = output::append(&mut tx, id, &chunk).await.unwrap();
    tx.commit().await.unwrap();
    done
}

async fn end(store: &Store, server: ServerId, id: ExecutionId, ending: Ending, exit_code: Option<i32>) -> bool {
    let outcome =
        CommandOutcome { id, ending, exit_code, truncated: true, started_at: Some(20), ended_at: 30, cause: None };
    let mut tx = store.begin().await.unwrap();
    let done = execution::record_outcome(&mut tx, server, &outcome, 40).await.unwrap();
    tx.commit().await.unwrap();
    done
}

async fn get(store: &Store, server: ServerId, id: ExecutionId) -> Execution {
    execution::get(store, server, id).await.unwrap().unwrap()
}

#[tokio::test]
async fn the_catalogue_is_written_again_without_what_operators_set_being_lost() {
    each_backend(|store| async move {
        let mut reboot = by_slug(store.reader(), "reboot").await.unwrap().unwrap();
        assert!(reboot.built_in && reboot.requires_confirmation && reboot.enabled);
        (reboot.enabled, reboot.per_day, reboot.description) = (false, Some(1), "old".to_owned());
        let mut tx = store.begin().await.unwrap();
        assert!(update(&mut tx, &reboot).await.unwrap());
        tx.commit().await.unwrap();
        write_built_in(&store).await.unwrap();
        let again = by_slug(store.reader(), "reboot").await.unwrap().unwrap();
        assert_eq!((again.id, again.enabled, again.per_day), (reboot.id, false, Some(1)));
        assert_ne!(again.description, "old");
        assert!(!delete(&store, again.id).await.unwrap(), "built-in ones stay");
        let low = available(&store, "storage", "low").await.unwrap();
        assert_eq!(
            low.iter().map(|c| c.slug.as_str()).collect::<Vec<_>>(),
            ["disk-usage", "pool-errors", "pool-scrub-status", "storage-devices"]
        );
        assert_eq!(available(&store, "", "critical").await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn an_execution_is_sent_or_expires_and_has_one_outcome() {
    each_backend(|store| async move {
        let server = server(&store, "one").await;
        let (sent, late) = (add(&store, server, 100).await, add(&store, server, 50).await);
        assert!(execution::mark_dispatched(&store, sent, 60).await.unwrap());
        assert!(!execution::mark_dispatched(&store, sent, 60).await.unwrap());
        assert!(!execution::mark_dispatched(&store, late, 60).await.unwrap(), "its time has passed");
        assert_eq!(execution::expire(&store, 200).await.unwrap(), 1, "what was sent does not expire");
        assert_eq!(get(&store, server, late).await.state, "expired");
        let open = execution::open(&store, server).await.unwrap();
        assert_eq!(open.iter().map(|open| (open.request.id, open.dispatched)).collect::<Vec<_>>(), [(sent, true)]);

        assert!(!end(&store, ServerId::generate(), sent, Ending::Exited, Some(0)).await, "another server's");
        assert!(end(&store, server, sent, Ending::Exited, Some(0)).await);
        assert!(!end(&store, server, sent, Ending::TimedOut, None).await, "the first counts");
        let done = get(&store, server, sent).await;
        assert_eq!((done.state.as_str(), done.exit_code, done.truncated), ("completed", Some(0), true));
        assert_eq!((done.started_at, done.finished_at), (Some(20), Some(30)));
        assert!(!append(&store, sent, chunk(0, "late")).await, "output after the end");
        let events = "SELECT CAST(COUNT(*) AS BIGINT) FROM events WHERE payload LIKE '%execution_id%'";
        assert_eq!(number(&store, events).await, 2);
        let mut tx = store.begin().await.unwrap();
        let command = done.command;
        assert_eq!(
            execution::times(&mut tx, command, server, 0, 9).await.unwrap(),
            [10],
            "what never ran does not count"
        );
    })
    .await;
}

#[tokio::test]
async fn each_ending_has_its_state() {
    each_backend(|store| async move {
        let server = server(&store, "one").await;
        for (ending, exit_code, state) in [
            (Ending::Exited, Some(1), "failed"),
            (Ending::Exited, None, "failed"),
            (Ending::TimedOut, None, "timeout"),
            (Ending::Cancelled, None, "cancelled"),
            (Ending::Interrupted, None, "interrupted"),
            (Ending::Failed(Cause::new("not_started", "no")), None, "failed"),
        ] {
            let id = add(&store, server, 100).await;
            execution::mark_dispatched(&store, id, 1).await.unwrap();
            assert!(end(&store, server, id, ending, exit_code).await);
            assert_eq!(get(&store, server, id).await.state, state);
        }
    })
    .await;
}

#[tokio::test]
async fn output_is_stored_once_in_order_and_within_bounds() {
    each_backend(|store| async move {
        let server = server(&store, "one").await;
        let id = add(&store, server, 100).await;
        assert!(!append(&store, id, chunk(0, "a")).await, "it was not sent");
        execution::mark_dispatched(&store, id, 1).await.unwrap();
        assert!(append(&store, id, chunk(0, "a\0")).await);
        assert!(append(&store, id, chunk(0, "other")).await, "comes again, changes nothing");
        assert!(!append(&store, id, chunk(2, "gap")).await);
        let big = "x".repeat(MAX_CHUNK_BYTES);
        let mut index = 1;
        while !get(&store, server, id).await.truncated {
            assert!(append(&store, id, chunk(index, &big)).await);
            index += 1;
            assert!(index < 200, "there is no bound");
        }
        let pieces = output::from(&store, id, 0).await.unwrap();
        let bytes: usize = pieces.iter().map(|piece| piece.content.len()).sum();
        assert!(bytes <= MAX_OUTPUT_BYTES && bytes > MAX_OUTPUT_BYTES - MAX_CHUNK_BYTES);
        assert_eq!(pieces[0].content, "a\u{fffd}");
        assert_eq!(execution::open(&store, server).await.unwrap()[0].request.from as usize, pieces.len());
        assert_eq!(execution::delete_before(&store, 11, 10).await.unwrap(), 1);
        assert_eq!(output::from(&store, id, 0).await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn what_was_not_sent_is_cancelled_at_once_and_the_rest_is_asked_to_end() {
    each_backend(|store| async move {
        let server = server(&store, "one").await;
        let (waiting, running) = (add(&store, server, 100).await, add(&store, server, 100).await);
        execution::mark_dispatched(&store, running, 1).await.unwrap();
        for id in [waiting, running] {
            let mut tx = store.begin().await.unwrap();
            assert!(execution::cancel(&mut tx, server, id, 5).await.unwrap());
            tx.commit().await.unwrap();
        }
        assert_eq!(get(&store, server, waiting).await.state, "cancelled");
        assert!(!execution::mark_dispatched(&store, waiting, 1).await.unwrap());
        let open = execution::open(&store, server).await.unwrap();
        assert_eq!((open.len(), open[0].cancel), (1, true));
        assert!(end(&store, server, running, Ending::Cancelled, None).await);
        let mut tx = store.begin().await.unwrap();
        assert!(!execution::cancel(&mut tx, server, running, 5).await.unwrap(), "it is over");
    })
    .await;
}
