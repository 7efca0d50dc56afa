//! What a container wrote: as one answer, or followed as server-sent events, whose ids are places to go on from.

use crate::{
    api::{
        credential::{Credential, Watched},
        envelope::{Failure, Reply, Success},
        path::Id,
        time,
    },
    app::App,
    error::ServiceError,
    service::{
        container::is_gone,
        exec::Conversation,
        logs::{self as service, Follower, LogInput, LogPage, MAX_TAIL},
    },
};
use axum::{
    extract::{FromRequestParts, Request, State},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use chrono::{DateTime, SecondsFormat, Utc};
use futures::stream;
use hoody_protocol::{
    id::ContainerId,
    logs::{LogBatch, LogPosition, LogRecord},
};
use http::HeaderValue;
use serde::Serialize;
use std::{collections::BTreeMap, convert::Infallible, time::Duration};
use tokio::{sync::mpsc, time::timeout};
use utoipa::ToSchema;

/// What a caller must be allowed.
const OPERATION: &str = "containers.getLogs";
/// Records that are answered where the request does not say.
const USUAL_TAIL: u32 = 100;
/// Pause between two comments that keep proxies from closing a silent connection.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How long a client may take nothing before it counts as gone.
const TAKE_DEADLINE: Duration = Duration::from_secs(120);
/// How long it is waited for with what is said last.
const FAREWELL_DEADLINE: Duration = Duration::from_secs(5);
/// How a browser says where it resumes.
const LAST_EVENT_ID: &str = "last-event-id";

/// A line, or a piece of a long one.
#[derive(Debug, Serialize, ToSchema)]
struct LogLine {
    /// When it was written, with nanoseconds; absent where `timestamps=false`.
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
    /// `stdout` or `stderr`.
    stream: &'static str,
    /// Without the end of the line. Bytes that are not UTF-8 are replaced.
    message: String,
    /// The line goes on in the next one of the same stream.
    partial: bool,
    /// The place behind it: `after` goes on from there.
    position: String,
}

/// What a container wrote.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LogLines {
    logs: Vec<LogLine>,
    /// The place behind the last of them.
    position: Option<String>,
    /// There is more behind them.
    truncated: bool,
    /// LogLines between `after` and the first of these are no longer kept.
    lost: bool,
}

/// Read what a container wrote
///
/// The output of its first process. With `follow=true` as server-sent events: `id` is the place to go on from, in the
/// header `Last-Event-ID` or as `after`; the last message has the event name `end`.
#[utoipa::path(get, path = "/api/v1/containers/{id}/logs", operation_id = "containers.getLogs", tag = "containers",
    params(("id" = String, Path),
        ("tail" = Option<u32>, Query, description = "the last so many lines, at most 10000; 100 unless said, or all after `after` or `since`"),
        ("since" = Option<String>, Query, description = "RFC 3339, or a day"),
        ("until" = Option<String>, Query, description = "RFC 3339, or a day, which is still part of it"),
        ("stream" = Option<String>, Query, description = "stdout, stderr or all"),
        ("timestamps" = Option<bool>, Query), ("follow" = Option<bool>, Query),
        ("after" = Option<String>, Query), ("Last-Event-ID" = Option<String>, Header)),
    responses((status = 200, body = Success<LogLines>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure), (status = 421, body = Failure),
        (status = 429, body = Failure), (status = 501, body = Failure), (status = 502, body = Failure),
        (status = 503, body = Failure), (status = 504, body = Failure)))]
pub(super) async fn logs(State(app): State<App>, request: Request) -> Result<Response, ServiceError> {
    let (mut parts, _) = request.into_parts();
    let Id(id) = Id::<ContainerId>::from_request_parts(&mut parts, &app).await?;
    let credential = Credential::of(&parts);
    let caller = credential.caller(&app, OPERATION).await?;
    let owner = service::still_may(&app, &caller, id).await?;
    let header = parts.headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok());
    let asked = Asked::of(parts.uri.query().unwrap_or_default(), header)?;
    if !asked.follow {
        let page = service::read(&app, &caller, id, asked.input).await?;
        return Ok(Reply::ok(LogLines::new(page, asked.timestamps), "here is what the container wrote").into_response());
    }
    let (follower, place) = service::follow(&app, &caller, id, asked.input).await?;
    let (sender, receiver) = mpsc::channel(1);
    let timestamps = asked.timestamps;
    let rights = Watched::new(&app, credential, OPERATION, caller.user, owner);
    let following = Following { app, rights, container: id, timestamps, last: None, follower, place, sender };
    tokio::spawn(following.run());
    let events = stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    // Proxies like nginx would otherwise collect what should be delivered at once.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

#[derive(Debug)]
struct Asked {
    input: LogInput,
    follow: bool,
    timestamps: bool,
}

