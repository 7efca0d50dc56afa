//! What the time of a change is made of: the lines that both programs write of their steps, read between two
//! moments. Steps run beside and within one another, so they do not add up to the whole.

use super::table;
use crate::measure::Times;
use anyhow::Result;
use hoody_tests::cluster::{Cluster, Plan};
use std::{
    collections::BTreeMap,
    io::{Read, Seek, SeekFrom},
    path::PathBuf,
    time::Duration,
};

/// Lets both programs write of their steps.
const LOGGED: &str = "info,sqlx::query=warn,hoody::step=debug";

/// A cluster whose programs write of their steps.
pub(super) fn plan() -> Plan {
    Plan {
        // Without a rate, which is what traffic would be measured against.
        settings: vec![("RUST_LOG", LOGGED.to_owned()), ("HOODY_CONTAINER_NETWORK_MBIT", "0".to_owned())],
        agent_environment: vec![("HOODY_LOG".to_owned(), LOGGED.to_owned())],
        ..Plan::default()
    }
}

/// The steps of several changes of one kind.
#[derive(Debug)]
pub(super) struct Steps {
    /// Each log, and how far it was read.
    logs: Vec<(PathBuf, u64)>,
    /// Of each step, how often it came in all, and its times in each change.
    times: BTreeMap<String, (usize, Times)>,
    changes: usize,
}

impl Steps {
    pub(super) fn of(cluster: &Cluster) -> Self {
        let logs = [cluster.control_plane.log(), cluster.servers[0].log()];
        Self { logs: logs.map(|log| (log, 0)).to_vec(), times: BTreeMap::new(), changes: 0 }
    }

    /// What comes from now on is of a change.
    pub(super) fn begin(&mut self) -> Result<()> {
        for (log, at) in &mut self.logs {
            *at = log.metadata()?.len();
        }
        Ok(())
    }

    /// The change is over: counts what came since [`Steps::begin`].
    pub(super) fn end(&mut self) -> Result<()> {
        let mut sums: BTreeMap<String, (usize, u64)> = BTreeMap::new();
        for (log, at) in &self.logs {
            let mut file = std::fs::File::open(log)?;
            file.seek(SeekFrom::Start(*at))?;
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            for (step, micros) in text.lines().filter_map(parse) {
                let sum = sums.entry(step).or_default();
                *sum = (sum.0 + 1, sum.1 + micros);
            }
        }
        self.changes += 1;
        for (step, (count, micros)) in sums {
            let (all, times) = self.times.entry(step).or_default();
            *all += count;
            times.push(Duration::from_micros(micros));
        }
        Ok(())
    }

    /// Prints them.
    pub(super) fn print(&self, what: &str) {
        table::part(&format!("steps of {what}, some beside or within others"));
        table::head();
        for (step, (count, times)) in &self.times {
            let each = *count as f64 / self.changes as f64;
            table::times(&format!("{step} ({each:.0} times)"), times, None);
        }
    }
}

/// Step and microseconds of a line such as `… hoody::step: step="agent: mount" us=412`.
fn parse(line: &str) -> Option<(String, u64)> {
    let (_, rest) = line.split_once("hoody::step: step=\"")?;
    let (step, rest) = rest.split_once("\" us=")?;
    Some((step.to_owned(), rest.split(' ').next()?.parse().ok()?))
}
