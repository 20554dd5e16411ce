//! One connection, as automerge-repo's client opens it: a WebSocket, a join, and then messages.
//!
//! It does no more than a scenario asks of it, so that the generator stays cheap: it holds no documents. Where a real
//! Automerge client must stand at the other end, the scenario has one.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::history::{Edit, Prepared};
use crate::sync;
use crate::wire::{self, Incoming, Route};

/// The longest wait for one answer; past it the scenario has failed.
pub(crate) const ANSWER_WAIT_MAX: Duration = Duration::from_secs(60);

/// Small, because `idle5k` opens thousands of these and the generator's memory is the machine's.
const READ_BUFFER_BYTES: usize = 4096;

pub(crate) struct Client {
    socket: WebSocketStream<TcpStream>,
    name: String,
    server: String,
}

/// Opens a WebSocket and nothing more.
pub(crate) async fn open(url: &str) -> Result<WebSocketStream<TcpStream>> {
    let authority = url
        .strip_prefix("ws://")
        .context("the server's address is not ws://")?;
    let authority = authority.split(['/', '?']).next().unwrap_or(authority);
    let stream = TcpStream::connect(authority)
        .await
        .with_context(|| format!("no connection to {authority}"))?;
    stream.set_nodelay(true)?;
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(None)
        .max_frame_size(None);
    let (socket, _) = tokio_tungstenite::client_async_with_config(url, stream, Some(config))
        .await
        .context("the WebSocket was not opened")?;
    Ok(socket)
}

impl Client {
    /// Connects and joins; returns when the server has answered.
    pub(crate) async fn join(url: &str, name: &str) -> Result<Self> {
        let socket = open(url).await?;
        let mut client = Self {
            socket,
            name: name.to_owned(),
            server: String::new(),
        };
        client.send(wire::join(name)?).await?;
        loop {
            match client.answer().await? {
                Incoming::Peer(server) => {
                    client.server = server;
                    return Ok(client);
                }
                Incoming::Error(message) => bail!("the server refused the join: {message}"),
                Incoming::Sync { .. }
                | Incoming::Ephemeral(_)
                | Incoming::Unavailable(_)
                | Incoming::Other => {}
            }
        }
    }

    fn route(&self) -> Route<'_> {
        Route {
            from: &self.name,
            to: &self.server,
        }
    }

    /// The frame of a sync message, to be prepared before the clock runs.
    pub(crate) fn sync_frame(&self, document: &str, data: &[u8]) -> Result<Bytes> {
        wire::sync("sync", self.route(), document, data)
    }

    /// The frame with which one asks for a document of which one has nothing.
    pub(crate) fn request_frame(&self, document: &str) -> Result<Bytes> {
        wire::sync("request", self.route(), document, &sync::request())
    }

    pub(crate) fn ephemeral_frame(&self, document: &str, count: u64, data: &[u8]) -> Result<Bytes> {
        wire::ephemeral(self.route(), document, count, data)
    }

    pub(crate) async fn send(&mut self, frame: Bytes) -> Result<()> {
        Ok(self.socket.send(Message::Binary(frame)).await?)
    }

    /// The next message, however long it takes. May be dropped while it waits without losing anything.
    pub(crate) async fn next(&mut self) -> Result<Incoming> {
        loop {
            match self
                .socket
                .next()
                .await
                .context("the server closed the connection")??
            {
                Message::Binary(frame) => return wire::read(&frame),
                Message::Close(frame) => bail!("the server closed the connection: {frame:?}"),
                Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    /// The next message; none within [`ANSWER_WAIT_MAX`] is an error.
    pub(crate) async fn answer(&mut self) -> Result<Incoming> {
        let waited = tokio::time::timeout(ANSWER_WAIT_MAX, self.next()).await;
        waited.with_context(|| format!("no answer within {} s", ANSWER_WAIT_MAX.as_secs()))?
    }

    /// The next sync message: its document and its data.
    pub(crate) async fn next_sync(&mut self) -> Result<(String, Bytes)> {
        loop {
            match self.answer().await? {
                Incoming::Sync { document, data } => return Ok((document, data)),
                Incoming::Unavailable(document) => bail!("document {document} is unavailable"),
                Incoming::Error(message) => bail!("the server's error: {message}"),
                Incoming::Peer(_) | Incoming::Ephemeral(_) | Incoming::Other => {}
            }
        }
    }

    /// Uploads a document and returns when it is acknowledged.
    pub(crate) async fn push(&mut self, prepared: &Prepared) -> Result<()> {
        self.send(self.sync_frame(&prepared.id, &prepared.offer)?)
            .await?;
        let mut uploaded = false;
        loop {
            let (document, data) = self.next_sync().await?;
            if document != prepared.id {
                continue;
            }
            if sync::heads(&data)?.contains(&prepared.head.0) {
                return Ok(());
            }
            if !uploaded {
                uploaded = true;
                self.send(self.sync_frame(&prepared.id, &prepared.upload)?)
                    .await?;
            }
        }
    }

    /// Asks for a document and returns the message that brought it, once confirmed as a real client confirms it.
    pub(crate) async fn pull(&mut self, prepared: &Prepared) -> Result<Bytes> {
        self.send(self.request_frame(&prepared.id)?).await?;
        loop {
            let (document, data) = self.next_sync().await?;
            if document == prepared.id && sync::brings(&data, &prepared.head)? {
                self.confirm(&document, &data).await?;
                return Ok(data);
            }
        }
    }

    /// Tells the server that its heads are now ours too, as a real client does after every change it received.
    pub(crate) async fn confirm(&mut self, document: &str, data: &[u8]) -> Result<()> {
        self.send(self.sync_frame(document, &sync::confirm(&sync::heads(data)?))?)
            .await
    }

    /// Sends one edit and returns when it is acknowledged.
    pub(crate) async fn edit(&mut self, document: &str, edit: &Edit) -> Result<()> {
        self.send(self.sync_frame(document, &edit.message)?).await?;
        loop {
            let (about, data) = self.next_sync().await?;
            if about == document && sync::heads(&data)?.contains(&edit.hash.0) {
                return Ok(());
            }
        }
    }
}
