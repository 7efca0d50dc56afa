//! Services of systemd: asked of `systemctl`, which runs inside the container as its root, within its limits. It is the
//! tenant's own program: its output is bounded, and only text.

use super::{
    super::{ExecRequest, OciRuntime},
    bounded,
};
use hoody_protocol::{
    bounded::{List, Text},
    id::ContainerId,
    inspection::{MAX_SERVICES, ServiceInfo},
    time::now_ms,
};
use std::{collections::BTreeMap, time::Duration};

/// The time it has.
const LIMIT: Duration = Duration::from_millis(1800);
/// Bytes that are read of its output.
const MAX_BYTES: u64 = 512 << 10;
/// What systemd writes for a number that it does not have.
const NOT_SET: u64 = u64::MAX;

const PROPERTIES: &str = "--property=Id,Description,LoadState,ActiveState,SubState,UnitFileState,UnitFilePreset,\
    MainPID,FragmentPath,DropInPaths,Documentation,ControlGroup,MemoryCurrent,CPUUsageNSec,TasksCurrent,NRestarts,\
    StateChangeTimestampMonotonic,ActiveEnterTimestampMonotonic";

/// The services that systemd has loaded, and whether there are more; `None` where it does not answer.
pub(super) async fn list(runtime: &OciRuntime, id: ContainerId) -> Option<(List<ServiceInfo, MAX_SERVICES>, bool)> {
    let argv = ["systemctl", "show", "--no-pager", "--all", PROPERTIES, "--", "*.service"].map(str::to_owned).to_vec();
    let env = BTreeMap::from([("LC_ALL".to_owned(), "C".to_owned()), ("SYSTEMD_COLORS".to_owned(), "0".to_owned())]);
    let request = ExecRequest { argv, env, limit: Some(LIMIT), ..ExecRequest::default() };
    match runtime.exec_output(id, &request, MAX_BYTES).await {
        Ok(output) => {
            let mut services = parse(&String::from_utf8_lossy(&output), Clock::now());
            let more = services.len() > MAX_SERVICES || output.len() as u64 == MAX_BYTES;
            services.truncate(MAX_SERVICES);
            Some((bounded(services), more))
        }
        Err(error) => {
            tracing::debug!(container = %id, error = &error as &dyn std::error::Error, "services are not known");
            None
        }
    }
}

/// Now, by the clock of people and by systemd's.
#[derive(Debug, Clone, Copy)]
struct Clock {
    now_ms: u64,
    monotonic_us: u64,
}

impl Clock {
    fn now() -> Self {
        let monotonic = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map(Duration::from);
        Self { now_ms: now_ms(), monotonic_us: monotonic.map_or(0, |time| time.as_micros() as u64) }
    }

    /// The time of a moment that systemd gives in microseconds since the boot; 0 is never.
    fn at(self, monotonic_us: u64) -> Option<u64> {
        let ago = self.monotonic_us.checked_sub(monotonic_us)?;
        (monotonic_us > 0).then(|| self.now_ms.saturating_sub(ago / 1000))
    }
}

/// Lines `Key=value`, an empty one between two services.
fn parse(text: &str, clock: Clock) -> Vec<ServiceInfo> {
    let mut services = Vec::new();
    for block in text.split("\n\n") {
        let values: BTreeMap<&str, &str> = block.lines().filter_map(|line| line.split_once('=')).collect();
        let text = |key: &str| values.get(key).copied().unwrap_or_default();
        let number = |key: &str| text(key).parse::<u64>().ok().filter(|number| *number != NOT_SET);
        if !text("Id").ends_with(".service") {
            continue;
        }
        services.push(ServiceInfo {
            unit: Text::printable(text("Id")),
            description: Text::printable(text("Description")),
            load: Text::printable(text("LoadState")),
            active: Text::printable(text("ActiveState")),
            sub: Text::printable(text("SubState")),
            enabled: Text::printable(text("UnitFileState")),
            preset: Text::printable(text("UnitFilePreset")),
            main_pid: number("MainPID").and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0),
            fragment_path: Text::printable(text("FragmentPath")),
            drop_in: Text::printable(text("DropInPaths")),
            docs: Text::printable(text("Documentation")),
            control_group: Text::printable(text("ControlGroup")),
            memory_bytes: number("MemoryCurrent"),
            cpu_ns: number("CPUUsageNSec"),
            tasks: number("TasksCurrent"),
            restarts: number("NRestarts"),
            since: number("StateChangeTimestampMonotonic").and_then(|at| clock.at(at)),
            active_since: number("ActiveEnterTimestampMonotonic").and_then(|at| clock.at(at)),
        });
    }
    services
}

/// Any text as what `systemctl` printed, for fuzzing: what is told is printable, and of services.
pub(super) fn fuzzing(text: &str) {
    for service in parse(text, Clock { now_ms: 1, monotonic_us: 1 }) {
        let texts = [service.description.as_str(), service.fragment_path.as_str(), service.docs.as_str()];
        assert!(texts.iter().all(|text| !text.chars().any(char::is_control)));
        assert!(service.main_pid != Some(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CLOCK: Clock = Clock { now_ms: 1_000_000, monotonic_us: 5_000_000 };

    #[test]
    fn services_are_read_with_what_they_lack() {
        let text = "Id=ssh.service\nDescription=OpenBSD = Secure\x1b[31m Shell\nActiveState=active\nMainPID=12\n\
            MemoryCurrent=[not set]\nTasksCurrent=18446744073709551615\nNRestarts=2\n\
            StateChangeTimestampMonotonic=4000000\nActiveEnterTimestampMonotonic=0\n\nId=a.timer\n\n\
            ActiveState=active\n\nId=b.service\nMainPID=0\nMainPID=99999999999\n";
        let services = parse(text, CLOCK);
        assert_eq!(
            services.iter().map(|service| service.unit.as_str()).collect::<Vec<_>>(),
            ["ssh.service", "b.service"]
        );
        let ssh = &services[0];
        assert_eq!(ssh.description.as_str(), "OpenBSD = Secure\u{fffd}[31m Shell");
        assert_eq!((ssh.main_pid, ssh.memory_bytes, ssh.tasks, ssh.restarts), (Some(12), None, None, Some(2)));
        assert_eq!((ssh.since, ssh.active_since), (Some(999_000), None));
        assert_eq!(services[1].main_pid, None);
    }

    proptest! {
        #[test]
        fn no_output_makes_it_panic(text in "((Id|MainPID|StateChangeTimestampMonotonic)=[a-z0-9.]{0,21}|\n){0,30}") {
            let _ = parse(&text, CLOCK);
        }
    }
}