impl Asked {
    fn of(query: &str, last_event_id: Option<&str>) -> Result<Self, ServiceError> {
        let values: BTreeMap<String, String> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let mut problems = BTreeMap::new();
        let mut read = |name: &str, problem: &str, read: &mut dyn FnMut(&str) -> bool| {
            if let Some(text) = values.get(name)
                && !read(text)
            {
                problems.insert(name.to_owned(), problem.to_owned());
            }
        };
        let mut input = LogInput::default();
        let (mut follow, mut timestamps) = (false, true);
        read("tail", "must be a whole number from 0 to 10000", &mut |text| {
            input.tail = text.parse().ok().filter(|tail| *tail <= MAX_TAIL);
            input.tail.is_some()
        });
        read("since", time::PROBLEM, &mut |text| {
            input.since = time::parse(text, time::Day::Begin);
            input.since.is_some()
        });
        read("until", time::PROBLEM, &mut |text| {
            input.until = time::parse(text, time::Day::End);
            input.until.is_some()
        });
        read("stream", "must be stdout, stderr or all", &mut |text| {
            input.error = match text {
                "stdout" => Some(false),
                "stderr" => Some(true),
                "all" => None,
                _ => return false,
            };
            true
        });
        let flag = |text: &str, value: &mut bool| match text {
            "true" | "1" => *value = true,
            "false" | "0" => *value = false,
            _ => {}
        };
        let is_flag = |text: &str| matches!(text, "true" | "1" | "false" | "0");
        read("follow", "must be true or false", &mut |text| {
            flag(text, &mut follow);
            is_flag(text)
        });
        read("timestamps", "must be true or false", &mut |text| {
            flag(text, &mut timestamps);
            is_flag(text)
        });
        read("after", "must be the position of a line, as it was answered", &mut |text| {
            input.after = position_of(text);
            input.after.is_some()
        });
        if let Some(text) = last_event_id.filter(|text| !text.is_empty()) {
            input.after = position_of(text);
            if input.after.is_none() {
                problems.insert("Last-Event-ID".to_owned(), "must be the id of an event of this stream".to_owned());
            }
        }
        if !problems.is_empty() {
            return Err(ServiceError::Invalid(problems));
        }
        if input.after.is_some() {
            // What follows a place is not counted from the end.
            input.tail = None;
        } else if input.since.is_none() {
            input.tail = input.tail.or(Some(USUAL_TAIL));
        }
        Ok(Self { input, follow, timestamps })
    }
}

fn text_of(position: LogPosition) -> String {
    format!("{:x}-{:x}", position.part, position.offset)
}

fn position_of(text: &str) -> Option<LogPosition> {
    let (part, offset) = text.split_once('-')?;
    let number = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u64::from_str_radix(text, 16).ok()).flatten()
    };
    Some(LogPosition { part: number(part)?, offset: number(offset)? })
}

impl LogLine {
    fn new(record: &LogRecord, timestamps: bool) -> Self {
        let time = || DateTime::<Utc>::from_timestamp_nanos(i64::try_from(record.at).unwrap_or(i64::MAX));
        Self {
            timestamp: timestamps.then(|| time().to_rfc3339_opts(SecondsFormat::Nanos, true)),
            stream: if record.error { "stderr" } else { "stdout" },
            message: String::from_utf8_lossy(&record.text).into_owned(),
            partial: record.partial,
            position: text_of(record.position),
        }
    }
}

impl LogLines {
    fn new(page: LogPage, timestamps: bool) -> Self {
        Self {
            position: page.records.last().map(|record| text_of(record.position)),
            logs: page.records.iter().map(|record| LogLine::new(record, timestamps)).collect(),
            truncated: page.truncated,
            lost: page.lost,
        }
    }
}

/// The last that a follower is told.
#[derive(Debug, Serialize)]
struct Ended {
    /// `end` (the container is gone, or `until` has passed), `stopping`, `unauthorized` or `failed`.
    reason: &'static str,
    /// What to connect again with.
    resume_after: Option<String>,
}

/// A log that somebody follows. One task reads and hands over one event at a time: a client that does not read holds
/// up nothing else.
struct Following {
    app: App,
    rights: Watched,
    container: ContainerId,
    timestamps: bool,
    last: Option<LogPosition>,
    follower: Follower,
    place: Conversation,
    sender: mpsc::Sender<Result<Event, Infallible>>,
}

