//! Processes of the kernel in memory.

use super::{Faulted, Kernel, World};
use crate::runtime::{Bundle, CgroupStats, Mended, Process, Runtime, RuntimeError};
use async_trait::async_trait;
use hoody_protocol::{container::Limits, id::ContainerId};

impl From<Faulted> for RuntimeError {
    fn from(_: Faulted) -> Self {
        Self::Config { reason: "fault".into() }
    }
}

#[async_trait]
impl Runtime for Kernel {
    async fn create(&self, bundle: &Bundle) -> Result<i32, RuntimeError> {
        let effect = |world: &mut World| {
            world.demand(world.mounts.contains(&bundle.id), "created without its root file system mounted");
            if let Some(Process::Created { pid }) = world.processes.get(&bundle.id) {
                return *pid;
            }
            world.demand(!world.is_alive(bundle.id), "created while one runs");
            world.pids += 1;
            let pid = world.pids;
            world.unmonitored.remove(&bundle.id);
            world.processes.insert(bundle.id, Process::Created { pid });
            world.bundles.insert(bundle.id, bundle.clone());
            world.limits.insert(bundle.id, bundle.limits);
            pid
        };
        Ok(self.step("create", effect).await?)
    }

    async fn start(&self, id: ContainerId) -> Result<(), RuntimeError> {
        let effect = |world: &mut World| {
            world.demand(world.links.contains_key(&id), "started without its link");
            world.demand(world.rules.contains_key(&id), "started without its policy");
            let Some(Process::Created { pid }) = world.processes.get(&id).cloned() else {
                return world.demand(false, "started what is not made");
            };
            world.processes.insert(id, Process::Running { pid });
            world.starts += 1;
        };
        Ok(self.step("start", effect).await?)
    }

    async fn state(&self, id: ContainerId) -> Result<Process, RuntimeError> {
        let look = |world: &mut World| world.processes.get(&id).cloned().unwrap_or(Process::Absent);
        Ok(self.step("state", look).await?)
    }

    async fn mend(&self, bundle: &Bundle) -> Result<Mended, RuntimeError> {
        let look = |world: &mut World| Mended {
            files: world.bundles.insert(bundle.id, bundle.clone()).is_none(),
            disk_rates: false,
            monitored: !world.unmonitored.contains(&bundle.id),
        };
        Ok(self.step("mend", look).await?)
    }

    async fn signal_stop(&self, id: ContainerId, force: bool) -> Result<(), RuntimeError> {
        let effect = |world: &mut World| {
            if world.is_alive(id) && (force || !world.stubborn) {
                let code = Some(if force { 137 } else { 143 });
                world.processes.insert(id, Process::Exited { code, oom_killed: false });
            }
        };
        Ok(self.step(if force { "kill" } else { "stop" }, effect).await?)
    }

    async fn pause(&self, id: ContainerId) -> Result<(), RuntimeError> {
        let effect = |world: &mut World| {
            if let Some(Process::Running { pid }) = world.processes.get(&id).cloned() {
                world.processes.insert(id, Process::Paused { pid });
            }
        };
        Ok(self.step("pause", effect).await?)
    }

    async fn resume(&self, id: ContainerId) -> Result<(), RuntimeError> {
        let effect = |world: &mut World| {
            if let Some(Process::Paused { pid }) = world.processes.get(&id).cloned() {
                world.processes.insert(id, Process::Running { pid });
            }
        };
        Ok(self.step("resume", effect).await?)
    }

    async fn delete(&self, id: ContainerId) -> Result<(), RuntimeError> {
        let effect = |world: &mut World| {
            world.processes.remove(&id);
            world.bundles.remove(&id);
        };
        Ok(self.step("remove", effect).await?)
    }

    async fn forget(&self, _id: ContainerId) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn wait(&self, id: ContainerId) -> Result<(), RuntimeError> {
        let mut changed = self.0.changed.subscribe();
        while self.world().is_alive(id) {
            if changed.changed().await.is_err() {
                break;
            }
        }
        Ok(())
    }

    async fn update_limits(&self, id: ContainerId, limits: &Limits) -> Result<(), RuntimeError> {
        let effect = |world: &mut World| {
            world.limits.insert(id, *limits);
        };
        Ok(self.step("limits", effect).await?)
    }

    async fn oom_kills(&self, _id: ContainerId) -> Result<u64, RuntimeError> {
        Ok(self.step("kills", |world| world.oom_kills).await?)
    }

    async fn stats(&self, _id: ContainerId) -> Result<CgroupStats, RuntimeError> {
        Ok(CgroupStats::default())
    }

    async fn inspect(&self, _id: ContainerId) -> Result<Option<hoody_protocol::inspection::Inspection>, RuntimeError> {
        Ok(None)
    }

    async fn inventory(&self) -> Result<Vec<ContainerId>, RuntimeError> {
        Ok(self.world().processes.keys().copied().collect())
    }
}
