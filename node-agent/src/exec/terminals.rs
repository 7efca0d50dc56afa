//! Every terminal of the node, and connecting to one.

use super::{
    Execs, TooMany, cause,
    peer::{Gone, Input, Peer, piece},
    request,
    terminal::{Next, Terminal},
    too_many,
};
use crate::runtime::{AttendRequest, Outputs};
use hoody_protocol::{
    container::Cause,
    exec::{Command, Connect, ProcessOutput, TerminalInfo, TerminalRequest},
    flow::WINDOW,
    id::{ContainerId, TerminalId},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The terminals by their ids; those that are just being opened have no entry yet, and count.
#[derive(Debug, Default)]
pub(super) struct Terminals(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    open: HashMap<TerminalId, Arc<Terminal>>,
    opening: HashMap<TerminalId, ContainerId>,
}

impl Terminals {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn of(&self, container: ContainerId) -> Vec<TerminalInfo> {
        let inner = self.lock();
        let found = inner.open.values().filter(|it| it.container == container && !it.has_ended());
        let mut all: Vec<TerminalInfo> = found.map(|terminal| terminal.info()).collect();
        all.sort_by_key(|terminal| (terminal.opened_at, terminal.id));
        all
    }

    pub(super) fn end(&self, container: ContainerId, id: TerminalId) -> bool {
        let inner = self.lock();
        let found = inner.open.get(&id).filter(|it| it.container == container && !it.has_ended());
        found.map(|terminal| terminal.end()).is_some()
    }

    fn begin(&self, execs: &Execs, request: &TerminalRequest) -> Result<(), Cause> {
        let limits = &execs.0.limits;
        let mut inner = self.lock();
        if inner.open.contains_key(&request.terminal) || inner.opening.contains_key(&request.terminal) {
            return Err(Cause::new("exists", "there is a terminal with this id"));
        }
        // Those that have ended are kept only while there is room.
        if inner.open.len() >= limits.terminals_per_node {
            inner.open.retain(|_, terminal| !terminal.has_ended());
        }
        let open = inner.open.values().filter(|terminal| !terminal.has_ended()).map(|terminal| terminal.container);
        let all: Vec<ContainerId> = open.chain(inner.opening.values().copied()).collect();
        let here = all.iter().filter(|container| **container == request.container).count();
        if all.len() >= limits.terminals_per_node || here >= limits.terminals_per_container {
            return Err(too_many(TooMany));
        }
        inner.opening.insert(request.terminal, request.container);
        Ok(())
    }

    fn opened(&self, id: TerminalId, terminal: Option<Arc<Terminal>>) {
        let mut inner = self.lock();
        inner.opening.remove(&id);
        if let Some(terminal) = terminal {
            inner.open.insert(id, terminal);
        }
    }

    fn remove(&self, id: TerminalId) {
        self.lock().open.remove(&id);
    }

    fn find(&self, request: &TerminalRequest) -> Option<Arc<Terminal>> {
        let inner = self.lock();
        let found = inner.open.get(&request.terminal);
        found.filter(|it| it.container == request.container && it.user == request.user).cloned()
    }
}

/// Ends the opening of a terminal however it goes.
struct Opening<'a>(&'a Terminals, TerminalId);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.opened(self.1, None);
    }
}

/// Opens a terminal, or connects to one that is there, and serves the peer until it has gone or the terminal ended.
/// Dropping the future ends the connection and not the terminal.
pub async fn connect(execs: Execs, request: TerminalRequest, mut peer: Peer) {
    let (terminal, after) = match request.how.clone() {
        Connect::New(command) => match open(&execs, &request, command).await {
            Ok(terminal) => (terminal, Some(0)),
            Err(cause) => return refuse(&peer, cause).await,
        },
        Connect::Again { after } => match execs.0.terminals.find(&request) {
            Some(terminal) => (terminal, after),
            None => {
                let cause = Cause::new("no_terminal", "there is no such terminal: it ended, or its server restarted");
                return refuse(&peer, cause).await;
            }
        },
    };
    let Some((number, position, input)) = terminal.connect(after) else {
        let cause = Cause::new("invalid_position", "the terminal has not shown as much yet");
        return refuse(&peer, cause).await;
    };
    let connection = Connection { terminal, number };
    connection.terminal.resize(request.size);
    if peer.send(ProcessOutput::Connected { position, input }).await.is_ok() {
        // Whether the peer has gone or the terminal has ended, there is nothing left to do.
        let _ = connection.serve(&mut peer, position).await;
    }
}

