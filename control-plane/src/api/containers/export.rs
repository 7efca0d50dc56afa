//! Exporting a container: its archive as the body of the answer, at the client's pace.

use crate::{
    api::{credential::Credential, envelope::Failure, path::Id},
    app::App,
    error::{ServiceError, chain},
    service::container::archive::{self as service, Exported},
};
use axum::{
    body::Body,
    extract::{FromRequestParts, Request, State},
    response::{IntoResponse, Response},
};
use futures::stream;
use hoody_protocol::id::ContainerId;
use http::{HeaderValue, header};
use std::{io, time::Duration};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};

/// What a caller must be allowed.
const OPERATION: &str = "containers.export";
/// Pause between two looks at the credential.
const RECHECK: Duration = Duration::from_secs(30);
/// Time in which the client must take a piece.
const STALL_DEADLINE: Duration = Duration::from_secs(60);
/// The time of a whole download.
const LONGEST: Duration = Duration::from_secs(6 * 3600);

/// Export a container
///
/// A tar archive, compressed with Zstandard: `container.json`, then the files below `rootfs/`, then `manifest.json`. It is
/// whole where it has the manifest; an answer that breaks off is not. What runs in the container goes on.
#[utoipa::path(get, path = "/api/v1/containers/{id}/export", operation_id = "containers.export", tag = "containers",
    params(("id" = String, Path)),
    responses((status = 200, content_type = "application/zstd", body = Vec<u8>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 403, body = Failure), (status = 404, body = Failure),
        (status = 409, body = Failure), (status = 421, body = Failure), (status = 422, body = Failure),
        (status = 429, body = Failure), (status = 501, body = Failure), (status = 502, body = Failure),
        (status = 503, body = Failure), (status = 504, body = Failure)))]
pub(super) async fn export(State(app): State<App>, request: Request) -> Result<Response, ServiceError> {
    let (mut parts, _) = request.into_parts();
    let Id(id) = Id::<ContainerId>::from_request_parts(&mut parts, &app).await?;
    let credential = Credential::of(&parts);
    let caller = credential.caller(&app, OPERATION).await?;
    let exported = service::export(&app, &caller, id).await?;
    let name = format!("attachment; filename=\"{}.tar.zst\"", exported.name);
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(send(app, credential, id, exported, sender));
    let pieces = stream::unfold(Some(receiver), |receiver| async move {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Piece::More(bytes)) => Some((Ok(bytes), Some(receiver))),
            Some(Piece::End) => None,
            // Whoever sent has stopped before the end: the answer must not look whole.
            None => Some((Err(io::Error::other("the export broke off")), None)),
        }
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/zstd")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // Names have no characters that could end the text.
        (header::CONTENT_DISPOSITION, HeaderValue::try_from(name).map_err(ServiceError::internal)?),
    ];
    Ok((headers, Body::from_stream(pieces)).into_response())
}

/// What the answer's body is made of.
enum Piece {
    More(Vec<u8>),
    /// All of it was handed over.
    End,
}

/// Hands on the archive until its end, or until the client, its right or the node has gone.
async fn send(app: App, credential: Credential, id: ContainerId, exported: Exported, sender: mpsc::Sender<Piece>) {
    let Exported { mut archive, place, .. } = exported;
    let still_may = async || match credential.caller(&app, OPERATION).await {
        Ok(caller) => service::still_may(&app, &caller, id).await.is_ok(),
        Err(_) => false,
    };
    let end = Instant::now() + LONGEST;
    let mut next_check = Instant::now() + RECHECK;
    let reason = 'sending: loop {
        let piece = {
            let mut reading = std::pin::pin!(archive.next());
            loop {
                tokio::select! {
                    piece = &mut reading => break piece,
                    () = sender.closed() => break 'sending "the client went away".to_owned(),
                    () = place.closed() => break 'sending "the control plane stops".to_owned(),
                    () = sleep_until(end) => break 'sending "it took too long".to_owned(),
                    () = sleep_until(next_check) => {
                        if !still_may().await {
                            break 'sending "the caller may no longer".to_owned();
                        }
                        next_check = Instant::now() + RECHECK;
                    }
                }
            }
        };
        match piece {
            Ok(piece) => {
                let ended = piece.is_none();
                let piece = piece.map_or(Piece::End, Piece::More);
                if !matches!(timeout(STALL_DEADLINE, sender.send(piece)).await, Ok(Ok(()))) {
                    break "the client does not take it".to_owned();
                }
                if ended {
                    return;
                }
            }
            Err(error) => break chain(&error),
        }
    };
    tracing::info!(container = %id, reason, "an export broke off");
}
