//! What a fan-out costs at least on this machine: a child that writes the same bytes to 50 sockets, once for each
//! message of a writer, and throws away what comes back. As many system calls as a server makes, and nothing else: no
//! documents, no CBOR, no disk, not even WebSocket frames on its side.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::Bench;
use crate::client;
use crate::figures::{Figures, Meter};

/// What a connection says first to be written to, or to be who writes.
const READER: &str = "reader";
const WRITER: &str = "writer";
const READERS: usize = 50;
/// As long as an edit's frame in `fanout`, and a reader's answer to it.
const UPDATE_BYTES: usize = 330;
const ANSWER_BYTES: usize = 230;
/// A frame's head and mask. Source: RFC 6455, section 5.2, for 126 to 65,535 bytes.
const CLIENT_HEAD_BYTES: usize = 8;
/// After this long without one more, what has not come is missed.
const SILENCE: Duration = Duration::from_secs(5);

/// Whether the readers say something to each message.
#[derive(Clone, Copy, PartialEq)]
enum Readers {
    Answer,
    Listen,
}

/// At the paces of `fanout-10hz`, `fanout-40hz` and `ephemeral`.
pub(super) async fn run(bench: &Bench) -> Result<Figures> {
    let mut figures = Figures::default();
    for (name, hertz, readers) in [
        ("answered, 10 a second", 10, Readers::Answer),
        ("answered, 40 a second", 40, Readers::Answer),
        ("unanswered, 100 a second", 100, Readers::Listen),
    ] {
        paced(bench, name, hertz, readers, &mut figures).await?;
    }
    Ok(figures)
}

async fn paced(
    bench: &Bench,
    name: &str,
    hertz: u32,
    readers: Readers,
    figures: &mut Figures,
) -> Result<()> {
    let server = bench.server().await?;
    let (report, mut seen) = mpsc::unbounded_channel();
    for _ in 0..READERS {
        let socket = enter(server.url(), READER).await?;
        tokio::spawn(read(socket, readers, report.clone()));
    }
    let mut writer = enter(server.url(), WRITER).await?;
    let meter = Meter::start(&server)?;
    let mut ticks = interval(Duration::from_secs(1) / hertz);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let messages = bench.scale.of(hertz * 10);
    let mut sent = Vec::new();
    for number in 0..messages {
        ticks.tick().await;
        sent.push(Instant::now());
        let mut update = BytesMut::with_capacity(UPDATE_BYTES);
        update.put_u32(number);
        update.resize(UPDATE_BYTES, 0);
        writer.send(Message::Binary(update.freeze())).await?;
    }
    let due = sent.len() * READERS;
    let mut times = Vec::new();
    while times.len() < due
        && let Ok(Some((number, at))) = timeout(SILENCE, seen.recv()).await
    {
        let (number, at): (usize, Instant) = (number, at);
        times.push(at - *sent.get(number).context("a message that was never sent")?);
    }
    let spent = meter.stop(&server).await?;
    figures.percentiles(&format!("{name}: seen"), &mut times);
    figures.count(&format!("{name}: missed"), due - times.len());
    figures.cpu_each(&format!("{name}: CPU per update"), &spent, times.len());
    server.stop().await
}

/// Connects and says what it is there for; returns when the other side knows.
async fn enter(url: &str, role: &'static str) -> Result<WebSocketStream<TcpStream>> {
    let mut socket = client::open(url).await?;
    socket.send(Message::text(role)).await?;
    let answer = socket.next().await.context("the child has gone")??;
    ensure!(answer.is_text(), "the child does not know its part");
    Ok(socket)
}

async fn read(
    mut socket: WebSocketStream<TcpStream>,
    readers: Readers,
    report: mpsc::UnboundedSender<(usize, Instant)>,
) -> Result<()> {
    let answer = Bytes::from(vec![0x5a; ANSWER_BYTES]);
    while let Some(Ok(message)) = socket.next().await {
        let number = message.into_data().first_chunk().copied();
        let number = usize::try_from(u32::from_be_bytes(number.context("too short")?))?;
        report.send((number, Instant::now()))?;
        if readers == Readers::Answer {
            socket.send(Message::Binary(answer.clone())).await?;
        }
    }
    Ok(())
}

/// The child's side: who is written to.
#[derive(Clone, Default)]
pub(crate) struct Audience(Arc<Mutex<Vec<Arc<TcpStream>>>>);

impl Audience {
    /// Serves a connection that has said what it is there for.
    pub(crate) async fn serve(
        &self,
        mut socket: WebSocketStream<TcpStream>,
        role: &str,
    ) -> Result<()> {
        socket.send(Message::text("ready")).await?;
        let mut stream = socket.into_inner();
        if role == WRITER {
            return self.write(&mut stream).await;
        }
        let stream = Arc::new(stream);
        self.readers().push(Arc::clone(&stream));
        let mut buffer = vec![0; 2 * ANSWER_BYTES];
        loop {
            stream.readable().await?;
            if matches!(stream.try_read(&mut buffer), Ok(0)) {
                return Ok(());
            }
        }
    }

    async fn write(&self, stream: &mut TcpStream) -> Result<()> {
        let mut frame = vec![0; CLIENT_HEAD_BYTES + UPDATE_BYTES];
        loop {
            stream.read_exact(&mut frame).await?;
            let (head, masked) = frame.split_at(CLIENT_HEAD_BYTES);
            let (_, mask) = head.split_at(4);
            let mut update = BytesMut::with_capacity(frame.len());
            update.put_slice(&[0x82, 126]);
            update.put_u16(u16::try_from(UPDATE_BYTES)?);
            update.extend(
                masked
                    .iter()
                    .zip(mask.iter().cycle())
                    .map(|(byte, mask)| byte ^ mask),
            );
            for reader in self.readers().iter() {
                // the socket of one that does not read is full: it misses the message
                drop(reader.try_write(&update));
            }
        }
    }

    fn readers(&self) -> std::sync::MutexGuard<'_, Vec<Arc<TcpStream>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
