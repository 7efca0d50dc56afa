//! `/openapi.json` and a page to browse it at `/docs`; everything the page needs is in this binary.

use crate::app::App;
use axum::{Router, http::header, response::IntoResponse, routing::get};
use bytes::Bytes;
use utoipa::openapi::{
    ContactBuilder, Content, InfoBuilder, OpenApi, Ref, RefOr, Response, ResponseBuilder, SecurityRequirement,
    path::{Operation, PathItem},
    security::{Http, HttpAuthScheme, SecurityScheme},
};
use utoipa_swagger_ui::{Config, SwaggerUi};

/// Where the page is; its own paths keep their trailing slash.
pub(super) const PAGE: &str = "/docs";
const DOCUMENT: &str = "/openapi.json";
const BEARER: &str = "bearer";

/// Fills in what is not about one route.
pub(super) fn complete(mut document: OpenApi) -> OpenApi {
    document.info = InfoBuilder::new()
        .title("Hoody")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("Containers on rented servers: the public API of the control plane."))
        .contact(Some(ContactBuilder::new().name(Some("Hoody")).build()))
        .build();
    document
        .components
        .get_or_insert_default()
        .add_security_scheme(BEARER, SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    document.security = Some(vec![SecurityRequirement::new::<_, [&str; 0], &str>(BEARER, [])]);
    for item in document.paths.paths.values_mut() {
        add_answers_of_layers(item);
    }
    document
}

/// What the layers around the handlers answer ([`super::layer`]): who is not known, whose auth token lacks a
/// permission, who asks too often, and a key of idempotency that is at work or was used for something else.
fn add_answers_of_layers(item: &mut PathItem) {
    let add = |operation: &mut Option<Operation>, statuses: &[&str]| {
        let Some(operation) = operation else { return };
        // Those that are open to everybody say so; all others are not.
        let is_open = operation.security.is_some();
        let statuses = statuses.iter().filter(|status| !is_open || **status == "429");
        for status in statuses {
            operation.responses.responses.entry((*status).to_owned()).or_insert_with(failure);
        }
    };
    for operation in [&mut item.get, &mut item.put, &mut item.patch, &mut item.delete] {
        add(operation, &["401", "403", "429"]);
    }
    add(&mut item.post, &["400", "401", "403", "409", "422", "429"]);
}

fn failure() -> RefOr<Response> {
    let schema = Ref::from_schema_name("Failure");
    RefOr::T(ResponseBuilder::new().content("application/json", Content::new(Some(schema))).build())
}

/// True for the routes of the document and its page, which are open to anybody.
pub(super) fn is_page(path: &str) -> bool {
    path == DOCUMENT || path == PAGE || path.strip_prefix(PAGE).is_some_and(|rest| rest.starts_with('/'))
}

/// The document's and the page's routes.
pub(super) fn router(document: &OpenApi) -> Router<App> {
    let json = Bytes::from(serde_json::to_vec(document).unwrap_or_default());
    let serve = move || {
        let json = json.clone();
        async move { ([(header::CONTENT_TYPE, "application/json")], json).into_response() }
    };
    Router::new().route(DOCUMENT, get(serve)).merge(SwaggerUi::new(PAGE).config(Config::from(DOCUMENT)))
}
