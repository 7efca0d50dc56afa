//! A terminal over WebSocket (RFC 6455). Binary messages are what is typed and what is shown, as they are; text
//! messages are JSON and say everything else. A browser, which cannot set headers, offers the subprotocols
//! `hoody.terminal` and `bearer.<token>`. The credential is looked at again while the connection lasts.

mod parameters;

use crate::{
    api::{
        credential::{Credential, Watched},
        envelope::Failure,
        path::Id,
    },
    app::App,
    error::ServiceError,
    nodes::remote::{RemoteError, RemoteInput, RemoteProcess},
    service::{
        container::is_gone,
        exec::{self as service, Connected},
    },
};
use axum::{
    extract::{
        FromRequestParts, Request, State,
        ws::{
            CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code,
            rejection::WebSocketUpgradeRejection,
        },
    },
    response::Response,
};
use futures::{Sink, SinkExt};
use hoody_protocol::{
    exec::{Exit, ProcessEnd, ProcessOutput, TerminalSize},
    id::ContainerId,
};
use serde::{Deserialize, Serialize};
use std::{collections::VecDeque, time::Duration};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};

/// What a caller must be allowed.
const OPERATION: &str = "containers.openTerminal";
/// The subprotocol that is spoken.
const PROTOCOL: &str = "hoody.terminal";
/// Bytes of the largest message taken from a client.
const MAX_MESSAGE_BYTES: usize = 64 << 10;
/// Bytes read at once; kept as long as the connection (the library's own idea is 128 KiB).
const READ_BUFFER_BYTES: usize = 4 << 10;
/// Pause between two pings; a client that answers none of two in a row is gone.
const PING: Duration = Duration::from_secs(25);
/// How long one message may take to be written: the connection of a client that reads nothing ends then.
const WRITE_DEADLINE: Duration = Duration::from_secs(60);
/// How long a client that reads nothing is waited for with what is said last.
const FAREWELL_DEADLINE: Duration = Duration::from_secs(5);

/// Open a terminal in a container, or connect to one again
///
/// A WebSocket. Without `terminal_id` a new one is opened; with it the caller's own is connected to, from behind the
/// position `after` on.
#[utoipa::path(get, path = "/api/v1/containers/{id}/terminal", operation_id = "containers.openTerminal",
    tag = "containers",
    params(("id" = String, Path),
        ("terminal_id" = Option<String>, Query, description = "the terminal to connect to again"),
        ("after" = Option<u64>, Query, description = "position behind the last byte that was seen; all that is kept unless said"),
        ("argv" = Option<Vec<String>>, Query, description = "program and arguments, one parameter each; /bin/sh unless said"),
        ("cwd" = Option<String>, Query), ("user" = Option<String>, Query),
        ("columns" = Option<u16>, Query), ("rows" = Option<u16>, Query),
        ("acknowledge" = Option<bool>, Query, description = "output counts as received when the client says so")),
    responses((status = 101), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure), (status = 409, body = Failure),
        (status = 421, body = Failure), (status = 422, body = Failure), (status = 429, body = Failure),
        (status = 501, body = Failure), (status = 502, body = Failure), (status = 503, body = Failure),
        (status = 504, body = Failure)))]
pub(super) async fn connect(State(app): State<App>, request: Request) -> Result<Response, ServiceError> {
    let (mut parts, _) = request.into_parts();
    let Id(id) = Id::<ContainerId>::from_request_parts(&mut parts, &app).await?;
    let credential = Credential::of(&parts);
    let caller = credential.caller(&app, OPERATION).await?;
    // Who may not do it is told so first.
    let owner = service::still_may(&app, &caller, id).await?;
    let (input, acknowledge) = parameters::read(parts.uri.query().unwrap_or_default())?;
    let upgrade =
        WebSocketUpgrade::from_request_parts(&mut parts, &()).await.map_err(|_: WebSocketUpgradeRejection| {
            ServiceError::invalid("Upgrade", "must be websocket: connect with a WebSocket client")
        })?;
    let connected = service::connect(&app, &caller, id, input).await?;
    let upgrade = upgrade
        .protocols([PROTOCOL])
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(MAX_MESSAGE_BYTES)
        .max_frame_size(MAX_MESSAGE_BYTES);
    let rights = Watched::new(&app, credential, OPERATION, caller.user, owner);
    let session = Session { app, rights, container: id, acknowledge, unacknowledged: VecDeque::new() };
    Ok(upgrade.on_upgrade(move |socket| session.serve(socket, connected)))
}

/// What a client says beside what is typed.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Told {
    /// Text that is typed.
    Input { data: String },
    /// The terminal has another size.
    Resize { columns: u16, rows: u16 },
    /// Everything before this position was received.
    Ack { position: u64 },
}

