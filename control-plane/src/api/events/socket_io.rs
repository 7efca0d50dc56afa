//! Events over Socket.IO 4 at `/socket.io`: `auth` of the handshake carries `token`, the filters of the list
//! and `last_event_id`; each event is an `event`, the last message an `end`, a
//! place to resume at that the record does not reach a `gap`, a refusal a `connect_error`.

use super::{
    filter::Parameters,
    listener::{Delivered, Listener, Step},
    view::EventData,
};
use crate::app::App;
use axum::Router;
use http::{HeaderValue, header};
use serde::Serialize;
use serde_json::{Map, Value};
use socketioxide::{
    SendError, SocketError, SocketIo,
    extract::{SocketRef, TryData},
    handler::ConnectHandler,
};
use std::time::Duration;

/// Where clients connect; they look for it here unless told otherwise.
pub(in crate::api) const PATH: &str = "/socket.io";
/// Packets that wait for one client.
const BUFFERED_PACKETS: usize = 64;
/// Bytes of the largest packet taken from a client.
const MAX_PACKET_BYTES: u64 = 8 << 10;
/// Pause before a packet is tried again that did not fit into the buffer.
const FULL_PAUSE: Duration = Duration::from_millis(20);
/// How often that is done; then the client counts as too slow.
const FULL_TRIES: u32 = 500;

/// The route, which is no operation of the document: Socket.IO is a protocol of its own.
pub(in crate::api) fn router(app: &App) -> Router<App> {
    let (service, io) = SocketIo::builder()
        .req_path(PATH)
        .max_buffer_size(BUFFERED_PACKETS)
        .max_payload(MAX_PACKET_BYTES)
        .ws_max_message_size(MAX_PACKET_BYTES as usize)
        .ws_max_frame_size(MAX_PACKET_BYTES as usize)
        .build_svc();
    let app = app.clone();
    let checking = app.clone();
    let admit = move |socket: SocketRef, TryData(auth): TryData<Map<String, Value>>| {
        let app = checking.clone();
        // What it fails with is the client's `connect_error`.
        async move { listener(app, &socket, auth.unwrap_or_default()).await.map(drop) }
    };
    let connected = move |socket: SocketRef, TryData(auth): TryData<Map<String, Value>>| {
        let app = app.clone();
        async move { serve(app, socket, auth.unwrap_or_default()).await }
    };
    io.ns("/", connected.with(admit));
    Router::new().route_service(PATH, service)
}

async fn serve(app: App, socket: SocketRef, auth: Map<String, Value>) {
    let mut listener = match listener(app, &socket, auth).await {
        Ok(listener) => listener,
        Err(_) => {
            // It was let in a moment ago; connecting again tells it why it no longer is.
            let _ = socket.disconnect();
            return;
        }
    };
    while socket.connected() {
        match listener.next().await {
            Step::Idle => {}
            Step::Gap(gap) => {
                if !emit(&socket, "gap", &gap).await {
                    break;
                }
            }
            Step::Event(sequence, event) => {
                let data = EventData::from(event.as_ref());
                if !emit(&socket, "event", &Delivered::new(sequence, &data)).await {
                    break;
                }
            }
            Step::End(ended) => {
                let _ = socket.emit("end", &ended);
                break;
            }
        }
    }
    let _ = socket.disconnect();
}

async fn listener(
    app: App,
    socket: &SocketRef,
    auth: Map<String, Value>,
) -> Result<Listener, crate::error::ServiceError> {
    let mut parts = socket.req_parts().clone();
    let mut values = std::collections::BTreeMap::new();
    for (name, value) in auth {
        let text = match value {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            _ => continue,
        };
        if name != "token" {
            values.insert(name, text);
        } else if let Ok(value) = HeaderValue::try_from(format!("Bearer {text}")) {
            parts.headers.insert(header::AUTHORIZATION, value);
        }
    }
    Listener::new(app, &parts, Parameters::from(values)).await
}

/// False where the client is gone or too slow.
async fn emit<T: Serialize>(socket: &SocketRef, name: &str, message: &T) -> bool {
    for _ in 0..FULL_TRIES {
        match socket.emit(name, message) {
            Ok(()) => return true,
            Err(SendError::Socket(SocketError::InternalChannelFull)) => tokio::time::sleep(FULL_PAUSE).await,
            Err(_) => return false,
        }
    }
    false
}
