//! What another server answers, within bounds.

use std::fmt;

use reqwest::{
    Response,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap},
};
use serde::de::DeserializeOwned;

use super::{fetch::Limits, problem::FetchError};

/// What was answered. Its body cannot be printed: there may be tokens in it.
pub struct Answer {
    status: u16,
    media_type: String,
    body: Vec<u8>,
}

impl Answer {
    /// Reads an answer, and no more of it than it may have, whatever its head says of itself.
    pub(super) async fn read(mut response: Response) -> Result<Self, FetchError> {
        let status = response.status();
        if status.is_redirection() {
            return Err(FetchError::Redirect(status.as_u16()));
        }
        if is_encoded(response.headers()) {
            return Err(FetchError::Encoded);
        }
        let too_long = |bytes: u64| bytes > Limits::BODY_BYTES_MAX as u64;
        if response.content_length().is_some_and(too_long) {
            return Err(FetchError::TooLong);
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > Limits::BODY_BYTES_MAX {
                return Err(FetchError::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Self {
            status: status.as_u16(),
            media_type: media_type(response.headers()),
            body,
        })
    }

    /// Its status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The answer, if it is one of success.
    ///
    /// # Errors
    /// [`FetchError::Status`].
    pub fn success(self) -> Result<Self, FetchError> {
        if (200..300).contains(&self.status) {
            Ok(self)
        } else {
            Err(FetchError::Status(self.status))
        }
    }

    /// Its JSON, if it says that it is JSON.
    ///
    /// # Errors
    /// [`FetchError::NotJson`].
    pub fn json<T: DeserializeOwned>(self) -> Result<T, FetchError> {
        // what the parser says would repeat what was received
        serde_json::from_slice(&self.into_json_bytes()?).map_err(|_| FetchError::NotJson)
    }

    /// Its body, if it says that it is JSON.
    ///
    /// # Errors
    /// [`FetchError::NotJson`].
    pub fn into_json_bytes(self) -> Result<Vec<u8>, FetchError> {
        let is_json = self.media_type == "application/json" || self.media_type.ends_with("+json");
        if is_json {
            Ok(self.body)
        } else {
            Err(FetchError::NotJson)
        }
    }

    /// Its text, of whatever type it says that it is.
    ///
    /// # Errors
    /// [`FetchError::NotText`].
    pub fn text(self) -> Result<String, FetchError> {
        String::from_utf8(self.body).map_err(|_| FetchError::NotText)
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("status", &self.status)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

fn is_encoded(headers: &HeaderMap) -> bool {
    let encodings = headers.get_all(CONTENT_ENCODING);
    encodings.iter().any(|encoding| encoding != "identity")
}

/// The media type of an answer in lower case, without parameters; empty if it has none.
fn media_type(headers: &HeaderMap) -> String {
    let content_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|text| text.split(';').next());
    essence.unwrap_or_default().trim().to_ascii_lowercase()
}
