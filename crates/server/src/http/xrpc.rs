//! `/xrpc/xyz.groundmist.sync.*`: the outside of door B. `lexicons/` describes each method.
//!
//! Source: <https://atproto.com/specs/xrpc>, "Error responses".

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{FromRequest, Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use store::SessionAccess;
use tracing::{debug, error};

use super::{
    App,
    authenticate::{DPOP, text, with_nonce},
    body,
    client_address::Client,
    input::{self, Wanted, WantedAccess},
};
use crate::{
    door::{
        AccessAnswer, AccessError, AccessRequest, Call, Caller, Granted, SERVICE, TICKET_MS,
        method_path, now_ms,
    },
    group::Group,
    settings::LegacyAuthenticate,
};

/// Longest body, in bytes.
const BODY_BYTES_MAX: usize = 16 << 10;

/// The methods.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route(&method_path("getServer"), get(get_server))
        .route(&method_path("requestAccess"), post(request_access))
        .route(&method_path("getSession"), get(get_session))
        .route(&method_path("refreshSession"), post(refresh_session))
        .route(&method_path("revokeSession"), post(revoke_session))
        .route(&method_path("createTicket"), post(create_ticket))
        .route(&method_path("getRootDocument"), get(get_root_document))
        .route(&method_path("putRootDocument"), post(put_root_document))
        .route(&method_path("listGroups"), get(list_groups))
        .route(&method_path("listSessions"), get(list_sessions))
        .route("/xrpc/{method}", axum::routing::any(not_implemented))
        .method_not_allowed_fallback(wrong_verb)
}

/// The DID document of this server. Source: <https://w3c-ccg.github.io/did-method-web/>, "Read (Resolve)".
pub(super) async fn did_document(State(app): State<Arc<App>>, Client(address): Client) -> Response {
    if let Err(problem) = app.door.limits().ask(address) {
        return super::too_many(problem);
    }
    let (Ok(did), Some(public_url)) = (app.door.did(), &app.door.policy().public_url) else {
        return (StatusCode::NOT_FOUND, "not configured\n").into_response();
    };
    let document = json!({
        "@context": ["https://www.w3.org/ns/did/v1"],
        "id": did,
        "service": [{ "id": SERVICE, "type": "GroundmistSync", "serviceEndpoint": public_url.to_string() }],
    });
    Json(document).into_response()
}

/// A request, taken apart. It is read before anything is looked at, so that each answer can be sent.
struct Asked {
    call: OwnedCall,
    query: Option<String>,
    body: Bytes,
}

struct OwnedCall {
    authorization: Option<String>,
    proofs: Vec<String>,
    origin: Option<String>,
    address: std::net::IpAddr,
}

impl FromRequest<Arc<App>> for Asked {
    type Rejection = Response;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Response> {
        let address = app.client_address(&request);
        let headers = request.headers();
        let call = OwnedCall {
            authorization: text(headers, header::AUTHORIZATION).map(str::to_owned),
            proofs: headers
                .get_all(DPOP)
                .iter()
                .filter_map(|proof| proof.to_str().ok().map(str::to_owned))
                .collect(),
            origin: text(headers, header::ORIGIN).map(str::to_owned),
            address,
        };
        let query = request.uri().query().map(str::to_owned);
        let has_body = request.method() == Method::POST;
        let body = if has_body {
            body::read(request.into_body(), BODY_BYTES_MAX).await
        } else {
            Some(Bytes::new())
        };
        let body = body.ok_or_else(|| {
            let problem = AccessError::Request("the body is too long, or did not come");
            refused(app, &problem)
        })?;
        Ok(Self { call, query, body })
    }
}

