//! One call to another server, within bounds.

use std::{fmt, sync::Arc, time::Duration};

use reqwest::{
    Client,
    header::{ACCEPT, CONTENT_TYPE, HeaderValue},
    redirect,
};
use rustls::{ClientConfig, RootCertStore};
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use url::Url;

use super::{
    address::is_public_unicast,
    answer::Answer,
    guard::{Guard, SystemLookup},
    host_map::HostMap,
    problem::FetchError,
};
use crate::origin::Origin;

/// The bounds of a call.
pub struct Limits;

impl Limits {
    /// Longest body of an answer, in bytes; a longer one is not read to its end.
    pub const BODY_BYTES_MAX: usize = 64 << 10;
    /// Most time from the wish to call to the end of the answer.
    pub const TIME_MAX: Duration = Duration::from_secs(5);
    /// Most time for a connection, so that there is some left to try the next address of a name.
    pub const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);
    /// Most calls at a time; others wait, within their own time.
    pub const CALLS_MAX: usize = 8;
}

/// Whether a call may go to this machine. Addresses that come from outside never may: there are servers here that
/// trust whoever reaches them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loopback {
    /// It may: the operator has named the address, or runs a server for development.
    Allowed,
    /// It may not.
    Refused,
}

impl Loopback {
    /// Whether servers here may be called by a server with this public URL: by one for development.
    pub fn of(public_url: Option<&Origin>) -> Self {
        match public_url {
            Some(public_url) if public_url.is_loopback() => Self::Allowed,
            _ => Self::Refused,
        }
    }
}

impl From<Loopback> for atproto::Loopback {
    fn from(loopback: Loopback) -> Self {
        match loopback {
            Loopback::Allowed => Self::Accepted,
            Loopback::Refused => Self::Refused,
        }
    }
}

/// Calls other servers.
///
/// Over https, at port 443, at addresses of public hosts; see [`Loopback`] and [`HostMap`] for what else there is. No
/// redirect is followed, no proxy used, no cookie kept, nothing unpacked.
pub struct Outbound {
    public: Leg,
    local: Leg,
    host_map: HostMap,
    gate: Semaphore,
}

/// What to call, and with what.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// Where to.
    pub url: &'a Url,
    /// Whether that may be on this machine.
    pub loopback: Loopback,
    /// The caller's right, if it needs one.
    pub bearer: Option<&'a Bearer>,
    /// How, and with which body.
    pub method: Method<'a>,
    /// What is asked for.
    pub accept: &'static str,
}

/// The method of a call, and its body.
#[derive(Clone, Copy)]
pub enum Method<'a> {
    /// GET.
    Get,
    /// POST without a body.
    Post,
    /// POST with this JSON.
    PostJson(&'a serde_json::Value),
}

impl<'a> Call<'a> {
    /// A GET for JSON.
    pub fn get(url: &'a Url, loopback: Loopback) -> Self {
        Self {
            url,
            loopback,
            bearer: None,
            method: Method::Get,
            accept: "application/json",
        }
    }
}

/// A token of another server that gives a right there. It cannot be printed.
pub struct Bearer(String);

impl Bearer {
    /// The one that is written so.
    pub fn new(token: String) -> Self {
        Self(token)
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer(..)")
    }
}

impl Outbound {
    /// One that resolves names as the system does.
    ///
    /// # Errors
    /// If TLS cannot be set up, which no setting is to blame for.
    pub fn new(host_map: HostMap) -> Result<Self, reqwest::Error> {
        let public = Guard::new(Arc::new(SystemLookup), is_public_unicast);
        let local = Guard::new(Arc::new(SystemLookup), |address| address.is_loopback());
        let tls = tls(roots());
        Ok(Self {
            public: Leg::new(public, tls.clone())?,
            local: Leg::new(local, tls)?,
            host_map,
            gate: Semaphore::new(Limits::CALLS_MAX),
        })
    }

    /// The JSON at a URL, which must be answered with a status of success.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn get_json<T: DeserializeOwned>(
        &self,
        url: &Url,
        loopback: Loopback,
    ) -> Result<T, FetchError> {
        self.call(Call::get(url, loopback)).await?.success()?.json()
    }

    /// The text at a URL, which must be answered with a status of success.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn get_text(&self, url: &Url, loopback: Loopback) -> Result<String, FetchError> {
        let call = Call {
            accept: "text/plain",
            ..Call::get(url, loopback)
        };
        self.call(call).await?.success()?.text()
    }

    /// The answer to a call, whatever its status is, unless it is a redirect.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn call(&self, call: Call<'_>) -> Result<Answer, FetchError> {
        let (leg, url) = self.route(call.url, call.loopback)?;
        let exchange = async {
            let permit = self.gate.acquire().await;
            let answer = leg.exchange(url, call).await;
            drop(permit);
            answer
        };
        let in_time = tokio::time::timeout(Limits::TIME_MAX, exchange).await;
        in_time.unwrap_or(Err(FetchError::Slow))
    }

    /// The way to a URL, and what the URL is there.
    fn route(&self, url: &Url, loopback: Loopback) -> Result<(&Leg, Url), FetchError> {
        if !url.username().is_empty() || url.password().is_some() {
            return Err(FetchError::UserInfo);
        }
        let origin = Origin::of_url(url).ok_or(FetchError::NotHttps)?;
        if let Some(target) = self.host_map.get(&origin) {
            return Ok((&self.local, target.instead_of(url)));
        }
        if origin.is_loopback() {
            return match loopback {
                Loopback::Allowed => Ok((&self.local, url.clone())),
                Loopback::Refused => Err(FetchError::NotPublic),
            };
        }
        if origin.port() != 443 {
            return Err(FetchError::Port);
        }
        Ok((&self.public, url.clone()))
    }
}

/// A client whose connections lead to addresses of one kind.
struct Leg {
    client: Client,
    guard: Guard,
}

impl Leg {
    fn new(guard: Guard, tls: ClientConfig) -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .dns_resolver(guard.clone())
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .connect_timeout(Limits::CONNECT_TIME_MAX)
            // each call has a connection of its own, to an address that was judged for it
            .pool_max_idle_per_host(0)
            .user_agent(concat!("groundmist-sync/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { client, guard })
    }

    async fn exchange(&self, url: Url, call: Call<'_>) -> Result<Answer, FetchError> {
        if !self.guard.allows(&url) {
            return Err(FetchError::NotPublic);
        }
        let method = match call.method {
            Method::Get => reqwest::Method::GET,
            Method::Post | Method::PostJson(_) => reqwest::Method::POST,
        };
        let mut request = self
            .client
            .request(method, url)
            .header(ACCEPT, HeaderValue::from_static(call.accept));
        if let Some(Bearer(token)) = call.bearer {
            request = request.bearer_auth(token);
        }
        if let Method::PostJson(json) = call.method {
            request = request
                .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
                .body(json.to_string());
        }
        Answer::read(request.send().await?).await
    }
}

/// The system's certificates, among which an operator can put one of their own (`SSL_CERT_FILE` and `SSL_CERT_DIR` name
/// others, as they do for OpenSSL); Mozilla's where the system has none, as in an empty container.
fn roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    // some of a system's certificates may be unreadable: the others are as good as before
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

fn tls(roots: RootCertStore) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the ciphers of TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

#[cfg(test)]
mod tests;
