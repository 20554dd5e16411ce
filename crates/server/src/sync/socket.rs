//! One WebSocket: frames in, frames out, and a pulse.

use std::{io, time::Duration};

use engine::ConnectionId;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep_until, timeout},
};

use super::{
    frame::{self, Received, Sent, Violation},
    group::Mailbox,
    outbox::{self, OutboxReader, SignsOfLife, Weight},
    pulse::{Pulse, Watched},
    stream::{Incoming, Outgoing},
};

/// How often a peer is pinged.
const PING_EVERY: Duration = Duration::from_secs(20);
/// How long a peer may give no sign of life before it is given up.
const DEAD_AFTER: Duration = Duration::from_secs(45);
/// How much later than it is to be a task runs where the whole process has stood still: frozen, or its machine stopped.
const STOOD_STILL_MIN: Duration = Duration::from_secs(5);
/// How long a peer has to answer our close.
const GOODBYE_MAX: Duration = Duration::from_secs(3);
/// How many bytes of frames are handed over before they are flushed.
const BATCH_BYTES: usize = 32 << 10;

/// What is said to a socket when the server ends. Source: RFC 6455, section 7.4.1.
pub(super) const GOING_AWAY: (u16, &str) = (1001, "the server is shutting down");
/// What is said to a socket whose group cannot be used. Source: RFC 6455, section 7.4.1.
pub(super) const UNAVAILABLE: (u16, &str) = (1011, "the storage is unavailable, try again later");

/// Why a socket ended, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The peer closed it, or just went away.
    Peer,
    /// The group closed it.
    Group,
    /// The group was done with it, and its peer did not take our last words.
    Cut,
    /// Nothing was heard of the peer for too long.
    Silence,
    /// A text frame came.
    TextFrame,
    /// A frame came that is longer than we take.
    TooLong,
    /// Something came that is no WebSocket frame.
    Malformed,
}

impl From<Violation> for End {
    fn from(violation: Violation) -> Self {
        match violation {
            Violation::Text => Self::TextFrame,
            Violation::TooLong => Self::TooLong,
            Violation::Malformed => Self::Malformed,
        }
    }
}

impl End {
    /// What the peer is told, if it is still there to hear it.
    fn close(self) -> Option<(u16, &'static str)> {
        match self {
            Self::Peer | Self::Group | Self::Cut | Self::Silence => None,
            Self::TextFrame => Some((1003, "only binary frames are understood")),
            Self::TooLong => Some((1009, "the frame is too long")),
            Self::Malformed => Some((1002, "malformed frame")),
        }
    }
}

/// Runs a WebSocket on a stream, whose handshake is done, until it ends and the peer has been told. `early` is what came
/// with the handshake.
pub(super) async fn run<S>(
    stream: S,
    early: &[u8],
    connection: ConnectionId,
    mailbox: &Mailbox,
    outbox: &mut OutboxReader,
) -> (End, Farewell<S>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let pulse = Pulse::new();
    let (incoming, outgoing) = tokio::io::split(Watched::new(stream, pulse.clone()));
    let (mut incoming, mut outgoing) = (Incoming::new(incoming, early), Outgoing::new(outgoing));
    let (signs, ending) = (outbox.signs_of_life(), outbox.ending());
    let mut goodbye = None;
    let end = tokio::select! {
        biased;
        end = write(&mut outgoing, connection, mailbox, outbox) => end,
        end = read(&mut incoming, &pulse, connection, mailbox, &signs, &mut goodbye) => end,
        () = watch(&pulse, &signs) => End::Silence,
        () = ending.overdue() => End::Cut,
    };
    if let Some((code, reason)) = end.close() {
        goodbye = Some(frame::close_payload(code, reason));
    }
    if let Some(payload) = goodbye {
        say_goodbye(&mut outgoing, &payload).await;
    }
    let is_answered = matches!(
        end,
        End::Group | End::TextFrame | End::TooLong | End::Malformed
    );
    (end, Farewell(is_answered.then_some(incoming)))
}

/// A socket that has been told of its end.
pub(super) struct Farewell<S>(Option<Incoming<Watched<S>>>);

impl<S> Farewell<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// Waits until the peer has answered; whoever does not is left. Source: RFC 6455, section 7.1.1.
    pub(super) async fn answered(self) {
        if let Some(incoming) = self.0 {
            timeout(GOODBYE_MAX, incoming.answered()).await.ok();
        }
    }
}

/// Closes a WebSocket that nobody has time for.
pub(super) async fn turn_away<S>(stream: S, (code, reason): (u16, &str))
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (_, outgoing) = tokio::io::split(stream);
    say_goodbye(
        &mut Outgoing::new(outgoing),
        &frame::close_payload(code, reason),
    )
    .await;
}

