//! Every operation, tried by every kind of caller: the answer is the table's. Paths name objects that do
//! not exist, so that whoever gets past the table is told so, and nothing happens.

use super::world::execute;
use crate::{
    access::{
        Permissions,
        table::{self, Rule, Who},
    },
    api::{self, not_built, testing::Client},
    app::{
        App,
        testing::{config, with_config},
    },
    keys::{Claims, TokenKind},
    store::{auth_token::testing::token, session, testing::sqlite},
};
use hoody_protocol::id::{RealmId, SessionId, UserId};
use http::Method;
use serde_json::json;

const HOST: &str = "api.example.org";
/// Answer by what came with the request, and not by who sent it.
const OWN_CREDENTIAL: &[&str] =
    &["authentication.refreshToken", "authentication.oauthAuthorize", "authentication.oauthCancelIntent"];
/// End the credential they are tried with.
const LAST: &[&str] = &["authentication.logout"];

struct Operation {
    id: String,
    rule: Rule,
    method: Method,
    path: String,
}

impl Operation {
    fn needs(&self) -> Permissions {
        self.rule.permissions("start")
    }
}

/// Every operation of the contract and of ours, those last that end their credential.
fn operations() -> Vec<Operation> {
    let document = api::openapi();
    let documented = api::operations(&document).into_iter().map(|(id, method, path)| (id.to_owned(), method, path));
    let missing = not_built::operations().map(|(id, method, path)| (id.to_owned(), method, path));
    let mut all: Vec<_> = documented
        .chain(missing)
        .map(|(id, method, path)| {
            let rule = table::rule(&id).unwrap_or_else(|| panic!("{id} has no line in the table"));
            let part = |part: &str| match part {
                "{operation}" => "start".to_owned(),
                parameter if parameter.starts_with('{') => "0123456789abcdef01234567".to_owned(),
                literal => literal.to_owned(),
            };
            let path = path.split('/').map(part).collect::<Vec<_>>().join("/");
            Operation { id, rule, method, path }
        })
        .collect();
    all.sort_by_key(|operation| LAST.contains(&operation.id.as_str()));
    assert!(all.len() >= 240, "the contract alone has 240");
    all
}

/// What the table says of a caller: the status of its refusal, or `None` where it lets pass.
type Verdict = Option<u16>;

async fn try_all(client: &Client, host: &str, who: &str, verdict: impl Fn(&Operation) -> Verdict) {
    let mut wrong = Vec::new();
    for operation in operations() {
        if OWN_CREDENTIAL.contains(&operation.id.as_str()) {
            continue;
        }
        let body = (operation.method != Method::GET).then(|| json!({}));
        let answer = client.with(operation.method.clone(), &operation.path, &[("host", host)], body).await;
        let status = answer.status.as_u16();
        let right = match verdict(&operation) {
            Some(refusal) => status == refusal,
            None => status != 401 && status != 403,
        };
        if !right {
            wrong.push(format!("{}: {status} {}", operation.id, answer.json["message"]));
        }
    }
    assert!(wrong.is_empty(), "{who}:\n{}", wrong.join("\n"));
}

/// An account that is logged in.
async fn user(app: &App, client: &Client, name: &str, is_admin: bool) -> (Client, UserId) {
    let id = UserId::generate();
    let sql = format!(
        "INSERT INTO users (id, username, alias, password_hash, is_admin, created_at, updated_at) \
         VALUES ('{id}', '{name}', '{name}', 'none', {}, 1, 1)",
        i64::from(is_admin)
    );
    execute(&app.store, &sql).await;
    let session = SessionId::generate();
    let claims = Claims::new(TokenKind::Access, id, session, 1);
    let mut tx = app.store.begin().await.unwrap();
    session::insert(&mut tx, session, id, "none", i64::MAX).await.unwrap();
    tx.commit().await.unwrap();
    (client.with_token(&app.keys.tokens.sign(&claims).unwrap()), id)
}

fn for_a_session(operation: &Operation, is_admin: bool) -> Verdict {
    match operation.rule.who {
        Who::Anyone | Who::Known | Who::Session => None,
        Who::Operator if is_admin => None,
        Who::Operator | Who::Token => Some(403),
    }
}