async fn refuse(peer: &Peer, cause: Cause) {
    // A peer that has gone needs no answer.
    let _ = peer.send(ProcessOutput::Failed(cause)).await;
}

async fn open(execs: &Execs, request: &TerminalRequest, command: Command) -> Result<Arc<Terminal>, Cause> {
    let terminals = &execs.0.terminals;
    terminals.begin(execs, request)?;
    let opening = Opening(terminals, request.terminal);
    let slot = execs.0.slots.take(request.container).map_err(too_many)?;
    let program = command.argv.first().map(|text| text.as_str().to_owned()).unwrap_or_default();
    let wanted =
        AttendRequest { command: self::request(command), terminal: Some((request.size.columns, request.size.rows)) };
    let turn = slot.turn().await;
    let started = execs.0.attend.attend(request.container, &wanted).await;
    drop(turn);
    let (process, outputs) = started.map_err(|error| cause(request.container, &error))?;
    let Outputs::Terminal(console) = outputs else {
        return Err(Cause::new("exec_failed", "the process has no terminal"));
    };
    let ids = (request.terminal, request.container, request.user);
    let terminal = Arc::new(Terminal::new(ids, &program, console, request.size));
    terminals.opened(request.terminal, Some(terminal.clone()));
    drop(opening);
    let (execs, kept) = (execs.clone(), terminal.clone());
    tokio::spawn(async move {
        kept.run(process, &execs.0.limits, slot).await;
        tokio::time::sleep(execs.0.limits.ended_kept).await;
        execs.0.terminals.remove(kept.id);
    });
    Ok(terminal)
}

/// Somebody at a terminal.
struct Connection {
    terminal: Arc<Terminal>,
    number: u64,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.terminal.disconnect(self.number);
    }
}

impl Connection {
    async fn serve(&self, peer: &mut Peer, from: u64) -> Result<(), Gone> {
        let mut position = from;
        let (output, allowance) = (peer.output.clone(), peer.allowance.clone());
        let show = async {
            loop {
                let shown = self.terminal.shown.notified();
                let mut shown = std::pin::pin!(shown);
                // From here on no notification is missed.
                shown.as_mut().enable();
                match self.terminal.next(self.number, position) {
                    Next::Output(bytes) => {
                        allowance.take(bytes.len()).await;
                        position += bytes.len() as u64;
                        // All that may still be on its way to the client is less than the window.
                        self.terminal.took(self.number, position.saturating_sub(u64::from(WINDOW)));
                        output.send(ProcessOutput::Output(piece(&bytes))).await.map_err(|_| Gone)?;
                    }
                    Next::Ended(end) => return output.send(ProcessOutput::Ended(end)).await.map_err(|_| Gone),
                    Next::TakenOver => {
                        let cause = Cause::new("taken_over", "somebody connected to this terminal elsewhere");
                        return output.send(ProcessOutput::Failed(cause)).await.map_err(|_| Gone);
                    }
                    Next::Nothing => shown.await,
                }
            }
        };
        tokio::select! {
            ended = show => ended,
            gone = self.listen(peer) => Err(gone),
        }
    }

    /// Types what comes, until the peer has gone.
    async fn listen(&self, peer: &mut Peer) -> Gone {
        while let Some(input) = peer.input.recv().await {
            match input {
                Input::Data(bytes) => {
                    let typing = self.terminal.typing.lock().await;
                    // Where nobody holds the other side any more, the end is on its way.
                    let _ = self.terminal.console.write_all(&bytes).await;
                    self.terminal.typed(bytes.len());
                    drop(typing);
                    if let Err(gone) = peer.took(bytes.len()).await {
                        return gone;
                    }
                }
                Input::Resize(size) => self.terminal.resize(size),
                // A terminal has no end of input but a character for it.
                Input::End => {}
            }
        }
        Gone
    }
}
