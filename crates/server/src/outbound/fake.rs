//! Servers for tests, which answer as well or as badly as they are told.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Notify,
};

use crate::origin::Origin;

/// What is written to whoever asks.
#[derive(Clone)]
pub(super) enum Reply {
    /// This, and the connection is closed.
    Bytes(Vec<u8>),
    /// This, and nothing more, for ever.
    Stall(Vec<u8>),
    /// The first once, and the second for ever.
    Endless(Vec<u8>, Vec<u8>),
}

impl Reply {
    /// Status 200 with this body.
    pub(super) fn ok(content_type: &str, body: &str) -> Self {
        Self::with(&format!("200 OK\r\nContent-Type: {content_type}"), body)
    }

    /// Status 200 with this JSON.
    pub(super) fn json(body: &serde_json::Value) -> Self {
        Self::ok("application/json", &body.to_string())
    }

    /// This status line and these headers, without the version and the last line's end; and this body.
    pub(super) fn with(head: &str, body: &str) -> Self {
        let length = body.len();
        Self::Bytes(format!("HTTP/1.1 {head}\r\nContent-Length: {length}\r\n\r\n{body}").into())
    }
}

/// A running one; it ends with the runtime of its test.
pub(super) struct Fake {
    pub(super) origin: Origin,
    requests: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
    stalled: Arc<Notify>,
}

impl Fake {
    /// One on 127.0.0.1 that answers what `reply` says to the path of a request.
    pub(super) async fn start(reply: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Self {
            origin: format!("http://{}", listener.local_addr().unwrap())
                .parse()
                .unwrap(),
            requests: Arc::default(),
            connections: Arc::default(),
            stalled: Arc::default(),
        };
        let (requests, stalled) = (Arc::clone(&fake.requests), Arc::clone(&fake.stalled));
        let connections = Arc::clone(&fake.connections);
        let reply = Arc::new(reply);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let (requests, stalled) = (Arc::clone(&requests), Arc::clone(&stalled));
                let reply = Arc::clone(&reply);
                tokio::spawn(async move {
                    // who asks may go before the answer is whole
                    serve(stream, &requests, &stalled, &*reply).await.ok();
                });
            }
        });
        fake
    }

    /// One that gives the same answer to everybody.
    pub(super) async fn always(reply: Reply) -> Self {
        Self::start(move |_| reply.clone()).await
    }

    /// The heads of the requests so far.
    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// The number of connections so far.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Waits until somebody is being kept waiting.
    pub(super) async fn stalls(&self) {
        self.stalled.notified().await;
    }
}

async fn serve(
    mut stream: TcpStream,
    requests: &Mutex<Vec<String>>,
    stalled: &Notify,
    reply: &(impl Fn(&str) -> Reply + Send + Sync),
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    requests.lock().unwrap().push(head);
    match reply(&path) {
        Reply::Bytes(bytes) => {
            stream.write_all(&bytes).await?;
            stream.shutdown().await
        }
        Reply::Stall(bytes) => {
            stream.write_all(&bytes).await?;
            stream.flush().await?;
            stalled.notify_one();
            std::future::pending().await
        }
        Reply::Endless(first, then) => {
            stream.write_all(&first).await?;
            loop {
                stream.write_all(&then).await?;
            }
        }
    }
}

/// A name server that knows TXT records and nothing else.
///
/// `records` are names with the text of one record each, whose pieces have a `|` between them.
pub(super) async fn name_server(records: &[(&str, &str)]) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let records: Vec<_> = records
        .iter()
        .map(|(name, text)| (name.to_string(), text.to_string()))
        .collect();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            let answer = dns_answer(&buffer[..length], &records);
            socket.send_to(&answer, peer).await.unwrap();
        }
    });
    address
}

/// Source: RFC 1035, section 4.1.
fn dns_answer(query: &[u8], records: &[(String, String)]) -> Vec<u8> {
    let (mut name, mut at) = (vec![], 12);
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        name.push(String::from_utf8_lossy(&query[at + 1..end]).to_lowercase());
        at = end;
    }
    let name = name.join(".");
    let found: Vec<_> = records.iter().filter(|(known, _)| *known == name).collect();
    // response, recursion desired and available; NXDOMAIN if there is nothing
    let code = if found.is_empty() { 3 } else { 0 };
    let count = u8::try_from(found.len()).unwrap();
    let mut answer = query[..2].to_vec();
    answer.extend([0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0]);
    answer.extend(&query[12..at + 5]);
    for (_, text) in found {
        let pieces = text.split('|');
        let data: Vec<u8> = pieces
            .flat_map(|piece| [&[u8::try_from(piece.len()).unwrap()], piece.as_bytes()].concat())
            .collect();
        // the name of the question, TXT, IN, a minute
        answer.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60]);
        answer.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        answer.extend(data);
    }
    answer
}

/// A DID document, as far as it matters.
pub(super) fn did_document(did: &str, handle: &str) -> serde_json::Value {
    serde_json::json!({"id": did, "alsoKnownAs": [format!("at://{handle}")]})
}
