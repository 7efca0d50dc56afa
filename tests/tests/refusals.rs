//! Bad input through the public API: the right refusal that names the field, and nothing changed. And
//! what only looks unusual, the other input forms that clients use: accepted.

#[path = "refusals/forms.rs"]
mod forms;
#[path = "refusals/input.rs"]
mod input;
#[path = "refusals/strangers.rs"]
mod strangers;
#[path = "refusals/tokens.rs"]
mod tokens;

use anyhow::{Context, Result, ensure};
use hoody_tests::{
    api::Api,
    cluster::{Cluster, Plan},
};
use serde_json::{Value, json};

/// An id that nothing has.
const NOBODY: &str = "0123456789abcdef01234567";

/// A tenant's project and container, with a rule and a variable, and a second tenant.
struct World {
    cluster: Cluster,
    api: Api,
    stranger: Api,
    project: String,
    container: String,
}

impl World {
    async fn make() -> Result<Self> {
        let cluster = Cluster::start(Plan::default()).await?;
        let api = cluster.tenant.clone();
        let stranger = cluster.second_tenant("stranger").await?;
        let project = api.project("refusals").await?;
        let more = json!({ "name": "victim", "environment_vars": { "KEPT": "1" },
            "specs": { "cpu_cores": 0.2, "memory_mb": 64, "storage_mb": 128 } });
        let container = api.container(&project, "busybox", more).await?;
        let rule = json!({ "action": "drop", "protocol": "tcp", "port": 4444, "description": "kept" });
        api.post(&format!("/api/v1/containers/{container}/firewall/ingress"), rule).await?.data()?;
        Ok(Self { cluster, api, stranger, project, container })
    }

    fn path(&self, rest: &str) -> String {
        format!("/api/v1/containers/{}{rest}", self.container)
    }

    fn creation(&self) -> String {
        format!("/api/v1/projects/{}/containers", self.project)
    }

    /// Everything that a request could have changed.
    async fn state(&self) -> Result<Value> {
        let mut state = Vec::new();
        for path in [
            "/api/v1/projects?limit=100".to_owned(),
            "/api/v1/containers?limit=100&include_deleting=true&include_expired=true".to_owned(),
            self.path("/firewall/rules"),
            self.path("/env"),
            self.path("/status-logs?limit=100"),
            "/api/v1/servers".to_owned(),
        ] {
            state.push(self.api.get(&path).await?.data()?);
        }
        for path in ["/api/v1/projects?limit=100", "/api/v1/containers?limit=100"] {
            state.push(self.stranger.get(path).await?.data()?);
        }
        state.push(self.cluster.server_row(&self.cluster.servers[0]).await?["used"].clone());
        let mut state = Value::Array(state);
        without_ages(&mut state);
        Ok(state)
    }
}

/// Removes what changes by itself.
fn without_ages(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for name in ["reported_age_ms", "reported_at", "remaining_days"] {
                fields.remove(name);
            }
            fields.values_mut().for_each(without_ages);
        }
        Value::Array(items) => items.iter_mut().for_each(without_ages),
        _ => {}
    }
}

/// Gathers what is wrong, so that one run shows all of it.
#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn note(&mut self, what: &str, outcome: Result<()>) {
        if let Err(error) = outcome {
            self.0.push(format!("{what}: {error:#}"));
        }
    }

    fn none(self) -> Result<()> {
        ensure!(self.0.is_empty(), "{} problems:\n{}", self.0.len(), self.0.join("\n"));
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_and_changes_nothing() -> Result<()> {
    let world = World::make().await?;
    let before = world.state().await?;
    let mut problems = Problems::default();
    problems.note("input", input::every_bad_field_is_named(&world).await);
    problems.note("changes", unchanged(&world, &before).await);
    problems.note("strangers", strangers::see_nothing(&world).await);
    problems.note("changes", unchanged(&world, &before).await);
    problems.note("tokens", tokens::are_checked(&world).await);
    problems.note("changes", unchanged(&world, &before).await);
    // These change things.
    problems.note("forms", forms::are_accepted(&world).await);
    problems.note("idempotency", forms::a_key_makes_one_container(&world).await);
    problems.note("signatures", forms::responses_are_signed(&world).await);
    problems.note("auth tokens", tokens::of_the_api_are_bound(&world).await);
    problems.note("logout", tokens::end_at_logout(&world).await);
    problems.none().with_context(|| world.cluster.log_tails())
}

async fn unchanged(world: &World, before: &Value) -> Result<()> {
    let after = world.state().await?;
    ensure!(after == *before, "something changed:\nbefore {before:#}\nafter {after:#}");
    Ok(())
}
