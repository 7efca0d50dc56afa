//! What an account of the free tier lives in: its server, default project and first container.

use crate::{
    app::App,
    caller::Caller,
    error::{ServiceError, chain},
    service::container::{self, CreateInput},
    store::{
        StoreError, free_tier as store,
        project::{self, Project},
        server::{self, Server},
        user::{self, User},
    },
};
use hoody_protocol::{
    id::{ProjectId, UserId},
    time::now_ms,
};

const PROJECT: &str = "default";
const CONTAINER: &str = "default";
const COLOR: &str = "#3B82F6";

/// A container, in short.
#[derive(Debug, Clone)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The contract's word for its status.
    pub status: String,
}

/// What an account has by default.
#[derive(Debug, Clone, Default)]
pub struct Home {
    /// Id and alias of the default project.
    pub project: Option<(ProjectId, String)>,
    /// Its first container.
    pub container: Option<Container>,
    /// The free server.
    pub server: Option<Server>,
}

/// What the account has by default.
pub async fn home(app: &App, user: UserId) -> Result<Home, ServiceError> {
    let mut connection = app.store.reader().acquire().await.map_err(StoreError::from)?;
    let project = store::default_project(&mut connection, user).await?;
    drop(connection);
    let container = match &project {
        Some((id, _)) => store::first_container(&app.store, *id).await?,
        None => None,
    };
    let server = match store::server_of(&app.store, user).await? {
        Some(id) => server::by_id(&app.store, id).await?,
        None => None,
    };
    let container = container.map(|(id, name, status)| Container { id, name, status });
    Ok(Home { project, container, server })
}

/// Makes what is missing of project and container. A container that cannot be made is tried again with the
/// next claim.
pub(super) async fn furnish(app: &App, user: &User) -> Result<(), ServiceError> {
    let id = ensure_project(app, user.id).await?;
    if store::first_container(&app.store, id).await?.is_some() {
        return Ok(());
    }
    let input = CreateInput {
        name: Some(CONTAINER.to_owned()),
        container_image: Some(app.config.free_tier.image.clone()),
        autostart: Some(true),
        ..CreateInput::default()
    };
    match container::create(app, &Caller::of(user), id, input).await {
        // Another request was faster.
        Ok(_) | Err(ServiceError::Conflict(_)) => {}
        Err(error) => {
            tracing::warn!(user = %user.id, error = chain(&error), "the default container could not be made");
        }
    }
    Ok(())
}

async fn ensure_project(app: &App, owner: UserId) -> Result<ProjectId, ServiceError> {
    let mut tx = app.store.begin().await?;
    let now = now_ms() as i64;
    let mut project = Project {
        id: ProjectId::generate(),
        user: owner,
        alias: PROJECT.to_owned(),
        color: COLOR.to_owned(),
        max_containers: None,
        realms: Vec::new(),
        is_default: true,
        created_at: now,
        updated_at: now,
    };
    user::lock(&mut tx, owner).await?;
    if let Some((id, _)) = store::default_project(&mut tx, owner).await? {
        return Ok(id);
    }
    if store::has_project(&mut tx, owner, PROJECT).await? {
        project.alias = format!("{PROJECT}-{}", hex::encode(rand::random::<[u8; 3]>()));
    }
    let max = app.config.project_max_per_user;
    if !project::insert(&mut tx, &project, max).await? {
        return Err(ServiceError::Conflict(format!("you have {max} projects, the most an account can have")));
    }
    tx.commit().await.map_err(StoreError::from)?;
    Ok(project.id)
}
