//! The OpenAPI document that the program prints, beside the public contract: every operation that a client
//! of this version may call is there under the contract's name, taking the contract's
//! parameters and fields and answering its statuses.

use anyhow::{Context, Result, ensure};
use hoody_tests::{
    cluster::{program, run},
    contract,
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// The contract's operations that this version has to serve.
const SERVED: [&str; 82] = [
    "authTokens.list",
    "authTokens.create",
    "authTokens.get",
    "authTokens.update",
    "authTokens.delete",
    "authTokens.addRealm",
    "authTokens.removeRealm",
    "authTokens.copy",
    "authTokens.getCurrent",
    "authTokens.updatePublicProfile",
    "authTokens.getPublicProfile",
    "authTokens.listAuthTokenPermissionTemplates",
    "pools.list",
    "pools.create",
    "pools.get",
    "pools.update",
    "pools.delete",
    "poolMembers.invite",
    "poolMembers.updateRole",
    "poolMembers.remove",
    "poolInvitations.list",
    "poolInvitations.accept",
    "poolInvitations.reject",
    "projects.listPermissions",
    "projects.addPermission",
    "projects.updatePermission",
    "projects.removePermission",
    "projects.getStats",
    "realms.list",
    "authentication.login",
    "authentication.refreshToken",
    "authentication.logout",
    "authentication.getCurrentUser",
    "authentication.getCurrentUserAlias",
    "projects.list",
    "projects.create",
    "projects.get",
    "projects.update",
    "projects.delete",
    "containers.copy",
    "containers.listSnapshots",
    "containers.createSnapshot",
    "containers.restoreSnapshot",
    "containers.deleteSnapshot",
    "containers.updateSnapshotAlias",
    "containers.list",
    "containers.listByProject",
    "containers.create",
    "containers.get",
    "containers.update",
    "containers.delete",
    "containers.manage",
    "containers.getStats",
    "containers.getStatusLogs",
    "env.list",
    "env.bulkSet",
    "env.set",
    "env.delete",
    "containers.getNetworkConfig",
    "containers.updateNetworkConfig",
    "containers.removeNetworkConfig",
    "containers.startNetwork",
    "containers.stopNetwork",
    "firewall.list",
    "firewall.reset",
    "firewall.addIngressRule",
    "firewall.toggleIngressRule",
    "firewall.removeIngressRule",
    "firewall.addEgressRule",
    "firewall.toggleEgressRule",
    "firewall.removeEgressRule",
    "serverRental.list",
    "serverRental.get",
    "serverRental.browse",
    "serverRental.getServerRuntime",
    "serverRental.getRentalRuntime",
    "images.listPublic",
    "images.getDetails",
    "meta.getPublicKey",
    "utilities.getIpInfo",
    "health.live",
    "health.ready",
];

/// What an operation of ours does not take yet, although the contract has it, and why that harms nobody.
const NOT_TAKEN: [(&str, &str, &str); 6] = [
    ("authentication.githubOAuthRedirect", "200", "sends a browser on, which takes 302"),
    ("authentication.githubOAuthCallback", "200", "sends a browser on, which takes 302"),
    ("authentication.googleOAuthRedirect", "200", "sends a browser on, which takes 302"),
    ("authentication.googleOAuthCallback", "200", "sends a browser on, which takes 302"),
    ("authentication.oauthDeviceAuthorize", "200", "sends a browser on, which takes 302"),
    ("authentication.oauthLaunchStart", "200", "sends a browser on, which takes 302"),
];

/// An operation of a document; references are resolved.
struct Operation<'a> {
    place: String,
    document: &'a Value,
    value: &'a Value,
}

/// By operation id; parameters in paths lose their names, because documents may name them differently.
fn operations(document: &Value) -> Result<BTreeMap<String, Operation<'_>>> {
    let mut found = BTreeMap::new();
    for (path, item) in document["paths"].as_object().context("no paths")? {
        let nameless: Vec<&str> =
            path.trim_end_matches('/').split('/').map(|part| if part.starts_with('{') { "{}" } else { part }).collect();
        for method in METHODS {
            let Some(id) = item[method]["operationId"].as_str() else { continue };
            let place = format!("{} {}", method.to_uppercase(), nameless.join("/"));
            let operation = Operation { place, document, value: &item[method] };
            ensure!(found.insert(id.to_owned(), operation).is_none(), "{id} stands twice in a document");
        }
    }
    Ok(found)
}

