//! What a client wants to run, checked before anybody is asked.

use crate::error::ServiceError;
use hoody_protocol::{bounded::Text, exec::Command};
use std::collections::BTreeMap;

/// Bytes of a command line, and of all variables with their names.
pub const MAX_ARGV_BYTES: usize = 96 << 10;
const MAX_ARGUMENTS: usize = 512;
const MAX_ARGUMENT_BYTES: usize = 32768;
const MAX_ENV_BYTES: usize = 96 << 10;
const MAX_VARIABLES: usize = 256;
const MAX_KEY_BYTES: usize = 128;
const MAX_PATH_BYTES: usize = 4096;
const MAX_USER_BYTES: usize = 256;

/// What to run, as it came.
#[derive(Debug, Clone, Default)]
pub struct CommandInput {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Variables over those of the container's first process.
    pub env: BTreeMap<String, String>,
    /// Working directory; empty: `/`.
    pub cwd: String,
    /// `uid[:gid]` or `name[:group]`; empty: root.
    pub user: String,
}

impl CommandInput {
    /// The command; what is wrong goes into `problems`, by the name of its field.
    pub(super) fn check(self, problems: &mut BTreeMap<String, String>) -> Option<Command> {
        let mut wrong = |field: &str, problem: &str| problems.insert(field.to_owned(), problem.to_owned());
        let before = self.problems();
        for (field, problem) in &before {
            wrong(field, problem);
        }
        if !before.is_empty() {
            return None;
        }
        let text = |text: String| Text::try_from(text).ok();
        let argv: Option<Vec<_>> = self.argv.into_iter().map(text).collect();
        let env: Option<BTreeMap<_, _>> =
            self.env.into_iter().map(|(name, value)| Some((Text::try_from(name).ok()?, text(value)?))).collect();
        Some(Command {
            argv: argv?.try_into().ok()?,
            env: env?.try_into().ok()?,
            cwd: Text::try_from(self.cwd).ok()?,
            user: Text::try_from(self.user).ok()?,
        })
    }

    fn problems(&self) -> Vec<(&'static str, &'static str)> {
        let mut found = Vec::new();
        let bytes: usize = self.argv.iter().map(String::len).sum();
        if self.argv.first().is_none_or(String::is_empty) {
            found.push(("argv", "must begin with a program"));
        } else if self.argv.len() > MAX_ARGUMENTS
            || bytes > MAX_ARGV_BYTES
            || self.argv.iter().any(|text| text.len() > MAX_ARGUMENT_BYTES)
        {
            found.push(("argv", "must have at most 512 texts of 32768 bytes, and 98304 bytes in all"));
        } else if self.argv.iter().any(|text| text.contains('\0')) {
            found.push(("argv", "must not contain NUL"));
        }
        let bytes: usize = self.env.iter().map(|(name, value)| name.len() + value.len()).sum();
        let named = |name: &String| !name.is_empty() && name.len() <= MAX_KEY_BYTES && !name.contains(['=', '\0']);
        if self.env.len() > MAX_VARIABLES || bytes > MAX_ENV_BYTES {
            found.push(("env", "must have at most 256 variables, and 98304 bytes in all"));
        } else if !self.env.keys().all(named) {
            found.push(("env", "must have names of 1 to 128 bytes without = and NUL"));
        } else if self.env.values().any(|value| value.contains('\0') || value.len() > MAX_ARGUMENT_BYTES) {
            found.push(("env", "must have values of at most 32768 bytes without NUL"));
        }
        let parent = self.cwd.split('/').any(|part| part == "..");
        if !self.cwd.is_empty()
            && (!self.cwd.starts_with('/') || parent || self.cwd.contains('\0') || self.cwd.len() > MAX_PATH_BYTES)
        {
            found.push(("cwd", "must be an absolute path without .., of at most 4096 bytes"));
        }
        if self.user.len() > MAX_USER_BYTES || self.user.contains(|c: char| c.is_control() || c == '/') {
            found.push(("user", "must be uid, uid:gid, name or name:group of the container's own accounts"));
        }
        found
    }
}

/// 400 with everything that is wrong.
pub(super) fn all_right(problems: BTreeMap<String, String>) -> Result<(), ServiceError> {
    if problems.is_empty() { Ok(()) } else { Err(ServiceError::Invalid(problems)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nothing_could_run_is_named() {
        let good = CommandInput { argv: vec!["ls".into(), "-l".into()], cwd: "/tmp".into(), ..Default::default() };
        assert!(good.clone().check(&mut BTreeMap::new()).is_some());
        let env = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        for (field, bad) in [
            ("argv", CommandInput { argv: vec![], ..good.clone() }),
            ("argv", CommandInput { argv: vec![String::new()], ..good.clone() }),
            ("argv", CommandInput { argv: vec!["a\0".into()], ..good.clone() }),
            ("argv", CommandInput { argv: vec!["x".repeat(40_000)], ..good.clone() }),
            ("argv", CommandInput { argv: vec!["x".repeat(30_000); 4], ..good.clone() }),
            ("env", CommandInput { env: env("A=B", ""), ..good.clone() }),
            ("env", CommandInput { env: env("A", "\0"), ..good.clone() }),
            ("cwd", CommandInput { cwd: "tmp".into(), ..good.clone() }),
            ("cwd", CommandInput { cwd: "/a/../b".into(), ..good.clone() }),
            ("user", CommandInput { user: "../etc".into(), ..good.clone() }),
            ("user", CommandInput { user: "a\nb".into(), ..good.clone() }),
        ] {
            let mut problems = BTreeMap::new();
            assert!(bad.check(&mut problems).is_none());
            assert_eq!(problems.into_keys().collect::<Vec<_>>(), [field]);
        }
    }
}