impl Following {
    async fn run(mut self) {
        let reason = loop {
            let batch = {
                let mut reading = std::pin::pin!(self.follower.next());
                loop {
                    tokio::select! {
                        biased;
                        () = self.sender.closed() => return,
                        () = self.place.closed() => break Err("stopping"),
                        () = self.rights.due() => {
                            if !still_may(&mut self.rights, &self.app, self.container).await {
                                break Err("unauthorized");
                            }
                        }
                        batch = &mut reading => break batch.map_err(|_| "failed"),
                    }
                }
            };
            let batch = match batch {
                Ok(batch) => batch,
                Err(reason) => break reason,
            };
            match self.hand_over(&batch).await {
                Handed::All => self.last = batch.records.last().map(|record| record.position).or(self.last),
                Handed::Gone => return,
                // Behind the last batch that was handed over whole.
                Handed::Ends(reason) => break reason,
            }
            if batch.end {
                break "end";
            }
        };
        let told = Ended { reason, resume_after: self.last.map(text_of) };
        if let Ok(event) = Event::default().event("end").json_data(told) {
            let _ = timeout(FAREWELL_DEADLINE, self.sender.send(Ok(event))).await;
        }
    }

    /// Waits for the client with each event, and looks at its rights meanwhile.
    async fn hand_over(&mut self, batch: &LogBatch) -> Handed {
        for event in events(batch, self.timestamps) {
            let mut sending = std::pin::pin!(takes(&self.sender, Ok(event), TAKE_DEADLINE));
            loop {
                tokio::select! {
                    biased;
                    () = self.place.closed() => return Handed::Ends("stopping"),
                    () = self.rights.due() => {
                        if !still_may(&mut self.rights, &self.app, self.container).await {
                            return Handed::Ends("unauthorized");
                        }
                    }
                    taken = &mut sending => if taken { break } else { return Handed::Gone },
                }
            }
        }
        Handed::All
    }
}

/// False where the client has gone, or takes nothing for so long.
async fn takes<T>(client: &mpsc::Sender<T>, item: T, deadline: Duration) -> bool {
    matches!(timeout(deadline, client.send(item)).await, Ok(Ok(())))
}

/// What became of a batch.
enum Handed {
    All,
    /// The client has gone, or takes nothing.
    Gone,
    Ends(&'static str),
}

async fn still_may(rights: &mut Watched, app: &App, container: ContainerId) -> bool {
    match rights.caller(app).await {
        Ok(caller) => service::still_may(app, &caller, container).await.is_ok() || is_gone(app, container).await,
        Err(_) => false,
    }
}

fn events(batch: &LogBatch, timestamps: bool) -> Vec<Event> {
    let lost = batch.lost.then(|| Event::default().event("lost").data("{}"));
    let line = |record: &LogRecord| {
        let line = LogLine::new(record, timestamps);
        Event::default().id(line.position.clone()).json_data(&line).ok()
    };
    lost.into_iter().chain(batch.records.iter().filter_map(line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_what_is_read() {
        let asked = Asked::of("", None).unwrap();
        assert_eq!((asked.input.tail, asked.follow, asked.timestamps), (Some(USUAL_TAIL), false, true));
        let asked = Asked::of("since=1970-01-02&stream=stderr&follow=1&timestamps=false", None).unwrap();
        assert_eq!((asked.input.tail, asked.input.since, asked.input.error), (None, Some(86_400_000), Some(true)));
        assert_eq!((asked.follow, asked.timestamps), (true, false));
        let place = LogPosition { part: 0xabc, offset: 16 };
        let asked = Asked::of("after=1-2&tail=5", Some(&text_of(place))).unwrap();
        assert_eq!((asked.input.after, asked.input.tail), (Some(place), None), "the header wins");
    }

    #[tokio::test(start_paused = true)]
    async fn a_follower_that_takes_nothing_is_given_up_at_the_deadline_and_not_before() {
        let (client, mut taken) = mpsc::channel(1);
        assert!(takes(&client, 1, TAKE_DEADLINE).await);
        let begun = tokio::time::Instant::now();
        assert!(!takes(&client, 2, TAKE_DEADLINE).await);
        assert!((TAKE_DEADLINE..TAKE_DEADLINE + KEEP_ALIVE).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        let late = tokio::spawn(async move {
            tokio::time::sleep(TAKE_DEADLINE - KEEP_ALIVE).await;
            (taken.recv().await, taken)
        });
        assert!(takes(&client, 3, TAKE_DEADLINE).await, "it reads, only slowly");
        drop(late.await.unwrap());
        let begun = tokio::time::Instant::now();
        assert!(
            !takes(&client, 4, TAKE_DEADLINE).await && begun.elapsed().is_zero(),
            "one that has gone is not waited for"
        );
    }

    #[test]
    fn everything_that_is_wrong_is_named() {
        let query = "tail=-1&since=x&until=y&stream=in&follow=yes&timestamps=2&after=z";
        let Err(ServiceError::Invalid(problems)) = Asked::of(query, Some("no")) else { panic!("refused") };
        let named: Vec<String> = problems.into_keys().collect();
        assert_eq!(named, ["Last-Event-ID", "after", "follow", "since", "stream", "tail", "timestamps", "until"]);
        assert!(Asked::of("tail=10001", None).is_err());
        assert!(Asked::of("after=-1-2", None).is_err() && Asked::of("after=+1-2", None).is_err());
    }
}
