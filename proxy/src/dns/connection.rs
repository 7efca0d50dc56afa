//! One connection to a name server (RFC 7766): queries of a container share it, several at a time, told apart by ids
//! of our own.

use super::{
    exchange::Question,
    message::{Query, id},
};
use crate::{
    route::Route,
    upstream::{Stream, Transport, connect},
};
use std::{collections::HashMap, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader, ReadHalf, WriteHalf},
    sync::{mpsc, oneshot},
    time::timeout,
};

/// How long a connection without queries is kept.
const IDLE: Duration = Duration::from_secs(20);
/// How long a server may take to take a query.
const WRITE_DEADLINE: Duration = Duration::from_secs(4);
/// Answers being waited for. What is beyond waits in the queue, and finally for its deadline.
const PENDING: usize = 256;

/// A query whose answer is waited for.
struct Pending {
    query: Arc<Query>,
    answer: oneshot::Sender<Vec<u8>>,
}

/// Connects, and carries questions until the connection ends or is idle. Questions that are left are dropped, which
/// tells whoever waits for them.
pub(super) async fn run(route: Arc<Route>, server: SocketAddr, mut questions: mpsc::Receiver<Question>) {
    let Ok(stream) = connect(&route, server).await else { return };
    if let Err(error) = carry(stream, &mut questions).await {
        tracing::debug!(container = %route.egress.container, %server, %error, "a connection to a name server ended");
    }
}

async fn carry(stream: Stream, questions: &mut mpsc::Receiver<Question>) -> io::Result<()> {
    if !stream.early.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a name server that speaks first"));
    }
    let (reader, mut writer) = tokio::io::split(stream.transport);
    let (sender, mut answers) = mpsc::channel(16);
    // A task of its own, because reading half an answer must not be given up for a question that comes.
    let reading = tokio::spawn(read(reader, sender));
    let mut pending: HashMap<u16, Pending> = HashMap::new();
    let mut next: u16 = rand::random();
    let result = loop {
        tokio::select! {
            // Who gave up made room.
            question = questions.recv(), if pending.len() < PENDING => {
                let Some(question) = question else { break Ok(()) };
                pending.retain(|_, waiting| !waiting.answer.is_closed());
                while pending.contains_key(&next) {
                    next = next.wrapping_add(1);
                }
                let written = timeout(WRITE_DEADLINE, write(&mut writer, &question.query.with_id(next))).await;
                pending.insert(next, Pending { query: question.query, answer: question.answer });
                next = next.wrapping_add(1);
                match written {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => break Err(error),
                    Err(_) => break Err(io::ErrorKind::TimedOut.into()),
                }
            }
            answer = answers.recv() => {
                let Some(answer) = answer else { break Ok(()) };
                if let Some(waiting) = id(&answer).and_then(|id| pending.remove(&id))
                    && let Some(answer) = waiting.query.accept(answer)
                {
                    let _ = waiting.answer.send(answer);
                }
            }
            () = tokio::time::sleep(IDLE) => break Ok(()),
        }
    };
    questions.close();
    reading.abort();
    result
}

async fn write(writer: &mut WriteHalf<Transport>, query: &[u8]) -> io::Result<()> {
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    writer.write_all(&[&length.to_be_bytes(), query].concat()).await?;
    writer.flush().await
}

async fn read(reader: ReadHalf<Transport>, answers: mpsc::Sender<Vec<u8>>) {
    let mut reader = BufReader::with_capacity(2 << 10, reader);
    while let Ok(length) = reader.read_u16().await {
        let mut answer = vec![0; usize::from(length)];
        if reader.read_exact(&mut answer).await.is_err() || answers.send(answer).await.is_err() {
            return;
        }
    }
}
