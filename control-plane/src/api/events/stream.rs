//! Events as server-sent events (WHATWG HTML, section 9.2). The id of each is its place in the order of
//! delivery: a client that connects again with `Last-Event-ID` misses nothing.

use super::{
    filter::Parameters,
    listener::{Delivered, Listener, Step},
    view::EventData,
};
use crate::{api::envelope::Failure, app::App, error::ServiceError};
use axum::{
    extract::{Request, State},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::stream;
use http::HeaderValue;
use std::{convert::Infallible, time::Duration};

/// Pause between two comments that keep proxies from closing a silent connection.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How a browser says where it resumes.
const LAST_EVENT_ID: &str = "last-event-id";

/// Follow events
///
/// Server-sent events: `id` is the place in the order of delivery, `data` the event. Takes the filters of the
/// list and, in the header or as `last_event_id`, where to resume. The last message has the event name `end`; a
/// first one named `gap` says that what was missed is not all kept any more.
#[utoipa::path(get, path = "/api/v1/events/stream", operation_id = "events.stream", tag = "events",
    params(("event_type" = Option<String>, Query), ("resource_type" = Option<String>, Query),
        ("resource_id" = Option<String>, Query), ("project_id" = Option<String>, Query),
        ("container_id" = Option<String>, Query), ("realm_id" = Option<String>, Query),
        ("last_event_id" = Option<i64>, Query), ("Last-Event-ID" = Option<i64>, Header)),
    responses((status = 200, content_type = "text/event-stream", body = String), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 503, body = Failure)))]
pub(super) async fn stream(State(app): State<App>, request: Request) -> Result<Response, ServiceError> {
    let (parts, _) = request.into_parts();
    let parameters = Parameters::of_query(parts.uri.query());
    let header = parts.headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok());
    let listener = Listener::new(app, &parts, parameters.resuming_at(header)).await?;
    // Boxed: the stream has room for it more than once.
    let events = stream::unfold(Some(Box::new(listener)), |listener| async move {
        let mut listener = listener?;
        loop {
            match listener.next().await {
                Step::Idle => {}
                Step::Gap(gap) => return Some((Event::default().event("gap").json_data(gap), Some(listener))),
                Step::Event(sequence, event) => {
                    let data = EventData::from(event.as_ref());
                    let told = Event::default().id(sequence.to_string());
                    return Some((told.json_data(Delivered::new(sequence, &data)), Some(listener)));
                }
                Step::End(ended) => {
                    let told = Event::default().event("end").id(ended.resume_after.to_string());
                    return Some((told.json_data(ended), None));
                }
            }
        }
    });
    // Events are maps of texts and numbers, which JSON takes; a stream that could not say something ends.
    let events = futures::StreamExt::map(
        futures::StreamExt::take_while(events, |event| std::future::ready(event.is_ok())),
        |event| Ok::<_, Infallible>(event.unwrap_or_default()),
    );
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    // Proxies like nginx would otherwise collect what should be delivered at once.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}
