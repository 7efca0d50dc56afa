//! The image that a creation means.

use crate::{app::App, error::ServiceError, service::image, store::image::ImageRow};

/// The image of a creation that names none.
const DEFAULT_IMAGE: &str = "debian/12";
/// Longest name that is looked up.
const MAX_NAME_CHARS: usize = 128;

/// 400 for what cannot be a name.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "./:_-".contains(c);
    let plain = !name.is_empty()
        && name.len() <= MAX_NAME_CHARS
        && name.chars().all(allowed)
        && !name.contains("..")
        && !name.starts_with('/');
    if plain { Ok(()) } else { Err("is not an image name such as debian/12".to_owned()) }
}

/// The image that `name` means in the catalogue; 422 where it has none such.
pub(super) async fn resolve(app: &App, name: Option<&str>) -> Result<ImageRow, ServiceError> {
    let wanted = name.unwrap_or(DEFAULT_IMAGE);
    image::resolve(&app.store, wanted).await?.ok_or_else(|| ServiceError::Unprocessable {
        message: format!("there is no image {wanted}: list the catalogue with GET /api/v1/images/public"),
        details: [("container_image".to_owned(), format!("{wanted} is not in the catalogue"))].into(),
    })
}