impl Asked {
    /// Answers a method with what `answer` makes of the call, or with why not.
    async fn answer<F>(
        &self,
        app: &Arc<App>,
        verb: &'static str,
        method: &'static str,
        answer: F,
    ) -> Response
    where
        F: AsyncFnOnce(&Call<'_>) -> Result<Value, AccessError>,
    {
        let proofs: Vec<_> = self.call.proofs.iter().map(String::as_str).collect();
        let call = Call {
            verb,
            method,
            authorization: self.call.authorization.as_deref(),
            proofs: &proofs,
            origin: self.call.origin.as_deref(),
            address: self.call.address,
        };
        match answer(&call).await {
            Ok(answer) => with_nonce(app, Json(answer).into_response()),
            Err(problem) => {
                note(app, &problem, &call);
                refused(app, &problem)
            }
        }
    }

    fn group_parameter(&self) -> Result<Group, AccessError> {
        let query = self.query.as_deref().unwrap_or_default();
        input::group_parameter(query).map_err(AccessError::Request)
    }
}

fn note(app: &App, problem: &AccessError, call: &Call<'_>) {
    if let AccessError::Account(problem) = problem {
        error!("a call has failed: {problem}");
    } else if !matches!(problem, AccessError::Nonce) {
        debug!(%problem, method = call.method, "refused a call");
        let detail = format!("{}: {problem}", call.method);
        app.door.note_refusal(detail, call.address);
    }
}

fn refused(app: &App, problem: &AccessError) -> Response {
    let (status, name) = outside(problem);
    let body = json!({ "error": name, "message": problem.to_string() });
    let mut response = (status, Json(body)).into_response();
    if status == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static(if matches!(problem, AccessError::Nonce) {
            "DPoP error=\"use_dpop_nonce\""
        } else {
            "DPoP algs=\"ES256 ES256K\""
        });
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, challenge);
    }
    if let AccessError::TooMany(too_many) = problem {
        super::retry_after(&mut response, *too_many);
    }
    with_nonce(app, response)
}

fn outside(problem: &AccessError) -> (StatusCode, &'static str) {
    use AccessError as E;
    match problem {
        E::NotConfigured => (StatusCode::SERVICE_UNAVAILABLE, "NotConfigured"),
        E::Request(_) => (StatusCode::BAD_REQUEST, "InvalidRequest"),
        E::Missing(_) => (StatusCode::UNAUTHORIZED, "AuthMissing"),
        E::ServiceAuth(_) | E::ServiceAuthUsed => (StatusCode::UNAUTHORIZED, "InvalidServiceAuth"),
        E::Directory(_) | E::Key(_) => (StatusCode::SERVICE_UNAVAILABLE, "IdentityUnavailable"),
        E::Nonce => (StatusCode::UNAUTHORIZED, "UseDpopNonce"),
        E::Proof(_) | E::WrongProof(_) => (StatusCode::UNAUTHORIZED, "InvalidDpopProof"),
        E::Token(crate::door::InvalidToken::Expired) => (StatusCode::UNAUTHORIZED, "ExpiredToken"),
        E::Token(_) | E::Session => (StatusCode::UNAUTHORIZED, "InvalidSession"),
        E::Client(_) | E::Attestation(_) | E::AttestationUsed => {
            (StatusCode::FORBIDDEN, "UnverifiedApp")
        }
        E::Denied(_) => (StatusCode::FORBIDDEN, "AccessDenied"),
        E::TooMany(_) => (StatusCode::TOO_MANY_REQUESTS, "RateLimitExceeded"),
        E::Account(_) => (StatusCode::SERVICE_UNAVAILABLE, "StorageUnavailable"),
    }
}

async fn not_implemented() -> Response {
    let body = json!({ "error": "MethodNotImplemented", "message": "there is no such method" });
    (StatusCode::NOT_IMPLEMENTED, Json(body)).into_response()
}

async fn wrong_verb() -> Response {
    let body = json!({ "error": "InvalidRequest", "message": "queries are GET, procedures POST" });
    (StatusCode::METHOD_NOT_ALLOWED, Json(body)).into_response()
}

