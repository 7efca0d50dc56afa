//! Projects: an owner's groups of containers.

use crate::{
    access::{
        Level, Permission,
        object::{self, InProject},
    },
    app::App,
    caller::Caller,
    error::ServiceError,
    page::{Order, Page},
    service::container::{self, Deletion},
    store::{
        StoreError,
        project::{self as store, Change, Project},
        project_permission,
        scope::Scope,
    },
};
use futures::StreamExt;
use hoody_protocol::{
    id::{ContainerId, ProjectId, RealmId},
    time::now_ms,
};
use std::collections::BTreeMap;

/// Characters of the longest alias.
pub const MAX_ALIAS_CHARS: usize = 128;
/// Realms of one project.
pub const MAX_REALMS: usize = 64;
/// The largest limit of containers that can be asked for.
pub const MAX_CONTAINERS: i64 = 10_000;
/// Containers of one project that are deleted at the same time.
const CONCURRENT_DELETIONS: usize = 16;
/// The colour of a project that names none.
const DEFAULT_COLOR: &str = "#3B82F6";
const PROJECT: &str = "project";

/// What a project is made of, as sent.
#[derive(Debug, Default)]
pub struct Input {
    /// Unique among the owner's.
    pub alias: Option<String>,
    /// Three or six hexadecimal digits, with or without `#`.
    pub color: Option<String>,
    /// Limit of its own; `Some(None)`: the platform's.
    pub max_containers: Option<Option<i64>>,
    /// Realms it belongs to.
    pub realms: Option<Vec<String>>,
}

fn check(input: Input) -> Result<Change, ServiceError> {
    let mut problems = BTreeMap::new();
    let mut problem = |field: &str, text: String| {
        problems.insert(field.to_owned(), text);
    };
    let alias = input.alias.map(|alias| alias.trim().to_owned());
    if let Some(alias) = &alias {
        let length = alias.chars().count();
        if !(1..=MAX_ALIAS_CHARS).contains(&length) || alias.chars().any(char::is_control) {
            problem("alias", format!("must be 1 to {MAX_ALIAS_CHARS} printable characters"));
        }
    }
    let color = input.color.and_then(|color| {
        let normal = normal_color(&color);
        if normal.is_none() {
            problem("color", "must be #RGB or #RRGGBB, the # may be left out".to_owned());
        }
        normal
    });
    if let Some(Some(max)) = input.max_containers
        && !(0..=MAX_CONTAINERS).contains(&max)
    {
        problem("max_containers", format!("must be null or a whole number from 0 to {MAX_CONTAINERS}"));
    }
    let realms = input.realms.and_then(|texts| {
        if texts.len() > MAX_REALMS {
            problem("realm_ids", format!("must be at most {MAX_REALMS} ids"));
            return None;
        }
        let parsed: Result<Vec<RealmId>, _> = texts.iter().map(|text| text.parse()).collect();
        match parsed {
            Ok(mut realms) => {
                realms.sort_unstable();
                realms.dedup();
                Some(realms)
            }
            Err(error) => {
                problem("realm_ids", format!("must be a list of ids: {error}"));
                None
            }
        }
    });
    if !problems.is_empty() {
        return Err(ServiceError::Invalid(problems));
    }
    Ok(Change { alias, color, max_containers: input.max_containers, realms })
}

fn normal_color(text: &str) -> Option<String> {
    let digits = text.strip_prefix('#').unwrap_or(text);
    if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let digits = digits.to_ascii_uppercase();
    match digits.len() {
        6 => Some(format!("#{digits}")),
        3 => Some(digits.chars().fold("#".to_owned(), |color, digit| color + &format!("{digit}{digit}"))),
        _ => None,
    }
}

/// One page of the projects that the caller owns or has a permission for. `realm` narrows it.
pub async fn list(
    app: &App,
    caller: &Caller,
    realm: Option<RealmId>,
    page: Page,
    order: Order,
) -> Result<(Vec<Project>, u64), ServiceError> {
    Ok(store::list(&app.store, caller.user, realm, &Scope::of(caller), page, order).await?)
}

/// The project, if the caller may see it.
pub async fn get(app: &App, caller: &Caller, id: ProjectId) -> Result<Project, ServiceError> {
    let project = store::by_id(app.store.reader(), id).await?.ok_or(ServiceError::NotFound(PROJECT))?;
    object::in_project(app.store.reader(), caller, object(&project), Level::Read).await?;
    Ok(project)
}

/// The project as an object of access.
pub(in crate::service) fn object(project: &Project) -> InProject<'_> {
    let (id, owner) = (project.id, project.user);
    InProject { what: PROJECT, project: id, owner, realms: &project.realms, for_operators: false }
}

