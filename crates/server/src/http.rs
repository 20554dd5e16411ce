//! What the server says over HTTP: that it runs, how it is, who may come in, the try-it page, and the way to a
//! WebSocket.

mod authenticate;
mod body;
mod client_address;
mod crowd;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
mod input;
mod page;
mod upgrade;
mod xrpc;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use hyper::{body::Incoming, service::Service};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::watch,
    time::Instant,
};
use tower_http::cors::{AllowOrigin, Any, CorsLayer};
use tracing::{debug, warn};

use self::{
    client_address::{Client, Peer},
    crowd::Crowd,
};
use crate::{
    door::{Door, TooMany},
    settings::TrustedProxies,
    sync::{Health, Hub, Pulse, Watched},
};

/// What `GET /` has always answered.
pub const GREETING: &str = "👍 Groundmist personal sync server is running";
/// How long a client may take to send the head of a request.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a peer may give no sign of life while it is served: the longest that any answer takes, and more.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How long a browser may remember what it may send.
const PREFLIGHT_AGE: Duration = Duration::from_secs(600);
/// How long to wait when the system has no socket left to accept.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// How long it is quiet about that, once it has been said.
const COMPLAIN_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// What the handlers share.
pub struct App {
    /// The documents.
    pub hub: Hub,
    /// Who may reach them.
    pub door: Arc<Door>,
    /// The proxies that are believed when they say for whom they ask.
    pub trusted_proxies: TrustedProxies,
    /// Whether the try-it page is there.
    pub try_it: TryIt,
}

/// Whether the server offers the try-it page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TryIt {
    /// Under `/try/`.
    Served,
    /// Not at all.
    Hidden,
}

impl App {
    /// Whom a request comes from.
    pub(crate) fn client_address(&self, request: &Request) -> IpAddr {
        Client::of(
            request.extensions(),
            request.headers(),
            &self.trusted_proxies,
        )
        .0
    }
}

/// The routes.
pub fn router(app: Arc<App>) -> Router {
    let mut router = Router::new()
        .route("/authenticate", post(authenticate::authenticate))
        .route("/sync", get(sync))
        .merge(xrpc::routes())
        .layer(for_apps())
        .merge(
            Router::new()
                .route("/.well-known/did.json", get(xrpc::did_document))
                .layer(CorsLayer::new().allow_origin(Any)),
        )
        .route("/", get(root))
        .route("/xrpc/_health", get(health));
    if app.try_it == TryIt::Served {
        router = router
            .route(
                "/try",
                get(async || axum::response::Redirect::permanent("/try/")),
            )
            .route("/try/", get(async || page::file("index.html")))
            .route("/try/{name}", get(page::named_file));
    }
    router.with_state(app)
}

/// What browsers may do for apps of any origin: who asks is for the door to say, and nothing here goes by cookies. The
/// headers that are exposed carry the nonce, without which a browser's app could not make its proof.
///
/// Source: Fetch, section 3.3 "CORS protocol".
fn for_apps() -> CorsLayer {
    let nonce = authenticate::DPOP_NONCE;
    CorsLayer::new()
        .allow_origin(AllowOrigin::mirror_request())
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([
            header::AUTHORIZATION,
            authenticate::DPOP,
            header::CONTENT_TYPE,
        ])
        .expose_headers([nonce, header::WWW_AUTHENTICATE, header::RETRY_AFTER])
        .max_age(PREFLIGHT_AGE)
}

fn too_many(problem: TooMany) -> Response {
    let mut response = (StatusCode::TOO_MANY_REQUESTS, format!("{problem}\n")).into_response();
    retry_after(&mut response, problem);
    response
}

fn retry_after(response: &mut Response, problem: TooMany) {
    let after = HeaderValue::from(problem.after.as_secs().max(1));
    response.headers_mut().insert(header::RETRY_AFTER, after);
}

async fn root(State(app): State<Arc<App>>, request: Request) -> Response {
    if upgrade::is_asked_for(request.headers()) {
        return upgrade::websocket(&app, request).await;
    }
    if let Err(problem) = app.door.limits().ask(app.client_address(&request)) {
        return too_many(problem);
    }
    if wants_html(request.headers()) {
        return Html(page::GREETING_PAGE).into_response();
    }
    GREETING.into_response()
}