/// For everybody: what this server is, and a nonce for those whose PDS keeps our headers from them.
async fn get_server(State(app): State<Arc<App>>, Client(address): Client) -> Response {
    if let Err(too_many) = app.door.limits().ask(address) {
        return refused(&app, &too_many.into());
    }
    let answer = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "did": app.door.did().ok(),
        "nonce": app.door.nonce(),
        "legacyAuthenticate": app.door.policy().legacy_authenticate == LegacyAuthenticate::Approve,
    });
    with_nonce(&app, Json(answer).into_response())
}

/// A session may do what its groups say, or less.
fn access_request(wanted: WantedAccess) -> AccessRequest {
    let access = |wanted| match wanted {
        Wanted::Read => SessionAccess::Read,
        Wanted::Write => SessionAccess::Write,
    };
    let groups = wanted.groups.into_iter();
    AccessRequest {
        client_id: wanted.client_id,
        device_name: wanted.device_name,
        groups: groups
            .map(|(group, wanted)| (group, access(wanted)))
            .collect(),
        attestation: wanted.attestation,
        proof: wanted.proof,
    }
}

async fn request_access(State(app): State<Arc<App>>, asked: Asked) -> Response {
    let answer = async |call: &Call<'_>| {
        let wanted = WantedAccess::parse(&asked.body).map_err(AccessError::Request)?;
        let request = access_request(wanted);
        match app.door.request_access(call, request).await? {
            AccessAnswer::Granted(granted) => Ok(json!({
                "status": "granted",
                "did": app.door.policy().owner.as_ref().map(ToString::to_string),
                "session": session_json(&granted),
            })),
            AccessAnswer::Pending(id) => Ok(json!({
                "status": "pending",
                "pendingId": id,
                "message": "the owner sees the request; ask again with the same key to learn what becomes of it",
            })),
        }
    };
    asked.answer(&app, "POST", "requestAccess", answer).await
}

async fn get_session(State(app): State<Arc<App>>, asked: Asked) -> Response {
    let answer = async |call: &Call<'_>| {
        let caller = app.door.caller(call)?;
        Ok(json!({
            "id": caller.id.as_str(),
            "did": app.door.policy().owner.as_ref().map(ToString::to_string),
            "clientId": caller.device.app,
            "deviceName": caller.device.name,
            "groups": groups_json(&caller.groups),
            "createdAt": timestamp(caller.session.created_at_ms),
            "expiresAt": timestamp(caller.session.expires_at_ms),
            "endsAt": timestamp(caller.session.ends_at_ms),
        }))
    };
    asked.answer(&app, "GET", "getSession", answer).await
}

async fn refresh_session(State(app): State<Arc<App>>, asked: Asked) -> Response {
    let answer = async |call: &Call<'_>| Ok(session_json(&app.door.refresh(call).await?));
    asked.answer(&app, "POST", "refreshSession", answer).await
}

async fn revoke_session(State(app): State<Arc<App>>, asked: Asked) -> Response {
    let answer = async |call: &Call<'_>| {
        let caller = app.door.caller(call)?;
        let session = input::session_to_revoke(&asked.body).map_err(AccessError::Request)?;
        app.door.end_session(&caller, session).await?;
        Ok(json!({}))
    };
    asked.answer(&app, "POST", "revokeSession", answer).await
}

async fn create_ticket(State(app): State<Arc<App>>, asked: Asked) -> Response {
    let answer = async |call: &Call<'_>| {
        let caller = app.door.caller(call)?;
        let group = input::ticket_group(&asked.body).map_err(AccessError::Request)?;
        let ticket = app.door.issue_ticket(&caller, &group)?;
        let public_url = app.door.policy().public_url.as_ref();
        let public_url = public_url.ok_or(AccessError::NotConfigured)?;
        let scheme = if public_url.is_https() { "wss" } else { "ws" };
        let host = public_url.authority();
        Ok(json!({
            "ticket": ticket.reveal(),
            "url": format!("{scheme}://{host}/sync?ticket={}", ticket.reveal()),
            "expiresAt": timestamp(now_ms() + TICKET_MS),
        }))
    };
    asked.answer(&app, "POST", "createTicket", answer).await
}

