//! Secrets that a test run used, and whether any of them is in a log. The client of the API notes every
//! password, token and code that it sends or gets; tests add what goes other ways.

use anyhow::{Result, ensure};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// Fields of requests and responses that carry secrets.
const FIELDS: &[&str] = &[
    "password",
    "current_password",
    "token",
    "accessToken",
    "access_token",
    "refreshToken",
    "refresh_token",
    "temp_token",
    "secret",
    "manual_entry_key",
    "backup_codes",
    "invite_code",
];
/// Shorter texts are in logs by chance.
const MIN_BYTES: usize = 8;

static NOTED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Notes a secret.
pub fn note(secret: &str) {
    if secret.len() >= MIN_BYTES {
        NOTED.lock().unwrap_or_else(PoisonError::into_inner).insert(secret.to_owned());
    }
}

/// Notes the secrets of a request or response.
pub fn note_all(body: &Value) {
    match body {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if FIELDS.contains(&name.as_str()) => note(text),
                    Value::Array(items) if FIELDS.contains(&name.as_str()) => {
                        items.iter().filter_map(Value::as_str).for_each(note);
                    }
                    other => note_all(other),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(note_all),
        _ => {}
    }
}

/// How many secrets were noted.
pub fn count() -> usize {
    NOTED.lock().unwrap_or_else(PoisonError::into_inner).len()
}

/// Fails where a log below `folder` holds a secret that was noted in this process.
pub fn check_logs(folder: &Path) -> Result<()> {
    let noted = NOTED.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut logs = Vec::new();
    find_logs(folder, &mut logs)?;
    ensure!(!logs.is_empty(), "{} has no logs", folder.display());
    for log in logs {
        let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        for (number, line) in text.lines().enumerate() {
            let found = noted.iter().find(|secret| line.contains(secret.as_str()));
            ensure!(found.is_none(), "{}:{} holds a secret: {line}", log.display(), number + 1);
        }
    }
    Ok(())
}

fn find_logs(folder: &Path, logs: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            find_logs(&path, logs)?;
        } else if path.extension().is_some_and(|extension| extension == "log") {
            logs.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_secret_in_a_log_is_found_wherever_the_log_is() -> Result<()> {
        let folder = tempfile::tempdir()?;
        ensure!(check_logs(folder.path()).is_err(), "no logs: nothing was checked");
        let deep = folder.path().join("a/b");
        fs::create_dir_all(&deep)?;
        fs::write(deep.join("c.log"), "login of ann\nwith hush-hush-1 and more\n")?;
        check_logs(folder.path())?;
        note_all(&json!({ "data": [{ "backup_codes": ["unused-code"], "name": "login of ann" }] }));
        check_logs(folder.path())?;
        note_all(&json!({ "data": [{ "backup_codes": ["hush-hush-1"] }] }));
        let error = check_logs(folder.path()).unwrap_err().to_string();
        ensure!(error.contains("c.log:2"), "{error}");
        Ok(())
    }
}
