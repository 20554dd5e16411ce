//! A client: a WebSocket with the protocol in its hands, and documents as Automerge keeps them.

use automerge::{
    ActorId, Automerge, ChangeHash, ROOT, ReadDoc,
    sync::{Message as SyncMessage, State, SyncDoc as _},
    transaction::Transactable,
};
use bytes::Bytes;
use engine::DocumentId;
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        Error, Message, client::IntoClientRequest, handshake::client::Response, http::HeaderValue,
    },
};

use super::{
    soon,
    wire::{Received, join_frame, sync_frame},
};

/// Opens a WebSocket, or says what the server answered instead.
pub async fn handshake(
    url: &str,
    headers: &[(&'static str, &str)],
) -> Result<(WebSocketStream<TcpStream>, Response), Error> {
    let mut request = url.into_client_request()?;
    for (name, value) in headers {
        let value = HeaderValue::from_str(value).unwrap();
        request.headers_mut().insert(*name, value);
    }
    let stream = TcpStream::connect(request.uri().authority().unwrap().as_str()).await?;
    stream.set_nodelay(true)?;
    soon("the handshake", client_async(request, stream)).await
}

/// What comes out of a socket.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Frame(Received),
    /// The server has closed the socket; the code is 1006 if it just went away.
    Closed {
        code: u16,
        reason: String,
    },
}

/// One socket.
pub struct Client {
    pub name: String,
    socket: WebSocketStream<TcpStream>,
}

impl Client {
    /// Opens a socket that has not joined.
    pub async fn open(url: &str, name: &str) -> Self {
        let (socket, _) = handshake(url, &[]).await.unwrap();
        Self::on(socket, name)
    }

    /// Takes over a socket that has not joined.
    pub fn on(socket: WebSocketStream<TcpStream>, name: &str) -> Self {
        let name = name.into();
        Self { name, socket }
    }

    /// Opens a socket and joins.
    pub async fn join(url: &str, name: &str) -> Self {
        let mut client = Self::open(url, name).await;
        client.send(join_frame(name)).await;
        let peer = client.frame().await;
        assert_eq!((&*peer.kind, &*peer.target), ("peer", name), "{peer:?}");
        client
    }

    /// Sends a binary frame. Whether the server still listens, shows in what comes back.
    pub async fn send(&mut self, frame: Bytes) {
        self.send_message(Message::Binary(frame)).await;
    }

    pub async fn send_message(&mut self, message: Message) {
        drop(soon("a frame to be sent", self.socket.send(message)).await);
    }

    /// Writes many frames at once.
    pub async fn send_all(&mut self, frames: impl IntoIterator<Item = Bytes>) {
        let sent = async {
            for frame in frames {
                if self.socket.feed(Message::Binary(frame)).await.is_err() {
                    return;
                }
            }
            drop(self.socket.flush().await);
        };
        soon("frames to be sent", sent).await;
    }

    /// The connection below, past which nothing is buffered that was to be sent.
    pub fn stream(&mut self) -> &mut TcpStream {
        self.socket.get_mut()
    }

    /// The next frame, or the end.
    pub async fn next(&mut self) -> Event {
        soon("a frame", self.next_event()).await
    }

    async fn next_event(&mut self) -> Event {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Binary(frame))) => return Event::Frame(Received::parse(&frame)),
                Some(Ok(Message::Close(Some(close)))) => {
                    return Event::Closed {
                        code: close.code.into(),
                        reason: close.reason.to_string(),
                    };
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(other)) => panic!("unexpected: {other:?}"),
                Some(Err(error)) => {
                    return Event::Closed {
                        code: 1006,
                        reason: error.to_string(),
                    };
                }
                None => {
                    return Event::Closed {
                        code: 1006,
                        reason: "no more".into(),
                    };
                }
            }
        }
    }

    /// The next frame; the socket must not close.
    pub async fn frame(&mut self) -> Received {
        match self.next().await {
            Event::Frame(received) => received,
            Event::Closed { code, reason } => {
                panic!("{} was closed: {code} {reason}", self.name)
            }
        }
    }

    /// The code with which the server closes; what comes before is skipped.
    pub async fn close_code(&mut self) -> u16 {
        soon("the server to close the socket", self.closed()).await
    }

    /// The same, however long it takes.
    pub async fn closed(&mut self) -> u16 {
        loop {
            if let Event::Closed { code, .. } = self.next_event().await {
                return code;
            }
        }
    }

    /// Sends what Automerge wants to send about a document.
    pub async fn sync(&mut self, replica: &mut Replica) {
        if let Some(message) = replica.doc.generate_sync_message(&mut replica.state) {
            let kind = if replica.doc.get_heads().is_empty() {
                "request"
            } else {
                "sync"
            };
            let frame = sync_frame(kind, &self.name, replica.id, &message.encode());
            self.send(frame).await;
        }
    }

    /// The next answer about a document, which the document takes in; frames of others are skipped.
    pub async fn answer(&mut self, replica: &mut Replica) -> Received {
        let name = replica.id.to_string();
        loop {
            let received = self.frame().await;
            if received.document != name {
                continue;
            }
            if received.kind == "sync" {
                replica.receive(received.sync_message());
                self.sync(replica).await;
            }
            return received;
        }
    }

    /// Sends all of a document, and waits until the server says that it has it: then it is on disk.
    pub async fn push(&mut self, replica: &mut Replica) {
        self.sync(replica).await;
        let acknowledged = async {
            while !replica.is_acknowledged() {
                let answer = self.answer(replica).await;
                assert_eq!(answer.kind, "sync", "{answer:?}");
            }
        };
        soon("an acknowledgement", acknowledged).await;
    }

    /// Edits a document, and waits until the server has it.
    pub async fn edit(&mut self, replica: &mut Replica, value: &str) -> ChangeHash {
        let hash = replica.edit(value);
        self.push(replica).await;
        hash
    }

    /// A document as the server has it; nothing if it says that it is unavailable.
    pub async fn pull(&mut self, id: DocumentId) -> Option<Replica> {
        let mut replica = Replica::empty(id, &self.name);
        self.sync(&mut replica).await;
        let pulled = async {
            loop {
                if self.answer(&mut replica).await.kind == "doc-unavailable" {
                    return None;
                }
                if replica.is_acknowledged() {
                    return Some(replica);
                }
            }
        };
        soon("a document", pulled).await
    }

    /// Closes the socket as a client does that leaves.
    pub async fn close(mut self) {
        drop(self.socket.close(None).await);
    }
}

