//! Our OpenAPI document: complete, and beside the public contract where that is at hand
//! (`HOODY_CONTRACT`, or `shared/contract/openapi.json` beside the workspace).

use crate::{
    access::table::TABLE,
    api::{not_built, testing::Client},
    app::testing::app,
    store::testing::sqlite,
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// The path without trailing slash and without names of parameters.
fn anonymous(path: &str) -> String {
    let part = |part| if str::starts_with(part, '{') { "{}" } else { part };
    path.trim_end_matches('/').split('/').map(part).collect::<Vec<_>>().join("/")
}

/// Path (without trailing slash, parameters without names) → method → operation id.
fn operations(document: &Value) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut found: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let path = anonymous(path);
        for method in METHODS {
            if let Some(id) = item[method]["operationId"].as_str() {
                found.entry(path.clone()).or_default().insert(method.to_owned(), id.to_owned());
            }
        }
    }
    found
}

fn ours() -> Value {
    serde_json::to_value(crate::api::openapi()).unwrap()
}

#[test]
fn the_document_is_openapi_3_1_with_unique_operation_ids() {
    let document = ours();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut ids = BTreeSet::new();
    for (path, methods) in operations(&document) {
        for (method, id) in methods {
            assert!(ids.insert(id.clone()), "{method} {path}: {id} is not unique");
        }
    }
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in METHODS.iter().filter(|method| item.get(**method).is_some()) {
            assert!(item[*method]["operationId"].is_string(), "{method} {path} has no operationId");
            assert!(item[*method]["responses"].as_object().is_some_and(|r| !r.is_empty()), "{method} {path}");
        }
    }
    // References must lead somewhere.
    let text = document.to_string();
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(document["components"]["schemas"].get(name).is_some(), "{name} is not defined");
    }
}

#[tokio::test]
async fn the_document_and_its_page_are_served() {
    let (_folder, store) = sqlite().await;
    let client = Client::new(&app(&store).await);
    let served = client.get("/openapi.json").await;
    assert_eq!(served.json, ours());
    assert_eq!(client.get("/docs").await.status, 303);
    for path in ["/docs/", "/docs/swagger-ui-bundle.js"] {
        let answer = client.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        let text = String::from_utf8_lossy(&answer.bytes);
        assert!(path != "/docs/" || !text.contains("//cdn"), "the page must not load from elsewhere");
    }
    // Every documented route exists: it answers something else than 404 of the router or 405.
    for (path, methods) in operations(&ours()) {
        for method in methods.keys() {
            let path = path.replace("{}", "0123456789abcdef01234567");
            let method = method.to_uppercase().parse().unwrap();
            let answer = client.with(method, &path, &[], None).await;
            let message = answer.json["message"].as_str().unwrap_or_default().to_owned();
            assert!(answer.status != 405 && !message.starts_with("there is nothing at"), "{path}: {message}");
        }
    }
}

/// Every route that the router knows is documented: routes are only added through `routes!`, which
/// documents them, so it is enough that no resource calls `.route(` itself. What is not built is not
/// documented: it answers 501.
#[test]
fn no_route_escapes_the_document() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/api");
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with("docs.rs")
                && !path.ends_with("device_page.rs")
                && !path.ends_with("not_built.rs")
                && !path.ends_with("tests/contract.rs")
            {
                let text = std::fs::read_to_string(&path).unwrap();
                assert!(!text.contains(".route("), "{} adds a route that is not documented", path.display());
            }
        }
    }
}

/// Whoever adds a route also says who may use it.
#[test]
fn every_operation_has_a_line_in_the_table_and_every_line_an_operation() {
    let ours = ours();
    let documented = operations(&ours);
    let mut ids: BTreeSet<String> = documented.into_values().flat_map(BTreeMap::into_values).collect();
    ids.extend(not_built::operations().map(|(id, _, _)| id.to_owned()));
    let table: BTreeSet<String> = TABLE.iter().map(|(id, _)| (*id).to_owned()).collect();
    let missing: Vec<_> = ids.difference(&table).collect();
    let stale: Vec<_> = table.difference(&ids).collect();
    assert!(missing.is_empty(), "operations without a line in access/table.rs: {missing:?}");
    assert!(stale.is_empty(), "lines of access/table.rs without an operation: {stale:?}");
}

#[test]
fn what_we_serve_is_what_the_contract_says() {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/contract/openapi.json");
    let path = match std::env::var_os("HOODY_CONTRACT") {
        Some(path) => PathBuf::from(path),
        None if beside.exists() => beside,
        None => {
            println!("the contract is not here: nothing to compare with");
            return;
        }
    };
    let contract: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let (contract, ours) = (operations(&contract), operations(&ours()));
    let mut missing = Vec::new();
    let mut wrong = Vec::new();
    for (path, methods) in &contract {
        for (method, id) in methods {
            match ours.get(path).and_then(|methods| methods.get(method)) {
                Some(found) if found == id => {}
                Some(found) => wrong.push(format!("{method} {path} is {found}, the contract says {id}")),
                None => missing.push(format!("{method} {path} {id}")),
            }
        }
    }
    for (path, methods) in &ours {
        let Some(known) = contract.get(path) else { continue };
        for method in methods.keys().filter(|method| !known.contains_key(*method)) {
            // PUT and PATCH are both accepted on an update.
            let twin = match method.as_str() {
                "patch" => "put",
                "put" => "patch",
                _ => "",
            };
            if !known.contains_key(twin) {
                wrong.push(format!("{method} {path} is not in the contract"));
            }
        }
    }
    println!("{} operations of the contract are missing:\n{}", missing.len(), missing.join("\n"));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    missing.sort();
    let mut listed: Vec<String> = not_built::operations()
        .map(|(id, method, path)| format!("{} {} {id}", method.as_str().to_lowercase(), anonymous(path)))
        .collect();
    listed.sort();
    assert_eq!(listed, missing, "not_built.txt is not what is missing");
}

/// Types with one name in the document would be one type there: each has its own, by `#[schema(as = …)]` where
/// the name of the type is taken.
#[test]
fn every_schema_of_the_document_has_a_name_of_its_own() {
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                for name in schemas(&std::fs::read_to_string(&path).unwrap()) {
                    if let Some(other) = found.insert(name.clone(), path.clone()) {
                        panic!("{name} is the name of a schema in {} and in {}", other.display(), path.display());
                    }
                }
            }
        }
    }
    assert!(found.len() > 100, "{found:?}");
}

/// Names of the types that derive `ToSchema`.
fn schemas(source: &str) -> Vec<String> {
    let (mut names, mut derives, mut named) = (Vec::new(), false, None);
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[derive(") {
            (derives, named) = (line.contains("ToSchema"), None);
        } else if let Some((_, name)) = line.split_once("schema(as = ") {
            named = name.split([')', ',']).next().map(str::to_owned);
        } else if let Some((_, rest)) = line.split_once("struct ").or_else(|| line.split_once("enum "))
            && !line.starts_with("//")
        {
            let own = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
            if std::mem::take(&mut derives) {
                names.push(named.take().unwrap_or_else(|| own.to_owned()));
            }
        }
    }
    names
}
