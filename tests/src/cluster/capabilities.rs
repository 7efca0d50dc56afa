//! The capabilities that the agent's unit names, and its umask. The agents of a cluster run with these and no more, so
//! that whatever the unit lacks fails a test and not a server.

use crate::image::workspace;
use anyhow::{Context, Result, ensure};
use std::process::Command;

const UNIT: &str = "systemd/hoody-agent.service";
const SETTING: &str = "CapabilityBoundingSet=";

/// The unit's, and the strictest that an operator may have: containers start all the same.
const WITH_UMASK: &str = "umask 077; exec \"$@\"";

/// Wraps `command`, which starts the agent, so that it has what the unit names, and its umask.
pub(super) fn confine(mut wrapper: Command, command: &Command) -> Result<Command> {
    let unit = std::fs::read_to_string(workspace().join(UNIT)).context(UNIT)?;
    let names = names(&unit);
    ensure!(!names.is_empty(), "{UNIT} names no capabilities");
    let set: String = names.iter().map(|name| format!(",+{name}")).collect();
    wrapper.args(["--inh-caps", "-all", "--bounding-set", &format!("-all{set}"), "--"]);
    wrapper.args(["sh", "-c", WITH_UMASK, "sh"]).arg(command.get_program()).args(command.get_args());
    Ok(wrapper)
}

/// Lowercase and without `cap_`, as setpriv(1) takes them.
fn names(unit: &str) -> Vec<String> {
    let joined = unit.replace("\\\n", " ");
    let lines = joined.lines().filter_map(|line| line.strip_prefix(SETTING));
    let words = lines.flat_map(str::split_whitespace);
    words.map(|word| word.to_ascii_lowercase().trim_start_matches("cap_").to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lines_of_the_setting_are_read() {
        let unit = "[Service]\nCapabilityBoundingSet=CAP_SYS_ADMIN CAP_KILL \\\n    CAP_CHOWN\nUMask=0077\n";
        assert_eq!(names(unit), ["sys_admin", "kill", "chown"]);
    }
}