fn for_a_token(operation: &Operation, may: impl Fn(&Operation) -> bool, is_admin: bool) -> Verdict {
    match operation.rule.who {
        Who::Anyone => None,
        Who::Session => Some(403),
        Who::Operator if !is_admin => Some(403),
        Who::Known | Who::Token | Who::Operator => (!may(operation)).then_some(403),
    }
}

/// Everybody but those whom the table lets in anyway gets this.
fn refused(operation: &Operation, status: u16) -> Verdict {
    (operation.rule.who != Who::Anyone).then_some(status)
}

#[tokio::test]
async fn every_operation_answers_every_kind_of_caller_as_the_table_says() {
    let (_folder, store) = sqlite().await;
    let mut config = config();
    config.public_url = format!("https://{HOST}");
    let app = with_config(&store, config).await;
    let nobody = Client::new(&app);
    try_all(&nobody, HOST, "nobody", |operation| refused(operation, 401)).await;
    try_all(&nobody.with_token("x.y.z"), HOST, "a forged session", |operation| refused(operation, 401)).await;
    let forged = format!("hdy_{}", "0".repeat(64));
    try_all(&nobody.with_token(&forged), HOST, "a forged auth token", |operation| refused(operation, 401)).await;

    let (tenant, ann) = user(&app, &nobody, "ann", false).await;
    try_all(&tenant, HOST, "a session", |operation| for_a_session(operation, false)).await;
    let (operator, root) = user(&app, &nobody, "root", true).await;
    try_all(&operator, HOST, "an operator's session", |operation| for_a_session(operation, true)).await;
    let (banned, eve) = user(&app, &nobody, "eve", true).await;
    let of_banned = nobody.with_token(&token(&store, eve, |_| {}).await);
    execute(&store, "UPDATE users SET is_banned = 1 WHERE username = 'eve'").await;
    try_all(&banned, HOST, "a banned session", |operation| refused(operation, 403)).await;
    try_all(&of_banned, HOST, "a banned account's auth token", |operation| refused(operation, 403)).await;

    let none = nobody.with_token(&token(&store, ann, |token| token.permissions = Permissions::NONE).await);
    let needs_nothing = |operation: &Operation| operation.needs().is_empty();
    try_all(&none, HOST, "a token without permissions", |operation| for_a_token(operation, needs_nothing, false)).await;
    let full = nobody.with_token(&token(&store, ann, |_| {}).await);
    try_all(&full, HOST, "a token with all", |operation| for_a_token(operation, |_| true, false)).await;
    let pretender = token(&store, ann, |token| token.permissions = Permissions::all()).await;
    let pretender = nobody.with_token(&pretender);
    try_all(&pretender, HOST, "an operator's token of a tenant", |operation| for_a_token(operation, |_| true, false))
        .await;
    let operators = nobody.with_token(&token(&store, root, |token| token.permissions = Permissions::all()).await);
    try_all(&operators, HOST, "an operator's token", |operation| for_a_token(operation, |_| true, true)).await;
    let tenants = nobody.with_token(&token(&store, root, |_| {}).await);
    let for_tenants = |operation: &Operation| operation.needs().without(Permissions::of_tenants()).is_empty();
    try_all(&tenants, HOST, "an operator's token for tenants", |operation| for_a_token(operation, for_tenants, true))
        .await;
}

#[tokio::test]
async fn each_permission_opens_exactly_the_operations_that_need_it_alone() {
    let (_folder, store) = sqlite().await;
    let app = with_config(&store, config()).await;
    let nobody = Client::new(&app);
    let (_, root) = user(&app, &nobody, "root", true).await;
    for permission in crate::access::Permission::ALL {
        let only = Permissions::of(&[*permission]);
        let client = nobody.with_token(&token(&store, root, |token| token.permissions = only).await);
        let may = |operation: &Operation| operation.needs().without(only).is_empty();
        try_all(&client, "x", permission.path(), |operation| for_a_token(operation, may, true)).await;
    }
}

