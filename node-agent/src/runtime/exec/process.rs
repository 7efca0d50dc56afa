//! Describes a further process to the runtime: the first process's settings (limits, capabilities, no privileges
//! of its own) with another command line, user and folder. What was asked comes from outside and is checked again;
//! accounts are the container's own, read beneath its root.

use super::{
    super::{OciRuntime, RuntimeError, error::io, rootfs::Rootfs, user},
    ExecRequest,
};
use hoody_protocol::id::ContainerId;
use oci_spec::runtime::{Process, Spec, UserBuilder};
use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

/// What a program at a terminal is told of it, unless the request says something else.
const TERMINAL_KIND: &str = "TERM=xterm-256color";

impl OciRuntime {
    /// The process as the runtime reads it, and its user and group inside.
    pub(super) fn process(
        &self,
        id: ContainerId,
        request: &ExecRequest,
        terminal: bool,
    ) -> Result<(Vec<u8>, (u32, u32)), RuntimeError> {
        check(request).map_err(|reason| RuntimeError::Bundle { id, reason: reason.into() })?;
        let path = self.layout.config(id);
        let text = std::fs::read(&path).map_err(io("read", &path))?;
        let corrupt = |reason: String| RuntimeError::Corrupt { path: path.clone(), reason };
        let spec: Spec = serde_json::from_slice(&text).map_err(|error| corrupt(error.to_string()))?;
        let Some(mut process) = spec.process().clone() else { return Err(corrupt("no process".into())) };
        let Some(root) = spec.root() else { return Err(corrupt("no root".into())) };
        let found = user::lookup(id, &Rootfs::open(root.path())?, &request.user)?;
        let ids = (found.uid, found.gid);
        let mut user = UserBuilder::default().uid(found.uid).gid(found.gid);
        if !found.groups.is_empty() {
            user = user.additional_gids(found.groups);
        }
        process.set_user(user.build().map_err(|error| corrupt(error.to_string()))?);
        process.set_args(Some(request.argv.clone()));
        process.set_cwd(if request.cwd.is_empty() { "/".into() } else { PathBuf::from(&request.cwd) });
        process.set_env(Some(environment(&process, &request.env, terminal)));
        process.set_terminal(Some(terminal));
        let text = serde_json::to_vec(&process).map_err(|error| corrupt(error.to_string()))?;
        Ok((text, ids))
    }
}

fn check(request: &ExecRequest) -> Result<(), &'static str> {
    let sound = |text: &String| !text.contains('\0');
    if request.argv.first().is_none_or(String::is_empty) || !request.argv.iter().all(sound) {
        return Err("the command cannot be executed");
    }
    if !request.env.iter().all(|(name, value)| sound(value) && !name.is_empty() && !name.contains(['=', '\0'])) {
        return Err("an environment variable cannot be set");
    }
    let plain = |path: &str| Path::new(path).components().all(|part| part != Component::ParentDir);
    if !request.cwd.is_empty() && (!request.cwd.starts_with('/') || !sound(&request.cwd) || !plain(&request.cwd)) {
        return Err("the working directory is not a plain absolute path");
    }
    if request.user.contains(['\0', '\n', '/']) {
        return Err("the user is not the name of one");
    }
    Ok(())
}

fn environment(process: &Process, over: &BTreeMap<String, String>, terminal: bool) -> Vec<String> {
    let inherited = process.env().iter().flatten();
    let kept = inherited.filter(|entry| entry.split_once('=').is_none_or(|(name, _)| !over.contains_key(name)));
    let mut all: Vec<String> =
        kept.cloned().chain(over.iter().map(|(name, value)| format!("{name}={value}"))).collect();
    if terminal && !all.iter().any(|entry| entry.starts_with("TERM=")) {
        all.push(TERMINAL_KIND.into());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_command_is_refused() {
        let good = ExecRequest { argv: vec!["true".into()], ..Default::default() };
        assert!(check(&good).is_ok());
        let env = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        for bad in [
            ExecRequest { argv: vec![], ..good.clone() },
            ExecRequest { argv: vec!["".into()], ..good.clone() },
            ExecRequest { argv: vec!["a".into(), "b\0".into()], ..good.clone() },
            ExecRequest { env: env("A=B", "1"), ..good.clone() },
            ExecRequest { env: env("", "1"), ..good.clone() },
            ExecRequest { env: env("A", "\0"), ..good.clone() },
            ExecRequest { cwd: "tmp".into(), ..good.clone() },
            ExecRequest { cwd: "/tmp/../proc/1/root".into(), ..good.clone() },
            ExecRequest { user: "../../etc/passwd".into(), ..good.clone() },
            ExecRequest { user: "a\nroot".into(), ..good.clone() },
        ] {
            assert!(check(&bad).is_err(), "{bad:?}");
        }
    }
}
