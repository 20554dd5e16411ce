//! One WebSocket: frames in, frames out, and a pulse.

use std::{
    pin::pin,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use engine::{ConnectionId, Input};
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        error::CapacityError,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use super::{
    group::Mailbox,
    outbox::{OutboxReader, Outgoing},
};

/// How often a peer is pinged.
const PING_EVERY: Duration = Duration::from_secs(20);
/// How long a peer may be silent, or a write may take, before it is given up.
const DEAD_AFTER: Duration = Duration::from_secs(45);
/// How long a peer has to answer our close.
const GOODBYE_MAX: Duration = Duration::from_secs(3);
/// How many bytes are gathered for one write.
const BATCH_BYTES: usize = 32 << 10;

/// Why a socket ended, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The peer closed it, or just went away.
    Peer,
    /// The group closed it.
    Group,
    /// Nothing was heard of the peer for too long.
    Silence,
    /// A text frame came.
    TextFrame,
    /// A frame came that is longer than we take.
    TooLong,
    /// Something came that is no WebSocket frame.
    Malformed,
}

impl End {
    /// What the peer is told, if it is still there to hear it.
    fn close(self) -> Option<(u16, &'static str)> {
        match self {
            Self::Peer | Self::Group | Self::Silence => None,
            Self::TextFrame => Some((1003, "only binary frames are understood")),
            Self::TooLong => Some((1009, "the frame is too long")),
            Self::Malformed => Some((1002, "malformed frame")),
        }
    }
}

/// When something was last heard of the peer.
struct Heard {
    started: Instant,
    /// Since then.
    ms: AtomicU64,
}

impl Default for Heard {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            ms: AtomicU64::new(0),
        }
    }
}

impl Heard {
    fn note(&self) {
        let ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.ms.store(ms, Ordering::Relaxed);
    }

    fn elapsed(&self) -> Duration {
        let last = Duration::from_millis(self.ms.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(last)
    }
}

/// Runs a socket until it ends.
pub(super) async fn run<S>(
    socket: WebSocketStream<S>,
    connection: ConnectionId,
    mailbox: &Mailbox,
    mut outbox: OutboxReader,
) -> End
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sink, mut stream) = socket.split();
    let heard = Heard::default();
    let end = tokio::select! {
        end = read(&mut stream, connection, mailbox, &heard) => end,
        end = write(&mut sink, connection, mailbox, &mut outbox, &heard) => end,
    };
    if let Some((code, reason)) = end.close() {
        say_goodbye(&mut sink, code, reason.into()).await;
    }
    if matches!(
        end,
        End::Group | End::TextFrame | End::TooLong | End::Malformed
    ) {
        // RFC 6455, section 7.1.1: the peer answers the close; whoever does not is left
        let answer = async { while let Some(Ok(_)) = stream.next().await {} };
        timeout(GOODBYE_MAX, answer).await.ok();
    }
    end
}

async fn read<S>(
    stream: &mut SplitStream<WebSocketStream<S>>,
    connection: ConnectionId,
    mailbox: &Mailbox,
    heard: &Heard,
) -> End
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = stream.next().await {
        heard.note();
        match message {
            Ok(Message::Binary(frame)) => mailbox.frame(connection, frame).await,
            Ok(Message::Text(_)) => return End::TextFrame,
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
            Ok(Message::Close(_)) => return End::Peer,
            Err(Error::Capacity(CapacityError::MessageTooLong { .. })) => return End::TooLong,
            Err(Error::Protocol(_) | Error::Utf8(_)) => return End::Malformed,
            Err(_) => return End::Peer,
        }
    }
    End::Peer
}

async fn write<S>(
    sink: &mut SplitSink<WebSocketStream<S>, Message>,
    connection: ConnectionId,
    mailbox: &Mailbox,
    outbox: &mut OutboxReader,
    heard: &Heard,
) -> End
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // one timer for the socket's life: a new one for each message would cost more than the message
    let mut ping = pin!(sleep(PING_EVERY));
    loop {
        tokio::select! {
            next = outbox.next() => {
                let Some(next) = next else { return End::Group };
                match timeout(DEAD_AFTER, write_batch(sink, next, outbox)).await {
                    Ok(Ok(Written::Bytes(bytes))) => {
                        if outbox.written(bytes) {
                            mailbox.input(Input::Drained { connection }).await;
                        }
                    }
                    Ok(Ok(Written::Last)) => return End::Group,
                    Ok(Err(_)) => return End::Peer,
                    Err(_) => return End::Silence,
                }
            }
            () = ping.as_mut() => {
                if heard.elapsed() > DEAD_AFTER {
                    return End::Silence;
                }
                ping.as_mut().reset(Instant::now() + PING_EVERY);
                match timeout(DEAD_AFTER, sink.send(Message::Ping(Bytes::new()))).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return End::Peer,
                    Err(_) => return End::Silence,
                }
            }
        }
    }
}

enum Written {
    Bytes(usize),
    /// The close went out.
    Last,
}

/// Writes what is there, up to a batch, in as few system calls as it takes.
async fn write_batch<S>(
    sink: &mut SplitSink<WebSocketStream<S>, Message>,
    first: Outgoing,
    outbox: &mut OutboxReader,
) -> Result<Written, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut bytes = 0;
    let mut next = Some(first);
    while let Some(outgoing) = next {
        match outgoing {
            Outgoing::Frame(frame) => {
                bytes += frame.len();
                sink.feed(Message::Binary(frame)).await?;
            }
            Outgoing::Close { code, reason } => {
                say_goodbye(sink, code, reason).await;
                return Ok(Written::Last);
            }
        }
        next = if bytes < BATCH_BYTES {
            outbox.next_now()
        } else {
            None
        };
    }
    sink.flush().await?;
    Ok(Written::Bytes(bytes))
}

async fn say_goodbye<S>(
    sink: &mut SplitSink<WebSocketStream<S>, Message>,
    code: u16,
    reason: String,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let close = CloseFrame {
        code: CloseCode::from(code),
        reason: reason.into(),
    };
    // a peer that is gone does not hear it, and need not
    timeout(GOODBYE_MAX, sink.send(Message::Close(Some(close))))
        .await
        .ok();
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;
    use crate::sync::{group::unattended, outbox::outbox};

    async fn ends() -> (WebSocketStream<DuplexStream>, WebSocketStream<DuplexStream>) {
        let (ours, theirs) = duplex(64 << 10);
        let ours = WebSocketStream::from_raw_socket(ours, Role::Server, None).await;
        (
            ours,
            WebSocketStream::from_raw_socket(theirs, Role::Client, None).await,
        )
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_is_pinged_and_given_up() {
        let (socket, mut peer) = ends().await;
        let ((mailbox, _letters), (_outbox, reader)) = (unattended(), outbox());
        let started = Instant::now();
        let end = run(socket, ConnectionId(1), &mailbox, reader).await;
        assert_eq!(end, End::Silence);
        assert!((DEAD_AFTER..DEAD_AFTER + PING_EVERY).contains(&started.elapsed()));
        assert!(matches!(peer.next().await, Some(Ok(Message::Ping(_)))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_answers_pings_stays() {
        let (socket, mut peer) = ends().await;
        let ((mailbox, _letters), (_outbox, reader)) = (unattended(), outbox());
        // reading is what answers
        tokio::spawn(async move { while let Some(Ok(_)) = peer.next().await {} });
        let an_hour = Duration::from_secs(3_600);
        let ended = timeout(an_hour, run(socket, ConnectionId(1), &mailbox, reader)).await;
        assert!(ended.is_err(), "{ended:?}");
    }
}
