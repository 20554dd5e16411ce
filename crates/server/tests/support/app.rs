//! An app that knows of the server: what it calls, and what it shows.

use serde_json::{Value, json};

use super::{
    Server,
    identity::{APP, Answered, CLIENT_ID, Device, GROUP, OWNER, World},
};

/// What the methods' names begin with.
pub const NSID: &str = "xyz.groundmist.sync";

/// An app's device at door B.
pub struct App<'a> {
    pub server: &'a Server,
    pub world: &'a World,
    pub device: Device,
}

impl<'a> App<'a> {
    pub fn new(server: &'a Server, world: &'a World) -> Self {
        let device = Device::in_browser();
        Self {
            server,
            world,
            device,
        }
    }

    pub fn audience(&self) -> String {
        format!("{}#groundmist_sync", self.server.did())
    }

    pub fn service_auth(&self, method: &str) -> String {
        self.world.service_auth(&self.audience(), method)
    }

    pub fn wish() -> Value {
        json!({
            "clientId": CLIENT_ID, "deviceName": "laptop",
            "groups": [{ "group": GROUP, "access": "write" }],
        })
    }

    pub fn url(&self, method: &str) -> String {
        format!("{}/xrpc/{NSID}.{method}", self.server.origin())
    }

    /// Calls a method with a token and a good proof for it.
    pub async fn call(
        &self,
        verb: &str,
        method: &str,
        scheme: &str,
        token: &str,
        body: &Value,
    ) -> Answered {
        let nonce = self.server.nonce().await;
        let proof = self.device.proof(verb, &self.url(method), token, &nonce);
        self.call_with(verb, method, scheme, token, Some(&proof), body)
            .await
    }

    pub async fn call_with(
        &self,
        verb: &str,
        method: &str,
        scheme: &str,
        token: &str,
        proof: Option<&str>,
        body: &Value,
    ) -> Answered {
        let authorization = format!("{scheme} {token}");
        let mut headers = vec![("Authorization", authorization.as_str()), ("Origin", APP)];
        headers.extend(proof.map(|proof| ("DPoP", proof)));
        let path = format!("/xrpc/{NSID}.{method}");
        let (path, query) = match body["group"].as_str() {
            Some(group) if verb == "GET" => (format!("{path}?group={group}"), true),
            _ => (path, verb == "GET"),
        };
        let body = if query {
            String::new()
        } else {
            body.to_string()
        };
        self.server.request(verb, &path, &headers, &body).await
    }

    pub async fn request(&self) -> Answered {
        let auth = self.service_auth("requestAccess");
        self.call("POST", "requestAccess", "Bearer", &auth, &Self::wish())
            .await
    }

    /// A session, after the owner's approval.
    pub async fn session(&self) -> Value {
        let pending = self.request().await;
        assert_eq!(pending.json()["status"], "pending", "{pending:?}");
        self.server.approve(&self.device, &[]).await;
        let granted = self.request().await.json();
        assert_eq!(granted["status"], "granted", "{granted}");
        assert_eq!(granted["did"], OWNER);
        granted["session"].clone()
    }

    pub async fn ticket(&self, session: &Value) -> Answered {
        let token = session["accessToken"].as_str().unwrap();
        self.call(
            "POST",
            "createTicket",
            "DPoP",
            token,
            &json!({ "group": GROUP }),
        )
        .await
    }
}

/// The access token of a session.
pub fn token(session: &Value) -> &str {
    session["accessToken"].as_str().unwrap()
}

/// Where a ticket's address leads here: by the address and not the name, as the client connects to it.
pub fn socket(server: &Server, ticket: &Answered) -> String {
    let url = ticket.json()["url"].as_str().unwrap().to_owned();
    url.replace(
        &server.origin().replace("http", "ws"),
        &format!("ws://{}", server.address),
    )
}
