//! What an app publishes about itself at its client id.
//!
//! Whoever controls that address controls all of this: it tells where the app lives and which keys it has, and its
//! name is only what it wants to be called.
//!
//! Source: <https://atproto.com/specs/oauth>, "Client ID Metadata Document"; RFC 7591, 2.

use serde::Deserialize;
use url::Url;

use crate::{
    client_id::{self, ClientId, ClientIdKind, InvalidClientId},
    jwks::{Jwks, JwksError, RawJwks},
    redirect_uri::{InvalidRedirectUri, RedirectUri},
    strict,
};

/// An app's metadata.
#[derive(Debug, Clone)]
pub struct ClientMetadata {
    client_id: ClientId,
    client_name: Option<String>,
    application_type: ApplicationType,
    redirect_uris: Vec<RedirectUri>,
    keys: ClientKeys,
}

/// Where an app runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ApplicationType {
    /// In a browser or on a server of its own.
    #[default]
    Web,
    /// On the user's machine.
    Native,
}

/// How an app can prove that it is the app.
#[derive(Debug, Clone)]
pub enum ClientKeys {
    /// Not at all: a public client.
    None,
    /// With these keys.
    Inline(Jwks),
    /// With the keys at this address.
    At(Url),
}

/// A text that is no metadata of that app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClientMetadataError {
    /// It is longer than [`ClientMetadata::BYTES_MAX`].
    #[error("the metadata is too long")]
    TooLong,
    /// It is no JSON object of the right form.
    #[error("the metadata is not of the right form")]
    Form,
    /// It is another app's.
    #[error("the client_id in the metadata is another one")]
    OtherClient,
    /// There is no redirect URI, or more than [`ClientMetadata::REDIRECT_URIS_MAX`].
    #[error("the metadata has no redirect URIs, or too many")]
    RedirectUris,
    /// A redirect URI is none.
    #[error(transparent)]
    RedirectUri(#[from] InvalidRedirectUri),
    /// The name is too long, or would not show as it is written.
    #[error("the client_name is too long or has characters that do not show")]
    Name,
    /// The app says that it has keys, and shows none; or shows them twice over; or says how it signs in by a name that
    /// atproto does not have.
    #[error("the metadata does not say clearly how the client authenticates")]
    Authentication,
    /// Its keys are none.
    #[error(transparent)]
    Jwks(#[from] JwksError),
    /// The address of its keys is none.
    #[error("jwks_uri: {0}")]
    JwksUri(InvalidClientId),
}

#[derive(Deserialize)]
struct Raw {
    client_id: String,
    client_name: Option<String>,
    #[serde(default)]
    application_type: ApplicationType,
    redirect_uris: Vec<String>,
    token_endpoint_auth_method: Option<String>,
    jwks: Option<RawJwks>,
    jwks_uri: Option<String>,
}

impl ClientMetadata {
    /// Longest document that is looked at, in bytes.
    pub const BYTES_MAX: usize = 64 << 10;
    /// Most redirect URIs.
    pub const REDIRECT_URIS_MAX: usize = 50;
    /// Longest name, in characters.
    pub const NAME_CHARS_MAX: usize = 200;

    /// Reads what was found at an app's client id.
    ///
    /// # Errors
    /// [`ClientMetadataError`] if it is no metadata of this app.
    pub fn parse(json: &[u8], client_id: &ClientId) -> Result<Self, ClientMetadataError> {
        if json.len() > Self::BYTES_MAX {
            return Err(ClientMetadataError::TooLong);
        }
        let raw: Raw = strict::object(json).ok_or(ClientMetadataError::Form)?;
        if raw.client_id != client_id.as_str() {
            return Err(ClientMetadataError::OtherClient);
        }
        if !(1..=Self::REDIRECT_URIS_MAX).contains(&raw.redirect_uris.len()) {
            return Err(ClientMetadataError::RedirectUris);
        }
        if !raw.client_name.as_deref().is_none_or(is_name) {
            return Err(ClientMetadataError::Name);
        }
        Ok(Self {
            client_id: client_id.clone(),
            application_type: raw.application_type,
            redirect_uris: raw.parse_redirect_uris()?,
            keys: raw.keys()?,
            client_name: raw.client_name,
        })
    }

    /// The metadata of a loopback client, which follow from its id; none for an id whose metadata are to be fetched.
    pub fn of_loopback(client_id: &ClientId) -> Option<Self> {
        match client_id.kind() {
            ClientIdKind::Discoverable(_) => None,
            ClientIdKind::Loopback(redirect_uris) => Some(Self {
                client_id: client_id.clone(),
                client_name: None,
                application_type: ApplicationType::Native,
                redirect_uris: redirect_uris.clone(),
                keys: ClientKeys::None,
            }),
        }
    }

    /// Whose metadata they are.
    pub fn client_id(&self) -> &ClientId {
        &self.client_id
    }

    /// What the app wants to be called, at most 200 characters that all show: its own word, and not unique.
    pub fn client_name(&self) -> Option<&str> {
        self.client_name.as_deref()
    }

    /// Where the app runs.
    pub fn application_type(&self) -> ApplicationType {
        self.application_type
    }

    /// Where the app can be sent back to, at least one place.
    pub fn redirect_uris(&self) -> &[RedirectUri] {
        &self.redirect_uris
    }

    /// How the app can prove that it is the app.
    pub fn keys(&self) -> &ClientKeys {
        &self.keys
    }

    /// Whether a page of this origin, as a browser writes it in the `Origin` header, can be the app: whether it is that
    /// of one of the redirect URIs, by [`RedirectUri::allows_origin`].
    pub fn allows_origin(&self, origin: &str) -> bool {
        self.redirect_uris
            .iter()
            .any(|uri| uri.allows_origin(origin))
    }
}

impl Raw {
    fn parse_redirect_uris(&self) -> Result<Vec<RedirectUri>, InvalidRedirectUri> {
        self.redirect_uris.iter().map(|text| text.parse()).collect()
    }

    fn keys(&self) -> Result<ClientKeys, ClientMetadataError> {
        // A client that says nothing is a public one, which is trusted less.
        let method = self.token_endpoint_auth_method.as_deref().unwrap_or("none");
        match (method, &self.jwks, &self.jwks_uri) {
            ("none", None, None) => Ok(ClientKeys::None),
            ("none" | "private_key_jwt", Some(raw), None) => {
                Ok(ClientKeys::Inline(Jwks::from_raw(raw)?))
            }
            ("none" | "private_key_jwt", None, Some(uri)) => client_id::document_url(uri)
                .map(ClientKeys::At)
                .map_err(ClientMetadataError::JwksUri),
            _ => Err(ClientMetadataError::Authentication),
        }
    }
}

/// Whether a name shows as it is written: no control characters, and none that turn the direction of what follows.
fn is_name(name: &str) -> bool {
    let turns = |letter| matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    name.chars().count() <= ClientMetadata::NAME_CHARS_MAX
        && !name
            .chars()
            .any(|letter| letter.is_control() || turns(letter))
}