/// Reads until there is nothing more to read; what a peer says that closes is left in `goodbye`, to be said back.
async fn read<S>(
    incoming: &mut Incoming<S>,
    pulse: &Pulse,
    connection: ConnectionId,
    mailbox: &Mailbox,
    signs: &SignsOfLife,
    goodbye: &mut Option<Vec<u8>>,
) -> End
where
    S: AsyncRead,
{
    while let Some(received) = incoming.next().await {
        match received {
            Ok(Received::Binary(frame)) => {
                let _excuse = pulse.excuse();
                mailbox.frame(connection, frame).await;
            }
            Ok(Received::Ping(payload)) => signs.pong(payload),
            Ok(Received::Pong) => {}
            Ok(Received::Close(payload)) => {
                *goodbye = Some(payload);
                return End::Peer;
            }
            Err(violation) => return violation.into(),
        }
    }
    End::Peer
}

/// Asks the peer now and then whether it is there, until it has not been for too long.
///
/// One timer for both, for as long as the socket lives: the task looks at it whenever it is woken for anything.
async fn watch(pulse: &Pulse, signs: &SignsOfLife) {
    let mut ping_at = Instant::now() + PING_EVERY;
    loop {
        let (now, dead_at) = (Instant::now(), pulse.last() + DEAD_AFTER);
        if dead_at <= now {
            return;
        }
        if ping_at <= now {
            signs.ping();
            ping_at = now + PING_EVERY;
        }
        let next_at = ping_at.min(dead_at);
        sleep_until(next_at).await;
        if next_at.elapsed() > STOOD_STILL_MIN {
            // nobody was asked meanwhile, and what was answered is not read yet
            pulse.beat();
        }
    }
}

/// Writes until there is nothing more to write.
async fn write<S>(
    outgoing: &mut Outgoing<S>,
    connection: ConnectionId,
    mailbox: &Mailbox,
    outbox: &mut OutboxReader,
) -> End
where
    S: AsyncWrite,
{
    while let Some(next) = outbox.next().await {
        match write_batch(outgoing, next, outbox).await {
            Ok(Written::Frames(weight)) => {
                if outbox.written(weight) {
                    mailbox.drained(connection).await;
                }
            }
            Ok(Written::Last) => return End::Group,
            Err(_) => return End::Peer,
        }
    }
    End::Group
}

enum Written {
    Frames(Weight),
    /// The close went out.
    Last,
}

/// Writes what is there, up to a batch, in as few system calls as it takes.
async fn write_batch<S>(
    outgoing: &mut Outgoing<S>,
    first: outbox::Outgoing,
    outbox: &mut OutboxReader,
) -> io::Result<Written>
where
    S: AsyncWrite,
{
    let mut written = Weight::default();
    let mut next = Some(first);
    while let Some(message) = next {
        match message {
            outbox::Outgoing::Frame(frame) => {
                written.add(Weight::of(&frame));
                outgoing.feed(frame).await?;
            }
            outbox::Outgoing::Ping => outgoing.feed_control(Sent::Ping, &[]),
            outbox::Outgoing::Pong(payload) => outgoing.feed_control(Sent::Pong, &payload),
            outbox::Outgoing::Close { code, reason } => {
                say_goodbye(outgoing, &frame::close_payload(code, &reason)).await;
                return Ok(Written::Last);
            }
        }
        next = if written.bytes() < BATCH_BYTES {
            outbox.next_now()
        } else {
            None
        };
    }
    outgoing.flush().await?;
    Ok(Written::Frames(written))
}