impl Operation<'_> {
    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        let target = value["$ref"].as_str().and_then(|reference| self.document.pointer(reference.strip_prefix('#')?));
        target.unwrap_or(value)
    }

    fn query_parameters(&self) -> BTreeSet<String> {
        let parameters = self.value["parameters"].as_array().into_iter().flatten();
        let named = |parameter| {
            let parameter = self.resolved(parameter);
            (parameter["in"] == "query").then(|| parameter["name"].as_str().unwrap_or_default().to_owned())
        };
        parameters.filter_map(named).collect()
    }

    /// Names of the fields of the JSON body.
    fn body_fields(&self) -> BTreeSet<String> {
        let body = self.resolved(&self.value["requestBody"]);
        let schema = self.resolved(&body["content"]["application/json"]["schema"]);
        let parts = ["allOf", "anyOf", "oneOf"].into_iter().filter_map(|word| schema[word].as_array()).flatten();
        let all = parts.map(|part| self.resolved(part)).chain([schema]);
        all.filter_map(|schema| schema["properties"].as_object()).flat_map(|fields| fields.keys().cloned()).collect()
    }

    fn success(&self) -> BTreeSet<String> {
        let responses = self.value["responses"].as_object().into_iter().flatten();
        responses.map(|(status, _)| status.clone()).filter(|status| status.starts_with('2')).collect()
    }
}

#[test]
fn what_is_served_is_in_the_contract_under_the_same_names() -> Result<()> {
    let printed = run(Command::new(program("hoody-control-plane")).arg("openapi"))?;
    let ours: Value = serde_json::from_str(&printed).context("openapi prints JSON")?;
    let served = operations(&ours)?;
    let absent: Vec<&str> = SERVED.into_iter().filter(|id| !served.contains_key(*id)).collect();
    ensure!(absent.is_empty(), "the program does not serve {absent:?}");

    let Some(path) = contract::path() else {
        println!("the contract is not beside the workspace: nothing to compare with");
        return Ok(());
    };
    let contract: Value = serde_json::from_slice(&std::fs::read(path)?)?;
    let known = operations(&contract)?;
    let by_place: BTreeMap<&str, &String> = known.iter().map(|(id, found)| (found.place.as_str(), id)).collect();
    let mut problems = Vec::new();
    for (id, operation) in &served {
        match by_place.get(operation.place.as_str()) {
            Some(named) if *named != id => {
                problems.push(format!("{} is {id} here and {named} in the contract", operation.place));
            }
            None if known.contains_key(id) => {
                problems
                    .push(format!("{id} is at {} here and at {} in the contract", operation.place, known[id].place));
            }
            _ => {}
        }
        let Some(wanted) = known.get(id) else { continue };
        let lacks = |what: &str, wanted: BTreeSet<String>, has: BTreeSet<String>| {
            let excused = |name: &String| NOT_TAKEN.iter().any(|(of, what, _)| *of == id && *what == name.as_str());
            let missing: Vec<_> = wanted.difference(&has).filter(|name| !excused(name)).cloned().collect();
            (!missing.is_empty()).then(|| format!("{id} lacks the contract's {what} {missing:?}"))
        };
        problems.extend(lacks("query parameters", wanted.query_parameters(), operation.query_parameters()));
        problems.extend(lacks("body fields", wanted.body_fields(), operation.body_fields()));
        problems.extend(lacks("statuses", wanted.success(), operation.success()));
    }
    let missing: Vec<String> = known
        .iter()
        .filter(|(id, _)| !served.contains_key(*id))
        .map(|(id, operation)| format!("  {id}  {}", operation.place))
        .collect();
    println!("{} of {} operations of the contract are missing:\n{}", missing.len(), known.len(), missing.join("\n"));
    for (id, name, reason) in NOT_TAKEN {
        println!("{id} does not take {name}: it {reason}");
        let taken = served.get(id).is_some_and(|operation| {
            operation.query_parameters().contains(name) || operation.body_fields().contains(name)
        });
        if taken {
            problems.push(format!("{id} takes {name} by now: it need not be excused"));
        }
    }
    ensure!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
    Ok(())
}
