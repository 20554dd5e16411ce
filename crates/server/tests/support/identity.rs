//! The owner, and what is around a server: a directory of DIDs, an app with its metadata, and devices that hold keys.
//!
//! Tokens and proofs are made here by hand, so that each can be made wrong in one way.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{Router, extract::State, http::StatusCode, http::Uri};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

use super::Server;

/// The server's owner.
pub const OWNER: &str = "did:plc:ewvi7nxzyoun6zhxrhs64oiz";
/// Another account.
pub const STRANGER: &str = "did:plc:44ybard66vv44zksje25o7dz";
/// An app's origin, which is mapped to this machine.
pub const APP: &str = "https://app.example.dev";
/// The app's client id.
pub const CLIENT_ID: &str = "https://app.example.dev/client-metadata.json";
/// What apps ask for here.
pub const GROUP: &str = "xyz.groundmist.library";

/// Unix time in seconds.
pub fn now_s() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since_epoch.as_secs()).unwrap()
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// What `ath` holds.
pub fn hash_of(token: &str) -> String {
    encode(Sha256::digest(token))
}

/// A private key of one of the two kinds.
#[derive(Clone)]
pub enum Key {
    P256(p256::ecdsa::SigningKey),
    K256(k256::ecdsa::SigningKey),
}

impl Key {
    pub fn p256() -> Self {
        Self::P256(p256::ecdsa::SigningKey::from_slice(&random()).unwrap())
    }

    pub fn k256() -> Self {
        Self::K256(k256::ecdsa::SigningKey::from_slice(&random()).unwrap())
    }

    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::P256(_) => "ES256",
            Self::K256(_) => "ES256K",
        }
    }

    /// The public key as a JWK, members in the order of RFC 7638.
    pub fn jwk(&self) -> Value {
        let (curve, point) = match self {
            Self::P256(key) => (
                "P-256",
                key.verifying_key().to_sec1_point(false).as_bytes().to_vec(),
            ),
            Self::K256(key) => (
                "secp256k1",
                key.verifying_key().to_sec1_point(false).as_bytes().to_vec(),
            ),
        };
        json!({ "crv": curve, "kty": "EC", "x": encode(&point[1..33]), "y": encode(&point[33..]) })
    }

    pub fn thumbprint(&self) -> String {
        let jwk = self.jwk();
        let text = format!(
            r#"{{"crv":{},"kty":"EC","x":{},"y":{}}}"#,
            jwk["crv"], jwk["x"], jwk["y"]
        );
        encode(Sha256::digest(text))
    }

    /// The public key as a DID document has it.
    pub fn multikey(&self) -> String {
        let (prefix, point) = match self {
            Self::P256(key) => (
                [0x80, 0x24],
                key.verifying_key().to_sec1_point(true).as_bytes().to_vec(),
            ),
            Self::K256(key) => (
                [0xe7, 0x01],
                key.verifying_key().to_sec1_point(true).as_bytes().to_vec(),
            ),
        };
        let bytes = [&prefix[..], &point].concat();
        format!("z{}", bs58::encode(bytes).into_string())
    }

    fn signature(&self, message: &[u8]) -> Vec<u8> {
        use p256::ecdsa::signature::Signer;
        match self {
            Self::P256(key) => {
                let signature: p256::ecdsa::Signature = key.sign(message);
                signature.to_bytes().to_vec()
            }
            Self::K256(key) => {
                let signature: k256::ecdsa::Signature = key.sign(message);
                signature.to_bytes().to_vec()
            }
        }
    }

    /// A JWT with this header and these claims.
    pub fn jwt(&self, header: &Value, claims: &Value) -> String {
        let signed = format!(
            "{}.{}",
            encode(header.to_string()),
            encode(claims.to_string())
        );
        let signature = self.signature(signed.as_bytes());
        format!("{signed}.{}", encode(signature))
    }
}

fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).unwrap();
    // below the order of both groups
    bytes[0] &= 0x7f;
    bytes
}

/// A name that nobody has used.
pub fn unique() -> String {
    encode(random())
}

/// One installation of an app: a key, and the token that its PDS gave it.
#[derive(Clone)]
pub struct Device {
    pub key: Key,
    pub token: String,
    pub origin: Option<String>,
}

impl Device {
    /// The owner's, in a browser, at the app's origin.
    pub fn in_browser() -> Self {
        Self::of(Key::p256(), OWNER, CLIENT_ID, Some(APP))
    }

    /// The owner's, no browser, with a key of the other kind.
    pub fn native() -> Self {
        let client_id = "http://localhost/?redirect_uri=http%3A%2F%2F127.0.0.1%2Fcallback";
        Self::of(Key::k256(), OWNER, client_id, None)
    }

