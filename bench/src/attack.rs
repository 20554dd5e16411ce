//! The flood: bad requests at a rate of their own, whether or not the server keeps up. It has a thread to itself, so
//! that what the scenario times meanwhile does not wait for it in the generator.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::io::AsyncWriteExt as _;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::device::{Address, Algorithm, Device};
use crate::http::{self, Answers, Connection};
use crate::owner;
use crate::server::Server;

/// How often one request of each kind is sent: four kinds make 2,000 a second.
const EVERY: Duration = Duration::from_millis(2);
/// Addresses of this machine that they come from.
const SOURCES: u8 = 16;
/// Different requests of a kind, sent in turn.
const OF_KIND: u32 = 64;
/// After this long without one more answer none is waited for.
const SILENCE: Duration = Duration::from_secs(5);

/// The bad requests of one flood: proofs are good for a minute.
struct Requests {
    /// For `POST /authenticate`, by kind.
    proofs: [Vec<Vec<u8>>; 3],
    upgrade: Vec<u8>,
}

impl Requests {
    async fn new(server: &Server, known: &Device) -> Result<Self> {
        let (url, nonce) = (server.authenticate_url()?, owner::nonce(server).await?);
        let address = Address {
            url: &url,
            nonce: &nonce,
        };
        let mut proofs = [Vec::new(), Vec::new(), Vec::new()];
        let [garbage, unknown, forged] = &mut proofs;
        for number in 0..OF_KIND {
            let stranger = Device::new(Algorithm::Es256, 1_000 + number)?;
            garbage.push(known.login(&format!("garbage.{number}.garbage")));
            unknown.push(stranger.login(&stranger.proof(&address, 0)));
            // the costliest: all is as it should be but the signature, and the key is one that the owner approved
            let number = usize::try_from(number)?;
            forged.push(known.login(&known.forged(&stranger, &address, number)));
        }
        let headers = [
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let upgrade = http::request(
            "GET",
            "/sync?token=eyJhbGciOiJIUzI1NiJ9.e30.AA",
            &headers,
            "",
        );
        Ok(Self { proofs, upgrade })
    }
}

/// An address that bad requests come from.
pub(crate) fn source(number: usize) -> Ipv4Addr {
    let number = number % usize::from(SOURCES);
    Ipv4Addr::new(127, 0, 1, u8::try_from(number).unwrap_or_default())
}

/// What was sent in all, and what the server said.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) sent: usize,
    pub(crate) during: Duration,
    /// How many answers had this status.
    pub(crate) answers: BTreeMap<u16, usize>,
}

/// A flood that goes on.
pub(crate) struct Attack {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Tally>>,
}

impl Attack {
    /// Begins. A third of the proofs are forged ones of `known`, a device that the owner has approved.
    pub(crate) async fn start(server: &Server, known: &Device) -> Result<Self> {
        let (address, requests) = (server.address()?, Requests::new(server, known).await?);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(flood(address, requests, &stopped))
        });
        Ok(Self { stop, thread })
    }

    /// Ends, and waits for the answers.
    pub(crate) async fn stop(self) -> Result<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.await?
    }
}

async fn flood(server: SocketAddr, requests: Requests, stop: &AtomicBool) -> Result<Tally> {
    let (report, heard) = mpsc::unbounded_channel();
    let mut lines = open_lines(server, &report).await?;
    let upgrade: Arc<[u8]> = requests.upgrade.into();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (started, mut tally) = (Instant::now(), Tally::default());
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        ticks.tick().await;
        let turn = round % lines.len();
        let turn = lines.get_mut(turn).context("no connection")?;
        for (line, kind) in turn.iter_mut().zip(&requests.proofs) {
            let request = kind.get(round % kind.len()).context("no request")?;
            line.write_all(request).await?;
        }
        let (upgrade, report) = (Arc::clone(&upgrade), report.clone());
        tokio::spawn(try_upgrade(server, source(round), upgrade, report));
        tally.sent += 4;
    }
    tally.during = started.elapsed();
    tally.hear(heard).await;
    Ok(tally)
}

/// From each address a connection for each kind of proof: one kind does not wait for the answers to another.
async fn open_lines(
    server: SocketAddr,
    report: &mpsc::UnboundedSender<u16>,
) -> Result<Vec<[OwnedWriteHalf; 3]>> {
    let mut lines = Vec::new();
    for number in 0..SOURCES {
        let open = async || {
            let from = source(usize::from(number));
            let Connection { requests, answers } = Connection::open(server, from).await?;
            tokio::spawn(listen(answers, report.clone()));
            Ok::<_, anyhow::Error>(requests)
        };
        lines.push([open().await?, open().await?, open().await?]);
    }
    Ok(lines)
}

async fn listen(mut answers: Answers<OwnedReadHalf>, report: mpsc::UnboundedSender<u16>) {
    while let Ok(answer) = answers.next().await {
        if report.send(answer.status).is_err() {
            return;
        }
    }
}

/// Over a connection of its own, as a WebSocket has one.
async fn try_upgrade(
    server: SocketAddr,
    from: Ipv4Addr,
    request: Arc<[u8]>,
    report: mpsc::UnboundedSender<u16>,
) -> Result<()> {
    let mut connection = Connection::open(server, from).await?;
    let answer = connection.ask(&request).await?;
    Ok(report.send(answer.status)?)
}

impl Tally {
    async fn hear(&mut self, mut heard: mpsc::UnboundedReceiver<u16>) {
        while self.answered() < self.sent
            && let Ok(Some(status)) = timeout(SILENCE, heard.recv()).await
        {
            *self.answers.entry(status).or_default() += 1;
        }
    }

    /// How many answers there were.
    pub(crate) fn answered(&self) -> usize {
        self.answers.values().sum()
    }

    /// Takes another flood's into account.
    pub(crate) fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.during += other.during;
        for (status, count) in &other.answers {
            *self.answers.entry(*status).or_default() += count;
        }
    }
}
