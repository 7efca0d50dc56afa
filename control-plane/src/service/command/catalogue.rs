//! What operators do with the catalogue: commands of their own, and the limits of the built-in ones.

use crate::{
    app::App,
    caller::Caller,
    error::ServiceError,
    page::Page,
    store::{
        StoreError,
        command::{self as store, Command},
    },
};
use hoody_protocol::{
    command::{
        Account, MAX_TIMEOUT_S,
        built_in::Risk,
        schema::Schema,
        template::{self, Template},
    },
    id::CommandId,
    time::now_ms,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const COMMAND: &str = "command";
/// Characters of the longest slug, name and category, and of the longest description.
const MAX_NAME_CHARS: usize = 64;
const MAX_DESCRIPTION_CHARS: usize = 1000;
/// Seconds of the longest cooldown: a year.
const MAX_COOLDOWN_S: i64 = 365 * 24 * 3600;
/// The highest rate limit.
const MAX_RATE: i64 = 100_000;
/// Bytes of the largest schema and example, as JSON.
const MAX_JSON_BYTES: usize = 16 << 10;
/// What the control plane gives a command where its maker names no time.
const DEFAULT_TIMEOUT_S: i64 = 30;
const DEFAULT_MAX_TIMEOUT_S: i64 = 300;

/// What an operator sets; `None` leaves it as it is, or as it is by default.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// Of a new command only.
    pub slug: Option<String>,
    /// For people.
    pub name: Option<String>,
    /// What it does.
    pub description: Option<String>,
    /// A word.
    pub category: Option<String>,
    /// `low`, `medium`, `high` or `critical`.
    pub risk_level: Option<String>,
    /// The program and its arguments, with places for parameters.
    pub argv: Option<Vec<String>>,
    /// JSON Schema of its parameters.
    pub parameter_schema: Option<Value>,
    /// Parameters that it can be called with.
    pub example_parameters: Option<Value>,
    /// `nobody` or `root`.
    pub account: Option<String>,
    /// An absolute path; `Some(None)`: `/`.
    pub working_directory: Option<Option<String>>,
    /// It runs only with a confirmation token.
    pub requires_confirmation: Option<bool>,
    /// It can be run.
    pub enabled: Option<bool>,
    /// Seconds; `Some(None)`: none.
    pub cooldown_s: Option<Option<i64>>,
    /// Runs; `Some(None)`: any number.
    pub per_hour: Option<Option<i64>>,
    /// Runs; `Some(None)`: any number.
    pub per_day: Option<Option<i64>>,
    /// Seconds.
    pub default_timeout_s: Option<i64>,
    /// Seconds.
    pub max_timeout_s: Option<i64>,
}

impl Change {
    /// Fields of the definition, which of built-in commands is the build's.
    fn defines(&self) -> Vec<&'static str> {
        [
            ("slug", self.slug.is_some()),
            ("name", self.name.is_some()),
            ("description", self.description.is_some()),
            ("category", self.category.is_some()),
            ("risk_level", self.risk_level.is_some()),
            ("argv", self.argv.is_some()),
            ("parameter_schema", self.parameter_schema.is_some()),
            ("example_parameters", self.example_parameters.is_some()),
            ("account", self.account.is_some()),
            ("working_directory", self.working_directory.is_some()),
        ]
        .into_iter()
        .filter_map(|(field, named)| named.then_some(field))
        .collect()
    }
}

/// True for what can name a command, and is no id.
pub(super) fn is_slug(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=MAX_NAME_CHARS).contains(&text.len()) && text.bytes().all(plain) && text.parse::<CommandId>().is_err()
}

/// One page of all commands, and how many there are.
pub async fn list(app: &App, page: Page) -> Result<(Vec<Command>, u64), ServiceError> {
    Ok(store::list(&app.store, page).await?)
}

/// One command.
pub async fn get(app: &App, id: CommandId) -> Result<Command, ServiceError> {
    store::by_id(app.store.reader(), id).await?.ok_or(ServiceError::NotFound(COMMAND))
}

/// Makes a command.
pub async fn create(app: &App, caller: &Caller, change: Change) -> Result<Command, ServiceError> {
    let now = now_ms() as i64;
    let slug = change.slug.clone().unwrap_or_default();
    let mut problems = BTreeMap::new();
    if !is_slug(&slug) {
        let rule = format!("must be 1 to {MAX_NAME_CHARS} lowercase letters, digits and -, and not an id");
        problems.insert("slug".to_owned(), rule);
    }
    if change.argv.is_none() {
        problems.insert("argv".to_owned(), "is required".to_owned());
    }
    let blank = Command {
        id: CommandId::generate(),
        name: slug.clone(),
        slug,
        description: String::new(),
        category: "custom".to_owned(),
        risk: Risk::Medium,
        built_in: false,
        argv: Vec::new(),
        parameter_schema: json!({"type": "object", "additionalProperties": false}),
        example_parameters: json!({}),
        account: Account::Nobody,
        working_directory: None,
        requires_confirmation: false,
        enabled: true,
        cooldown_s: None,
        per_hour: None,
        per_day: None,
        default_timeout_s: DEFAULT_TIMEOUT_S,
        max_timeout_s: DEFAULT_MAX_TIMEOUT_S,
        execution_count: 0,
        created_by: Some(caller.user),
        created_at: now,
        updated_at: now,
    };
    let command = changed(blank, change, problems)?;
    let mut tx = app.store.begin().await?;
    store::insert(&mut tx, &command).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(command)
}