    pub fn of(key: Key, owner: &str, client_id: &str, origin: Option<&str>) -> Self {
        let token = access_token(&json!({
            "sub": owner,
            "client_id": client_id,
            "cnf": { "jkt": key.thumbprint() },
            "iat": now_s(),
            "exp": now_s() + 3_600,
        }));
        Self {
            key,
            token,
            origin: origin.map(str::to_owned),
        }
    }

    pub fn fingerprint(&self) -> String {
        self.key.thumbprint()
    }

    /// The claims of a good proof.
    pub fn claims(&self, method: &str, url: &str, token: &str, nonce: &str) -> Value {
        json!({
            "jti": unique(),
            "iat": now_s(),
            "htm": method,
            "htu": url,
            "ath": hash_of(token),
            "nonce": nonce,
        })
    }

    /// The header of a good proof.
    pub fn header(&self) -> Value {
        json!({ "typ": "dpop+jwt", "alg": self.key.algorithm(), "jwk": self.key.jwk() })
    }

    pub fn proof(&self, method: &str, url: &str, token: &str, nonce: &str) -> String {
        self.key
            .jwt(&self.header(), &self.claims(method, url, token, nonce))
    }
}

/// An access token as a PDS makes them. Nobody else can check its signature, and so it has none.
pub fn access_token(claims: &Value) -> String {
    let header = json!({ "typ": "at+jwt", "alg": "HS256" });
    format!(
        "{}.{}.{}",
        encode(header.to_string()),
        encode(claims.to_string()),
        encode([7; 32])
    )
}

/// An answer of the server.
#[derive(Debug, Clone)]
pub struct Answered {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub text: String,
}

impl Answered {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub fn nonce(&self) -> &str {
        &self.headers["dpop-nonce"]
    }

    /// Status and error.
    pub fn outcome(&self) -> (u16, String) {
        let error = self.json()["error"].as_str().unwrap_or("").to_owned();
        (self.status, error)
    }
}

/// What is around a server.
pub struct World {
    pub address: SocketAddr,
    /// The owner's signing key, by which service auth is signed.
    pub signing: Key,
    served: Arc<Mutex<Served>>,
}

#[derive(Default)]
struct Served {
    pages: BTreeMap<String, (u16, String)>,
    asked: Vec<String>,
}

impl World {
    /// A directory that knows the owner, and an app with metadata.
    pub async fn new() -> Self {
        let served = Arc::<Mutex<Served>>::default();
        let app = Router::new()
            .fallback(async |State(served): State<Arc<Mutex<Served>>>, uri: Uri| {
                let mut served = served.lock().unwrap();
                served.asked.push(uri.path().to_owned());
                let page = served.pages.get(uri.path()).cloned();
                let (status, page) = page.unwrap_or((404, "{}".into()));
                let kind = [("content-type", "application/json")];
                (StatusCode::from_u16(status).unwrap(), kind, page)
            })
            .with_state(Arc::clone(&served));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async { axum::serve(listener, app).await.unwrap() });
        let world = Self {
            address,
            signing: Key::k256(),
            served,
        };
        world.publish_keys(&[("#atproto", &world.signing.multikey())]);
        world.serve("/client-metadata.json", &metadata());
        world
    }

    /// Serves something from now on.
    pub fn serve(&self, path: &str, page: &Value) {
        self.serve_status(path, 200, &page.to_string());
    }

    pub fn serve_status(&self, path: &str, status: u16, page: &str) {
        let mut served = self.served.lock().unwrap();
        served.pages.insert(path.into(), (status, page.into()));
    }

    /// Which paths were asked for so far.
    pub fn asked(&self) -> Vec<String> {
        self.served.lock().unwrap().asked.clone()
    }

    /// Gives the owner's DID document these keys.
    pub fn publish_keys(&self, keys: &[(&str, &str)]) {
        let methods: Vec<_> = keys
            .iter()
            .map(|(id, key)| {
                json!({
                    "id": format!("{OWNER}{id}"), "type": "Multikey", "controller": OWNER,
                    "publicKeyMultibase": key,
                })
            })
            .collect();
        let document = json!({
            "@context": ["https://www.w3.org/ns/did/v1"],
            "id": OWNER,
            "alsoKnownAs": ["at://alice.test"],
            "verificationMethod": methods,
            "service": [{
                "id": "#atproto_pds", "type": "AtprotoPersonalDataServer",
                "serviceEndpoint": "https://pds.example.dev",
            }],
        });
        self.serve(&format!("/{OWNER}"), &document);
    }

    /// The environment of a server in this world.
    pub fn variables(&self) -> Vec<(String, String)> {
        let url = format!("http://{}", self.address);
        vec![
            ("ATPROTO_DID".into(), OWNER.into()),
            ("GROUNDMIST_SYNC_PLC_URL".into(), url.clone()),
            (
                "GROUNDMIST_SYNC_TEST_HOST_MAP".into(),
                format!("{APP}={url}"),
            ),
        ]
    }

    /// A server in this world, that says much.
    pub async fn server(&self) -> Server {
        Server::start_in_world(&["--log", "debug"], self.variables()).await
    }

    /// Service auth of the owner for a method.
    pub fn service_auth(&self, audience: &str, method: &str) -> String {
        self.signing.jwt(
            &json!({ "typ": "JWT", "alg": self.signing.algorithm() }),
            &service_claims(audience, method),
        )
    }
}

