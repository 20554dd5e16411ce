//! One writer types and 50 readers look on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use automerge::sync::{Message, State, SyncDoc as _};
use automerge::{Automerge, ReadDoc as _};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant as Deadline, MissedTickBehavior, interval, timeout, timeout_at};

use super::Bench;
use crate::client::Client;
use crate::figures::{Figures, Meter, Spent};
use crate::history::{self, Edit, Prepared};
use crate::server::Server;
use crate::sync::{self, Checksum};
use crate::wire::Incoming;

const READERS: usize = 50;
const PACED_EDITS_PER_HERTZ: u32 = 10;
const CLOSED_EDITS: u32 = 1_000;
const CLOSED_MAX: Duration = Duration::from_secs(20);
/// After this long without one more, what has not come is missed.
const SILENCE: Duration = Duration::from_secs(10);

/// A reader holds this edit, since then.
struct Seen {
    edit: usize,
    at: Instant,
}

/// The document, its edits to come, and everybody connected.
pub(super) struct Stage {
    prepared: Prepared,
    edits: Vec<Edit>,
    server: Server,
    writer: Client,
    seen: mpsc::UnboundedReceiver<Seen>,
    sent: Vec<Instant>,
    times: Vec<Duration>,
    acknowledged: Vec<Duration>,
}

/// Edits at a fixed rate for ten seconds, whether or not the server keeps up.
pub(super) async fn paced(bench: &Bench, hertz: u32) -> Result<Figures> {
    let edits = bench.scale.of(hertz * PACED_EDITS_PER_HERTZ);
    let mut stage = Stage::set(bench.server().await?, edits).await?;
    let meter = Meter::start(&stage.server)?;
    stage
        .write_paced(edits, Duration::from_secs(1) / hertz)
        .await?;
    stage.wait_for_all().await?;
    let spent = meter.stop(&stage.server).await?;
    stage.finish(Figures::default(), &spent).await
}

/// The next edit when every reader has the last one and it is acknowledged.
pub(super) async fn closed(bench: &Bench) -> Result<Figures> {
    let mut stage = Stage::set(bench.server().await?, bench.scale.of(CLOSED_EDITS)).await?;
    let meter = Meter::start(&stage.server)?;
    let deadline = Deadline::now() + CLOSED_MAX;
    let (started, mut edits) = (Instant::now(), 0);
    while edits < stage.edits.len()
        && let Ok(step) = timeout_at(deadline, stage.one_step(edits)).await
    {
        step?;
        edits += 1;
    }
    let during = started.elapsed();
    stage.wait_for_all().await?;
    let spent = meter.stop(&stage.server).await?;
    let mut figures = Figures::default();
    figures.rate("edits", edits, during);
    stage.finish(figures, &spent).await
}

impl Stage {
    /// Connects everybody to a server that has just started; as many edits as this can be written then.
    pub(super) async fn set(server: Server, edits: u32) -> Result<Self> {
        let mut document = history::text_document(0, super::push::CHANGES)?;
        let prepared = history::prepare(0, &document)?;
        let edits = history::typed(&mut document, usize::try_from(edits)?)?;
        let mut writer = Client::join(server.url(), "bench-writer").await?;
        writer.push(&prepared).await?;
        server.settle().await?;
        let index: Index = Arc::new(
            edits
                .iter()
                .map(|edit| sync::checksum(&edit.hash))
                .zip(0..)
                .collect(),
        );
        let (report, seen) = mpsc::unbounded_channel();
        for number in 0..READERS {
            let mut client = Client::join(server.url(), &format!("reader-{number}")).await?;
            let data = client.pull(&prepared).await?;
            let real = if number == 0 {
                Some(RealReader::new(&data)?)
            } else {
                None
            };
            let reader = Reader {
                client,
                index: Arc::clone(&index),
                real,
                report: report.clone(),
            };
            tokio::spawn(reader.follow());
        }
        server.settle().await?;
        let (sent, times, acknowledged) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self {
            prepared,
            edits,
            server,
            writer,
            seen,
            sent,
            times,
            acknowledged,
        })
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    /// How long each edit took to each reader, of those that have come.
    pub(super) fn times(&self) -> &[Duration] {
        &self.times
    }

    fn frames(&self, count: usize) -> Result<Vec<Bytes>> {
        self.edits
            .iter()
            .skip(self.sent.len())
            .take(count)
            .map(|edit| self.writer.sync_frame(&self.prepared.id, &edit.message))
            .collect()
    }

    /// Writes the next edits at this pace, whether or not the server keeps up.
    pub(super) async fn write_paced(&mut self, count: u32, every: Duration) -> Result<()> {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for frame in self.frames(usize::try_from(count)?)? {
            loop {
                tokio::select! {
                    _ = ticks.tick() => break,
                    answer = self.writer.next() => self.hear(&answer?)?,
                }
            }
            self.sent.push(Instant::now());
            self.writer.send(frame).await?;
            self.collect()?;
        }
        Ok(())
    }

