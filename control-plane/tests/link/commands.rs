//! What a node that lies says of commands.

use crate::{
    agent::{Agent, Link, enrolled, soon},
    plane::{Plane, eventually},
};
use hoody_control_plane::store::command::{
    self,
    execution::{self, NewExecution},
};
use hoody_protocol::{
    bounded::Text,
    command::{CommandOutcome, CommandRequest, CommandUpdate, Ending, MAX_CHUNKS, Order, OutputChunk, OutputStream},
    id::{ExecutionId, ServerId},
    stream,
    time::now_ms,
};
use quinn::{RecvStream, SendStream};

/// A command that is to run on the server.
async fn ordered(plane: &Plane, server: ServerId) -> ExecutionId {
    let store = &plane.app.store;
    let command = command::by_slug(store.reader(), "disk-usage").await.unwrap().unwrap();
    let now = now_ms() as i64;
    let execution = NewExecution {
        id: ExecutionId::generate(),
        command: command.id,
        slug: command.slug,
        server,
        user: plane.user,
        parameters: serde_json::json!({}),
        order: Order::BuiltIn { slug: Text::truncated("disk-usage"), parameters: Default::default() },
        timeout_ms: 60_000,
        created_at: now,
        begin_before: now + 60_000,
    };
    let mut tx = store.begin().await.unwrap();
    execution::insert(&mut tx, &execution).await.unwrap();
    tx.commit().await.unwrap();
    plane.app.nodes.wake(server);
    execution.id
}

/// The next command that the node is sent.
async fn asked(link: &Link) -> (ExecutionId, SendStream, RecvStream) {
    let received = async {
        let (send, mut recv) = link.connection.accept_bi().await.unwrap();
        (stream::read::<CommandRequest>(&mut recv).await.unwrap().id, send, recv)
    };
    soon("a command", received).await
}

async fn say(send: &mut SendStream, update: CommandUpdate) {
    stream::write(send, &update).await.unwrap();
}

fn ended(id: ExecutionId) -> CommandUpdate {
    CommandUpdate::Ended(CommandOutcome {
        id,
        ending: Ending::Exited,
        exit_code: Some(0),
        truncated: false,
        started_at: Some(now_ms()),
        ended_at: now_ms(),
        cause: None,
    })
}

async fn state(plane: &Plane, id: ExecutionId) -> String {
    plane.text(format!("SELECT state FROM command_executions WHERE id = '{id}'")).await
}

async fn two(plane: &Plane) -> (Agent, Agent) {
    (enrolled(plane, "liar").await, enrolled(plane, "victim").await)
}

#[tokio::test]
async fn a_node_ends_the_command_it_was_sent_and_no_other() {
    let plane = Plane::start().await;
    let (liar, victim) = two(&plane).await;
    let theirs = ordered(&plane, victim.server).await;
    let own = ordered(&plane, liar.server).await;
    let link = liar.link(&plane, vec![]).await;
    let (sent, mut send, _recv) = asked(&link).await;
    assert_eq!(sent, own, "the commands of others are not sent here");
    let other = ordered(&plane, liar.server).await;
    let (sent, _other_send, _other_recv) = asked(&link).await;
    assert_eq!(sent, other);
    // Each lie ends the conversation, and the command is asked for again.
    for lie in [theirs, other] {
        say(&mut send, CommandUpdate::Accepted).await;
        say(&mut send, ended(lie)).await;
        let (again, next, _recv) = asked(&link).await;
        assert_eq!(again, own);
        send = next;
    }
    assert_eq!((state(&plane, theirs).await, state(&plane, other).await), ("pending".into(), "dispatched".into()));
    say(&mut send, ended(own)).await;
    eventually("the outcome", async || (state(&plane, own).await == "completed").then_some(())).await;
}

#[tokio::test]
async fn output_goes_to_the_command_that_wrote_it_and_in_its_order() {
    let plane = Plane::start().await;
    let (agent, _) = two(&plane).await;
    let own = ordered(&plane, agent.server).await;
    let link = agent.link(&plane, vec![]).await;
    let (_, mut send, _recv) = asked(&link).await;
    let piece = |index, text: &str| {
        CommandUpdate::Output(OutputChunk { index, stream: OutputStream::Stdout, text: Text::truncated(text) })
    };
    say(&mut send, CommandUpdate::Accepted).await;
    say(&mut send, piece(0, "first ")).await;
    say(&mut send, piece(7, "from nowhere")).await;
    // One that is not the next breaks the conversation off; what was stored is not asked for again.
    let (again, mut send, _recv) = asked(&link).await;
    assert_eq!(again, own);
    say(&mut send, CommandUpdate::Accepted).await;
    say(&mut send, piece(0, "replayed")).await;
    say(&mut send, piece(1, "second")).await;
    say(&mut send, ended(own)).await;
    eventually("the outcome", async || (state(&plane, own).await == "completed").then_some(())).await;
    let stored = hoody_control_plane::service::command::output(&plane.app, own).await.unwrap();
    assert_eq!(stored, "first second");
}

#[tokio::test]
async fn a_command_has_only_so_many_pieces_of_output_however_often_they_are_the_same() {
    let plane = Plane::start().await;
    let (agent, _) = two(&plane).await;
    let own = ordered(&plane, agent.server).await;
    let link = agent.link(&plane, vec![]).await;
    let (_, mut send, _recv) = asked(&link).await;
    say(&mut send, CommandUpdate::Accepted).await;
    // One that is stored already costs a look each time.
    let piece = OutputChunk { index: 0, stream: OutputStream::Stdout, text: Text::truncated("again") };
    for _ in 0..=MAX_CHUNKS {
        say(&mut send, CommandUpdate::Output(piece.clone())).await;
    }
    let (again, _send, _recv) = asked(&link).await;
    assert_eq!(again, own, "it is broken off, and asked for again");
}
