//! Validates responses against the wire contract, where its document is present beside the workspace
//! (`../shared/contract/openapi.json`, or the file named by `HOODY_CONTRACT`).

use crate::image::workspace;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Mutex, OnceLock, PoisonError},
};

/// Where the contract is; `None` where it is not present.
pub fn path() -> Option<PathBuf> {
    let path = std::env::var_os("HOODY_CONTRACT")
        .map_or_else(|| workspace().join("../shared/contract/openapi.json"), PathBuf::from);
    path.is_file().then_some(path)
}

#[derive(Debug)]
struct Contract {
    document: Value,
    validators: Mutex<HashMap<String, std::sync::Arc<jsonschema::Validator>>>,
}

fn contract() -> Option<&'static Contract> {
    static CONTRACT: OnceLock<Option<Contract>> = OnceLock::new();
    let load = || {
        let text = std::fs::read_to_string(path()?).expect("the contract is readable");
        let document = serde_json::from_str(&text).expect("the contract is JSON");
        Some(Contract { document, validators: Mutex::default() })
    };
    CONTRACT.get_or_init(load).as_ref()
}

/// Fails where the contract knows the operation and the response does not fit it. Statuses that the
/// contract does not describe pass: it has no errors in it.
pub fn check(method: &str, path: &str, status: u16, body: &Value) -> Result<()> {
    let Some(contract) = contract() else { return Ok(()) };
    let Some(operation) = contract.operation(method, path) else { return Ok(()) };
    let id = operation["operationId"].as_str().unwrap_or(path);
    let Some(schema) = contract.schema(operation, status) else { return Ok(()) };
    let key = format!("{id} {status}");
    let mut validators = contract.validators.lock().unwrap_or_else(PoisonError::into_inner);
    let validator = match validators.get(&key) {
        Some(validator) => validator.clone(),
        None => {
            let mut root = schema.clone();
            root["components"] = contract.document["components"].clone();
            let validator = jsonschema::validator_for(&root).map_err(|error| anyhow::anyhow!("{key}: {error}"))?;
            validators.entry(key.clone()).or_insert(std::sync::Arc::new(validator)).clone()
        }
    };
    drop(validators);
    let problems: Vec<String> =
        validator.iter_errors(body).take(5).map(|error| format!("{}: {error}", error.instance_path())).collect();
    if problems.is_empty() {
        return Ok(());
    }
    bail!("{key} does not fit the contract: {}\n{body:#}", problems.join("; "))
}

impl Contract {
    fn operation(&self, method: &str, path: &str) -> Option<&Value> {
        let path = path.split('?').next()?.trim_end_matches('/');
        let paths = self.document["paths"].as_object()?;
        let fits = |template: &str| {
            let (a, b) = (template.trim_end_matches('/').split('/'), path.split('/'));
            a.clone().count() == b.clone().count() && a.zip(b).all(|(a, b)| a == b || a.starts_with('{'))
        };
        // The template with the most literal segments wins.
        let literal = |template: &str| template.split('/').filter(|segment| !segment.starts_with('{')).count();
        let candidates =
            paths.iter().filter(|(template, methods)| fits(template) && methods.get(method.to_lowercase()).is_some());
        let (_, methods) = candidates.max_by_key(|(template, _)| literal(template))?;
        methods.get(method.to_lowercase())
    }

    fn schema(&self, operation: &Value, status: u16) -> Option<Value> {
        let schema = operation["responses"].get(status.to_string())?.pointer("/content/application~1json/schema")?;
        Some(schema.clone())
    }
}

/// The contract's operations, `operationId` → `METHOD path`; empty where it is not present.
pub fn operations() -> Result<Vec<(String, String)>> {
    let Some(contract) = contract() else { return Ok(Vec::new()) };
    let paths = contract.document["paths"].as_object().context("the contract has paths")?;
    let mut operations = Vec::new();
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().context("a path has methods")? {
            if let Some(id) = operation["operationId"].as_str() {
                operations.push((id.to_owned(), format!("{} {path}", method.to_uppercase())));
            }
        }
    }
    Ok(operations)
}