async fn get_root_document(State(app): State<Arc<App>>, asked: Asked) -> Response {
    let answer = async |call: &Call<'_>| {
        let caller = app.door.caller(call)?;
        let group = asked.group_parameter()?;
        let url = app.door.root_document(&caller, &group)?;
        Ok(json!({ "group": group.as_str(), "url": url }))
    };
    asked.answer(&app, "GET", "getRootDocument", answer).await
}

async fn put_root_document(State(app): State<Arc<App>>, asked: Asked) -> Response {
    let answer = async |call: &Call<'_>| {
        let caller = app.door.caller(call)?;
        let (group, url) = input::root_document(&asked.body).map_err(AccessError::Request)?;
        let stored = app.door.put_root_document(&caller, &group, url).await?;
        Ok(json!({ "group": group.as_str(), "url": stored }))
    };
    asked.answer(&app, "POST", "putRootDocument", answer).await
}

/// With an access token: what the session may do. With service auth: the names of the groups that apps have.
async fn list_groups(State(app): State<Arc<App>>, asked: Asked) -> Response {
    let answer = async |call: &Call<'_>| {
        let is_service_auth = call
            .authorization
            .and_then(|header| header.split_once(' '))
            .is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        if !is_service_auth {
            let caller = app.door.caller(call)?;
            return Ok(json!({ "groups": groups_json(&caller.groups) }));
        }
        app.door.owner(call).await?;
        let groups = app.door.granted_groups()?;
        let groups: Vec<_> = groups
            .iter()
            .map(|group| json!({ "group": group.as_str() }))
            .collect();
        Ok(json!({ "groups": groups }))
    };
    asked.answer(&app, "GET", "listGroups", answer).await
}

async fn list_sessions(State(app): State<Arc<App>>, asked: Asked) -> Response {
    let answer = async |call: &Call<'_>| {
        let caller = app.door.caller(call)?;
        let sessions = app.door.sessions_of_app(&caller)?;
        let sessions: Vec<_> = sessions
            .iter()
            .map(|(session, device)| session_row(session, device, &caller))
            .collect();
        Ok(json!({ "sessions": sessions }))
    };
    asked.answer(&app, "GET", "listSessions", answer).await
}

fn session_row(session: &store::Session, device: &store::Device, caller: &Caller) -> Value {
    let mut row = json!({
        "id": session.id,
        "clientId": device.app,
        "deviceName": device.name,
        "groups": session.groups.iter().map(|(group, access)| group_json(group, *access)).collect::<Vec<_>>(),
        "createdAt": timestamp(session.created_at_ms),
        "current": session.id == caller.id.as_str(),
    });
    if let (Some(used), Some(row)) = (session.last_used_at_ms, row.as_object_mut()) {
        row.insert("lastUsedAt".into(), timestamp(used).into());
    }
    row
}

fn session_json(granted: &Granted) -> Value {
    json!({
        "id": granted.id.as_str(),
        "accessToken": granted.access_token,
        "refreshToken": granted.refresh_token,
        "accessExpiresAt": timestamp(granted.access_expires_at_s * 1_000),
        "groups": groups_json(&granted.groups),
    })
}

fn groups_json(groups: &[(Group, SessionAccess)]) -> Vec<Value> {
    groups
        .iter()
        .map(|(group, access)| group_json(group.as_str(), *access))
        .collect()
}

fn group_json(group: &str, access: SessionAccess) -> Value {
    let access = match access {
        SessionAccess::Read => "read",
        SessionAccess::Write => "write",
    };
    json!({ "group": group, "access": access })
}

/// A time as atproto has it: RFC 3339, in UTC.
fn timestamp(ms: i64) -> String {
    let since_epoch = Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + since_epoch).to_string()
}
