//! Pulls images for containers that wait for them. Every replica takes what nobody has; what a replica left that is
//! gone is taken over, and goes on where its transfers broke off.

use crate::{
    app::App,
    error::{ServiceError, chain},
    service::container::pull,
    store::image_pull,
};
use hoody_protocol::{container::Cause, id::ContainerId};
use std::{collections::HashMap, time::Duration};
use tokio::task::{Id, JoinSet};

/// Images pulled at once by one process.
const PULLS_AT_ONCE: usize = 4;
/// Looked at without being woken: what another replica left, or got from a request.
const INTERVAL: Duration = Duration::from_secs(5);

/// Pulls, for ever.
pub async fn run(app: App) {
    let mut pulls: JoinSet<Result<(), ServiceError>> = JoinSet::new();
    let mut containers: HashMap<Id, ContainerId> = HashMap::new();
    loop {
        let room = PULLS_AT_ONCE - pulls.len().min(PULLS_AT_ONCE);
        if room > 0 {
            match image_pull::claim(&app.store, &app.replica, room).await {
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
                    give_up(&app, id).await;
                }
            },
            () = app.pulls.woken() => {}
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// What is claimed by nobody's task would wait for ever.
async fn give_up(app: &App, id: ContainerId) {
    let cause =
        Cause::new("image_not_stored", "the control plane could not store the image: start the container again");
    if let Err(error) = pull::fail(app, id, &cause).await {
        tracing::error!(container = %id, error = chain(&error), "write down that a pull failed");
    }
}
