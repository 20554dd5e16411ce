//! What `publish` asks of a PDS.
//!
//! Source: the lexicons com.atproto.server.createSession and deleteSession, com.atproto.repo.getRecord, putRecord and
//! deleteRecord.

use std::{fmt, sync::Arc};

use atproto::Did;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    cli::outside::words,
    origin::Origin,
    outbound::{Answer, Bearer, Call, FetchError, Loopback, Method, Outbound},
    settings::AppPassword,
};

/// Longest text of a PDS that is repeated, in characters.
const SHOWN_CHARS_MAX: usize = 200;

/// A PDS.
pub(super) struct Pds {
    outbound: Arc<Outbound>,
    origin: Origin,
    loopback: Loopback,
}

/// Where the record is: its key is the DID of the repository that it is in.
pub(super) struct Place {
    pub(super) repo: Did,
    pub(super) collection: &'static str,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at://{0}/{1}/{0}", self.repo, self.collection)
    }
}

/// A session, which may do what the app password may.
pub(super) struct Session {
    did: Did,
    access: Bearer,
    refresh: Bearer,
}

impl Session {
    /// Whose it is.
    pub(super) fn did(&self) -> &Did {
        &self.did
    }
}

/// Why the PDS did not do it.
#[derive(Debug, thiserror::Error)]
pub(super) enum PdsError {
    /// The password is not one of the account's.
    #[error(
        "the PDS does not take this password: it must be an app password of {0}; make a new one in your app's settings"
    )]
    Password(Did),
    /// The account's own password, where there is a second factor.
    #[error("the PDS wants a second factor: use an app password instead of the account's own")]
    SecondFactor,
    /// There were too many tries.
    #[error(
        "the PDS has had too many tries, and takes no more for a while: wait some minutes, and try again"
    )]
    RateLimited,
    /// Somebody else has signed in.
    #[error("the PDS has signed in another account than the owner")]
    OtherAccount,
    /// It could not be asked.
    #[error("the PDS could not be asked")]
    Fetch(#[from] FetchError),
    /// It was asked to change something, and did not say what it did.
    #[error(
        "the PDS may have done it, or not ({0}); `groundmist-sync publish --show` shows what is published"
    )]
    Unknown(#[source] FetchError),
    /// It says no, in its own words.
    #[error("the PDS says no (status {status}){said}")]
    Refused {
        /// Its status.
        status: u16,
        /// What it says, on one line and not too much of it, behind a colon; nothing, if it says nothing.
        said: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CreatedSession {
    did: String,
    access_jwt: String,
    refresh_jwt: String,
}

#[derive(Deserialize)]
struct FoundRecord {
    value: Value,
}

/// What is answered to a record that was put: without its address nothing was.
#[derive(Deserialize)]
struct PutRecord {
    #[expect(dead_code, reason = "that it is there is all there is to know")]
    uri: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct XrpcError {
    error: String,
    message: String,
}

impl Pds {
    pub(super) fn new(outbound: Arc<Outbound>, origin: Origin, loopback: Loopback) -> Self {
        Self {
            outbound,
            origin,
            loopback,
        }
    }

    /// What is published there, if anything is. Anybody may know.
    pub(super) async fn record(&self, place: &Place) -> Result<Option<Value>, PdsError> {
        let mut url = self.origin.at("/xrpc/com.atproto.repo.getRecord");
        url.query_pairs_mut()
            .append_pair("repo", place.repo.as_str())
            .append_pair("collection", place.collection)
            .append_pair("rkey", place.repo.as_str());
        let answer = self.outbound.call(Call::get(&url, self.loopback)).await?;
        match outcome(answer) {
            Ok(answer) => {
                let found: FoundRecord = answer.json()?;
                Ok(Some(found.value))
            }
            Err((_, error)) if error.error == "RecordNotFound" => Ok(None),
            Err((status, error)) => Err(refused(status, &error)),
        }
    }

    /// A new session of the account.
    pub(super) async fn sign_in(
        &self,
        account: &Did,
        password: &AppPassword,
    ) -> Result<Session, PdsError> {
        let input = json!({ "identifier": account.as_str(), "password": password.expose() });
        let created = self.post(
            "com.atproto.server.createSession",
            None,
            Method::PostJson(&input),
        );
        let answer = match outcome(created.await?) {
            Ok(answer) => answer,
            Err((_, error)) if error.error == "AuthFactorTokenRequired" => {
                return Err(PdsError::SecondFactor);
            }
            Err((401, _)) => return Err(PdsError::Password(account.clone())),
            Err((status, error)) => return Err(refused(status, &error)),
        };
        let created: CreatedSession = answer.json()?;
        Ok(Session {
            did: created.did.parse().map_err(|_| PdsError::OtherAccount)?,
            access: Bearer::new(created.access_jwt),
            refresh: Bearer::new(created.refresh_jwt),
        })
    }

    /// Puts a record where there is none, or another.
    pub(super) async fn put(
        &self,
        session: &Session,
        place: &Place,
        record: &Value,
    ) -> Result<(), PdsError> {
        let input = json!({
            "repo": place.repo.as_str(),
            "collection": place.collection,
            "rkey": place.repo.as_str(),
            "record": record,
        });
        let method = "com.atproto.repo.putRecord";
        let answer = self.write(method, session, &input).await?;
        answer.json::<PutRecord>().map_err(unknown)?;
        Ok(())
    }

    /// Takes a record away, if it is there.
    pub(super) async fn delete(&self, session: &Session, place: &Place) -> Result<(), PdsError> {
        let input = json!({
            "repo": place.repo.as_str(),
            "collection": place.collection,
            "rkey": place.repo.as_str(),
        });
        // what it answers, older ones do not
        self.write("com.atproto.repo.deleteRecord", session, &input)
            .await?;
        Ok(())
    }

    /// Ends a session.
    pub(super) async fn sign_out(&self, session: Session) -> Result<(), PdsError> {
        let method = "com.atproto.server.deleteSession";
        let answer = self
            .post(method, Some(&session.refresh), Method::Post)
            .await?;
        outcome(answer).map_err(|(status, error)| refused(status, &error))?;
        Ok(())
    }

    async fn write(
        &self,
        method: &str,
        session: &Session,
        input: &Value,
    ) -> Result<Answer, PdsError> {
        let input = Method::PostJson(input);
        let answer = self.post(method, Some(&session.access), input).await;
        match outcome(answer.map_err(unknown)?) {
            Ok(answer) => Ok(answer),
            // it may have failed behind what it did
            Err((status, _)) if status >= 500 => Err(unknown(FetchError::Status(status))),
            Err((status, error)) => Err(refused(status, &error)),
        }
    }

    async fn post(
        &self,
        method: &str,
        bearer: Option<&Bearer>,
        body: Method<'_>,
    ) -> Result<Answer, FetchError> {
        let url = self.origin.at(&format!("/xrpc/{method}"));
        let call = Call {
            bearer,
            method: body,
            ..Call::get(&url, self.loopback)
        };
        self.outbound.call(call).await
    }
}

/// The answer, if it is one of success; otherwise its status and what it says.
fn outcome(answer: Answer) -> Result<Answer, (u16, XrpcError)> {
    let status = answer.status();
    if (200..300).contains(&status) {
        return Ok(answer);
    }
    // an error that is not written as one is an error all the same
    Err((status, answer.json().unwrap_or_default()))
}

/// What becomes of a call that was to change something.
fn unknown(error: FetchError) -> PdsError {
    if error.may_have_been_obeyed() {
        PdsError::Unknown(error)
    } else {
        PdsError::Fetch(error)
    }
}

fn refused(status: u16, error: &XrpcError) -> PdsError {
    if status == 429 {
        return PdsError::RateLimited;
    }
    let said: String = [&error.error, &error.message]
        .iter()
        .filter(|text| !text.is_empty())
        .map(|text| format!(": {text}"))
        .collect();
    let said: String = said.chars().take(SHOWN_CHARS_MAX).collect();
    PdsError::Refused {
        status,
        said: words(&said),
    }
}
