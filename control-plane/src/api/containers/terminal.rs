//! A terminal over WebSocket (RFC 6455). Binary messages are what is typed and what is shown, as they are; text
//! messages are JSON and say everything else. A browser, which cannot set headers, offers the subprotocols
//! `hoody.terminal` and `bearer.<token>`. The credential is looked at again while the connection lasts.

use crate::{
    api::{credential::Credential, envelope::Failure, path::Id},
    app::App,
    error::ServiceError,
    nodes::remote::{RemoteError, RemoteInput, RemoteProcess},
    service::exec::{self as service, CommandInput, Connected, TerminalInput},
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
use hoody_protocol::{
    exec::{Exit, ProcessEnd, ProcessOutput, TerminalSize},
    id::{ContainerId, TerminalId},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Display,
    str::FromStr,
    time::Duration,
};
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
/// Pause between two pings; a client that answers none of two in a row is gone.
const PING: Duration = Duration::from_secs(25);
/// How long one message may take to be written.
const WRITE_DEADLINE: Duration = Duration::from_secs(60);
/// Pause between two looks at the credential.
const RECHECK: Duration = Duration::from_secs(30);
/// What is opened where the request does not say.
const SHELL: &str = "/bin/sh";
const SIZE: TerminalSize = TerminalSize { columns: 80, rows: 24 };
const MAX_ARGUMENTS: usize = 512;

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
    service::still_may(&app, &caller, id).await?;
    let (input, acknowledge) = parameters(parts.uri.query().unwrap_or_default())?;
    let upgrade =
        WebSocketUpgrade::from_request_parts(&mut parts, &()).await.map_err(|_: WebSocketUpgradeRejection| {
            ServiceError::invalid("Upgrade", "must be websocket: connect with a WebSocket client")
        })?;
    let connected = service::connect(&app, &caller, id, input).await?;
    let upgrade = upgrade.protocols([PROTOCOL]).max_message_size(MAX_MESSAGE_BYTES).max_frame_size(MAX_MESSAGE_BYTES);
    let session = Session { app, credential, container: id, acknowledge, unacknowledged: VecDeque::new() };
    Ok(upgrade.on_upgrade(move |socket| session.serve(socket, connected)))
}

fn parameters(query: &str) -> Result<(TerminalInput, bool), ServiceError> {
    let mut argv = Vec::new();
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()).into_owned() {
        match name.as_str() {
            // One more than is allowed, so that the service refuses it.
            "argv" | "argv[]" => argv.extend((argv.len() <= MAX_ARGUMENTS).then_some(value)),
            _ => drop(values.insert(name, value)),
        }
    }
    let mut problems = BTreeMap::new();
    let terminal: Option<TerminalId> = parsed(&values, "terminal_id", &mut problems);
    let after: Option<u64> = parsed(&values, "after", &mut problems);
    let columns = parsed(&values, "columns", &mut problems).unwrap_or(SIZE.columns);
    let rows = parsed(&values, "rows", &mut problems).unwrap_or(SIZE.rows);
    let acknowledge: Option<bool> = parsed(&values, "acknowledge", &mut problems);
    if after.is_some() && terminal.is_none() && !problems.contains_key("terminal_id") {
        problems.insert("after".to_owned(), "needs terminal_id".to_owned());
    }
    if !problems.is_empty() {
        return Err(ServiceError::Invalid(problems));
    }
    if argv.is_empty() {
        argv.push(SHELL.to_owned());
    }
    let mut take = |name: &str| values.remove(name).unwrap_or_default();
    let command = CommandInput { argv, env: BTreeMap::new(), cwd: take("cwd"), user: take("user") };
    let existing = terminal.map(|terminal| (terminal, after));
    let input = TerminalInput { command, existing, size: TerminalSize { columns, rows } };
    Ok((input, acknowledge.unwrap_or(false)))
}

fn parsed<T: FromStr<Err: Display>>(
    values: &BTreeMap<String, String>,
    name: &str,
    problems: &mut BTreeMap<String, String>,
) -> Option<T> {
    match values.get(name)?.parse() {
        Ok(value) => Some(value),
        Err(error) => {
            problems.insert(name.to_owned(), error.to_string());
            None
        }
    }
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
    credential: Credential,
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
                say(&mut socket, &Say::Exit { exit_code, signal, reason }).await;
                (close_code::NORMAL, "exit")
            }
            Finish::Ends(reason) => {
                say(&mut socket, &Say::End { reason, position: shown }).await;
                let code = match reason {
                    "unauthorized" | "taken_over" => close_code::POLICY,
                    "stopping" => close_code::RESTART,
                    _ => close_code::AGAIN,
                };
                (code, reason)
            }
        };
        let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
        write(&mut socket, Message::Close(Some(frame))).await;
    }

    async fn converse(
        &mut self,
        socket: &mut WebSocket,
        process: &mut RemoteProcess,
        typing: mpsc::Sender<Typed>,
        shown: &mut u64,
    ) -> Finish {
        let (mut next_ping, mut next_check) = (Instant::now() + PING, Instant::now() + RECHECK);
        let mut answered = true;
        loop {
            // Nothing is taken from the client that could not be passed on.
            let heard = async {
                let permit = typing.reserve().await;
                (permit, socket.recv().await)
            };
            tokio::select! {
                output = process.next() => match output {
                    Ok(ProcessOutput::Output(bytes) | ProcessOutput::Error(bytes)) => {
                        let count = bytes.len();
                        if !write(socket, Message::binary(bytes.into_inner())).await {
                            return Finish::Gone;
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
                () = sleep_until(next_ping) => {
                    if !answered || !write(socket, Message::Ping(Default::default())).await {
                        return Finish::Gone;
                    }
                    answered = false;
                    next_ping = Instant::now() + PING;
                }
                () = sleep_until(next_check) => {
                    if !self.still_may().await {
                        return Finish::Ends("unauthorized");
                    }
                    next_check = Instant::now() + RECHECK;
                }
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

    async fn still_may(&self) -> bool {
        let caller = self.credential.caller(&self.app, OPERATION).await;
        match caller {
            Ok(caller) => service::still_may(&self.app, &caller, self.container).await.is_ok(),
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

async fn write(socket: &mut WebSocket, message: Message) -> bool {
    matches!(timeout(WRITE_DEADLINE, socket.send(message)).await, Ok(Ok(())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_what_is_opened() {
        let (input, acknowledge) = parameters("").unwrap();
        assert_eq!((input.command.argv, input.size, acknowledge), (vec![SHELL.to_owned()], SIZE, false));
        let (input, acknowledge) =
            parameters("argv=ls&argv=-l+x&columns=100&rows=50&user=web&cwd=/tmp&acknowledge=true").unwrap();
        assert_eq!(input.command.argv, ["ls", "-l x"]);
        assert_eq!((input.size.columns, input.size.rows, acknowledge), (100, 50, true));
        let id = TerminalId::generate();
        let (input, _) = parameters(&format!("terminal_id={id}&after=7")).unwrap();
        assert_eq!(input.existing, Some((id, Some(7))));
    }

    #[test]
    fn everything_that_is_wrong_is_named() {
        let Err(ServiceError::Invalid(problems)) = parameters("terminal_id=x&after=-1&columns=many&acknowledge=1")
        else {
            panic!("refused")
        };
        assert_eq!(problems.into_keys().collect::<Vec<_>>(), ["acknowledge", "after", "columns", "terminal_id"]);
        assert!(parameters("after=1").is_err(), "of which terminal?");
    }
}
