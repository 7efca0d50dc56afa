//! Environment variables of a container. They take effect at its next start.

use super::container::{
    self, Effect, MAX_ENV_VALUE_CHARS, Progress, change, check_env_key, check_env_size, check_env_value, env_text,
};
use crate::{app::App, caller::Caller, error::ServiceError, store::container::ContainerRow};
use hoody_protocol::{
    bounded::Text,
    container::{ContainerSpec, Desired},
    id::ContainerId,
};
use serde_json::Value;
use std::collections::BTreeMap;

/// Bytes of the longest value; also the most characters of a value that is set alone.
const MAX_VALUE_BYTES: usize = 32 << 10;

/// Valid variables.
pub(in crate::service) type Variables = BTreeMap<Text<128>, Text<32768>>;

/// Parses variables as sent. A problem's field is `prefix` and the key.
pub(in crate::service) fn parse_all(
    variables: BTreeMap<String, Value>,
    prefix: &str,
) -> Result<Variables, BTreeMap<String, String>> {
    let mut parsed = Variables::new();
    let mut problems = BTreeMap::new();
    for (key, value) in variables {
        match parse(&key, &value, MAX_ENV_VALUE_CHARS) {
            Ok((key, value)) => {
                parsed.insert(key, value);
            }
            Err(problem) => {
                // A key of any length must not come back as one.
                let shown: String = key.chars().take(128).collect();
                problems.insert(format!("{prefix}{shown}"), problem);
            }
        }
    }
    if problems.is_empty() { Ok(parsed) } else { Err(problems) }
}

fn parse(key: &str, value: &Value, max_chars: usize) -> Result<(Text<128>, Text<32768>), String> {
    check_env_key(key)?;
    let value = env_text(value)?;
    check_env_value(&value, max_chars, MAX_VALUE_BYTES)?;
    // Both were checked against these limits.
    Ok((Text::truncated(key), Text::truncated(value)))
}

/// Sets variables, the others stay. Checks that all of them together are not too many.
pub(in crate::service) fn merge(
    spec: &mut ContainerSpec,
    variables: Variables,
    field: &str,
) -> Result<(), ServiceError> {
    let mut all = std::mem::take(&mut spec.env).into_inner();
    all.extend(variables);
    check_env_size(all.iter().map(|(key, value)| (key.as_str(), value.as_str())))
        .map_err(|problem| ServiceError::invalid(field, problem))?;
    spec.env = all
        .try_into()
        .map_err(|error: hoody_protocol::bounded::TooLong| ServiceError::invalid(field, error.to_string()))?;
    Ok(())
}

/// The variables.
pub async fn list(app: &App, caller: &Caller, id: ContainerId) -> Result<ContainerRow, ServiceError> {
    container::get(app, caller, id).await
}

/// Sets several variables; the others stay.
pub async fn set_all(
    app: &App,
    caller: &Caller,
    id: ContainerId,
    variables: BTreeMap<String, Value>,
) -> Result<(ContainerRow, Progress), ServiceError> {
    let variables = parse_all(variables, "").map_err(ServiceError::Invalid)?;
    write(app, caller, id, |spec| merge(spec, variables, "environment_vars")).await
}

/// Sets one variable.
pub async fn set(
    app: &App,
    caller: &Caller,
    id: ContainerId,
    key: &str,
    value: &Value,
) -> Result<(ContainerRow, Progress), ServiceError> {
    check_env_key(key).map_err(|problem| ServiceError::invalid("key", problem))?;
    let (key, value) = parse(key, value, MAX_VALUE_BYTES).map_err(|problem| ServiceError::invalid("value", problem))?;
    write(app, caller, id, |spec| merge(spec, Variables::from([(key, value)]), "value")).await
}

/// Removes one variable.
pub async fn remove(
    app: &App,
    caller: &Caller,
    id: ContainerId,
    key: &str,
) -> Result<(ContainerRow, Progress), ServiceError> {
    check_env_key(key).map_err(|problem| ServiceError::invalid("key", problem))?;
    write(app, caller, id, |spec| {
        let mut all = std::mem::take(&mut spec.env).into_inner();
        if all.remove(&Text::truncated(key)).is_none() {
            return Err(ServiceError::NotFound("environment variable"));
        }
        spec.env = all.try_into().map_err(ServiceError::internal)?;
        Ok(())
    })
    .await
}

async fn write(
    app: &App,
    caller: &Caller,
    id: ContainerId,
    edit: impl FnOnce(&mut ContainerSpec) -> Result<(), ServiceError>,
) -> Result<(ContainerRow, Progress), ServiceError> {
    let (row, progress, ()) = change(app, caller, id, |row| {
        if row.spec.desired == Desired::Deleted {
            return Err(ServiceError::Conflict("the container is being deleted".to_owned()));
        }
        let before = row.spec.env.clone();
        edit(&mut row.spec)?;
        Ok((if row.spec.env == before { Effect::Nothing } else { Effect::Desired }, ()))
    })
    .await?;
    Ok((row, progress))
}
