//! Pictures of images: raster files only, since others (SVG) can hold scripts.

use crate::{
    error::ServiceError,
    store::{Store, StoreError, image_icon},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hoody_protocol::id::ImageId;
use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// Bytes of a picture.
const MAX_ICON_BYTES: u64 = 256 << 10;

/// Why a file is no icon.
#[derive(Debug, thiserror::Error)]
pub enum IconError {
    /// It cannot be read.
    #[error("read the file")]
    Io(#[from] io::Error),
    /// It is of another type.
    #[error("it is no PNG, JPEG, WebP or GIF file")]
    Type,
    /// It is too large.
    #[error("it has more than {MAX_ICON_BYTES} bytes")]
    Large,
}

/// A picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Icon {
    media_type: &'static str,
    content: Vec<u8>,
}

impl Icon {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, IconError> {
        let mut content = Vec::new();
        File::open(path)?.take(MAX_ICON_BYTES + 1).read_to_end(&mut content)?;
        Self::new(content)
    }

    /// The file's bytes, whose first ones say what they are.
    fn new(content: Vec<u8>) -> Result<Self, IconError> {
        if content.len() as u64 > MAX_ICON_BYTES {
            return Err(IconError::Large);
        }
        let media_type = match content.as_slice() {
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => "image/png",
            [0xff, 0xd8, 0xff, ..] => "image/jpeg",
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => "image/gif",
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "image/webp",
            _ => return Err(IconError::Type),
        };
        Ok(Self { media_type, content })
    }
}

/// Makes the picture the image's.
pub async fn store_icon(store: &Store, image: ImageId, icon: &Icon) -> Result<(), StoreError> {
    image_icon::put(store, image, icon.media_type, &STANDARD.encode(&icon.content)).await
}

/// The image's picture as a `data:` URL (RFC 2397).
pub async fn icon_url(store: &Store, image: ImageId) -> Result<String, ServiceError> {
    let found = image_icon::get(store, image).await?.ok_or(ServiceError::NotFound("icon"))?;
    let (media_type, content) = found;
    Ok(format!("data:{media_type};base64,{content}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_raster_files_of_a_bounded_size_are_icons() {
        let png = b"\x89PNG\r\n\x1a\nrest".to_vec();
        assert_eq!(Icon::new(png.clone()).unwrap().media_type, "image/png");
        assert!(matches!(Icon::new(b"<svg onload=alert(1)>".to_vec()), Err(IconError::Type)));
        assert!(matches!(Icon::new(Vec::new()), Err(IconError::Type)));
        let large = [png, vec![0; MAX_ICON_BYTES as usize]].concat();
        assert!(matches!(Icon::new(large), Err(IconError::Large)));
    }
}
