//! What the control plane holds before anything is measured.

use anyhow::{Context, Result};
use hoody_protocol::{id::ContainerId, version::SpecVersion};
use hoody_tests::{
    api::Api,
    cluster::{Cluster, TENANT},
    simulated::{Fleet, Held, Identified, enrol},
};
use serde_json::json;
use sqlx::{Connection, Row};
use std::{net::SocketAddr, sync::Arc};

/// Servers that enrol at once.
const AT_ONCE: usize = 32;

/// Makes servers through the API and enrols their agents, each with a join token of its own.
pub(super) async fn agents(cluster: &Cluster, fleet: &Fleet, agents: usize) -> Result<Vec<Arc<Identified>>> {
    let address = SocketAddr::from(([127, 0, 0, 1], cluster.control_plane.node_port()));
    let mut enrolling = tokio::task::JoinSet::new();
    let mut enrolled = Vec::with_capacity(agents);
    for index in 0..agents {
        if enrolling.len() == AT_ONCE {
            enrolled.push(enrolling.join_next().await.context("an enrolment")???);
        }
        let (admin, endpoint) = (cluster.admin.unchecked(), fleet.endpoint(index).clone());
        enrolling.spawn(async move {
            let token = join_token(&admin, index).await?;
            enrol(&endpoint, address, &token).await.map(Arc::new)
        });
    }
    while let Some(agent) = enrolling.join_next().await {
        enrolled.push(agent??);
    }
    Ok(enrolled)
}

async fn join_token(admin: &Api, index: usize) -> Result<String> {
    let server = json!({ "name": format!("simulated-{index}"), "owner": TENANT });
    let made = admin.post("/api/v1/admin/servers", server).await?.data()?;
    let id = made["id"].as_str().context("a server has an id")?;
    let token = admin.post(&format!("/api/v1/admin/servers/{id}/join-token"), json!({})).await?.data()?;
    Ok(token["token"].as_str().context("a token")?.to_owned())
}

/// Makes one container through the API, on the first agent, which is connected, and copies its row for
/// all others; every agent then holds its own. Gives all of them.
pub(super) async fn containers(cluster: &Cluster, agents: &[Arc<Identified>], each: usize) -> Result<Vec<ContainerId>> {
    let project = cluster.tenant.project("scale").await?;
    let template =
        cluster.tenant.container(&project, "busybox", json!({ "name": "template", "autostart": true })).await?;
    sqlx::any::install_default_drivers();
    let mut connection = sqlx::AnyConnection::connect(cluster.control_plane.database_url()).await?;
    let row = sqlx::query("SELECT epoch, generation, sequence FROM containers WHERE id = $1")
        .bind(&template)
        .fetch_one(&mut connection)
        .await?;
    let number = |column: &str| row.try_get::<i64, _>(column).map(|number| number as u64);
    let version = SpecVersion { epoch: number("epoch")?, generation: number("generation")? };
    let held = Held { version, sequence: number("sequence")? };
    let mut made = vec![template.parse()?];
    // One transaction for so many that other writers need not wait for long.
    for some in agents.chunks(100) {
        let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
        for agent in some {
            for number in 0..each {
                let id = ContainerId::generate();
                sqlx::query(
                    "INSERT INTO containers (id, project_id, owner_id, server_id, name, image_name, runtime, realm_ids, \
                     spec, generation, epoch, sequence, acked_epoch, acked_generation, attributes, status, \
                     status_changed_at, report, created_at, updated_at) SELECT $1, project_id, owner_id, $2, $3, \
                     image_name, runtime, realm_ids, replace(spec, id, $1), generation, epoch, sequence, acked_epoch, \
                     acked_generation, attributes, status, status_changed_at, replace(report, id, $1), created_at, \
                     updated_at FROM containers WHERE id = $4",
                )
                .bind(id.to_string())
                .bind(agent.server.to_string())
                .bind(format!("{}-{number}", agent.server))
                .bind(&template)
                .execute(&mut *tx)
                .await?;
                agent.hold(id, held);
                made.push(id);
            }
        }
        tx.commit().await?;
    }
    Ok(made)
}

/// A counter among the control plane's metrics; 0 where it has not counted yet.
pub(super) async fn counter(metrics: SocketAddr, name: &str) -> Result<f64> {
    let text = reqwest::get(format!("http://{metrics}/metrics")).await?.text().await?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    Ok(line.unwrap_or(0.0))
}
