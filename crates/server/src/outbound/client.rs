//! What apps publish about themselves.

use std::sync::Arc;

use atproto::{ClientId, ClientKeys, ClientMetadata, ClientMetadataError, Jwks, JwksError};
use tokio::sync::Semaphore;
use url::Url;

use super::{
    cache::{Cache, Failure, Freshness},
    fetch::{Call, Limits, Loopback, Outbound},
    problem::{Fault, FetchError},
};

/// Most documents of each kind that are kept: few, because strangers name them.
const DOCUMENTS_MAX: usize = 64;
/// Most calls at a time. Strangers choose whom they are made to, and that may be somebody who is slow on purpose: there
/// are always some left for the DID documents.
const CALLS_MAX: usize = Limits::CALLS_MAX - 2;

/// Finds the metadata and the keys of apps, and keeps them for ten minutes.
///
/// Source: <https://atproto.com/specs/oauth>, "Client ID Metadata Document".
pub struct ClientResolver {
    source: Source,
    metadata: Cache<ClientId, Arc<ClientMetadata>, ClientError>,
    keys: Cache<Url, Arc<Jwks>, ClientError>,
}

/// Where documents come from.
#[derive(Clone)]
struct Source {
    outbound: Arc<Outbound>,
    gate: Arc<Semaphore>,
}

