//! A flood on every route that anybody may ask, each in turn and all at once, while a device syncs.
//!
//! All of it comes from this machine, which the server does not count as one stranger: it speaks for many, as a proxy does.
//! So this is the worse case of the two.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

mod support;

use std::{
    future::Future,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use support::{Client, Replica, Server, identity::World};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::interval,
};

/// How many flood at once.
const STRANGERS: usize = 40;
/// How long each route is flooded, in milliseconds; `FLOOD_SECONDS` says otherwise.
const SHARE_MS: u64 = 250;
/// How long an edit may take to be acknowledged while the flood lasts, in a build that is not optimised, on a machine that
/// the flood's own making shares.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(3);
/// Most memory that the server may have had: that of an idle one, and a little for each connection.
const MEMORY_BYTES_MAX: u64 = 160 << 20;

/// What a stranger does again and again.
#[derive(Debug, Clone)]
enum Deed {
    /// A whole request, of which the answer is read.
    Ask(String),
    /// The beginning of something, which is then left to itself, so that connections pile up.
    Leave(Vec<u8>),
    /// A byte now and then.
    Drip(&'static str),
}

fn get(path: &str) -> Deed {
    Deed::Ask(format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    ))
}

fn post(path: &str, headers: &str, body: &str) -> Deed {
    let length = body.len();
    Deed::Ask(format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    ))
}

/// Everything that anybody may do without being known.
fn deeds() -> Vec<(&'static str, Deed)> {
    let upgrade = "GET /sync?token=x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let method = |name: &str| format!("/xrpc/xyz.groundmist.sync.{name}");
    let forged = "Authorization: DPoP a.b.c\r\nDPoP: a.b.c\r\n";
    let wish = r#"{"lexiconAuthorityDomain":"xyz.groundmist.library","rootDocUrl":null}"#;
    let long = "x".repeat(15 << 10);
    vec![
        ("the greeting", get("/")),
        ("health", get("/xrpc/_health")),
        ("the DID document", get("/.well-known/did.json")),
        ("a socket with a bad token", Deed::Ask(upgrade.into())),
        ("a look at a bad token", get("/sync?token=x")),
        ("a bad ticket", get("/sync?ticket=x")),
        ("authenticate", post("/authenticate", forged, wish)),
        ("authenticate, much", post("/authenticate", forged, &long)),
        ("getServer", get(&method("getServer"))),
        (
            "requestAccess",
            post(&method("requestAccess"), forged, "{}"),
        ),
        ("getSession", get(&method("getSession"))),
        (
            "refreshSession",
            post(&method("refreshSession"), forged, &long),
        ),
        ("createTicket", post(&method("createTicket"), forged, "{}")),
        ("no method", get("/xrpc/com.example.none")),
        ("no route", get("/none")),
        ("the page", get("/try/")),
        (
            "many requests in one piece",
            Deed::Leave("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(200).into_bytes()),
        ),
        ("nothing at all", Deed::Leave(vec![])),
        (
            "what is no HTTP",
            Deed::Leave(vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc]),
        ),
        (
            "an upgrade without its end",
            Deed::Leave(upgrade.as_bytes()[..upgrade.len() - 2].to_vec()),
        ),
        (
            "long headers",
            Deed::Leave(
                format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "y".repeat(60_000)).into_bytes(),
            ),
        ),
        (
            "a body that does not come",
            Deed::Leave(
                b"POST /authenticate HTTP/1.1\r\nHost: a\r\nContent-Length: 8000\r\n\r\n{".to_vec(),
            ),
        ),
        (
            "headers that drip",
            Deed::Drip("GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\nX-C: d\r\n"),
        ),
    ]
}