/// Without an upgrade it says whether a token is good, which a browser does not learn from a WebSocket that fails.
async fn sync(State(app): State<Arc<App>>, request: Request) -> Response {
    if upgrade::is_asked_for(request.headers()) {
        return upgrade::websocket(&app, request).await;
    }
    if let Err(refusal) = upgrade::admit(&app, &request) {
        return refusal;
    }
    // neither without the other: RFC 9110, section 7.8
    let upgrade = [
        (header::UPGRADE, "websocket"),
        (header::CONNECTION, "upgrade"),
    ];
    (
        StatusCode::UPGRADE_REQUIRED,
        upgrade,
        "this is a WebSocket endpoint\n",
    )
        .into_response()
}

/// Not limited: it is what tells in a flood how the server is.
async fn health(State(app): State<Arc<App>>) -> Response {
    let version = serde_json::json!({ "version": env!("CARGO_PKG_VERSION") });
    let problem = match app.hub.health() {
        Health::Good if app.door.is_well() => return axum::Json(version).into_response(),
        Health::Good => "StorageFailed",
        Health::Full => "StorageFull",
        Health::Failed => "StorageFailed",
    };
    let body = serde_json::json!({ "version": env!("CARGO_PKG_VERSION"), "error": problem });
    (StatusCode::SERVICE_UNAVAILABLE, axum::Json(body)).into_response()
}

fn wants_html(headers: &HeaderMap) -> bool {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

/// Serves until `stop` says so; then accepts nothing more, and leaves the open connections to themselves.
pub async fn serve(listener: TcpListener, app: Arc<App>, mut stop: watch::Receiver<bool>) {
    let crowd = Arc::new(Crowd::default());
    let router = router(Arc::clone(&app));
    let mut complaint = Complaint::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut stop) => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let speaks_for_many = peer.ip().to_canonical().is_loopback()
                    || app.trusted_proxies.contains(peer.ip());
                let guest = (!speaks_for_many).then(|| crowd.enter(peer.ip()));
                if matches!(guest, Some(None)) {
                    debug!("too many connections of strangers; dropped one");
                    continue;
                }
                // small messages that follow each other must not wait for an acknowledgement
                if let Err(error) = stream.set_nodelay(true) {
                    debug!("a connection was gone before it was served: {error}");
                    continue;
                }
                let connection = connection(stream, peer, router.clone(), stop.clone());
                tokio::spawn(async move {
                    connection.await;
                    drop(guest);
                });
            }
            Err(error) => {
                complaint.make(&error);
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
}

/// What accepting has failed of, which is said once in a while and not ten times a second.
#[derive(Default)]
struct Complaint {
    said_at: Option<Instant>,
}

impl Complaint {
    fn make(&mut self, error: &std::io::Error) {
        let now = Instant::now();
        if self
            .said_at
            .is_none_or(|at| now.duration_since(at) > COMPLAIN_AGAIN_AFTER)
        {
            self.said_at = Some(now);
            warn!("cannot accept a connection: {error}; trying again until it goes");
        }
    }
}

async fn connection<S>(stream: S, peer: SocketAddr, router: Router, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let pulse = Pulse::new();
    let stream = Watched::new(stream, pulse.clone());
    let router = TowerToHyperService::new(router);
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        router.call(request)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = pulse.silent_for(SILENCE_MAX) => return debug!("a peer did not read its answer"),
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!("a connection ended early: {error}");
    }
}

/// Waits until `stop` says so, or is gone.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncWriteExt as _, duplex},
        time::timeout,
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_asks_and_never_reads_is_let_go() {
        let (ours, mut theirs) = duplex(1 << 10);
        let router = Router::new().route("/", get(async || "a long answer ".repeat(1_000)));
        let (_stop, stopped) = watch::channel(false);
        let peer = "192.0.2.1:1024".parse().unwrap();
        theirs
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        let ended = connection(ours, peer, router, stopped);
        assert!(timeout(2 * SILENCE_MAX, ended).await.is_ok());
    }
}