/// What a client is told beside what is shown.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Say<'a> {
    /// The first message.
    Ready {
        terminal_id: String,
        /// Position of the first byte that follows; larger than asked for where older bytes are lost.
        position: u64,
        /// Bytes that were typed so far.
        input: u64,
    },
    /// The program has ended.
    Exit { exit_code: Option<i32>, signal: Option<i32>, reason: Option<&'a str> },
    /// The connection ends, and the terminal goes on.
    End { reason: &'a str, position: u64 },
    /// A message was not understood and is ignored.
    Error { message: &'a str },
}

/// What is passed on to the node.
enum Typed {
    Bytes(Vec<u8>),
    Resize(TerminalSize),
}

struct Session {
    app: App,
    rights: Watched,
    container: ContainerId,
    acknowledge: bool,
    /// What was sent and not acknowledged: position behind it, and its bytes.
    unacknowledged: VecDeque<(u64, usize)>,
}

/// Why the loop ends.
enum Finish {
    /// The client has gone.
    Gone,
    Exited(ProcessEnd),
    Ends(&'static str),
}

impl Session {
    async fn serve(mut self, mut socket: WebSocket, connected: Connected) {
        let Connected { id, position, input, mut process, keyboard, place } = connected;
        let ready = Say::Ready { terminal_id: id.to_string(), position, input };
        if !say(&mut socket, &ready).await {
            return;
        }
        // What is typed waits here while the program does not read; what it shows goes on meanwhile.
        let (typing, typed) = mpsc::channel(1);
        let typist = tokio::spawn(pass_on(typed, keyboard));
        let mut shown = position;
        let finish = tokio::select! {
            finish = self.converse(&mut socket, &mut process, typing, &mut shown) => finish,
            () = place.closed() => Finish::Ends("stopping"),
        };
        typist.abort();
        let (code, reason) = match finish {
            Finish::Gone => return,
            Finish::Exited(end) => {
                let (exit_code, signal) = match end.exit {
                    Exit::Code(code) => (Some(code), None),
                    Exit::Signal(signal) => (None, Some(signal)),
                    Exit::Unknown => (None, None),
                };
                let reason = end.cause.as_ref().map(|cause| cause.code.as_str());
                farewell(&mut socket, &Say::Exit { exit_code, signal, reason }).await;
                (close_code::NORMAL, "exit")
            }
            Finish::Ends(reason) => {
                farewell(&mut socket, &Say::End { reason, position: shown }).await;
                let code = match reason {
                    "unauthorized" | "taken_over" => close_code::POLICY,
                    "stopping" => close_code::RESTART,
                    _ => close_code::AGAIN,
                };
                (code, reason)
            }
        };
        let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
        let _ = timeout(FAREWELL_DEADLINE, socket.send(Message::Close(Some(frame)))).await;
    }

    async fn converse(
        &mut self,
        socket: &mut WebSocket,
        process: &mut RemoteProcess,
        typing: mpsc::Sender<Typed>,
        shown: &mut u64,
    ) -> Finish {
        let mut next_ping = Instant::now() + PING;
        let mut answered = true;
        loop {
            // Nothing is taken from the client that could not be passed on.
            let heard = async {
                let permit = typing.reserve().await;
                (permit, socket.recv().await)
            };
            tokio::select! {
                // Whether the caller still may comes first: neither a flood nor somebody who types keeps it waiting.
                biased;
                () = self.rights.due() => {
                    if !self.still_may().await {
                        return Finish::Ends("unauthorized");
                    }
                }
                () = sleep_until(next_ping) => {
                    if !answered || !write(socket, Message::Ping(Default::default())).await {
                        return Finish::Gone;
                    }
                    answered = false;
                    next_ping = Instant::now() + PING;
                }
                (permit, message) = heard => {
                    answered = true;
                    let Ok(permit) = permit else { return Finish::Ends("link_lost") };
                    let text = match message {
                        Some(Ok(Message::Binary(bytes))) => {
                            permit.send(Typed::Bytes(bytes.to_vec()));
                            continue;
                        }
                        Some(Ok(Message::Text(text))) => text,
                        Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                        Some(Ok(Message::Close(_)) | Err(_)) | None => return Finish::Gone,
                    };
                    match serde_json::from_str(&text) {
                        Ok(Told::Input { data }) => permit.send(Typed::Bytes(data.into_bytes())),
                        Ok(Told::Resize { columns, rows }) if columns > 0 && rows > 0 && columns <= 1000 && rows <= 1000 => {
                            permit.send(Typed::Resize(TerminalSize { columns, rows }));
                        }
                        Ok(Told::Ack { position }) => {
                            if self.took(process, position).await.is_err() {
                                return Finish::Ends("link_lost");
                            }
                        }
                        Ok(Told::Resize { .. }) | Err(_) => {
                            let message = "a text message is JSON with type input, resize (1 to 1000) or ack";
                            if !say(socket, &Say::Error { message }).await {
                                return Finish::Gone;
                            }
                        }
                    }
                }
                output = process.next() => match output {
                    Ok(ProcessOutput::Output(bytes) | ProcessOutput::Error(bytes)) => {
                        let count = bytes.len();
                        let written = tokio::select! {
                            written = write(socket, Message::binary(bytes.into_inner())) => written,
                            () = self.forbidden() => return Finish::Ends("unauthorized"),
                        };
                        if !written {
                            return Finish::Ends("too_slow");
                        }
                        *shown += count as u64;
                        self.unacknowledged.push_back((*shown, count));
                        let acknowledged = if self.acknowledge { 0 } else { *shown };
                        if self.took(process, acknowledged).await.is_err() {
                            return Finish::Ends("link_lost");
                        }
                    }
                    Ok(ProcessOutput::Ended(end)) => return Finish::Exited(end),
                    Ok(ProcessOutput::Failed(cause)) if cause.code.as_str() == "taken_over" => {
                        return Finish::Ends("taken_over");
                    }
                    Ok(ProcessOutput::Failed(_)) => return Finish::Ends("failed"),
                    Ok(ProcessOutput::Started | ProcessOutput::Connected { .. } | ProcessOutput::Credit(_)) => {}
                    Err(_) => return Finish::Ends("link_lost"),
                },
            }
        }
    }

    /// The client has received everything before `position`.
    async fn took(&mut self, process: &RemoteProcess, position: u64) -> Result<(), RemoteError> {
        while let Some((_, bytes)) = self.unacknowledged.pop_front_if(|(end, _)| *end <= position) {
            process.taken(bytes).await?;
        }
        Ok(())
    }

    /// Returns where the caller may no longer do this.
    async fn forbidden(&mut self) {
        loop {
            self.rights.due().await;
            if !self.still_may().await {
                return;
            }
        }
    }

    async fn still_may(&mut self) -> bool {
        let caller = self.rights.caller(&self.app).await;
        match caller {
            Ok(caller) => {
                service::still_may(&self.app, &caller, self.container).await.is_ok()
                    || is_gone(&self.app, self.container).await
            }
            Err(_) => false,
        }
    }
}

/// Passes on what is typed, in its order; ends where the link breaks.
async fn pass_on(mut typed: mpsc::Receiver<Typed>, keyboard: RemoteInput) {
    while let Some(typed) = typed.recv().await {
        let passed = match typed {
            Typed::Bytes(bytes) => keyboard.data(&bytes).await,
            Typed::Resize(size) => keyboard.resize(size).await,
        };
        if passed.is_err() {
            return;
        }
    }
}

async fn say(socket: &mut WebSocket, message: &Say<'_>) -> bool {
    // Texts and numbers, which JSON takes.
    let Ok(text) = serde_json::to_string(message) else { return false };
    write(socket, Message::text(text)).await
}

/// Says the last thing; whoever does not read misses it.
async fn farewell(socket: &mut WebSocket, message: &Say<'_>) {
    let _ = timeout(FAREWELL_DEADLINE, say(socket, message)).await;
}

async fn write(socket: &mut WebSocket, message: Message) -> bool {
    takes(socket, message, WRITE_DEADLINE).await
}

/// False where the client has gone, or takes nothing for so long.
async fn takes(client: &mut (impl Sink<Message> + Unpin), message: Message, deadline: Duration) -> bool {
    matches!(timeout(deadline, client.send(message)).await, Ok(Ok(())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::sink;
    use std::future::pending;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_too_slow_at_the_deadline_and_not_before() {
        let second = Duration::from_secs(1);
        let mut stuck = Box::pin(sink::unfold((), |(), _: Message| pending::<Result<(), ()>>()));
        let begun = Instant::now();
        assert!(!takes(&mut stuck, Message::text("x"), WRITE_DEADLINE).await);
        assert!((WRITE_DEADLINE..WRITE_DEADLINE + second).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        let mut late = Box::pin(sink::unfold((), |(), _: Message| async {
            tokio::time::sleep(WRITE_DEADLINE - Duration::from_secs(1)).await;
            Ok::<_, ()>(())
        }));
        assert!(takes(&mut late, Message::text("x"), WRITE_DEADLINE).await);
    }
}
