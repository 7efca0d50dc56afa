//! Operations of every tenant, for operators.

use crate::{
    app::App,
    error::ServiceError,
    page::Page,
    store::operation_list::{self as store, Operation, STATES},
};
use hoody_protocol::id::{ContainerId, OperationId};

/// One page of operations, newest first, and how many there are.
pub async fn list(
    app: &App,
    container: Option<ContainerId>,
    state: Option<&str>,
    page: Page,
) -> Result<(Vec<Operation>, u64), ServiceError> {
    if state.is_some_and(|state| !STATES.contains(&state)) {
        return Err(ServiceError::invalid("state", format!("must be one of {}", STATES.join(", "))));
    }
    Ok(store::list(&app.store, container, state, page).await?)
}

/// An operation.
pub async fn get(app: &App, id: OperationId) -> Result<Operation, ServiceError> {
    store::by_id(&app.store, id).await?.ok_or(ServiceError::NotFound("operation"))
}