/// A peer that is gone does not hear it, and need not.
async fn say_goodbye<S: AsyncWrite>(outgoing: &mut Outgoing<S>, payload: &[u8]) {
    let last_words = async {
        // a long message may have been under way
        outgoing.flush().await?;
        outgoing.feed_control(Sent::Close, payload);
        outgoing.flush().await
    };
    timeout(GOODBYE_MAX, last_words).await.ok();
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        time::sleep,
    };
    use tokio_tungstenite::{
        WebSocketStream,
        tungstenite::{Message, protocol::Role},
    };

    use super::*;
    use crate::sync::{
        group::unattended,
        outbox::{Outbox, outbox},
    };

    async fn client(stream: DuplexStream) -> WebSocketStream<DuplexStream> {
        WebSocketStream::from_raw_socket(stream, Role::Client, None).await
    }

    async fn serve(stream: DuplexStream, time: Duration) -> Option<End> {
        let ((mailbox, _letters), (_outbox, mut reader)) = (unattended(), outbox());
        timeout(
            time,
            run(stream, &[], ConnectionId(1), &mailbox, &mut reader),
        )
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
    async fn a_peer_is_not_silent_for_as_long_as_the_server_stands_still() {
        let (ours, theirs) = duplex(64 << 10);
        let mut peer = client(theirs).await;
        tokio::spawn(async move { while let Some(Ok(_)) = peer.next().await {} });
        let served = tokio::spawn(serve(ours, Duration::from_secs(3_600)));
        tokio::task::yield_now().await;
        tokio::time::advance(DEAD_AFTER * 2).await;
        assert_eq!(served.await.unwrap(), None);
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
    async fn a_revoked_peer_that_reads_slowly_is_cut_off_in_the_middle_of_a_long_frame() {
        let (ours, mut theirs) = duplex(1 << 10);
        let ((mailbox, _letters), (group, mut reader)) = (unattended(), outbox());
        for _ in 0..3 {
            group.send(vec![7; 1 << 20].into());
        }
        let download = tokio::spawn(async move {
            let (mut buffer, mut read) = ([0; 1 << 10], 0);
            while let Ok(length @ 1..) = theirs.read(&mut buffer).await {
                read += length;
                sleep(Duration::from_millis(100)).await;
            }
            read
        });
        let revoke = tokio::spawn(async move {
            sleep(Duration::from_secs(10)).await;
            group.send(vec![0; 10].into());
            group.cut(1008, "the session has ended".into());
        });
        let started = Instant::now();
        let (end, farewell) = run(ours, &[], ConnectionId(1), &mailbox, &mut reader).await;
        farewell.answered().await;
        assert_eq!(end, End::Cut);
        assert!(
            started.elapsed() <= Duration::from_secs(11),
            "{:?}",
            started.elapsed()
        );
        revoke.await.unwrap();
        // a kilobyte every 100 ms for 11 s, and not three megabytes
        assert!(download.await.unwrap() < 120 << 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_in_a_long_frame_slowly_stays_and_one_that_stops_does_not() {
        let (ours, mut theirs) = duplex(1 << 10);
        let ((mailbox, _letters), (group, mut reader)) = (unattended(), outbox());
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
        let (end, _) = run(ours, &[], ConnectionId(1), &mailbox, &mut reader).await;
        assert_eq!(end, End::Silence);
        let lived = started.elapsed().as_secs();
        assert!((340..=350).contains(&lived), "{lived} s");
        drop(download.await);
    }

    /// An empty ping, masked with zeros.
    const PING: [u8; 6] = [0x89, 0x80, 0, 0, 0, 0];

    /// How long a socket lives that its group is done with, whose peer reads nothing and pings now and then.
    async fn lives_on(done: impl FnOnce(Outbox)) -> Duration {
        let ((mailbox, _letters), (group, mut reader)) = (unattended(), outbox());
        let (ours, mut theirs) = duplex(1 << 10);
        for _ in 0..3 {
            group.send(vec![0; 1 << 20].into());
        }
        let pings = tokio::spawn(async move {
            while theirs.write_all(&PING).await.is_ok() {
                sleep(Duration::from_secs(20)).await;
            }
        });
        let started = Instant::now();
        done(group);
        let (end, _) = run(ours, &[], ConnectionId(1), &mailbox, &mut reader).await;
        assert!(matches!(end, End::Cut | End::Group), "{end:?}");
        pings.abort();
        started.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_pings_and_does_not_read_does_not_keep_a_socket_that_was_closed() {
        let a_minute = Duration::from_secs(60);
        assert!(lives_on(drop).await < a_minute);
        assert!(lives_on(|group| group.close(1008, "malformed".into())).await < a_minute);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_revoked_while_a_close_waits_to_be_read_is_cut_off_all_the_same() {
        let closed_and_cut = |group: Outbox| {
            group.close(1008, "malformed".into());
            tokio::spawn(async move {
                sleep(Duration::from_secs(1)).await;
                group.cut(1008, "the session has ended".into());
            });
        };
        assert!(lives_on(closed_and_cut).await < Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_whose_frame_finds_no_room_is_not_silent() {
        // nobody takes anything out of it
        let ((mailbox, _letters), (_group, mut reader)) = (unattended(), outbox());
        let (ours, theirs) = duplex(1 << 10);
        let (mut incoming, mut outgoing) = tokio::io::split(theirs);
        let reading = tokio::spawn(async move {
            let mut buffer = [0; 100];
            while let Ok(1..) = incoming.read(&mut buffer).await {}
        });
        let writing = tokio::spawn(async move {
            // binary frames of a byte, masked with zeros, without end
            while outgoing
                .write_all(&[0x82, 0x81, 0, 0, 0, 0, 7])
                .await
                .is_ok()
            {}
        });
        let lived = run(ours, &[], ConnectionId(1), &mailbox, &mut reader);
        assert!(timeout(DEAD_AFTER * 3, lived).await.is_err(), "it is open");
        reading.abort();
        writing.abort();
    }
}