/// The claims of good service auth.
pub fn service_claims(audience: &str, method: &str) -> Value {
    json!({
        "iss": OWNER,
        "aud": audience,
        "lxm": format!("xyz.groundmist.sync.{method}"),
        "iat": now_s(),
        "exp": now_s() + 60,
        "jti": unique(),
    })
}

/// What the app says of itself.
pub fn metadata() -> Value {
    json!({
        "client_id": CLIENT_ID,
        "client_name": "Library",
        "client_uri": APP,
        "application_type": "web",
        "redirect_uris": [format!("{APP}/")],
        "scope": "atproto transition:generic",
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
        "dpop_bound_access_tokens": true,
    })
}

impl Server {
    /// The origin that it is reached at.
    pub fn origin(&self) -> String {
        format!("http://localhost:{}", self.address.port())
    }

    /// Its DID.
    pub fn did(&self) -> String {
        format!("did:web:localhost%3A{}", self.address.port())
    }

    pub fn authenticate_url(&self) -> String {
        format!("{}/authenticate", self.origin())
    }

    /// `POST /authenticate` with these headers and this body.
    pub async fn post_authenticate(&self, headers: &[(&str, &str)], body: &str) -> Answered {
        self.request("POST", "/authenticate", headers, body).await
    }

    /// A nonce that is good now.
    pub async fn nonce(&self) -> String {
        let answer = self
            .request("GET", "/xrpc/xyz.groundmist.sync.getServer", &[], "")
            .await;
        answer.nonce().to_owned()
    }

    /// `POST /authenticate` as a stock client sends it, with this proof.
    pub async fn authenticate_with(&self, device: &Device, proof: &str, body: &Value) -> Answered {
        let authorization = format!("DPoP {}", device.token);
        let mut headers = vec![
            ("Authorization", authorization.as_str()),
            ("DPoP", proof),
            ("Content-Type", "application/json"),
        ];
        if let Some(origin) = &device.origin {
            headers.push(("Origin", origin));
        }
        self.post_authenticate(&headers, &body.to_string()).await
    }

    /// The same with a good proof.
    pub async fn authenticate(&self, device: &Device, body: &Value) -> Answered {
        let nonce = self.nonce().await;
        let proof = device.proof("POST", &self.authenticate_url(), &device.token, &nonce);
        self.authenticate_with(device, &proof, body).await
    }

    /// What an app asks `/authenticate` for.
    pub fn wish() -> Value {
        json!({ "lexiconAuthorityDomain": GROUP, "rootDocUrl": null })
    }

    /// Has the owner approve a device that asks at `/authenticate`.
    pub async fn pair(&self, device: &Device) {
        assert_eq!(self.cli(&["devices", "open"]).await.code, Some(0));
        let asked = self.authenticate(device, &Self::wish()).await;
        assert_eq!(asked.outcome(), (403, "approval_required".into()));
        self.approve(device, &[]).await;
        assert_eq!(self.cli(&["devices", "close"]).await.code, Some(0));
    }

    /// Has the owner approve what a device has asked for.
    pub async fn approve(&self, device: &Device, flags: &[&str]) {
        let id = self.pending(device).await.expect("a pending request");
        let mut arguments = vec!["devices", "approve", &id];
        arguments.extend(flags);
        let output = self.cli(&arguments).await;
        assert_eq!(output.code, Some(0), "{output:?}");
    }

    /// The id of a device's pending request.
    pub async fn pending(&self, device: &Device) -> Option<String> {
        let pending = self.cli(&["devices", "pending", "--json"]).await.json();
        let fingerprint = device.fingerprint();
        let mine = pending
            .as_array()
            .unwrap()
            .iter()
            .find(|row| row["fingerprint"] == fingerprint.as_str())?;
        Some(mine["id"].as_str().unwrap().to_owned())
    }

    /// One HTTP request.
    pub async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answered {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.address);
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        let length = body.len();
        request.push_str(&format!(
            "Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        ));
        let answer = super::soon("an answer over HTTP", self.ask(&request)).await;
        let (head, text) = answer.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap();
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_lowercase(), value.to_owned())
        });
        Answered {
            status: status.parse().unwrap(),
            headers: headers.collect(),
            text: text.to_owned(),
        }
    }
}