/// Why nothing is known of an app.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// What it publishes could not be fetched.
    #[error("the app's document could not be fetched")]
    Fetch(#[from] FetchError),
    /// What was found is not its metadata.
    #[error(transparent)]
    Metadata(#[from] ClientMetadataError),
    /// What was found are not keys.
    #[error(transparent)]
    Keys(#[from] JwksError),
}

impl Failure for ClientError {
    fn is_passing(&self) -> bool {
        match self {
            Self::Fetch(FetchError::Status(status)) => *status == 429 || *status >= 500,
            Self::Fetch(error) => error.fault() == Fault::Network,
            Self::Metadata(_) | Self::Keys(_) => false,
        }
    }
}

impl ClientResolver {
    /// One that makes its calls through `outbound`.
    pub fn new(outbound: Arc<Outbound>) -> Self {
        Self {
            source: Source {
                outbound,
                gate: Arc::new(Semaphore::new(CALLS_MAX)),
            },
            metadata: Cache::new(DOCUMENTS_MAX),
            keys: Cache::new(DOCUMENTS_MAX),
        }
    }

    /// The metadata of an app, as they were within the last ten minutes. Those of a loopback client follow from its id.
    ///
    /// # Errors
    /// [`ClientError`], which is told again for half a minute without asking anybody.
    pub async fn metadata(&self, id: &ClientId) -> Result<Arc<ClientMetadata>, ClientError> {
        let Some(url) = id.metadata_url() else {
            return ClientMetadata::of_loopback(id)
                .map(Arc::new)
                .ok_or(ClientError::Metadata(ClientMetadataError::Form));
        };
        let (source, url, of) = (self.source.clone(), url.clone(), id.clone());
        let fetch = async move {
            let json = source.fetch(&url).await?;
            Ok(Arc::new(ClientMetadata::parse(&json, &of)?))
        };
        self.metadata.get(id, Freshness::Kept, fetch).await
    }

    /// The keys of an app that has some; none for a public client. See [`Self::metadata`].
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn keys(&self, metadata: &ClientMetadata) -> Result<Option<Arc<Jwks>>, ClientError> {
        self.find_keys(metadata, Freshness::Kept).await
    }

    /// The keys of an app as they were within the last minute: for when a signature is by none of the kept ones.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn fresh_keys(
        &self,
        metadata: &ClientMetadata,
    ) -> Result<Option<Arc<Jwks>>, ClientError> {
        self.find_keys(metadata, Freshness::Renewed).await
    }

    async fn find_keys(
        &self,
        metadata: &ClientMetadata,
        freshness: Freshness,
    ) -> Result<Option<Arc<Jwks>>, ClientError> {
        let url = match metadata.keys() {
            ClientKeys::None => return Ok(None),
            ClientKeys::Inline(keys) => return Ok(Some(Arc::new(keys.clone()))),
            ClientKeys::At(url) => url,
        };
        let (source, at) = (self.source.clone(), url.clone());
        let fetch = async move {
            let json = source.fetch(&at).await?;
            Ok(Arc::new(Jwks::parse(&json)?))
        };
        self.keys.get(url, freshness, fetch).await.map(Some)
    }
}

impl Source {
    /// The JSON at an address that a stranger has named.
    async fn fetch(&self, url: &Url) -> Result<Vec<u8>, ClientError> {
        let fetched = async {
            let permit = self.gate.acquire().await;
            let answer = self.outbound.call(Call::get(url, Loopback::Refused)).await;
            drop(permit);
            answer
        };
        // whoever waits too long for their turn is told so
        let in_time = tokio::time::timeout(Limits::TIME_MAX, fetched).await;
        let answer = in_time.unwrap_or(Err(FetchError::Slow))?;
        // RFC 7591 documents are answered with 200 and nothing else
        if answer.status() != 200 {
            return Err(FetchError::Status(answer.status()).into());
        }
        Ok(answer.into_json_bytes()?)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::fake::{Fake, Reply},
        *,
    };

    const ID: &str = "https://app.example.dev/client.json";

    fn id() -> ClientId {
        ID.parse().unwrap()
    }

    fn metadata(extra: serde_json::Value) -> Reply {
        let mut metadata = json!({
            "client_id": ID,
            "client_name": "Notes",
            "redirect_uris": ["https://app.example.dev/callback"],
            "token_endpoint_auth_method": "none",
        });
        let object = metadata.as_object_mut().unwrap();
        object.extend(extra.as_object().unwrap().clone());
        Reply::json(&metadata)
    }

    fn resolver(app: &Fake) -> ClientResolver {
        let map = format!("https://app.example.dev={}", app.origin);
        ClientResolver::new(Arc::new(Outbound::new(map.parse().unwrap()).unwrap()))
    }

    #[tokio::test]
    async fn metadata_are_found_at_the_client_id_and_kept() {
        let app = Fake::always(metadata(json!({}))).await;
        let resolver = resolver(&app);
        for _ in 0..5 {
            let metadata = resolver.metadata(&id()).await.unwrap();
            assert_eq!(metadata.client_name(), Some("Notes"));
            assert!(resolver.keys(&metadata).await.unwrap().is_none());
        }
        assert_eq!(app.connections(), 1);
        assert!(app.requests()[0].starts_with("GET /client.json HTTP/1.1\r\n"));
    }

    #[tokio::test]
    async fn metadata_of_another_client_are_refused() {
        let other = json!({"client_id": "https://app.example.dev/other.json"});
        let app = Fake::always(metadata(other)).await;
        let outcome = resolver(&app).metadata(&id()).await;
        assert!(matches!(
            outcome,
            Err(ClientError::Metadata(ClientMetadataError::OtherClient))
        ));
    }

    #[tokio::test]
    async fn only_status_200_is_metadata() {
        for head in ["201 Created", "404 Not Found"] {
            let head = format!("{head}\r\nContent-Type: application/json");
            let app = Fake::always(Reply::with(&head, "{}")).await;
            let outcome = resolver(&app).metadata(&id()).await;
            assert!(matches!(
                outcome,
                Err(ClientError::Fetch(FetchError::Status(_)))
            ));
        }
    }

    #[tokio::test]
    async fn a_loopback_client_needs_no_fetch() {
        let outbound =
            Arc::new(Outbound::new("https://a.test=http://127.0.0.1:1".parse().unwrap()).unwrap());
        let id: ClientId = "http://localhost".parse().unwrap();
        let metadata = ClientResolver::new(outbound).metadata(&id).await.unwrap();
        assert_eq!(metadata.client_id(), &id);
    }

    #[tokio::test]
    async fn a_client_id_on_this_machine_is_never_called() {
        let app = Fake::always(metadata(json!({}))).await;
        let outbound = Arc::new(Outbound::new(Default::default()).unwrap());
        let resolver = ClientResolver::new(outbound);
        for host in ["localhost", "app.localhost"] {
            let text = format!("https://{host}:{}/client.json", app.origin.port());
            // some are no client ids to begin with
            let Ok(id) = text.parse() else { continue };
            let outcome = resolver.metadata(&id).await;
            assert!(matches!(outcome, Err(ClientError::Fetch(_))), "{outcome:?}");
        }
        assert_eq!(app.connections(), 0);
    }

    #[tokio::test]
    async fn keys_are_found_where_the_metadata_say_and_kept() {
        let app = Fake::start(|path| match path {
            "/client.json" => metadata(json!({
                "token_endpoint_auth_method": "private_key_jwt",
                "token_endpoint_auth_signing_alg": "ES256",
                "jwks_uri": "https://app.example.dev/keys.json",
            })),
            _ => Reply::json(&json!({"keys": [{
                "kty": "EC", "crv": "P-256", "kid": "1", "alg": "ES256",
                "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
                "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
            }]})),
        })
        .await;
        let resolver = resolver(&app);
        let metadata = resolver.metadata(&id()).await.unwrap();
        for _ in 0..5 {
            let keys = resolver.keys(&metadata).await.unwrap().unwrap();
            assert!(keys.key("1").is_some());
            assert!(resolver.fresh_keys(&metadata).await.unwrap().is_some());
        }
        // metadata, keys, and keys once more
        assert_eq!(app.connections(), 3);
    }
}
