//! Events over WebSocket (RFC 6455): one JSON text per event. A browser, which cannot set headers, offers the
//! subprotocols `hoody.events` and `bearer.<token>`.

use super::{
    filter::Parameters,
    listener::{Delivered, Ended, Listener, Step},
    view::EventData,
};
use crate::{api::envelope::Failure, app::App, error::ServiceError};
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
use serde::Serialize;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// The subprotocol that is spoken.
const PROTOCOL: &str = "hoody.events";
/// Bytes of the largest message taken from a client; nothing but pongs and closing is expected.
const MAX_MESSAGE_BYTES: usize = 4 << 10;
/// Bytes read at once, for pongs; kept as long as the connection (the library's own idea is 128 KiB).
const READ_BUFFER_BYTES: usize = 1 << 10;
/// Pause between two pings; a client that answers none of two in a row is gone.
const PING: Duration = Duration::from_secs(25);
/// How long one message may take to be written.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// Follow events over WebSocket
#[utoipa::path(get, path = "/api/v1/events/ws", operation_id = "events.socket", tag = "events",
    params(("event_type" = Option<String>, Query), ("resource_type" = Option<String>, Query),
        ("resource_id" = Option<String>, Query), ("project_id" = Option<String>, Query),
        ("container_id" = Option<String>, Query), ("realm_id" = Option<String>, Query),
        ("last_event_id" = Option<i64>, Query)),
    responses((status = 101), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 503, body = Failure)))]
pub(super) async fn connect(State(app): State<App>, request: Request) -> Result<Response, ServiceError> {
    let (mut parts, _) = request.into_parts();
    let parameters = Parameters::of_query(parts.uri.query());
    let listener = Listener::new(app, &parts, parameters).await?;
    let upgrade =
        WebSocketUpgrade::from_request_parts(&mut parts, &()).await.map_err(|_: WebSocketUpgradeRejection| {
            ServiceError::invalid(
                "Upgrade",
                "must be websocket: connect with a WebSocket client, or use /events/stream",
            )
        })?;
    let upgrade = upgrade
        .protocols([PROTOCOL])
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(MAX_MESSAGE_BYTES)
        .max_frame_size(MAX_MESSAGE_BYTES);
    Ok(upgrade.on_upgrade(|socket| serve(socket, listener)))
}

/// A message that is no event.
#[derive(Serialize)]
struct Notice<T> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(flatten)]
    notice: T,
}

async fn serve(mut socket: WebSocket, mut listener: Listener) {
    let mut next_ping = Instant::now() + PING;
    let mut answered = true;
    loop {
        let text = tokio::select! {
            step = listener.next() => match step {
                Step::Idle => continue,
                Step::Gap(gap) => serde_json::to_string(&Notice { kind: "gap", notice: gap }),
                Step::Event(sequence, event) => {
                    serde_json::to_string(&Delivered::new(sequence, &EventData::from(event.as_ref())))
                }
                Step::End(ended) => return close(socket, &ended).await,
            },
            received = socket.recv() => match received {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {
                    answered = true;
                    continue;
                }
            },
            () = tokio::time::sleep_until(next_ping) => {
                if !answered {
                    return;
                }
                answered = false;
                next_ping = Instant::now() + PING;
                if !write(&mut socket, Message::Ping(Default::default())).await {
                    return;
                }
                continue;
            }
        };
        // Maps of texts and numbers, which JSON takes.
        let Ok(text) = text else { return };
        if !write(&mut socket, Message::text(text)).await {
            return;
        }
    }
}

async fn write(socket: &mut WebSocket, message: Message) -> bool {
    matches!(timeout(WRITE_DEADLINE, socket.send(message)).await, Ok(Ok(())))
}

async fn close(mut socket: WebSocket, ended: &Ended) {
    let code = match ended.reason {
        "unauthorized" => close_code::POLICY,
        "stopping" => close_code::RESTART,
        _ => close_code::AGAIN,
    };
    if let Ok(text) = serde_json::to_string(&Notice { kind: "end", notice: ended }) {
        write(&mut socket, Message::text(text)).await;
    }
    let reason = Utf8Bytes::from_static(ended.reason);
    write(&mut socket, Message::Close(Some(CloseFrame { code, reason }))).await;
}
