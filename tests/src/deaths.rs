//! Programs of a cluster of two servers that die at fault points, and are started again.

use crate::{
    cluster::{Cluster, Process},
    faults::Faults,
    wait,
};
use anyhow::{Result, ensure};
use nix::libc::SIGKILL;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(120);

/// Who dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    /// The agent of this server.
    Agent(usize),
    /// The control plane.
    ControlPlane,
}

/// The fault points of the three programs.
#[derive(Debug)]
pub struct Deaths([Faults; 3]);

impl Deaths {
    /// Starts the programs of the cluster again, so that each has points that can be armed.
    pub async fn new(cluster: &mut Cluster) -> Result<Self> {
        let this = Self([Faults::new()?, Faults::new()?, Faults::new()?]);
        for faults in &this.0 {
            faults.disarm()?;
        }
        for (server, faults) in cluster.servers.iter_mut().zip(&this.0) {
            server.environment.push(faults.environment());
            server.stop_agent()?;
        }
        cluster.control_plane.environment.push(this.0[2].environment());
        cluster.control_plane.stop()?;
        cluster.control_plane.start().await?;
        for server in 0..2 {
            cluster.servers[server].start()?;
            linked(cluster, server).await?;
        }
        Ok(this)
    }

    fn of(&self, victim: Victim) -> &Faults {
        match victim {
            Victim::Agent(server) => &self.0[server],
            Victim::ControlPlane => &self.0[2],
        }
    }

    /// From now on the victim dies at the point.
    pub fn arm(&self, victim: Victim, point: &str) -> Result<()> {
        self.of(victim).arm(point)
    }

    /// Waits for the death at the point, and starts what died.
    pub async fn wait(&self, cluster: &mut Cluster, victim: Victim) -> Result<()> {
        wait::until("the death at the point", DEADLINE, async || {
            let Some(signal) = process(cluster, victim)?.killed()? else { return Ok(None) };
            ensure!(signal == SIGKILL, "ended by signal {signal}");
            Ok(Some(()))
        })
        .await?;
        self.of(victim).disarm()?;
        start(cluster, victim).await
    }
}

/// The victim's process.
pub fn process(cluster: &mut Cluster, victim: Victim) -> Result<&mut Process> {
    match victim {
        Victim::Agent(server) => cluster.servers[server].agent(),
        Victim::ControlPlane => cluster.control_plane.process(),
    }
}

/// Starts what died, and waits until both servers are linked.
pub async fn start(cluster: &mut Cluster, victim: Victim) -> Result<()> {
    match victim {
        Victim::Agent(server) => cluster.servers[server].start()?,
        Victim::ControlPlane => cluster.control_plane.start().await?,
    }
    linked(cluster, 0).await?;
    linked(cluster, 1).await
}

/// Waits until the server's link is up, as both of its ends see it.
pub async fn linked(cluster: &Cluster, server: usize) -> Result<()> {
    let server = &cluster.servers[server];
    wait::until("the link", DEADLINE, async || {
        // It may just be starting.
        let Ok(status) = server.status_now() else { return Ok(None) };
        Ok((status["link"]["state"] == "up").then_some(()))
    })
    .await?;
    cluster.wait_online(server, true).await
}