/// Makes a project. In a realm, it belongs to that realm at least.
pub async fn create(app: &App, caller: &Caller, input: Input) -> Result<Project, ServiceError> {
    let change = check(input)?;
    let alias = change.alias.ok_or_else(|| ServiceError::invalid("alias", "is required"))?;
    let mut realms = change.realms.unwrap_or_default();
    object::check_realms(caller, &[], &realms)?;
    realms.extend(caller.realm.filter(|realm| !realms.contains(realm)));
    let now = now_ms() as i64;
    let project = Project {
        id: ProjectId::generate(),
        user: caller.user,
        alias,
        color: change.color.unwrap_or_else(|| DEFAULT_COLOR.to_owned()),
        max_containers: change.max_containers.flatten(),
        realms,
        is_default: false,
        created_at: now,
        updated_at: now,
    };
    let max = app.config.project_max_per_user;
    let mut tx = app.store.begin().await?;
    if !store::insert(&mut tx, &project, max).await? {
        let message = format!("you have {max} projects, the most an account can have: delete one first");
        let details = BTreeMap::from([("projects".to_owned(), format!("limit {max}"))]);
        return Err(ServiceError::Unprocessable { message, details });
    }
    tx.commit().await.map_err(StoreError::from)?;
    Ok(project)
}

/// Changes what the input names.
pub async fn update(app: &App, caller: &Caller, id: ProjectId, input: Input) -> Result<Project, ServiceError> {
    let change = check(input)?;
    let caller = caller.clone();
    // Together with what others write at this time: an event's delivery waits for its commit.
    let write = app.store.write(move |connection| {
        Box::pin(async move {
            let Some(project) = store::lock(connection, id).await? else {
                return Ok(Err(ServiceError::NotFound(PROJECT)));
            };
            // Nothing is written yet: a refusal is an answer, not a failure of the write.
            if let Err(refused) = object::in_project(&mut *connection, &caller, object(&project), Level::Edit).await {
                return Ok(Err(refused));
            }
            if let Some(realms) = &change.realms
                && let Err(refused) = object::check_realms(&caller, &project.realms, realms)
            {
                return Ok(Err(refused));
            }
            let written = store::update(connection, id, &change, caller.user).await?;
            Ok(written.ok_or(ServiceError::NotFound(PROJECT)))
        })
    });
    write.await?
}

/// Deletes the project with its containers and permissions; gives the containers' ids and names, and the number of
/// permissions. Where a server is offline
/// or slow, its containers go when it is back, and the project stays until then.
pub async fn delete(
    app: &App,
    caller: &Caller,
    id: ProjectId,
) -> Result<(Vec<(ContainerId, String)>, u64), ServiceError> {
    let project = get(app, caller, id).await?;
    object::in_project(app.store.reader(), caller, object(&project), Level::Delete).await?;
    let containers = store::containers(&app.store, id).await?;
    if !containers.is_empty() && !caller.may(Permission::ContainersDelete) {
        let message = "the project has containers, and this auth token lacks the permission containers.delete";
        return Err(ServiceError::Forbidden(message.to_owned()));
    }
    let deleting = futures::stream::iter(containers.clone())
        .map(|(container, _)| async move { container::delete(app, caller, container).await })
        .buffer_unordered(CONCURRENT_DELETIONS);
    let outcomes: Vec<Result<Deletion, ServiceError>> = deleting.collect().await;
    for outcome in outcomes {
        match outcome {
            // Gone already, by another request.
            Ok(_) | Err(ServiceError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    let mut tx = app.store.begin().await?;
    store::lock(&mut tx, id).await?;
    let permissions = project_permission::delete_all(&mut tx, id).await?;
    match store::delete(&mut tx, id, caller.user).await {
        Ok(true) => {}
        Ok(false) => return Err(ServiceError::NotFound(PROJECT)),
        Err(StoreError::MissingReference) => {
            drop(tx);
            let left = store::containers(&app.store, id).await?.len();
            return Err(ServiceError::Conflict(format!(
                "{left} containers of the project are still being deleted on their servers: delete the project again \
                 when they are gone"
            )));
        }
        Err(error) => return Err(error.into()),
    }
    tx.commit().await.map_err(StoreError::from)?;
    Ok((containers, permissions))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_have_one_form() {
        assert_eq!(normal_color("#3b82f6").as_deref(), Some("#3B82F6"));
        assert_eq!(normal_color("0af").as_deref(), Some("#00AAFF"));
        for text in ["", "#", "#12", "#12345", "red", "#12345g", "##123456", "#ßa"] {
            assert_eq!(normal_color(text), None, "{text}");
        }
    }

    #[test]
    fn every_bad_field_is_named_at_once() {
        let input = Input {
            alias: Some("x".repeat(129)),
            color: Some("blue".to_owned()),
            max_containers: Some(Some(-1)),
            realms: Some(vec!["nope".to_owned()]),
        };
        match check(input) {
            Err(ServiceError::Invalid(details)) => {
                assert_eq!(details.into_keys().collect::<Vec<_>>(), ["alias", "color", "max_containers", "realm_ids"]);
            }
            other => panic!("{other:?}"),
        }
    }
}
