//! The documents of accounts: where a DID's signing key, PDS and handle are written down.

use std::sync::Arc;

use atproto::{Did, DidDocument, DidDocumentError, DidMethod};
use url::Url;

use super::{
    cache::{Cache, Failure, Freshness},
    fetch::{Call, Loopback, Outbound},
    problem::FetchError,
};
use crate::origin::Origin;

/// Most documents that are kept.
const DOCUMENTS_MAX: usize = 256;

/// Finds the documents of DIDs, and keeps them for ten minutes.
///
/// Sources: <https://atproto.com/specs/did>; <https://web.plc.directory/spec/v0.1/did-plc>, "DID Resolution";
/// <https://w3c-ccg.github.io/did-method-web/>, "Read (Resolve)".
pub struct DidResolver {
    outbound: Arc<Outbound>,
    plc_url: Origin,
    loopback: Loopback,
    documents: Cache<Did, Arc<DidDocument>, DidError>,
}

/// Why there is no document.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DidError {
    /// Whoever should know the DID says that there is none, or that it is no more.
    #[error("there is no such DID")]
    Unknown,
    /// It could not be asked for.
    #[error("the DID document could not be fetched")]
    Fetch(#[from] FetchError),
    /// What was found is not the DID's document.
    #[error(transparent)]
    Document(#[from] DidDocumentError),
}

impl Failure for DidError {
    fn is_passing(&self) -> bool {
        match self {
            // a server that is in trouble says nothing about the DID; nor does whoever answers in its place, as the
            // sign-in page of a network
            Self::Fetch(_) => true,
            Self::Unknown | Self::Document(_) => false,
        }
    }
}

impl DidResolver {
    /// One that looks up `did:plc` in the directory at `plc_url`, on this machine too if that is where it is: only the
    /// operator can have said so. `loopback` says whether `did:web:localhost` means anything.
    pub fn new(outbound: Arc<Outbound>, plc_url: Origin, loopback: Loopback) -> Self {
        Self {
            outbound,
            plc_url,
            loopback,
            documents: Cache::new(DOCUMENTS_MAX),
        }
    }

    /// The document of a DID, as it was within the last ten minutes.
    ///
    /// # Errors
    /// [`DidError`], which is told again for half a minute without asking anybody.
    pub async fn resolve(&self, did: &Did) -> Result<Arc<DidDocument>, DidError> {
        self.documents
            .get(did, Freshness::Kept, self.fetch(did))
            .await
    }

    /// The document of a DID, as it was within the last minute: for when the kept one does not fit.
    ///
    /// # Errors
    /// [`DidError`], which is told again for a minute without asking anybody.
    pub async fn resolve_fresh(&self, did: &Did) -> Result<Arc<DidDocument>, DidError> {
        self.documents
            .get(did, Freshness::Renewed, self.fetch(did))
            .await
    }

    fn fetch(
        &self,
        did: &Did,
    ) -> impl Future<Output = Result<Arc<DidDocument>, DidError>> + Send + use<> {
        let (outbound, place, did) = (Arc::clone(&self.outbound), self.place(did), did.clone());
        async move {
            let (url, loopback) = place?;
            let answer = outbound.call(Call::get(&url, loopback)).await?;
            // gone is what the directory says of an account that was given up
            if matches!(answer.status(), 404 | 410) {
                return Err(DidError::Unknown);
            }
            let json = answer.success()?.into_json_bytes()?;
            Ok(Arc::new(DidDocument::parse(&json, &did)?))
        }
    }

    /// Where the document of a DID is.
    fn place(&self, did: &Did) -> Result<(Url, Loopback), FetchError> {
        match did.method() {
            DidMethod::Plc => {
                let loopback = Loopback::of(Some(&self.plc_url));
                Ok((self.plc_url.at(&format!("/{did}")), loopback))
            }
            DidMethod::Web => {
                let host = did.web_host().unwrap_or_default();
                let is_local = host == "localhost" || host.starts_with("localhost:");
                let scheme = if is_local { "http" } else { "https" };
                let origin: Origin = format!("{scheme}://{host}")
                    .parse()
                    .map_err(|_| FetchError::NotPublic)?;
                Ok((origin.at("/.well-known/did.json"), self.loopback))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::{
        super::{
            cache::{FAILURE_KEPT_FOR, KEPT_FOR, RENEWED_AFTER},
            fake::{Fake, Reply, did_document},
            host_map::HostMap,
        },
        *,
    };

    const ALICE: &str = "did:plc:ewvi7nxzyoun6zhxrhs64oiz";
    const BOB: &str = "did:plc:z72i7hdynmk6r22z27h6tvur";

    fn did(text: &str) -> Did {
        text.parse().unwrap()
    }

    fn resolver(plc: &Fake, host_map: HostMap, loopback: Loopback) -> DidResolver {
        let outbound = Arc::new(Outbound::new(host_map).unwrap());
        DidResolver::new(outbound, plc.origin.clone(), loopback)
    }

    /// What comes of looking up Alice in a directory with this answer.
    async fn resolve(reply: Reply) -> Result<Arc<DidDocument>, DidError> {
        let plc = Fake::always(reply).await;
        let resolver = resolver(&plc, HostMap::default(), Loopback::Refused);
        let outcome = resolver.resolve(&did(ALICE)).await;
        assert!(plc.requests()[0].starts_with(&format!("GET /{ALICE} HTTP/1.1\r\n")));
        outcome
    }

    #[tokio::test]
    async fn a_plc_document_is_found_in_the_directory() {
        let document = resolve(Reply::json(&did_document(ALICE, "alice.test")))
            .await
            .unwrap();
        assert_eq!(document.did().as_str(), ALICE);
        assert_eq!(document.handle().unwrap().as_str(), "alice.test");
        let json_ld = Reply::ok(
            "application/did+ld+json",
            &did_document(ALICE, "x.test").to_string(),
        );
        assert!(resolve(json_ld).await.is_ok());
    }

    #[tokio::test]
    async fn the_document_of_another_did_is_refused() {
        let outcome = resolve(Reply::json(&did_document(BOB, "bob.test"))).await;
        assert!(matches!(
            outcome,
            Err(DidError::Document(DidDocumentError::OtherDid))
        ));
    }

    #[tokio::test]
    async fn a_did_that_nobody_knows_or_that_was_given_up_is_unknown() {
        for head in ["404 Not Found", "410 Gone"] {
            assert!(matches!(
                resolve(Reply::with(head, "{}")).await,
                Err(DidError::Unknown)
            ));
        }
        let outcome = resolve(Reply::with("500 Oops", "")).await;
        assert!(matches!(
            outcome,
            Err(DidError::Fetch(FetchError::Status(500)))
        ));
    }

    #[tokio::test]
    async fn a_web_document_is_found_at_its_host() {
        let web = Fake::start(|path| match path {
            "/.well-known/did.json" => {
                Reply::json(&did_document("did:web:alice.test", "alice.test"))
            }
            _ => Reply::with("404 Not Found", ""),
        })
        .await;
        let map = format!("https://alice.test={}", web.origin)
            .parse()
            .unwrap();
        let resolver = resolver(&web, map, Loopback::Refused);
        assert!(resolver.resolve(&did("did:web:alice.test")).await.is_ok());
    }

    #[tokio::test]
    async fn a_web_document_on_this_machine_is_looked_for_only_where_that_is_allowed() {
        let web = Fake::start(|path| {
            assert_eq!(path, "/.well-known/did.json");
            Reply::json(&json_of_localhost())
        })
        .await;
        let local = did(&format!("did:web:localhost%3A{}", web.origin.port()));
        let outcome = resolver(&web, HostMap::default(), Loopback::Refused)
            .resolve(&local)
            .await;
        assert!(matches!(
            outcome,
            Err(DidError::Fetch(FetchError::NotPublic))
        ));
        assert_eq!(web.connections(), 0);
        let outcome = resolver(&web, HostMap::default(), Loopback::Allowed)
            .resolve(&local)
            .await;
        // it was looked for; its id says another port
        assert!(matches!(
            outcome,
            Err(DidError::Document(DidDocumentError::OtherDid))
        ));
    }

    fn json_of_localhost() -> serde_json::Value {
        did_document("did:web:localhost%3A1", "x.test")
    }

    /// A directory that can be made to fail, whose time can be turned on.
    struct Directory {
        fake: Fake,
        replies: Arc<Mutex<Reply>>,
        resolver: DidResolver,
    }

    impl Directory {
        async fn start() -> Self {
            let replies = Arc::new(Mutex::new(Reply::json(&did_document(ALICE, "alice.test"))));
            let reply = Arc::clone(&replies);
            let fake = Fake::start(move |_| reply.lock().unwrap().clone()).await;
            let resolver = resolver(&fake, HostMap::default(), Loopback::Refused);
            Self {
                fake,
                replies,
                resolver,
            }
        }

        fn says(&self, reply: Reply) {
            *self.replies.lock().unwrap() = reply;
        }

        /// Time passes at once, and stands still for no one else: real sockets need it to go on.
        async fn after(&self, duration: std::time::Duration) {
            tokio::time::pause();
            tokio::time::advance(duration).await;
            tokio::time::resume();
        }
    }

    #[tokio::test]
    async fn a_document_is_kept_and_fetched_again_at_most_once_a_minute() {
        let directory = Directory::start().await;
        let alice = did(ALICE);
        for _ in 0..20 {
            directory.resolver.resolve(&alice).await.unwrap();
            directory.resolver.resolve_fresh(&alice).await.unwrap();
        }
        assert_eq!(directory.fake.connections(), 2);
        directory.after(RENEWED_AFTER).await;
        for _ in 0..20 {
            directory.resolver.resolve_fresh(&alice).await.unwrap();
        }
        assert_eq!(directory.fake.connections(), 3);
        directory.after(KEPT_FOR).await;
        directory.resolver.resolve(&alice).await.unwrap();
        assert_eq!(directory.fake.connections(), 4);
    }

    #[tokio::test]
    async fn a_directory_in_trouble_takes_nothing_away_and_an_account_given_up_does() {
        let directory = Directory::start().await;
        let alice = did(ALICE);
        directory.resolver.resolve(&alice).await.unwrap();
        directory.says(Reply::with("503 Busy", ""));
        directory.after(RENEWED_AFTER).await;
        assert!(directory.resolver.resolve_fresh(&alice).await.is_err());
        assert!(directory.resolver.resolve(&alice).await.is_ok());
        let sign_in = Reply::ok("text/html", "<h1>Sign in to this network</h1>");
        for reply in [Reply::with("403 Forbidden", ""), sign_in] {
            directory.says(reply);
            directory.after(RENEWED_AFTER).await;
            assert!(directory.resolver.resolve_fresh(&alice).await.is_err());
            assert!(directory.resolver.resolve(&alice).await.is_ok());
        }
        directory.says(Reply::with("410 Gone", ""));
        directory.after(RENEWED_AFTER).await;
        let outcome = directory.resolver.resolve_fresh(&alice).await;
        assert!(matches!(outcome, Err(DidError::Unknown)));
        let outcome = directory.resolver.resolve(&alice).await;
        assert!(matches!(outcome, Err(DidError::Unknown)));
        assert_eq!(directory.fake.connections(), 5);
        directory.after(FAILURE_KEPT_FOR).await;
        directory.says(Reply::json(&did_document(ALICE, "alice.test")));
        assert!(directory.resolver.resolve(&alice).await.is_ok());
    }
}
