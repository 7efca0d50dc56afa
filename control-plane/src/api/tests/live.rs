//! Live delivery over real connections: WebSocket, and Socket.IO by its frames.

use super::events::fed;
use crate::{
    api::testing::Client,
    app::App,
    service::session,
    store::{event, testing::sqlite},
};
use futures::{SinkExt, StreamExt};
use hoody_protocol::id::UserId;
use serde_json::{Value, json};
use std::{net::SocketAddr, time::Duration};
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest},
};

const DEADLINE: Duration = Duration::from_secs(20);
/// Where a WebSocket gets what happens to projects.
const PROJECTS: &str = "/api/v1/events/ws?resource_type=project";
const SOCKET_IO: &str = "/socket.io/?EIO=4&transport=websocket";

async fn serve(app: &App) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = crate::api::router(app.clone()).into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

async fn connect(address: SocketAddr, path: &str, protocols: Option<&str>) -> WebSocketStream<TcpStream> {
    let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
    if let Some(protocols) = protocols {
        request.headers_mut().insert("sec-websocket-protocol", protocols.parse().unwrap());
    }
    let stream = TcpStream::connect(address).await.unwrap();
    client_async(request, stream).await.expect("the upgrade").0
}

/// An API with an account, served, and what feeds its listeners.
struct World {
    app: App,
    client: Client,
    user: UserId,
    address: SocketAddr,
    /// Of a WebSocket with the account's token.
    protocols: String,
    feeding: JoinHandle<()>,
    _folder: TempDir,
}

impl World {
    async fn new() -> Self {
        let (_folder, store) = sqlite().await;
        let (app, feeding) = fed(&store).await;
        let (client, user) = Client::new_user(&app, "ann", false).await;
        let address = serve(&app).await;
        let protocols = format!("hoody.events, bearer.{}", client.token.clone().unwrap());
        Self { app, client, user, address, protocols, feeding, _folder }
    }

    /// Makes two events whose record is then emptied; gives the place of the first.
    async fn forgotten(&self) -> i64 {
        let mut socket = connect(self.address, PROJECTS, Some(&self.protocols)).await;
        for alias in ["one", "two"] {
            self.client.post("/api/v1/projects", json!({"alias": alias})).await.expect(201);
        }
        let first: Value = serde_json::from_str(&text(&mut socket).await.unwrap()).unwrap();
        // The second is published too: what is removed before that leaves no gap.
        text(&mut socket).await.unwrap();
        assert!(event::delete_before(&self.app.store, i64::MAX, 1_000).await.unwrap() > 0);
        first["sequence"].as_i64().unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.feeding.abort();
    }
}

/// A Socket.IO connection that listens to projects from here on.
async fn listening(client: &Client, address: SocketAddr, place: i64) -> WebSocketStream<TcpStream> {
    let mut socket = connect(address, SOCKET_IO, None).await;
    packet(&mut socket).await;
    let auth = json!({"token": client.token, "resource_type": "project", "last_event_id": place});
    socket.send(Message::text(format!("40{auth}"))).await.unwrap();
    assert!(packet(&mut socket).await.starts_with("40{"), "connected");
    socket
}

