//! One WebSocket: frames in, frames out, and a pulse.

use std::{pin::pin, time::Duration};

use bytes::Bytes;
use engine::{ConnectionId, Input, limits::FRAME_BYTES_MAX};
use futures_util::{
    Sink, SinkExt, StreamExt,
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
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use super::{
    group::Mailbox,
    outbox::{OutboxReader, Outgoing},
    pulse::{Pulse, Watched},
};

/// How often a peer is pinged.
const PING_EVERY: Duration = Duration::from_secs(20);
/// How long a peer may give no sign of life before it is given up.
const DEAD_AFTER: Duration = Duration::from_secs(45);
/// How long a peer has to answer our close.
const GOODBYE_MAX: Duration = Duration::from_secs(3);
/// Bytes that are read at once, and gathered before they are written; each socket has a buffer of this size.
const BUFFER_BYTES: usize = 2 << 10;
/// How many bytes of frames are handed over before they are flushed.
const BATCH_BYTES: usize = 32 << 10;

/// What is said to a socket when the server ends. Source: RFC 6455, section 7.4.1.
pub(super) const GOING_AWAY: (u16, &str) = (1001, "the server is shutting down");

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

/// Runs a WebSocket on a stream, whose handshake is done, until it ends and the peer has been told.
pub(super) async fn run<S>(
    stream: S,
    connection: ConnectionId,
    mailbox: &Mailbox,
    mut outbox: OutboxReader,
) -> (End, Farewell<S>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let pulse = Pulse::new();
    let stream = Watched::new(stream, pulse.clone());
    let (mut sink, mut stream) = websocket(stream).await.split();
    let end = tokio::select! {
        end = read(&mut stream, connection, mailbox) => end,
        end = write(&mut sink, connection, mailbox, &mut outbox) => end,
        () = pulse.silent_for(DEAD_AFTER) => End::Silence,
    };
    if let Some((code, reason)) = end.close() {
        say_goodbye(&mut sink, code, reason.into()).await;
    }
    let is_answered = matches!(
        end,
        End::Group | End::TextFrame | End::TooLong | End::Malformed
    );
    (end, Farewell(is_answered.then_some(stream)))
}

/// A socket that has been told of its end.
pub(super) struct Farewell<S>(Option<SplitStream<WebSocketStream<Watched<S>>>>);

impl<S> Farewell<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// Waits until the peer has answered; whoever does not is left. Source: RFC 6455, section 7.1.1.
    pub(super) async fn answered(self) {
        let Some(mut stream) = self.0 else { return };
        let answer = async { while let Some(Ok(_)) = stream.next().await {} };
        timeout(GOODBYE_MAX, answer).await.ok();
    }
}

async fn websocket<S>(stream: S) -> WebSocketStream<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    WebSocketStream::from_raw_socket(stream, Role::Server, Some(config())).await
}

/// Closes a WebSocket that nobody has time for.
pub(super) async fn turn_away<S>(stream: S, (code, reason): (u16, &str))
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut socket = websocket(stream).await;
    say_goodbye(&mut socket, code, reason.into()).await;
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .max_message_size(Some(FRAME_BYTES_MAX))
        .max_frame_size(Some(FRAME_BYTES_MAX))
}

async fn read<S>(
    stream: &mut SplitStream<WebSocketStream<S>>,
    connection: ConnectionId,
    mailbox: &Mailbox,
) -> End
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = stream.next().await {
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
                match write_batch(sink, next, outbox).await {
                    Ok(Written::Bytes(bytes)) => {
                        if outbox.written(bytes) {
                            mailbox.input(Input::Drained { connection }).await;
                        }
                    }
                    Ok(Written::Last) => return End::Group,
                    Err(_) => return End::Peer,
                }
            }
            () = ping.as_mut() => {
                ping.as_mut().reset(Instant::now() + PING_EVERY);
                if sink.send(Message::Ping(Bytes::new())).await.is_err() {
                    return End::Peer;
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

async fn say_goodbye(
    sink: &mut (impl Sink<Message, Error = Error> + Unpin),
    code: u16,
    reason: String,
) {
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::sync::{group::unattended, outbox::outbox};

    async fn client(stream: DuplexStream) -> WebSocketStream<DuplexStream> {
        WebSocketStream::from_raw_socket(stream, Role::Client, None).await
    }

    async fn serve(stream: DuplexStream, time: Duration) -> Option<End> {
        let ((mailbox, _letters), (_outbox, reader)) = (unattended(), outbox());
        timeout(time, run(stream, ConnectionId(1), &mailbox, reader))
            .await
            .ok()
            .map(|(end, _)| end)
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_is_pinged_and_given_up() {
        let (ours, theirs) = duplex(64 << 10);
        let started = Instant::now();
        assert_eq!(serve(ours, DEAD_AFTER * 2).await, Some(End::Silence));
        assert_eq!(started.elapsed().as_secs(), DEAD_AFTER.as_secs());
        let first = client(theirs).await.next().await;
        assert!(matches!(first, Some(Ok(Message::Ping(_)))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_answers_pings_stays() {
        let (ours, theirs) = duplex(64 << 10);
        // reading is what answers
        let mut peer = client(theirs).await;
        tokio::spawn(async move { while let Some(Ok(_)) = peer.next().await {} });
        assert_eq!(serve(ours, Duration::from_secs(3_600)).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_long_for_one_long_frame_stays() {
        let (ours, mut theirs) = duplex(1 << 10);
        let upload = async move {
            // a masked binary frame of 1 MiB, a kilobyte every second: 17 minutes
            let head = [&[0x82, 0xff][..], &(1u64 << 20).to_be_bytes(), &[0; 4]].concat();
            theirs.write_all(&head).await.unwrap();
            for _ in 0..1_000 {
                theirs.write_all(&[7; 1 << 10]).await.unwrap();
                sleep(Duration::from_secs(1)).await;
            }
        };
        let upload = tokio::spawn(upload);
        assert_eq!(serve(ours, Duration::from_secs(900)).await, None);
        upload.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_in_a_long_frame_slowly_stays_and_one_that_stops_does_not() {
        let (ours, mut theirs) = duplex(1 << 10);
        let ((mailbox, _letters), (group, reader)) = (unattended(), outbox());
        group.send(vec![0; 1 << 20].into());
        let download = async move {
            let mut buffer = [0; 1 << 10];
            for _ in 0..300 {
                theirs.read_exact(&mut buffer).await.unwrap();
                sleep(Duration::from_secs(1)).await;
            }
            // and now it stops, with the stream open
            theirs
        };
        let (started, download) = (Instant::now(), tokio::spawn(download));
        let (end, _) = run(ours, ConnectionId(1), &mailbox, reader).await;
        assert_eq!(end, End::Silence);
        let lived = started.elapsed().as_secs();
        assert!((340..=350).contains(&lived), "{lived} s");
        drop(download.await);
    }
}
