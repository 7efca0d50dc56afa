//! Live delivery over real connections: WebSocket, and Socket.IO by its frames.

use super::events::fed;
use crate::{api::testing::Client, app::App, service::session, store::testing::sqlite};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::{net::SocketAddr, time::Duration};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest},
};

const DEADLINE: Duration = Duration::from_secs(20);

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
    let (_folder, store) = sqlite().await;
    let (app, task) = fed(&store).await;
    let (client, user) = Client::new_user(&app, "ann", false).await;
    let address = serve(&app).await;
    let protocols = format!("hoody.events, bearer.{}", client.token.clone().unwrap());
    let path = "/api/v1/events/ws?resource_type=project";
    let mut socket = connect(address, path, Some(&protocols)).await;
    for alias in ["one", "two"] {
        client.post("/api/v1/projects", json!({"alias": alias})).await.expect(201);
    }
    let first: Value = serde_json::from_str(&text(&mut socket).await.unwrap()).unwrap();
    assert_eq!(first["event"]["payload"]["alias"], "one");
    drop(socket);
    let resumed = format!("{path}&last_event_id={}", first["sequence"]);
    let mut socket = connect(address, &resumed, Some(&protocols)).await;
    let second: Value = serde_json::from_str(&text(&mut socket).await.unwrap()).unwrap();
    assert_eq!(second["event"]["payload"]["alias"], "two");
    let mut all = connect(address, "/api/v1/events/ws", Some(&protocols)).await;
    session::logout(&app, user, &crate::api::testing::origin()).await.unwrap();
    let end: Value = serde_json::from_str(&text(&mut all).await.unwrap()).unwrap();
    assert_eq!((&end["type"], &end["reason"]), (&json!("end"), &json!("unauthorized")));
    assert!(text(&mut all).await.is_none(), "it is closed");
    task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn socket_io_delivers_and_refuses_who_has_no_token() {
    let (_folder, store) = sqlite().await;
    let (app, task) = fed(&store).await;
    let (client, _) = Client::new_user(&app, "ann", false).await;
    let address = serve(&app).await;
    let path = "/socket.io/?EIO=4&transport=websocket";

    let mut refused = connect(address, path, None).await;
    assert!(packet(&mut refused).await.starts_with("0{"), "the handshake of Engine.IO");
    refused.send(Message::text(r#"40{"token":"nonsense"}"#)).await.unwrap();
    let error = packet(&mut refused).await;
    assert!(error.starts_with("44{") && error.contains("log in again"), "{error}");

    let mut socket = connect(address, path, None).await;
    packet(&mut socket).await;
    let auth = json!({"token": client.token, "resource_type": "project", "last_event_id": 0});
    socket.send(Message::text(format!("40{auth}"))).await.unwrap();
    assert!(packet(&mut socket).await.starts_with("40{"), "connected");
    client.post("/api/v1/projects", json!({"alias": "one"})).await.expect(201);
    let packet = packet(&mut socket).await;
    let packet: Value = serde_json::from_str(packet.strip_prefix("42").expect(&packet)).unwrap();
    assert_eq!((&packet[0], &packet[1]["event"]["payload"]["alias"]), (&json!("event"), &json!("one")));
    task.abort();
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
