//! How an image wants to be run: from an OCI configuration and from the importer's options, validated.

use super::{ImportError, documents::Execution};
use hoody_protocol::{
    bounded::{List, Map, Text},
    image::ImageConfig,
};
use std::collections::BTreeMap;

/// What the importer says over the image's own configuration; what is absent stays the image's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Overrides {
    /// The command line; empty: the image's own.
    pub command: Vec<String>,
    /// `KEY=value` entries over the image's own.
    pub env: Vec<String>,
    /// The working directory.
    pub workdir: Option<String>,
    /// `uid[:gid]` or `name[:group]`.
    pub user: Option<String>,
    /// The signal that asks the first process to end.
    pub stop_signal: Option<String>,
}

fn invalid(field: &'static str, problem: impl Into<String>) -> ImportError {
    ImportError::Config { field, problem: problem.into() }
}

/// The configuration of an OCI image.
pub(super) fn from_oci(execution: Execution) -> Result<ImageConfig, ImportError> {
    let mut words = execution.entrypoint.unwrap_or_default();
    words.extend(execution.cmd.unwrap_or_default());
    let mut variables = BTreeMap::new();
    insert_env(&mut variables, &execution.env.unwrap_or_default())?;
    Ok(ImageConfig {
        command: command(words)?,
        env: env(variables)?,
        workdir: workdir(execution.working_dir.unwrap_or_default())?,
        user: user(execution.user.unwrap_or_default())?,
        stop_signal: stop_signal(execution.stop_signal.unwrap_or_default())?,
    })
}

/// Puts the importer's options over an image's configuration.
pub(in crate::service::image) fn apply(mut config: ImageConfig, over: &Overrides) -> Result<ImageConfig, ImportError> {
    if !over.command.is_empty() {
        config.command = command(over.command.clone())?;
    }
    if !over.env.is_empty() {
        let mut variables = config.env.into_inner();
        insert_env(&mut variables, &over.env)?;
        config.env = env(variables)?;
    }
    if let Some(path) = &over.workdir {
        config.workdir = workdir(path.clone())?;
    }
    if let Some(name) = &over.user {
        config.user = user(name.clone())?;
    }
    if let Some(signal) = &over.stop_signal {
        config.stop_signal = stop_signal(signal.clone())?;
    }
    Ok(config)
}

type Variables = BTreeMap<Text<128>, Text<4096>>;

fn command(words: Vec<String>) -> Result<List<Text<4096>, 256>, ImportError> {
    let words = words.into_iter().map(|word| text("command", word)).collect::<Result<Vec<_>, _>>()?;
    if words.first().is_some_and(|program| program.is_empty()) {
        return Err(invalid("command", "the program's name is empty"));
    }
    List::try_from(words).map_err(|error| invalid("command", error.to_string()))
}

/// As with the `docker` program, a later entry wins over an earlier one.
fn insert_env(variables: &mut Variables, entries: &[String]) -> Result<(), ImportError> {
    for entry in entries {
        let Some((key, value)) = entry.split_once('=') else {
            return Err(invalid("env", "an entry has no \"=\""));
        };
        if key.is_empty() {
            return Err(invalid("env", "an entry has no name"));
        }
        variables.insert(text("env", key.to_owned())?, text("env", value.to_owned())?);
    }
    Ok(())
}

fn env(variables: Variables) -> Result<Map<Text<128>, Text<4096>, 256>, ImportError> {
    Map::try_from(variables).map_err(|error| invalid("env", format!("{error} entries")))
}

fn workdir(path: String) -> Result<Text<4096>, ImportError> {
    let inside = path.is_empty() || path.starts_with('/') && path.split('/').all(|part| part != "..");
    if !inside {
        return Err(invalid("workdir", "it must be an absolute path without \"..\""));
    }
    text("workdir", path)
}

fn user(name: String) -> Result<Text<128>, ImportError> {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-$@".contains(&b))
    };
    let parts: Vec<&str> = name.split(':').collect();
    if !name.is_empty() && (parts.len() > 2 || !parts.into_iter().all(part)) {
        return Err(invalid("user", "it must be uid[:gid] or name[:group]"));
    }
    text("user", name)
}

fn stop_signal(signal: String) -> Result<Text<32>, ImportError> {
    let word = |name: &str| {
        name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b"+-".contains(&b)) && name.len() > 2
    };
    let number = signal.parse::<u8>().is_ok_and(|number| (1..=64).contains(&number));
    let named = signal.strip_prefix("SIG").is_some_and(word);
    if !signal.is_empty() && !number && !named {
        return Err(invalid("stop signal", "it must be a name such as SIGTERM or a number from 1 to 64"));
    }
    text("stop signal", signal)
}

fn text<const MAX: usize>(field: &'static str, value: String) -> Result<Text<MAX>, ImportError> {
    if value.contains('\0') {
        return Err(invalid(field, "it contains a NUL character"));
    }
    Text::try_from(value).map_err(|error| invalid(field, format!("{error} bytes")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Option<Vec<String>> {
        Some(words.iter().map(|word| (*word).to_owned()).collect())
    }

    #[test]
    fn entrypoint_and_cmd_become_the_command() {
        let config = from_oci(Execution {
            entrypoint: words(&["/entry", "-x"]),
            cmd: words(&["serve"]),
            env: words(&["A=1", "B=x=y", "A=2"]),
            user: Some("www-data:www-data".to_owned()),
            working_dir: Some("/srv".to_owned()),
            stop_signal: Some("SIGRTMIN+3".to_owned()),
        })
        .unwrap();
        let command: Vec<&str> = config.command.iter().map(|word| word.as_str()).collect();
        assert_eq!(command, ["/entry", "-x", "serve"]);
        let env: Vec<(&str, &str)> = config.env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(env, [("A", "2"), ("B", "x=y")]);
        assert_eq!(config.stop_signal.as_str(), "SIGRTMIN+3");
    }

    #[test]
    fn options_win_over_the_image() {
        let image = from_oci(Execution { cmd: words(&["sh"]), env: words(&["A=1"]), ..Default::default() }).unwrap();
        let over = Overrides { env: words(&["A=2", "B=3"]).unwrap(), ..Default::default() };
        let config = apply(image.clone(), &over).unwrap();
        assert_eq!(config.command, image.command);
        assert_eq!(config.env.len(), 2);
        assert_eq!(apply(image.clone(), &Overrides::default()).unwrap(), image);
    }

    #[test]
    fn nonsense_is_refused_by_field() {
        let execution = |change: fn(&mut Execution)| {
            let mut execution = Execution::default();
            change(&mut execution);
            from_oci(execution)
        };
        type Change = fn(&mut Execution);
        let cases: [(&str, Change); 10] = [
            ("env", |e| e.env = words(&["A"])),
            ("env", |e| e.env = words(&["=1"])),
            ("env", |e| e.env = words(&["A=\0"])),
            ("env", |e| e.env = Some((0..257).map(|n| format!("K{n}=")).collect())),
            ("command", |e| e.cmd = words(&[""])),
            ("command", |e| e.cmd = Some(vec!["x".repeat(4097)])),
            ("workdir", |e| e.working_dir = Some("srv".to_owned())),
            ("workdir", |e| e.working_dir = Some("/srv/../..".to_owned())),
            ("user", |e| e.user = Some("a:b:c".to_owned())),
            ("stop signal", |e| e.stop_signal = Some("99".to_owned())),
        ];
        for (expected, change) in cases {
            match execution(change) {
                Err(ImportError::Config { field, .. }) => assert_eq!(field, expected),
                other => panic!("{expected}: {other:?}"),
            }
        }
    }
}
