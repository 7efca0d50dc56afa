//! What the query of a terminal's connection says.

use crate::{
    error::ServiceError,
    service::exec::{CommandInput, TerminalInput},
};
use hoody_protocol::{exec::TerminalSize, id::TerminalId};
use std::{collections::BTreeMap, fmt::Display, str::FromStr};

/// What is opened where the request does not say.
const SHELL: &str = "/bin/sh";
const SIZE: TerminalSize = TerminalSize { columns: 80, rows: 24 };
const MAX_ARGUMENTS: usize = 512;

/// What is opened or connected to, and whether output is acknowledged.
pub(super) fn read(query: &str) -> Result<(TerminalInput, bool), ServiceError> {
    let mut argv = Vec::new();
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()).into_owned() {
        match name.as_str() {
            // One more than is allowed, so that the service refuses it.
            "argv" | "argv[]" => argv.extend((argv.len() <= MAX_ARGUMENTS).then_some(value)),
            _ => drop(values.insert(name, value)),
        }
    }
    let mut problems = BTreeMap::new();
    let terminal: Option<TerminalId> = parsed(&values, "terminal_id", &mut problems);
    let after: Option<u64> = parsed(&values, "after", &mut problems);
    let columns = parsed(&values, "columns", &mut problems).unwrap_or(SIZE.columns);
    let rows = parsed(&values, "rows", &mut problems).unwrap_or(SIZE.rows);
    let acknowledge: Option<bool> = parsed(&values, "acknowledge", &mut problems);
    if after.is_some() && terminal.is_none() && !problems.contains_key("terminal_id") {
        problems.insert("after".to_owned(), "needs terminal_id".to_owned());
    }
    if !problems.is_empty() {
        return Err(ServiceError::Invalid(problems));
    }
    if argv.is_empty() {
        argv.push(SHELL.to_owned());
    }
    let mut take = |name: &str| values.remove(name).unwrap_or_default();
    let command = CommandInput { argv, env: BTreeMap::new(), cwd: take("cwd"), user: take("user") };
    let existing = terminal.map(|terminal| (terminal, after));
    let input = TerminalInput { command, existing, size: TerminalSize { columns, rows } };
    Ok((input, acknowledge.unwrap_or(false)))
}

fn parsed<T: FromStr<Err: Display>>(
    values: &BTreeMap<String, String>,
    name: &str,
    problems: &mut BTreeMap<String, String>,
) -> Option<T> {
    match values.get(name)?.parse() {
        Ok(value) => Some(value),
        Err(error) => {
            problems.insert(name.to_owned(), error.to_string());
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_what_is_opened() {
        let (input, acknowledge) = read("").unwrap();
        assert_eq!((input.command.argv, input.size, acknowledge), (vec![SHELL.to_owned()], SIZE, false));
        let (input, acknowledge) =
            read("argv=ls&argv=-l+x&columns=100&rows=50&user=web&cwd=/tmp&acknowledge=true").unwrap();
        assert_eq!(input.command.argv, ["ls", "-l x"]);
        assert_eq!((input.size.columns, input.size.rows, acknowledge), (100, 50, true));
        let id = TerminalId::generate();
        let (input, _) = read(&format!("terminal_id={id}&after=7")).unwrap();
        assert_eq!(input.existing, Some((id, Some(7))));
    }

    #[test]
    fn everything_that_is_wrong_is_named() {
        let Err(ServiceError::Invalid(problems)) = read("terminal_id=x&after=-1&columns=many&acknowledge=1") else {
            panic!("refused")
        };
        assert_eq!(problems.into_keys().collect::<Vec<_>>(), ["acknowledge", "after", "columns", "terminal_id"]);
        assert!(read("after=1").is_err(), "of which terminal?");
    }
}
