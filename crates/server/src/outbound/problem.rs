//! Why a call came to nothing.

use std::{error::Error, io, sync::Arc};

use super::{fetch::Limits, guard::LookupFault};

/// Why a call came to nothing; whose fault that is, says [`FetchError::fault`]. Neither text nor sources hold anything
/// of what was sent or received.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    /// It is neither https nor, where that may be called, of this machine.
    #[error("only https addresses are called")]
    NotHttps,
    /// The port is another one than that of https.
    #[error("only port 443 is called")]
    Port,
    /// It has a user name or a password in it.
    #[error("an address with a user name in it is not called")]
    UserInfo,
    /// It is of no public host, or its name has an address that is of none.
    #[error("its address is not that of a public host")]
    NotPublic,
    /// A redirect, with its status. Where it leads is nobody's promise, and it is not followed.
    #[error("it answered with a redirect ({0}), which is not followed")]
    Redirect(u16),
    /// Another status than one of success.
    #[error("it answered with status {0}")]
    Status(u16),
    /// A longer body than [`Limits::BODY_BYTES_MAX`].
    #[error("its answer has more than {} bytes", Limits::BODY_BYTES_MAX)]
    TooLong,
    /// A body that is compressed, or encoded in another way, which it was not asked for.
    #[error("its answer is compressed, which it was not asked for")]
    Encoded,
    /// Something else than JSON, or not the JSON that was expected.
    #[error("its answer is not the JSON that was asked for")]
    NotJson,
    /// Something else than UTF-8.
    #[error("its answer is not text")]
    NotText,
    /// The name has no address, or nobody knows whether it has one.
    #[error("its name could not be resolved")]
    Name(#[source] Arc<io::Error>),
    /// It took longer than [`Limits::TIME_MAX`], all in all.
    #[error("it did not answer within {} seconds", Limits::TIME_MAX.as_secs())]
    Slow,
    /// There is no connection, it has no valid certificate, it does not speak HTTP, or it fell silent.
    #[error("the connection failed")]
    Connection(#[source] Arc<reqwest::Error>),
}

/// Whose fault it is that a call came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// That of whoever named the address: it will not be called, whatever happens.
    Address,
    /// That of whoever answered.
    Remote,
    /// That of the way there, or of nobody: it may work later.
    Network,
}

impl FetchError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::NotHttps | Self::Port | Self::UserInfo | Self::NotPublic => Fault::Address,
            Self::Redirect(_)
            | Self::Status(_)
            | Self::TooLong
            | Self::Encoded
            | Self::NotJson
            | Self::NotText => Fault::Remote,
            Self::Name(_) | Self::Slow | Self::Connection(_) => Fault::Network,
        }
    }
}

impl FetchError {
    /// Whether the call may have done there what it was to do, although nothing came of it here.
    pub fn may_have_been_obeyed(&self) -> bool {
        match self {
            Self::NotHttps
            | Self::Port
            | Self::UserInfo
            | Self::NotPublic
            | Self::Name(_)
            | Self::Redirect(_) => false,
            Self::Status(status) => *status >= 500,
            Self::TooLong | Self::Encoded | Self::NotJson | Self::NotText | Self::Slow => true,
            Self::Connection(error) => !error.is_connect(),
        }
    }
}

impl From<reqwest::Error> for FetchError {
    fn from(error: reqwest::Error) -> Self {
        match lookup_fault(&error) {
            Some(LookupFault::NotAllowed) => Self::NotPublic,
            Some(LookupFault::Failed(error)) => Self::Name(Arc::clone(error)),
            None if error.is_timeout() => Self::Slow,
            // the URL may have a query that is nobody's business
            None => Self::Connection(Arc::new(error.without_url())),
        }
    }
}

fn lookup_fault<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a LookupFault> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| {
        (*error).source()
    })
    .find_map(|error| error.downcast_ref())
}
