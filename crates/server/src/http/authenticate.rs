//! `POST /authenticate`: the outside of door A.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;
use tracing::{debug, error};

use super::{App, body, client_address::Client};
use crate::door::{self, Asked, AuthenticateError, Pairing, Welcome};

/// Longest body, in bytes.
const BODY_BYTES_MAX: usize = 8 << 10;
/// Source: RFC 9449, section 8.2.
pub(super) const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");
/// Source: RFC 9449, section 4.1.
pub(super) const DPOP: HeaderName = HeaderName::from_static("dpop");

pub(super) async fn authenticate(
    State(app): State<Arc<App>>,
    Client(address): Client,
    headers: HeaderMap,
    request: axum::body::Body,
) -> Response {
    let Some(body) = body::read(request, BODY_BYTES_MAX).await else {
        let problem = AuthenticateError::Request("the body is too long, or did not come");
        return refused(&app, &problem, &Bytes::new());
    };
    let proofs: Vec<_> = headers
        .get_all(DPOP)
        .iter()
        .filter_map(|proof| proof.to_str().ok())
        .collect();
    let asked = Asked {
        authorization: text(&headers, header::AUTHORIZATION),
        proofs: &proofs,
        origin: text(&headers, header::ORIGIN),
        body: &body,
        address,
    };
    match app.door.authenticate(&asked).await {
        Ok(welcome) => welcomed(&app, welcome),
        Err(problem) => {
            note(&app, &problem, &asked);
            refused(&app, &problem, &body)
        }
    }
}

/// A refusal is a line in the audit log; that a nonce is missing is how the protocol begins, and none.
fn note(app: &App, problem: &AuthenticateError, asked: &Asked<'_>) {
    if let AuthenticateError::Account(problem) = problem {
        error!("cannot let a device in: {problem}");
    } else if !matches!(problem, AuthenticateError::Nonce) {
        debug!(%problem, "refused a device");
        app.door.note_refusal(problem, asked.address);
    }
}

fn welcomed(app: &App, Welcome { token, root }: Welcome) -> Response {
    // null, and not nothing: a field that is missing becomes the text "undefined" in apps that store it
    let body = json!({ "result": "OK", "token": token, "rootDocUrl": root });
    with_nonce(app, Json(body).into_response())
}

fn refused(app: &App, problem: &AuthenticateError, body: &Bytes) -> Response {
    let (status, name) = outside(problem);
    let mut answer = json!({
        "error": name,
        "message": problem.to_string(),
        "rootDocUrl": door::root_in(body),
    });
    if let (AuthenticateError::Approval(pairing), Some(answer)) = (problem, answer.as_object_mut())
    {
        answer.insert("pairing".into(), pairing_name(*pairing).into());
        answer.insert("approveUrl".into(), serde_json::Value::Null);
    }
    let mut response = (status, Json(answer)).into_response();
    if status == StatusCode::UNAUTHORIZED {
        // never invalid_token: a stock OAuth client would end its session with the PDS
        let challenge = format!("DPoP error=\"{name}\"");
        if let Ok(challenge) = HeaderValue::from_str(&challenge) {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, challenge);
        }
    }
    if let AuthenticateError::TooMany(too_many) = problem {
        super::retry_after(&mut response, *too_many);
    }
    with_nonce(app, response)
}

fn outside(problem: &AuthenticateError) -> (StatusCode, &'static str) {
    use AuthenticateError as E;
    match problem {
        E::Off => (StatusCode::NOT_FOUND, "not_found"),
        E::NotConfigured => (StatusCode::SERVICE_UNAVAILABLE, "not_configured"),
        E::Request(_) => (StatusCode::BAD_REQUEST, "invalid_request"),
        E::Nonce => (StatusCode::UNAUTHORIZED, "use_dpop_nonce"),
        E::Proof(_) | E::Replayed | E::Headers(_) => {
            (StatusCode::UNAUTHORIZED, "invalid_dpop_proof")
        }
        E::Token(_) => (StatusCode::FORBIDDEN, "token_mismatch"),
        E::Origin(_) => (StatusCode::FORBIDDEN, "origin_mismatch"),
        E::Client(_) => (StatusCode::FORBIDDEN, "unverified_client"),
        E::Approval(_) => (StatusCode::FORBIDDEN, "approval_required"),
        E::Revoked => (StatusCode::FORBIDDEN, "device_revoked"),
        E::TooMany(_) => (StatusCode::TOO_MANY_REQUESTS, "rate_limited"),
        E::Account(_) => (StatusCode::SERVICE_UNAVAILABLE, "storage_unavailable"),
    }
}

fn pairing_name(pairing: Pairing) -> &'static str {
    match pairing {
        Pairing::Closed => "closed",
        Pairing::Waiting => "waiting",
        Pairing::Denied => "denied",
        Pairing::Full => "full",
    }
}

/// Every answer brings a nonce for the next request.
pub(super) fn with_nonce(app: &App, mut response: Response) -> Response {
    let headers = response.headers_mut();
    if let Ok(nonce) = HeaderValue::from_str(&app.door.nonce()) {
        headers.insert(DPOP_NONCE, nonce);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

pub(super) fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}
