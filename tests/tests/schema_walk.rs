//! The control plane's own OpenAPI document, walked by schemathesis: every operation gets valid, invalid and odd
//! values, and what it answers must be what the document says. A fixed seed and few examples make it a test and
//! not a search; CONTRIBUTING says how to search longer.

use anyhow::{Context, Result, ensure};
use hoody_tests::{
    api::Api,
    cluster::{Cluster, Plan},
    simulated::{Fleet, enrol},
};
use serde_json::json;
use std::{
    fmt::Write,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/schemathesis");
const DEADLINE: Duration = Duration::from_secs(30);
/// `HOODY_WALK_EXAMPLES` and `HOODY_WALK_SEED` make a longer or another walk.
const EXAMPLES: &str = "3";
const SEED: &str = "1";
/// Lines of its output that a failure shows.
const LINES: usize = 120;
/// Streams do not end by themselves, a logout ends the credential of the walk, and the walker makes no archives
/// (`archives` does, odd ones too).
const NOT_WALKED: &str = "/events/(stream|ws)$|/auth/logout$|/containers/import$";

/// What the walk looks at in every answer.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
    response_schema_conformance,ignored_auth";

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

/// Walks through the whole document of `cluster`, with a credential or none. `more` goes into the settings.
async fn walk(cluster: &Cluster, who: &str, api: &Api, phases: &str, more: &str) -> Result<()> {
    let settings = std::fs::read_to_string(Path::new(FOLDER).join("schemathesis.toml"))?;
    let file = cluster.folder().join(format!("{who}.toml"));
    std::fs::write(&file, format!("{settings}\n{more}"))?;
    let mut command = Command::new(Path::new(FOLDER).join(".venv/bin/schemathesis"));
    command
        .current_dir(cluster.folder())
        .arg("--config-file")
        .arg(&file)
        .args(["run", &format!("{}/openapi.json", cluster.control_plane.base_url())])
        .args(["--phases", phases, "--checks", CHECKS, "--exclude-path-regex", NOT_WALKED])
        .args(["--max-examples", &setting("HOODY_WALK_EXAMPLES", EXAMPLES)])
        .args(["--seed", &setting("HOODY_WALK_SEED", SEED)])
        // One thread: CPython 3.11 loses count where two read syntax trees at once, and the walk ends with an error.
        .args(["--workers", "1", "--no-shrink", "--generation-database", "none", "--no-color"])
        .args(["--continue-on-failure", "--warnings", "off"])
        .stdin(Stdio::null());
    if let Some(token) = &api.token {
        command.args(["--header", &format!("Authorization: Bearer {token}")]);
    }
    let output = tokio::task::spawn_blocking(move || command.output()).await?;
    let output = output.context("start schemathesis; scripts/setup.sh installs it")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = text.lines().collect();
    let shown = lines[lines.len().saturating_sub(LINES)..].join("\n");
    let problems = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{who} finds that the document is not kept:\n{shown}\n{problems}");
    // A walk that found nothing to walk through succeeds as well.
    let walked = lines.iter().find_map(|line| line.trim().strip_prefix("Tested: ")?.parse::<usize>().ok());
    ensure!(walked.is_some_and(|count| count > 160), "{who}: only {walked:?} operations were walked:\n{shown}");
    Ok(())
}

/// One simulated server of the tenant, for as long as the fleet lives.
async fn server(cluster: &Cluster) -> Result<Fleet> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, cluster.control_plane.node_port()));
    let mut fleet = Fleet::new(address)?;
    let token = cluster.control_plane.join_token("walked", hoody_tests::cluster::TENANT)?;
    let agent = enrol(fleet.endpoint(0), address, &token).await?;
    fleet.keep(Arc::new(agent));
    ensure!(fleet.all_up(Instant::now() + DEADLINE).await, "the simulated server does not link");
    Ok(fleet)
}

/// Things of the tenant's, and settings that put their ids into paths. Deletions keep ids that do not exist, so
/// that the others find something.
async fn things(cluster: &Cluster) -> Result<String> {
    let tenant = &cluster.tenant;
    let made = async |path: &str, body: serde_json::Value| -> Result<String> {
        let data = tenant.post(path, body).await?.data()?;
        Ok(data["id"].as_str().with_context(|| format!("no id in {data}"))?.to_owned())
    };
    let project = made("/api/v1/projects", json!({ "alias": "walked" })).await?;
    let container = tenant.container(&project, "busybox", json!({ "name": "walked" })).await?;
    let pool = made("/api/v1/pools", json!({ "name": "walked" })).await?;
    let token = made("/api/v1/auth/tokens", json!({ "alias": "walked" })).await?;
    let servers = tenant.get("/api/v1/servers").await?.data()?;
    let server = servers[0]["server_id"].as_str().with_context(|| format!("no server in {servers}"))?.to_owned();
    let mut settings = String::new();
    for (path, id) in
        [("projects", project), ("containers", container), ("pools", pool), ("auth/tokens", token), ("servers", server)]
    {
        write!(
            settings,
            "[[operations]]\ninclude-path-regex = \"^/api/v1/{path}/.id\"\nexclude-method = \"DELETE\"\n\
             parameters = {{ \"path.id\" = \"{id}\" }}\n"
        )?;
    }
    Ok(settings)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_one_that_the_document_names() -> Result<()> {
    let settings = vec![("HOODY_PASSWORD_MEMORY_KIB", "64".to_owned()), ("HOODY_PASSWORD_PASSES", "1".to_owned())];
    let cluster = Cluster::start(Plan { servers: 0, settings, ..Plan::default() }).await?;
    let _fleet = server(&cluster).await?;
    let outcome = async {
        let things = things(&cluster).await?;
        walk(&cluster, "tenant", &cluster.tenant, "coverage,fuzzing", &things).await?;
        let nobody = Api::anonymous(cluster.control_plane.base_url())?;
        walk(&cluster, "nobody", &nobody, "coverage", "").await?;
        walk(&cluster, "operator", &cluster.admin, "coverage", "").await
    };
    outcome.await.with_context(|| cluster.log_tails())
}
