//! A registry of this process for tests: it answers what it is told to, whether that makes sense or not.

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::Response,
};
use bytes::Bytes;
use futures::StreamExt;
use hoody_protocol::image::Digest;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";

/// What a path is answered with.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// The bytes, from the offset that is asked for.
    Content(&'static str, Vec<u8>),
    /// As many of the bytes as this, the first time; then as [`Self::Content`].
    BrokenOnce(usize, Vec<u8>),
    /// As many of the bytes as this, then one every so often.
    Trickle(usize, Duration, Vec<u8>),
    /// Bytes without an end.
    Endless,
    /// 307.
    Redirect(String),
    /// 401 with this challenge, unless `Authorization` is this.
    Guarded { challenge: String, authorization: &'static str, then: Box<Answer> },
    /// No answer at all.
    Silence,
}

#[derive(Debug, Default)]
pub(crate) struct Shelf {
    answers: HashMap<String, Answer>,
    /// Path, `Range` and `Authorization` of each request.
    asked: Vec<(String, String, String)>,
}

/// The registry; goes with its runtime.
#[derive(Debug, Clone)]
pub(crate) struct TestRegistry {
    pub(crate) address: SocketAddr,
    shelf: Arc<Mutex<Shelf>>,
}

impl TestRegistry {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shelf = Arc::<Mutex<Shelf>>::default();
        let router = Router::new().fallback(answer).with_state(shelf.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, shelf }
    }

    pub(crate) fn reference(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }

    pub(crate) fn put(&self, path: &str, answer: Answer) {
        self.shelf.lock().unwrap().answers.insert(format!("/v2/{path}"), answer);
    }

    /// What was asked for below `path`: `Range` and `Authorization`.
    pub(crate) fn asked(&self, path: &str) -> Vec<(String, String)> {
        let shelf = self.shelf.lock().unwrap();
        let of = shelf.asked.iter().filter(|(asked, ..)| asked.starts_with(&format!("/v2/{path}")));
        of.map(|(_, range, authorization)| (range.clone(), authorization.clone())).collect()
    }

    /// Adds a blob and gives its descriptor.
    pub(crate) fn blob(&self, name: &str, media_type: &str, content: &[u8]) -> Value {
        let digest = Digest::of(content);
        self.put(&format!("{name}/blobs/{digest}"), Answer::Content("application/octet-stream", content.to_vec()));
        json!({"mediaType": media_type, "digest": digest, "size": content.len()})
    }

    /// Adds a manifest or index under its digest and, where given, a tag; gives its descriptor.
    pub(crate) fn document(&self, name: &str, media_type: &'static str, tag: Option<&str>, content: &Value) -> Value {
        let bytes = content.to_string().into_bytes();
        let digest = Digest::of(&bytes);
        for reference in tag.into_iter().map(str::to_owned).chain([digest.to_string()]) {
            self.put(&format!("{name}/manifests/{reference}"), Answer::Content(media_type, bytes.clone()));
        }
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    /// Adds an image of these plain layers; gives its manifest's descriptor.
    pub(crate) fn image(&self, name: &str, tag: Option<&str>, architecture: &str, layers: &[&[u8]]) -> Value {
        let configuration = json!({
            "os": "linux", "architecture": architecture,
            "config": {"Cmd": ["/bin/serve"], "Env": ["A=1"], "User": "www", "WorkingDir": "/srv"},
            "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|l| Digest::of(l)).collect::<Vec<_>>()},
        });
        let config = self.blob(name, CONFIG, configuration.to_string().as_bytes());
        let layers: Vec<Value> = layers.iter().map(|layer| self.blob(name, PLAIN, layer)).collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        self.document(name, MANIFEST, tag, &manifest)
    }
}

async fn answer(State(shelf): State<Arc<Mutex<Shelf>>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let header =
        |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let (path, range, authorization) = (parts.uri.path().to_owned(), header("range"), header("authorization"));
    let mut found = {
        let mut shelf = shelf.lock().unwrap();
        shelf.asked.push((path.clone(), range.clone(), authorization.clone()));
        let found = shelf.answers.get(&path).cloned();
        if let Some(Answer::BrokenOnce(_, content)) = &found {
            shelf.answers.insert(path, Answer::Content("application/octet-stream", content.clone()));
        }
        found
    };
    let status = |status: u16| Response::builder().status(status);
    if let Some(Answer::Guarded { challenge, authorization: wanted, then }) = found {
        if authorization != wanted {
            return status(401).header("www-authenticate", challenge).body(Body::empty()).unwrap();
        }
        found = Some(*then);
    }
    match found {
        None | Some(Answer::Guarded { .. }) => status(404).body(Body::empty()).unwrap(),
        Some(Answer::Content(media_type, content)) => {
            let from = range.strip_prefix("bytes=").and_then(|rest| rest.strip_suffix('-')).map(|n| n.parse().unwrap());
            let builder = match from {
                Some(from) => {
                    let last = content.len() - 1;
                    status(206).header("content-range", format!("bytes {from}-{last}/{}", content.len()))
                }
                None => status(200),
            };
            let from: usize = from.unwrap_or(0);
            builder.header("content-type", media_type).body(Body::from(content[from..].to_vec())).unwrap()
        }
        Some(Answer::BrokenOnce(bytes, content)) => {
            let pieces = [Ok(Bytes::copy_from_slice(&content[..bytes])), Err(io::Error::other("broken off"))];
            // What is there is sent before the break is seen.
            let pieces = futures::stream::iter(pieces).then(|piece| async {
                tokio::task::yield_now().await;
                piece
            });
            status(200).body(Body::from_stream(pieces)).unwrap()
        }
        Some(Answer::Trickle(bytes, pause, content)) => {
            let (first, rest) = content.split_at(bytes);
            let first = futures::stream::iter([Bytes::copy_from_slice(first)]);
            let rest = futures::stream::iter(rest.to_vec()).then(move |byte| async move {
                tokio::time::sleep(pause).await;
                Bytes::from(vec![byte])
            });
            status(200).body(Body::from_stream(first.chain(rest).map(Ok::<_, io::Error>))).unwrap()
        }
        Some(Answer::Endless) => {
            let piece = Bytes::from(vec![7; 64 << 10]);
            let stream = futures::stream::repeat_with(move || Ok::<_, io::Error>(piece.clone()));
            status(200).header("content-type", MANIFEST).body(Body::from_stream(stream)).unwrap()
        }
        Some(Answer::Redirect(target)) => status(307).header("location", target).body(Body::empty()).unwrap(),
        Some(Answer::Silence) => std::future::pending().await,
    }
}