async fn text(socket: &mut WebSocketStream<TcpStream>) -> Option<String> {
    loop {
        match tokio::time::timeout(DEADLINE, socket.next()).await.expect("something comes")? {
            Ok(Message::Text(text)) => return Some(text.to_string()),
            Ok(Message::Close(_)) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_delivers_resumes_and_ends_with_its_session() {
    let World { app, client, user, address, protocols, .. } = &World::new().await;
    let mut socket = connect(*address, PROJECTS, Some(protocols)).await;
    for alias in ["one", "two"] {
        client.post("/api/v1/projects", json!({"alias": alias})).await.expect(201);
    }
    let first: Value = serde_json::from_str(&text(&mut socket).await.unwrap()).unwrap();
    assert_eq!(first["event"]["payload"]["alias"], "one");
    drop(socket);
    let resumed = format!("{PROJECTS}&last_event_id={}", first["sequence"]);
    let mut socket = connect(*address, &resumed, Some(protocols)).await;
    let second: Value = serde_json::from_str(&text(&mut socket).await.unwrap()).unwrap();
    assert_eq!(second["event"]["payload"]["alias"], "two");
    let mut all = connect(*address, "/api/v1/events/ws", Some(protocols)).await;
    session::logout(app, *user, &crate::api::testing::origin()).await.unwrap();
    let end: Value = serde_json::from_str(&text(&mut all).await.unwrap()).unwrap();
    assert_eq!((&end["type"], &end["reason"]), (&json!("end"), &json!("unauthorized")));
    assert!(text(&mut all).await.is_none(), "it is closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn socket_io_delivers_and_refuses_who_has_no_token() {
    let World { client, address, .. } = &World::new().await;

    let mut refused = connect(*address, SOCKET_IO, None).await;
    assert!(packet(&mut refused).await.starts_with("0{"), "the handshake of Engine.IO");
    refused.send(Message::text(r#"40{"token":"nonsense"}"#)).await.unwrap();
    let error = packet(&mut refused).await;
    assert!(error.starts_with("44{") && error.contains("log in again"), "{error}");

    let mut socket = listening(client, *address, 0).await;
    client.post("/api/v1/projects", json!({"alias": "one"})).await.expect(201);
    let packet = packet(&mut socket).await;
    let packet: Value = serde_json::from_str(packet.strip_prefix("42").expect(&packet)).unwrap();
    assert_eq!((&packet[0], &packet[1]["event"]["payload"]["alias"]), (&json!("event"), &json!("one")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_tells_first_what_is_missing() {
    let world = World::new().await;
    let World { client, address, protocols, .. } = &world;
    let first = world.forgotten().await;
    let resume =
        async |place: i64| connect(*address, &format!("{PROJECTS}&last_event_id={place}"), Some(protocols)).await;
    let message = async |socket: &mut WebSocketStream<TcpStream>| -> Value {
        serde_json::from_str(&text(socket).await.unwrap()).unwrap()
    };

    let mut socket = resume(first).await;
    let gap = message(&mut socket).await;
    assert_eq!((&gap["type"], &gap["reason"]), (&json!("gap"), &json!("retention")), "{gap}");
    assert!(gap["resumed_after"] == first && gap["lost_until"].as_i64() > Some(first), "{gap}");
    client.post("/api/v1/projects", json!({"alias": "three"})).await.expect(201);
    let event = message(&mut socket).await;
    assert_eq!((&event["type"], &event["event"]["payload"]["alias"]), (&json!("event"), &json!("three")));
    // Where it was told to go on there is no gap.
    let mut socket = resume(gap["lost_until"].as_i64().unwrap()).await;
    assert_eq!(message(&mut socket).await["event"]["payload"]["alias"], "three");

    let mut socket = resume(1_000_000).await;
    let gap = message(&mut socket).await;
    assert_eq!((&gap["type"], &gap["reason"]), (&json!("gap"), &json!("unknown")), "{gap}");
    client.post("/api/v1/projects", json!({"alias": "four"})).await.expect(201);
    assert_eq!(message(&mut socket).await["event"]["payload"]["alias"], "four");
}

#[tokio::test(flavor = "multi_thread")]
async fn socket_io_tells_first_what_is_missing() {
    let world = World::new().await;
    let World { client, address, .. } = &world;
    let first = world.forgotten().await;
    let resume = async |place: i64| listening(client, *address, place).await;
    let message = async |socket: &mut WebSocketStream<TcpStream>| -> Value {
        let packet = packet(socket).await;
        serde_json::from_str(packet.strip_prefix("42").expect(&packet)).unwrap()
    };

    let mut socket = resume(first).await;
    let gap = message(&mut socket).await;
    assert_eq!((&gap[0], &gap[1]["reason"]), (&json!("gap"), &json!("retention")), "{gap}");
    assert!(gap[1]["resumed_after"] == first && gap[1]["lost_until"].as_i64() > Some(first), "{gap}");
    client.post("/api/v1/projects", json!({"alias": "three"})).await.expect(201);
    let event = message(&mut socket).await;
    assert_eq!((&event[0], &event[1]["event"]["payload"]["alias"]), (&json!("event"), &json!("three")));

    let mut socket = resume(1_000_000).await;
    let gap = message(&mut socket).await;
    assert_eq!((&gap[0], &gap[1]["reason"]), (&json!("gap"), &json!("unknown")), "{gap}");
    client.post("/api/v1/projects", json!({"alias": "four"})).await.expect(201);
    assert_eq!(message(&mut socket).await[1]["event"]["payload"]["alias"], "four");
}

/// The next packet of Engine.IO that is no ping; pings are answered.
async fn packet(socket: &mut WebSocketStream<TcpStream>) -> String {
    loop {
        let packet = text(socket).await.unwrap();
        if packet != "2" {
            return packet;
        }
        socket.send(Message::text("3")).await.unwrap();
    }
}
