//! Asks the table of operations ([`crate::access::table`]) before a handler runs: may this kind of caller,
//! with these permissions, call this operation? A path and method without a line in it is refused.

use crate::{
    access::{
        Permission, Permissions,
        table::{self, Rule, Who},
    },
    api::{
        basic,
        caller::{Caller, Identity},
        device_page, docs,
    },
    app::App,
    caller,
    error::ServiceError,
};
use axum::{
    extract::{FromRequestParts, MatchedPath, RawPathParams, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{Method, request::Parts};
use std::{collections::HashMap, sync::Arc};

const VERB: &str = "operation";

/// Path as routed → method → rule.
#[derive(Debug, Default)]
pub(in crate::api) struct Rules(HashMap<String, Vec<(Method, Option<Rule>)>>);

impl Rules {
    /// The rules of these operations: id, method, path.
    pub(in crate::api) fn new<'a>(operations: impl IntoIterator<Item = (&'a str, Method, &'a str)>) -> Self {
        let mut rules = Self::default();
        rules.add(operations);
        rules
    }

    /// Adds the rules of these operations.
    pub(in crate::api) fn add<'a>(&mut self, operations: impl IntoIterator<Item = (&'a str, Method, &'a str)>) {
        for (id, method, path) in operations {
            self.0.entry(path.to_owned()).or_default().push((method, table::rule(id)));
        }
    }

    /// Opens a path to everybody: of a protocol of its own, which looks at the credential itself.
    pub(in crate::api) fn open(&mut self, path: &str, methods: impl IntoIterator<Item = Method>) {
        let open = methods.into_iter().map(|method| (method, Some(table::ANYONE)));
        self.0.entry(path.to_owned()).or_default().extend(open);
    }

    /// The rule of a route: `None` where the path is unknown, `Err` where it has no such method.
    fn of(&self, path: &str, method: &Method) -> Option<Result<Option<Rule>, ()>> {
        let method = if method == Method::HEAD { &Method::GET } else { method };
        let methods = self.0.get(path)?;
        Some(methods.iter().find(|(known, _)| known == method).map(|(_, rule)| *rule).ok_or(()))
    }
}

fn is_page(path: &str) -> bool {
    docs::is_page(path) || device_page::is_page(path)
}

/// Middleware.
pub(super) async fn layer(State((app, rules)): State<(App, Arc<Rules>)>, request: Request, next: Next) -> Response {
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let Some(matched) = matched else {
        // No route: nothing but "not found" comes of it.
        return next.run(request).await;
    };
    let rule = match rules.of(matched.as_str(), request.method()) {
        // Pages for people, which are outside of the document.
        None if is_page(matched.as_str()) => return next.run(request).await,
        Some(Ok(Some(rule))) => rule,
        Some(Err(())) => return super::super::method_not_allowed(request).await,
        None | Some(Ok(None)) => {
            tracing::error!(path = matched.as_str(), method = %request.method(), "a route has no line in the table of operations");
            return ServiceError::Forbidden("this operation is not open to anybody".to_owned()).into_response();
        }
    };
    // Where user name and password are taken, the handler looks at them.
    if rule.who == Who::Anyone || (rule.takes_basic && basic::is_present(request.headers())) {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    match check(&app, &mut parts, rule).await {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(error) => error.into_response(),
    }
}

async fn check(app: &App, parts: &mut Parts, rule: Rule) -> Result<(), ServiceError> {
    let identity = Identity::from_request_parts(parts, app).await?;
    let caller = Caller::from_request_parts(parts, app).await?;
    match (rule.who, &caller.token) {
        (Who::Session, Some(_)) => return Err(for_sessions()),
        (Who::Token, None) => {
            return Err(ServiceError::Forbidden(
                "this is about the auth token of the request, and you are logged in: send an auth token".to_owned(),
            ));
        }
        (Who::Operator, _) if !identity.user.is_admin => {
            return Err(ServiceError::Forbidden("only operators may do this: ask for the admin flag".to_owned()));
        }
        _ => {}
    }
    let verb = if rule.by_verb { verb(parts, app).await } else { String::new() };
    check_permissions(&caller, rule, rule.permissions(&verb))
}

/// Who calls with the credential in `parts`, if they may call the operation: for what goes on after a request
/// was let in, and for what is no request.
pub(in crate::api) async fn admit(app: &App, parts: &mut Parts, operation: &str) -> Result<Caller, ServiceError> {
    let rule = table::rule(operation)
        .ok_or_else(|| ServiceError::Forbidden("this operation is not open to anybody".to_owned()))?;
    check(app, parts, rule).await?;
    Caller::from_request_parts(parts, app).await
}

/// The path's `{operation}`, decoded as the handler will see it.
async fn verb(parts: &mut Parts, app: &App) -> String {
    let parameters = RawPathParams::from_request_parts(parts, app).await;
    let found =
        parameters.ok().and_then(|all| all.iter().find(|(name, _)| *name == VERB).map(|(_, value)| value.to_owned()));
    found.unwrap_or_default()
}

fn check_permissions(caller: &caller::Caller, rule: Rule, needed: Permissions) -> Result<(), ServiceError> {
    let Some(token) = &caller.token else { return Ok(()) };
    if let Some(missing) = needed.without(token.permissions).iter().next() {
        let message = format!("this auth token lacks the permission {}: use one that has it", missing.path());
        return Err(ServiceError::Forbidden(message));
    }
    let needs_flag = |permission, flag: bool| needed.has(permission) && !flag;
    if needs_flag(Permission::Vault, token.vault_access) {
        return Err(ServiceError::Forbidden("this auth token has no vault_access: use one that has it".to_owned()));
    }
    if needs_flag(Permission::Events, token.event_access) {
        return Err(ServiceError::Forbidden("this auth token has no event_access: use one that has it".to_owned()));
    }
    if rule.hands_out_credential && token.deny_reauthorization {
        let message = "this auth token denies reauthorization, so it cannot make other credentials: log in";
        return Err(ServiceError::Forbidden(message.to_owned()));
    }
    Ok(())
}

/// 403 for an auth token where only a session will do.
pub(in crate::api) fn for_sessions() -> ServiceError {
    ServiceError::Forbidden("auth tokens may not do this: log in".to_owned())
}
