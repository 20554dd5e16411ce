//! From a request to a WebSocket: who asks is found out before anything is upgraded.

use std::{net::IpAddr, sync::Arc};

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tracing::{debug, error};

use super::{App, authenticate::text, input};
use crate::{
    door::{Refused, scheme},
    sync::{Admitted, Watched},
};

/// Whether a request wants a WebSocket. Source: RFC 6455, section 4.2.1.
pub(super) fn is_asked_for(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(header::UPGRADE);
    upgrade.is_some_and(|upgrade| upgrade.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Admits and upgrades, or says why not.
pub(super) async fn websocket(app: &Arc<App>, mut request: Request) -> Response {
    let address = app.client_address(&request);
    let (mut admitted, protocol) = match admit(app, &request) {
        Ok(admitted) => admitted,
        Err(refusal) => return refusal,
    };
    let Some(key) = websocket_key(request.headers()) else {
        let version = [(header::SEC_WEBSOCKET_VERSION, "13")];
        return (
            StatusCode::BAD_REQUEST,
            version,
            "not a WebSocket handshake\n",
        )
            .into_response();
    };
    if !app.hub.has_group(&admitted.group).await {
        return unavailable();
    }
    // it may have taken long to open, and the owner has gone first
    let access = app.door.access(&admitted.session, &admitted.group);
    match access.map_err(Refused::from) {
        Ok(Some(access)) => admitted.access = access,
        Ok(None) => return turned_away(app, address, &Refused::Session),
        Err(reason) => return turned_away(app, address, &reason),
    }
    let Some(place) = app.hub.place() else {
        return unavailable();
    };
    let (hub, on_upgrade) = (app.hub.clone(), hyper::upgrade::on(&mut request));
    tokio::spawn(async move {
        let upgraded = match on_upgrade.await {
            Ok(upgraded) => upgraded,
            Err(error) => return debug!("a WebSocket was gone before it began: {error}"),
        };
        match upgraded.downcast::<TokioIo<Watched<TcpStream>>>() {
            Ok(parts) => {
                let stream = parts.io.into_inner().into_inner();
                if let Err(problem) = hub.serve(stream, &parts.read_buf, admitted, place) {
                    error!("cannot take over a socket: {problem}");
                }
            }
            Err(_) => error!("a WebSocket came over something other than TCP"),
        }
    });
    switching(&key, protocol.as_ref())
}

/// Whom a request comes from, and the subprotocol to echo; or the answer to whoever is not let in.
#[expect(
    clippy::result_large_err,
    reason = "the answer is sent as it is, and this is not a hot path"
)]
pub(super) fn admit(
    app: &App,
    request: &Request,
) -> Result<(Admitted, Option<HeaderValue>), Response> {
    let address = app.client_address(request);
    let origin = text(request.headers(), header::ORIGIN);
    let (admitted, protocol) = if let Some(ticket) = parameter(request, "ticket=") {
        (app.door.admit_ticket(ticket, origin), None)
    } else if let Some(token) = find_token(request) {
        (app.door.admit(&token.text, origin), token.protocol)
    } else {
        return Err(refused(
            app,
            address,
            "a token is missing: ?ticket=, ?token=, Authorization: Bearer, or a subprotocol",
        ));
    };
    match admitted {
        Ok(admitted) => Ok((admitted, protocol)),
        Err(reason) => Err(turned_away(app, address, &reason)),
    }
}

/// The answer to whoever has shown something that does not open the door.
fn turned_away(app: &App, address: IpAddr, reason: &Refused) -> Response {
    if let Refused::Account(problem) = reason {
        error!("cannot look up a session: {problem}");
        return unavailable();
    }
    debug!(%reason, "refused a connection");
    app.door.note_refusal(format!("socket: {reason}"), address);
    refused(app, address, "the token is not valid here")
}

struct FoundToken {
    text: String,
    /// The subprotocol that it came as, which must be echoed.
    protocol: Option<HeaderValue>,
}

fn find_token(request: &Request) -> Option<FoundToken> {
    let plain = |text: &str| FoundToken {
        text: text.into(),
        protocol: None,
    };
    let headers = request.headers();
    scheme(text(headers, header::AUTHORIZATION), "bearer")
        .map(plain)
        .or_else(|| token_protocol(headers))
        .or_else(|| parameter(request, "token=").map(plain))
}

fn token_protocol(headers: &HeaderMap) -> Option<FoundToken> {
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let (name, token) = input::token_protocol(offered.filter_map(|names| names.to_str().ok()))?;
    Some(FoundToken {
        text: token.to_owned(),
        protocol: HeaderValue::from_str(name).ok(),
    })
}

fn parameter<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    input::parameter(request.uri().query()?, name)
}

/// The key of a handshake that is one. Source: RFC 6455, section 4.2.1.
fn websocket_key(headers: &HeaderMap) -> Option<HeaderValue> {
    let connection = headers.get(header::CONNECTION)?.to_str().ok()?;
    let upgrades = connection
        .split(',')
        .any(|word| word.trim().eq_ignore_ascii_case("upgrade"));
    let version = headers.get(header::SEC_WEBSOCKET_VERSION)? == "13";
    let key = headers.get(header::SEC_WEBSOCKET_KEY)?;
    (upgrades && version && key.len() == 24).then(|| key.clone())
}

fn switching(key: &HeaderValue, protocol: Option<&HeaderValue>) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Some(protocol) = protocol {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol.clone());
    }
    response
}

/// To say no here costs a hash, and clients of revoked devices ask again every few seconds for as long as they run:
/// that is counted as a question, so that it does not lock out the devices beside them.
fn refused(app: &App, address: IpAddr, reason: &'static str) -> Response {
    if let Err(too_many) = app.door.limits().ask(address) {
        return super::too_many(too_many);
    }
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
    (StatusCode::UNAUTHORIZED, challenge, format!("{reason}\n")).into_response()
}

fn unavailable() -> Response {
    (
        StatusCode::SERVICE_UNAVAILABLE,
        "the storage is unavailable, try again later\n",
    )
        .into_response()
}