/// Does it until the time is over; how often it was done is counted.
async fn stranger(server: &Server, deed: &Deed, until: Instant, done: &AtomicU64) {
    let mut left = vec![];
    while Instant::now() < until {
        let Ok(mut stream) = TcpStream::connect(server.address).await else {
            continue;
        };
        done.fetch_add(1, Ordering::Relaxed);
        match deed {
            Deed::Ask(request) => {
                let mut answer = vec![];
                if stream.write_all(request.as_bytes()).await.is_ok() {
                    // one that was cut off is an answer too
                    drop(stream.read_to_end(&mut answer).await);
                }
            }
            Deed::Leave(bytes) => {
                drop(stream.write_all(bytes).await);
                left.push(stream);
                // as many as a patient attacker has open
                if left.len() >= 50 {
                    left.remove(0);
                }
                tokio::task::yield_now().await;
            }
            Deed::Drip(text) => {
                let mut pace = interval(Duration::from_millis(100));
                for byte in text.bytes() {
                    pace.tick().await;
                    if Instant::now() >= until || stream.write_all(&[byte]).await.is_err() {
                        break;
                    }
                }
            }
        }
    }
}

/// Lets strangers do these things, and has a device edit meanwhile: how long the slowest acknowledgement took.
async fn flood(
    server: &Server,
    device: &mut Device,
    deeds: &[Deed],
    time: Duration,
) -> (Duration, u64) {
    let (until, done) = (Instant::now() + time, AtomicU64::new(0));
    let strangers =
        (0..STRANGERS).map(|number| stranger(server, &deeds[number % deeds.len()], until, &done));
    let edits = async {
        let mut slowest = Duration::ZERO;
        while Instant::now() < until {
            let begun = Instant::now();
            device.edit().await;
            slowest = slowest.max(begun.elapsed());
        }
        slowest
    };
    let (_, slowest) = both(join_all(strangers), edits).await;
    (slowest, done.load(Ordering::Relaxed))
}

async fn both<A, B>(first: impl Future<Output = A>, second: impl Future<Output = B>) -> (A, B) {
    tokio::join!(first, second)
}

/// A device with one document.
struct Device {
    client: Client,
    note: Replica,
    edits: u64,
}

impl Device {
    async fn edit(&mut self) {
        self.edits += 1;
        self.client
            .edit(&mut self.note, &self.edits.to_string())
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_strangers_on_any_route_delays_nobody_who_syncs_and_loses_nothing() {
    let seconds = std::env::var("FLOOD_SECONDS").ok();
    let share_ms = seconds.map_or(SHARE_MS, |seconds| 1_000 * seconds.parse::<u64>().unwrap());
    let share = Duration::from_millis(share_ms);
    let world = World::new().await;
    let mut server = Server::start_in_world(&["--log", "warn"], world.variables()).await;
    let mut client = Client::join(&server.url, "device").await;
    let mut note = Replica::new("device", "new");
    client.push(&mut note).await;
    let mut device = Device {
        client,
        note,
        edits: 0,
    };
    let all = deeds();
    for (name, deed) in &all {
        let before = device.edits;
        let (slowest, done) = flood(&server, &mut device, std::slice::from_ref(deed), share).await;
        let edits = device.edits - before;
        println!("{name:28} {done:6} times, {edits:5} edits, the slowest took {slowest:?}");
        assert!(slowest < ACKNOWLEDGED_WITHIN, "{name}: {slowest:?}");
        assert!(done > 0 && edits > 0, "{name}");
    }
    let together: Vec<_> = all.iter().map(|(_, deed)| deed.clone()).collect();
    let (slowest, done) = flood(&server, &mut device, &together, 8 * share).await;
    let memory = server.peak_memory_bytes() >> 20;
    println!("all of it at once: {done} times, the slowest edit took {slowest:?}, {memory} MiB");
    assert!(slowest < ACKNOWLEDGED_WITHIN, "{slowest:?}");
    assert!(
        server.peak_memory_bytes() < MEMORY_BYTES_MAX,
        "{memory} MiB"
    );
    assert!(!server.stderr().contains("panicked"), "{}", server.stderr());

    server.kill_9().await;
    let server = server.start_again().await;
    let mut reader = Client::join(&server.url, "reader").await;
    let read = reader.pull(device.note.id).await.unwrap();
    assert_eq!(read.doc.get_heads(), device.note.doc.get_heads());
}