    async fn one_step(&mut self, number: usize) -> Result<()> {
        let edit = self.edits.get(number).context("no such edit")?;
        let frame = self.writer.sync_frame(&self.prepared.id, &edit.message)?;
        self.sent.push(Instant::now());
        self.writer.send(frame).await?;
        while self.times.len() < self.sent.len() * READERS
            || self.acknowledged.len() < self.sent.len()
        {
            tokio::select! {
                answer = self.writer.next() => self.hear(&answer?)?,
                seen = self.seen.recv() => self.note(&seen.context("no reader is left")?)?,
            }
        }
        Ok(())
    }

    /// An acknowledgement of an edit is one of all before it.
    fn hear(&mut self, answer: &Incoming) -> Result<()> {
        match answer {
            Incoming::Sync { data, .. } => {
                let heads = sync::heads(data)?;
                let named = self
                    .edits
                    .iter()
                    .take(self.sent.len())
                    .rposition(|edit| heads.contains(&edit.hash.0));
                let upto = named.map_or(0, |last| last + 1);
                self.acknowledged.extend(
                    self.sent
                        .iter()
                        .take(upto)
                        .skip(self.acknowledged.len())
                        .map(Instant::elapsed),
                );
                Ok(())
            }
            Incoming::Error(message) => bail!("the server's error: {message}"),
            Incoming::Peer(_)
            | Incoming::Ephemeral(_)
            | Incoming::Unavailable(_)
            | Incoming::Other => Ok(()),
        }
    }

    fn note(&mut self, seen: &Seen) -> Result<()> {
        let sent = *self
            .sent
            .get(seen.edit)
            .context("an edit that was never sent")?;
        self.times.push(seen.at - sent);
        Ok(())
    }

    fn collect(&mut self) -> Result<()> {
        while let Ok(seen) = self.seen.try_recv() {
            self.note(&seen)?;
        }
        Ok(())
    }

    /// Until every reader has every edit that was sent, or nothing has come for [`SILENCE`].
    pub(super) async fn wait_for_all(&mut self) -> Result<()> {
        let missing = |stage: &Self| {
            stage.times.len() < stage.sent.len() * READERS
                || stage.acknowledged.len() < stage.sent.len()
        };
        while missing(self) {
            let step = async {
                tokio::select! {
                    answer = self.writer.next() => self.hear(&answer?),
                    seen = self.seen.recv() => self.note(&seen.context("no reader is left")?),
                }
            };
            match timeout(SILENCE, step).await {
                Ok(step) => step?,
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// How many deliveries have never come.
    pub(super) fn missed(&self) -> usize {
        self.sent.len() * READERS - self.times.len()
    }

    /// Ends everything.
    pub(super) async fn stop(self) -> Result<()> {
        self.server.stop().await
    }

    async fn finish(mut self, mut figures: Figures, spent: &Spent) -> Result<Figures> {
        figures.percentiles("seen", &mut self.times);
        figures.percentiles("acknowledged", &mut self.acknowledged);
        figures.count("missed", self.missed());
        figures.cpu_each("server CPU per update", spent, self.times.len());
        figures.cpu(spent);
        self.stop().await?;
        Ok(figures)
    }
}

/// The number of the edit with this checksum.
type Index = Arc<HashMap<Checksum, usize>>;

struct Reader {
    client: Client,
    index: Index,
    real: Option<RealReader>,
    report: mpsc::UnboundedSender<Seen>,
}

impl Reader {
    /// Until the connection or the scenario ends. What a reader misses shows in the count.
    async fn follow(mut self) -> Result<()> {
        loop {
            let Incoming::Sync { document, data } = self.client.next().await? else {
                continue;
            };
            let at = Instant::now();
            match &mut self.real {
                Some(real) => {
                    let answer = real.take(&data)?;
                    self.tell(&data, at);
                    if let Some(answer) = answer {
                        self.client
                            .send(self.client.sync_frame(&document, &answer)?)
                            .await?;
                    }
                }
                None => {
                    self.tell(&data, at);
                    self.client.confirm(&document, &data).await?;
                }
            }
        }
    }

    fn tell(&self, data: &[u8], at: Instant) {
        for edit in sync::chunks(data).filter_map(|checksum| self.index.get(&checksum)) {
            let gone = self.report.send(Seen { edit: *edit, at });
            if gone.is_err() {
                return;
            }
        }
    }
}

/// One of the readers is Automerge itself: it applies what comes, and its own answers are sent.
struct RealReader {
    document: Automerge,
    state: State,
}

impl RealReader {
    fn new(data: &[u8]) -> Result<Self> {
        let mut real = Self {
            document: Automerge::new(),
            state: State::new(),
        };
        real.take(data)?;
        Ok(real)
    }

    fn take(&mut self, data: &[u8]) -> Result<Option<Vec<u8>>> {
        let message = Message::decode(data)?;
        let heads = message.heads.clone();
        self.document
            .receive_sync_message(&mut self.state, message)?;
        if !self.document.get_missing_deps(&heads).is_empty() {
            bail!("the server named heads that it did not send");
        }
        Ok(self
            .document
            .generate_sync_message(&mut self.state)
            .map(Message::encode))
    }
}