/// Changes what the operator names.
pub async fn update(app: &App, id: CommandId, change: Change) -> Result<Command, ServiceError> {
    let mut tx = app.store.begin().await?;
    let found = store::by_id(&mut *tx, id).await?.ok_or(ServiceError::NotFound(COMMAND))?;
    let mut problems = BTreeMap::new();
    if found.built_in {
        let fixed = "of a built-in command cannot be changed";
        problems.extend(change.defines().into_iter().map(|field| (field.to_owned(), fixed.to_owned())));
    } else if change.slug.as_ref().is_some_and(|slug| *slug != found.slug) {
        problems.insert("slug".to_owned(), "cannot be changed: make another command".to_owned());
    }
    let command = changed(found, change, problems)?;
    if !store::update(&mut tx, &command).await? {
        return Err(ServiceError::NotFound(COMMAND));
    }
    tx.commit().await.map_err(StoreError::from)?;
    get(app, id).await
}

/// Deletes a command of the operators'; what was run stays.
pub async fn delete(app: &App, id: CommandId) -> Result<(), ServiceError> {
    if store::delete(&app.store, id).await? {
        return Ok(());
    }
    let command = get(app, id).await?;
    Err(ServiceError::Conflict(format!("{} is built in: disable it instead", command.slug)))
}

/// The command with the change, checked as a whole.
fn changed(
    mut command: Command,
    change: Change,
    mut problems: BTreeMap<String, String>,
) -> Result<Command, ServiceError> {
    let mut problem = |field: &str, text: String| {
        problems.entry(field.to_owned()).or_insert(text);
    };
    if let Some(word) = &change.risk_level {
        match Risk::ALL.into_iter().find(|risk| risk.as_str() == word) {
            Some(risk) => command.risk = risk,
            None => problem("risk_level", "must be low, medium, high or critical".to_owned()),
        }
    }
    match change.account.as_deref() {
        Some("nobody") => command.account = Account::Nobody,
        Some("root") => command.account = Account::Root,
        Some(_) => problem("account", "must be nobody or root".to_owned()),
        None => {}
    }
    command.name = change.name.unwrap_or(command.name);
    command.description = change.description.unwrap_or(command.description);
    command.category = change.category.unwrap_or(command.category);
    command.argv = change.argv.unwrap_or(command.argv);
    command.parameter_schema = change.parameter_schema.unwrap_or(command.parameter_schema);
    command.example_parameters = change.example_parameters.unwrap_or(command.example_parameters);
    command.working_directory = change.working_directory.unwrap_or(command.working_directory);
    command.requires_confirmation = change.requires_confirmation.unwrap_or(command.requires_confirmation);
    command.enabled = change.enabled.unwrap_or(command.enabled);
    command.cooldown_s = change.cooldown_s.unwrap_or(command.cooldown_s);
    command.per_hour = change.per_hour.unwrap_or(command.per_hour);
    command.per_day = change.per_day.unwrap_or(command.per_day);
    command.default_timeout_s = change.default_timeout_s.unwrap_or(command.default_timeout_s);
    command.max_timeout_s = change.max_timeout_s.unwrap_or(command.max_timeout_s);

    let texts = [
        ("name", &command.name, 1, MAX_NAME_CHARS),
        ("category", &command.category, 1, MAX_NAME_CHARS),
        ("description", &command.description, 0, MAX_DESCRIPTION_CHARS),
    ];
    for (field, text, least, most) in texts {
        let length = text.chars().count();
        if length < least || length > most || text.chars().any(char::is_control) {
            problem(field, format!("must be {least} to {most} printable characters"));
        }
    }
    let folder = command.working_directory.as_deref().unwrap_or("/");
    if folder != "/" && (folder.len() > 256 || !template::is_program(folder)) {
        problem("working_directory", "must be an absolute path without . and ..".to_owned());
    }
    let ranges = [
        ("cooldown_seconds", command.cooldown_s, 1, MAX_COOLDOWN_S),
        ("rate_limit_per_hour", command.per_hour, 1, MAX_RATE),
        ("rate_limit_per_day", command.per_day, 1, MAX_RATE),
        ("max_timeout", Some(command.max_timeout_s), 1, MAX_TIMEOUT_S as i64),
        ("default_timeout", Some(command.default_timeout_s), 1, command.max_timeout_s),
    ];
    for (field, number, least, most) in ranges {
        if number.is_some_and(|number| !(least..=most).contains(&number)) {
            problem(field, format!("must be from {least} to {most}"));
        }
    }
    if !command.built_in {
        check_definition(&command, &mut problem);
    }
    if problems.is_empty() { Ok(command) } else { Err(ServiceError::Invalid(problems)) }
}

fn check_definition(command: &Command, problem: &mut impl FnMut(&str, String)) {
    for (field, json) in
        [("parameter_schema", &command.parameter_schema), ("example_parameters", &command.example_parameters)]
    {
        if json.to_string().len() > MAX_JSON_BYTES {
            return problem(field, format!("must have at most {MAX_JSON_BYTES} bytes"));
        }
    }
    let schema = match Schema::parse(&command.parameter_schema) {
        Ok(schema) => schema,
        Err(wrong) => {
            for (place, text) in wrong {
                let dot = if place.is_empty() { "" } else { "." };
                problem(&format!("parameter_schema{dot}{place}"), text);
            }
            return;
        }
    };
    if let Err(error) = Template::parse(&command.argv, &schema) {
        problem("argv", error.to_string());
    }
    match command.example_parameters.as_object() {
        None => problem("example_parameters", "must be an object".to_owned()),
        // An empty one stands for none.
        Some(example) if example.is_empty() => {}
        Some(example) => {
            if let Err(wrong) = schema.read(example) {
                let names = wrong.into_keys().collect::<Vec<_>>().join(", ");
                problem("example_parameters", format!("does not fit the schema: {names}"));
            }
        }
    }
}