#[tokio::test]
async fn where_and_when_a_token_may_not_be_used_it_opens_nothing() {
    let (_folder, store) = sqlite().await;
    let mut config = config();
    config.public_url = format!("https://{HOST}");
    let app = with_config(&store, config).await;
    let nobody = Client::new(&app);
    let (_, ann) = user(&app, &nobody, "ann", false).await;
    let [mine, other] = [RealmId::generate(), RealmId::generate()];
    let [in_mine, in_other] = [mine, other].map(|realm| format!("{realm}.{HOST}"));
    let of_realm = token(&store, ann, |token| (token.realms, token.allow_no_realm) = (vec![mine], false)).await;
    let of_realm = nobody.with_token(&of_realm);
    let passes = |operation: &Operation| for_a_token(operation, |_| true, false);
    try_all(&of_realm, &in_mine, "in its realm", passes).await;
    try_all(&of_realm, &in_other, "in another realm", |operation| refused(operation, 403)).await;
    try_all(&of_realm, HOST, "outside of realms", |operation| refused(operation, 403)).await;
    let also_outside = token(&store, ann, |token| token.realms = vec![mine]).await;
    try_all(&nobody.with_token(&also_outside), HOST, "allowed outside of realms", passes).await;

    // Requests in this process come from the unspecified address.
    let elsewhere = token(&store, ann, |token| token.networks = vec!["192.0.2.0/24".parse().unwrap()]).await;
    try_all(&nobody.with_token(&elsewhere), HOST, "from elsewhere", |operation| refused(operation, 403)).await;
    let here = token(&store, ann, |token| token.networks = vec!["0.0.0.0/32".parse().unwrap()]).await;
    try_all(&nobody.with_token(&here), HOST, "from its network", passes).await;

    for (what, value) in [
        ("expired", token(&store, ann, |token| token.expires_at = Some(1)).await),
        ("disabled", token(&store, ann, |token| token.is_enabled = false).await),
        ("suspended", token(&store, ann, |token| token.is_suspended = true).await),
    ] {
        try_all(&nobody.with_token(&value), HOST, what, |operation| refused(operation, 401)).await;
    }

    let needs = |operation: &Operation, permission| operation.needs().has(permission);
    let no_vault = nobody.with_token(&token(&store, ann, |token| token.vault_access = false).await);
    let may = |operation: &Operation| !needs(operation, crate::access::Permission::Vault);
    try_all(&no_vault, HOST, "without vault_access", |operation| for_a_token(operation, may, false)).await;
    let no_events = nobody.with_token(&token(&store, ann, |token| token.event_access = false).await);
    let may = |operation: &Operation| !needs(operation, crate::access::Permission::Events);
    try_all(&no_events, HOST, "without event_access", |operation| for_a_token(operation, may, false)).await;
    let final_one = nobody.with_token(&token(&store, ann, |token| token.deny_reauthorization = true).await);
    let may = |operation: &Operation| !operation.rule.hands_out_credential;
    try_all(&final_one, HOST, "denying reauthorization", |operation| for_a_token(operation, may, false)).await;
}

#[tokio::test]
async fn a_change_of_permissions_holds_from_the_next_request_on() {
    let (_folder, store) = sqlite().await;
    let app = with_config(&store, config()).await;
    let nobody = Client::new(&app);
    let (_, ann) = user(&app, &nobody, "ann", false).await;
    let client = nobody.with_token(&token(&store, ann, |_| {}).await);
    client.get("/api/v1/projects").await.expect(200);
    execute(&store, "UPDATE auth_tokens SET permissions = 'containers.read'").await;
    let refused = client.get("/api/v1/projects").await.expect(403);
    assert!(refused.json["message"].as_str().unwrap().contains("projects.read"), "{}", refused.json);
    client.get("/api/v1/containers").await.expect(200);
    // The verb is what the handler sees, however the path is written.
    let path = "/api/v1/containers/0123456789abcdef01234567/st%61rt";
    execute(&store, "UPDATE auth_tokens SET permissions = 'containers.update'").await;
    client.post(path, json!({})).await.expect(403);
    execute(&store, "UPDATE auth_tokens SET permissions = 'containers.actions.start'").await;
    client.post(path, json!({})).await.expect(404);
    execute(&store, "DELETE FROM auth_tokens").await;
    client.get("/api/v1/containers").await.expect(401);
}
