//! Pulls images for containers that wait for them. Every replica takes what nobody has; what a replica left that is
//! gone is taken over, and goes on where its transfers broke off. So is what this one has claimed without being at it: the
//! database did not take its end.

use crate::{
    app::App,
    error::{ServiceError, chain},
    service::container::pull,
    store::image_pull,
};
use hoody_protocol::{container::Cause, id::ContainerId};
use std::{collections::HashMap, time::Duration};
use tokio::{
    task::{Id, JoinSet},
    time::Instant,
};

/// Images pulled at once by one process.
const PULLS_AT_ONCE: usize = 4;
/// Looked at without being woken: what another replica left, or got from a request.
const INTERVAL: Duration = Duration::from_secs(5);

/// Pulls, for ever.
pub async fn run(app: App) {
    let mut pulls: JoinSet<Result<(), ServiceError>> = JoinSet::new();
    let mut containers: HashMap<Id, ContainerId> = HashMap::new();
    // Until when those are left alone whose end could not be written down: they would be pulled on and on.
    let mut resting: HashMap<ContainerId, Instant> = HashMap::new();
    loop {
        resting.retain(|_, until| *until > Instant::now());
        let at_work: Vec<ContainerId> = containers.values().chain(resting.keys()).copied().collect();
        let room = PULLS_AT_ONCE - pulls.len().min(PULLS_AT_ONCE);
        if room > 0 {
            match image_pull::claim(&app.store, &app.replica, &at_work, room).await {
                Ok(claimed) => {
                    for pull in claimed {
                        let (id, app) = (pull.container, app.clone());
                        let task = pulls.spawn(async move { pull::run(&app, pull).await });
                        containers.insert(task.id(), id);
                    }
                }
                Err(error) => tracing::warn!(error = chain(&error), "look for images to pull"),
            }
        }
        tokio::select! {
            Some(ended) = pulls.join_next_with_id() => {
                let (task, problem) = match ended {
                    Ok((task, outcome)) => (task, outcome.err().map(|error| chain(&error))),
                    Err(error) => (error.id(), Some(error.to_string())),
                };
                if let (Some(id), Some(problem)) = (containers.remove(&task), problem) {
                    tracing::error!(container = %id, error = problem, "a pull ended by a defect or without the database");
                    if !give_up(&app, id).await {
                        resting.insert(id, Instant::now() + INTERVAL);
                    }
                }
            },
            () = app.pulls.woken() => {}
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// Its container says that it failed; false where the database does not take that.
async fn give_up(app: &App, id: ContainerId) -> bool {
    let cause =
        Cause::new("image_not_stored", "the control plane could not store the image: start the container again");
    let written = pull::fail(app, id, &cause).await;
    if let Err(error) = &written {
        tracing::error!(container = %id, error = chain(error), "write down that a pull failed: it is tried again");
    }
    written.is_ok()
}
