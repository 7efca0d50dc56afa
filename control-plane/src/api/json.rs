//! Request bodies: JSON into a type; what is wrong is 400 and names the field.

use crate::error::ServiceError;
use axum::{
    body::Bytes,
    extract::{FromRequest, Request, rejection::BytesRejection},
};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};

/// The body as a `T`. Unknown fields are ignored; an empty body reads as `{}`, so that calls whose
/// fields are all optional need none. The media type is not asked for: there is only one.
#[derive(Debug, Clone, Copy)]
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = ServiceError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ServiceError> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| match rejection {
            BytesRejection::FailedToBufferBody(body) if body.status() == http::StatusCode::PAYLOAD_TOO_LARGE => {
                ServiceError::invalid("body", "is larger than this call accepts")
            }
            _ => ServiceError::invalid("body", "ended before it was complete"),
        })?;
        from_slice(&bytes).map(Self)
    }
}

/// For fields that can be null (`serde(default, deserialize_with = "crate::api::json::present")`): tells null
/// (`Some(None)`) from absent (`None`).
pub fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Parses a body.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ServiceError> {
    let bytes = if bytes.trim_ascii().is_empty() { b"{}" } else { bytes };
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.inner();
        match inner.classify() {
            serde_json::error::Category::Data => {
                let (field, problem) = missing_field(&path, &inner.to_string());
                ServiceError::invalid(&field, problem)
            }
            _ => ServiceError::invalid(
                "body",
                format!("is not valid JSON (line {}, column {})", inner.line(), inner.column()),
            ),
        }
    })?;
    json.end().map_err(|_| ServiceError::invalid("body", "has text after the JSON value"))?;
    Ok(value)
}

/// A missing field is reported at the object that lacks it; name the field itself instead. The place in
/// the text (`at line 1 column 5`) means nothing to a client and is cut off.
fn missing_field(path: &str, message: &str) -> (String, String) {
    let message = message.split(" at line ").next().unwrap_or(message);
    let parent = if path == "." { "" } else { path };
    if let Some(name) = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        let field = if parent.is_empty() { name.to_owned() } else { format!("{parent}.{name}") };
        return (field, "is required".to_owned());
    }
    (if parent.is_empty() { "body".to_owned() } else { parent.to_owned() }, message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only read into")]
    struct Inner {
        cores: u32,
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only read into")]
    struct Outer {
        name: String,
        inner: Option<Inner>,
    }

    #[test]
    fn problems_name_their_field() {
        for (body, field) in [
            (r#"{"name": 4}"#, "name"),
            (r#"{}"#, "name"),
            ("", "name"),
            (r#"{"name": "a", "inner": {"cores": -1}}"#, "inner.cores"),
            (r#"{"name": "a", "inner": {}}"#, "inner.cores"),
            (r#"{"name": "a""#, "body"),
            (r#"{"name": "a"} x"#, "body"),
            ("[]", "name"),
        ] {
            match from_slice::<Outer>(body.as_bytes()) {
                Err(ServiceError::Invalid(details)) => {
                    let (found, problem) = details.iter().next().unwrap();
                    // A list in place of an object is reported as a struct of the wrong length.
                    assert!(found == field || body == "[]", "{body}: {found}: {problem}");
                    assert!(!problem.contains(" at line"), "{problem}");
                }
                other => panic!("{body}: {other:?}"),
            }
        }
        assert!(from_slice::<Outer>(br#"{"name": "a", "more": 1}"#).is_ok());
    }
}
