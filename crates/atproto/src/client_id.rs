//! Client ids: the addresses by which apps are known.
//!
//! An app's id is where its metadata can be read. An app in development has none: its id is `http://localhost`, and
//! its metadata follows from the id itself. Anybody can use such an id, so it tells nothing about who does.
//!
//! Source: <https://atproto.com/specs/oauth>, "Clients" and "Localhost Client Development"; OAuth Client ID Metadata
//! Document (draft-ietf-oauth-client-id-metadata-document), "Client Identifier URL".

use std::{fmt, hash, str::FromStr};

use url::{Host, Url};

use crate::redirect_uri::{RedirectUri, RedirectUriKind};

/// An app, by its id.
#[derive(Clone)]
pub struct ClientId {
    text: String,
    kind: ClientIdKind,
}

/// Where an app's metadata comes from.
#[derive(Debug, Clone)]
pub enum ClientIdKind {
    /// From this address, which is the id.
    Discoverable(Url),
    /// From the id itself: these redirect URIs, at least one. Always an *unverified app*.
    Loopback(Vec<RedirectUri>),
}

/// A text that is no client id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidClientId {
    /// It is empty or longer than [`ClientId::BYTES_MAX`].
    #[error("the client_id is empty or too long")]
    Length,
    /// It is neither an address with https nor that of a loopback client.
    #[error("the client_id is no https address")]
    Scheme,
    /// It is not written as the address it means: `..` in its path, capitals or others than ASCII in its host.
    #[error("the client_id is not in its canonical form")]
    Form,
    /// Its host is an address of the network and no name.
    #[error("the host in the client_id is not a domain name")]
    Host,
    /// It names a user.
    #[error("the client_id has a user name or password")]
    User,
    /// It has a fragment.
    #[error("the client_id has a fragment")]
    Fragment,
    /// It has no path, or one that ends with a slash.
    #[error("the client_id has no path to a document")]
    Path,
    /// A loopback id says something else than its redirect URIs and one scope, or something wrong.
    #[error("the loopback client_id has a parameter that does not belong there")]
    Parameter,
}

impl ClientId {
    /// Longest id, in bytes.
    pub const BYTES_MAX: usize = 2048;
    /// Most redirect URIs of a loopback id.
    pub const REDIRECT_URIS_MAX: usize = 50;

    const LOOPBACK: &str = "http://localhost";

    /// The id's text: what it is compared by.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Where the app's metadata comes from.
    pub fn kind(&self) -> &ClientIdKind {
        &self.kind
    }

    /// The address of the app's metadata; none for a loopback id.
    pub fn metadata_url(&self) -> Option<&Url> {
        match &self.kind {
            ClientIdKind::Discoverable(url) => Some(url),
            ClientIdKind::Loopback(_) => None,
        }
    }
}

impl FromStr for ClientId {
    type Err = InvalidClientId;

    fn from_str(text: &str) -> Result<Self, InvalidClientId> {
        if !(1..=Self::BYTES_MAX).contains(&text.len()) {
            return Err(InvalidClientId::Length);
        }
        let kind = match text.strip_prefix(Self::LOOPBACK) {
            Some(rest) => ClientIdKind::Loopback(loopback_redirect_uris(rest)?),
            None => ClientIdKind::Discoverable(document_url(text)?),
        };
        Ok(Self {
            text: text.to_owned(),
            kind,
        })
    }
}

impl PartialEq for ClientId {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for ClientId {}

impl hash::Hash for ClientId {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientId({:?})", self.text)
    }
}

/// Reads the address of a document that an app publishes: https, a domain name, a path, and no fragment or user.
pub(crate) fn document_url(text: &str) -> Result<Url, InvalidClientId> {
    let url = Url::parse(text).map_err(|_| InvalidClientId::Form)?;
    if url.scheme() != "https" {
        return Err(InvalidClientId::Scheme);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(InvalidClientId::User);
    }
    if url.fragment().is_some() {
        return Err(InvalidClientId::Fragment);
    }
    if !matches!(url.host(), Some(Host::Domain(name)) if name.contains('.') && !name.ends_with('.'))
    {
        return Err(InvalidClientId::Host);
    }
    // The text is compared and shown, the parsed address is fetched: both have to be the same.
    if url.as_str() != text {
        return Err(InvalidClientId::Form);
    }
    if url.path().ends_with('/') {
        return Err(InvalidClientId::Path);
    }
    Ok(url)
}

/// What follows `http://localhost`: nothing, or a path of `/`, or parameters, or both.
fn loopback_redirect_uris(rest: &str) -> Result<Vec<RedirectUri>, InvalidClientId> {
    if rest.contains('#') {
        return Err(InvalidClientId::Fragment);
    }
    let query = match rest.strip_prefix('/').unwrap_or(rest) {
        "" => "",
        other => other.strip_prefix('?').ok_or(InvalidClientId::Path)?,
    };
    let mut scopes = 0;
    let mut redirect_uris = vec![];
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match name.as_ref() {
            "redirect_uri" => redirect_uris.push(loopback_redirect_uri(&value)?),
            "scope" => scopes += 1,
            _ => return Err(InvalidClientId::Parameter),
        }
    }
    if scopes > 1 || redirect_uris.len() > ClientId::REDIRECT_URIS_MAX {
        return Err(InvalidClientId::Parameter);
    }
    if redirect_uris.is_empty() {
        for default in ["http://127.0.0.1/", "http://[::1]/"] {
            redirect_uris.push(loopback_redirect_uri(default)?);
        }
    }
    Ok(redirect_uris)
}

fn loopback_redirect_uri(text: &str) -> Result<RedirectUri, InvalidClientId> {
    text.parse()
        .ok()
        .filter(|uri: &RedirectUri| uri.kind() == RedirectUriKind::Loopback)
        .ok_or(InvalidClientId::Parameter)
}
