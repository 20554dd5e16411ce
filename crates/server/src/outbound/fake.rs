//! A server for tests, which answers as well or as badly as it is told.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
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
