//! The relay program beside the agent: it answers, is of the agent's version, and comes back after a reboot.

use super::{Check, chain};
use crate::config::Config;
use hoody_proxy::control::{Client, ControlError};
use std::{process::Stdio, time::Duration};
use tokio::process::Command;

const GROUP: &str = "relay";
const UNIT: &str = "hoody-proxy.service";
/// The time systemctl has to say what it knows of the unit.
const DEADLINE: Duration = Duration::from_secs(5);

pub(super) async fn check(config: &Config) -> Vec<Check> {
    let path = config.proxy_socket.display();
    let socket = match Client::connect(&config.proxy_socket).await {
        Ok((client, _)) => match client.version() {
            own if own == env!("CARGO_PKG_VERSION") => Check::ok(GROUP, "socket", format!("{path}, version {own}")),
            other => {
                let found = format!("{path}, version {other} beside an agent of version {}", env!("CARGO_PKG_VERSION"));
                let fix = "restart it when its containers' connections may end: `systemctl restart hoody-proxy`";
                Check::warning(GROUP, "socket", found, fix)
            }
        },
        Err(error) => Check::warning(GROUP, "socket", format!("{path}: {}", chain(&error)), fix(&error)),
    };
    vec![socket, unit().await]
}

fn fix(error: &ControlError) -> &'static str {
    match error {
        ControlError::Connect(_) => {
            "start it with `systemctl enable --now hoody-proxy`, or set `proxy_socket` to where its socket is: \
             containers with a proxy are cut off"
        }
        _ => "look into `journalctl -u hoody-proxy`: containers with a proxy are cut off",
    }
}

async fn unit() -> Check {
    let mut command = Command::new("systemctl");
    command.args(["is-enabled", UNIT]).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let said = tokio::time::timeout(DEADLINE, command.output()).await;
    let word = match &said {
        Ok(Ok(output)) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => String::new(),
    };
    if word == "enabled" {
        return Check::ok(GROUP, "unit", format!("{UNIT} is enabled"));
    }
    let found = if word.is_empty() { format!("{UNIT} is not known") } else { format!("{UNIT} is {word}") };
    Check::warning(
        GROUP,
        "unit",
        found,
        "enable it with `systemctl enable hoody-proxy`, so that it is there after a reboot",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Status;

    #[tokio::test]
    async fn a_relay_that_does_not_answer_is_a_warning_with_a_remedy() {
        let config = Config { proxy_socket: "/nowhere/control.sock".into(), ..Config::default() };
        let socket = check(&config).await.remove(0);
        assert_eq!((socket.name.as_str(), socket.status), ("socket", Status::Warning));
        assert!(socket.fix.is_some_and(|fix| fix.contains("systemctl enable --now hoody-proxy")));
    }
}
