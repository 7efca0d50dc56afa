//! Asks nodes what runs in their containers. Answers are kept for two seconds, so that many who watch one container are
//! one question; questions to one server are few at a time, because each takes a stream of its link and the node's time.

use super::Nodes;
use hoody_protocol::{
    container::Cause,
    id::{ContainerId, ServerId},
    inspection::{Inspection, InspectionQuery, InspectionReply},
    stream::AskError,
};
use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

/// How long an answer is good.
const FRESH: Duration = Duration::from_secs(2);
/// The time the node has.
const ANSWER_DEADLINE: Duration = Duration::from_secs(3);
/// The time of a question with its wait for others.
const DEADLINE: Duration = Duration::from_secs(5);
/// Questions to one server at a time; its streams are for its commands first.
const AT_ONCE: usize = 4;
/// Containers and servers that are remembered before those that nobody asks about are forgotten.
const KEPT: usize = 1024;

/// Why it is not known what runs in a container.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoInspection {
    /// The server is not linked to this process, nor to a replica that is reached.
    #[error("the server is offline, or linked to a replica that is not reached")]
    Offline,
    /// It did not answer in time.
    #[error("the server did not answer in time")]
    Late,
    /// Its agent is older than the question.
    #[error("the server's agent is too old to be asked")]
    Unknown,
    /// It answered that it could not find out.
    #[error("{}", .0.message)]
    Failed(Cause),
}

/// What runs in a container; `Ok(None)` where nothing does.
pub type Inspected = Result<Option<Arc<Inspection>>, NoInspection>;

/// The last answer; held while the question is asked, so that it is asked once.
type Slot = Arc<tokio::sync::Mutex<Option<(Instant, Inspected)>>>;

/// The last answers. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Inspections {
    answers: Arc<Mutex<HashMap<ContainerId, Slot>>>,
    turns: Arc<Mutex<HashMap<ServerId, Arc<Semaphore>>>>,
}

impl Inspections {
    /// The answer about the container, from the last two seconds or asked now.
    pub(super) async fn ask(&self, nodes: &Nodes, server: ServerId, container: ContainerId) -> Inspected {
        let turns =
            kept(&self.turns, server, || Arc::new(Semaphore::new(AT_ONCE)), |turns| Arc::strong_count(turns) > 1);
        let in_use =
            |slot: &Slot| Arc::strong_count(slot) > 1 || slot.try_lock().is_ok_and(|last| fresh(&last).is_some());
        let slot = kept(&self.answers, container, Slot::default, in_use);
        let exchange = async {
            let mut last = slot.lock().await;
            if let Some(answer) = fresh(&last) {
                return answer;
            }
            // Closed never.
            let _turn = turns.acquire().await;
            let answer = question(nodes, server, container).await;
            // A server that is back is asked at once.
            *last = (answer != Err(NoInspection::Offline)).then(|| (Instant::now(), answer.clone()));
            answer
        };
        timeout(DEADLINE, exchange).await.unwrap_or(Err(NoInspection::Late))
    }
}

fn fresh(last: &Option<(Instant, Inspected)>) -> Option<Inspected> {
    last.as_ref().filter(|(at, _)| at.elapsed() < FRESH).map(|(_, answer)| answer.clone())
}

async fn question(nodes: &Nodes, server: ServerId, container: ContainerId) -> Inspected {
    match nodes.ask(server, &InspectionQuery { container }, ANSWER_DEADLINE).await {
        Ok(InspectionReply::NotRunning) => Ok(None),
        Ok(InspectionReply::Running(inspection)) => Ok(Some(Arc::from(inspection))),
        Ok(InspectionReply::Failed(cause)) => Err(NoInspection::Failed(cause)),
        Err(None) => Err(NoInspection::Offline),
        Err(Some(AskError::Deadline)) => Err(NoInspection::Late),
        Err(Some(AskError::Refused(_))) => Err(NoInspection::Unknown),
        Err(Some(error @ (AskError::Connection(_) | AskError::Stream(_)))) => {
            tracing::debug!(%container, error = &error as &dyn std::error::Error, "a node was not asked what runs");
            Err(NoInspection::Offline)
        }
    }
}

/// The value of `key`, made where there is none; with too many, those not `in_use` are forgotten.
fn kept<K: Eq + Hash, V: Clone>(
    map: &Mutex<HashMap<K, V>>,
    key: K,
    make: impl FnOnce() -> V,
    in_use: impl Fn(&V) -> bool,
) -> V {
    // Every change is a single insertion or removal: a panic elsewhere leaves nothing half done.
    let mut map: MutexGuard<'_, _> = map.lock().unwrap_or_else(PoisonError::into_inner);
    if map.len() >= KEPT {
        map.retain(|_, value| in_use(value));
    }
    map.entry(key).or_insert_with(make).clone()
}