/// One document of a client.
pub struct Replica {
    pub id: DocumentId,
    pub doc: Automerge,
    pub state: State,
}

impl Replica {
    /// A document of which nothing is known yet.
    pub fn empty(id: DocumentId, actor: &str) -> Self {
        Self {
            id,
            doc: Automerge::new().with_actor(ActorId::from(actor.as_bytes())),
            state: State::new(),
        }
    }

    /// A document with a new id and one change.
    pub fn new(actor: &str, value: &str) -> Self {
        let mut replica = Self::empty(random_id(), actor);
        replica.edit(value);
        replica
    }

    pub fn edit(&mut self, value: &str) -> ChangeHash {
        let mut tx = self.doc.transaction();
        tx.put(ROOT, "key", value).unwrap();
        tx.commit().0.unwrap()
    }

    pub fn value(&self) -> Option<String> {
        let value = self.doc.get(ROOT, "key").unwrap();
        value.map(|(value, _)| value.as_str().unwrap().to_owned())
    }

    /// The heads as `docs show` writes them.
    pub fn heads(&self) -> Vec<String> {
        let mut heads: Vec<_> = self
            .doc
            .get_heads()
            .iter()
            .map(ToString::to_string)
            .collect();
        heads.sort();
        heads
    }

    fn receive(&mut self, message: SyncMessage) {
        self.doc
            .receive_sync_message(&mut self.state, message)
            .unwrap();
    }

    /// Whether the server's heads contain everything that is here, and the other way round.
    pub fn is_acknowledged(&self) -> bool {
        let mut ours = self.doc.get_heads();
        let Some(mut theirs) = self.state.their_heads.clone() else {
            return false;
        };
        ours.sort();
        theirs.sort();
        ours == theirs
    }
}

/// A document id that nobody has used.
pub fn random_id() -> DocumentId {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).unwrap();
    DocumentId::from_bytes(bytes)
}
