//! A full house: thousands who do nothing, and a thousand who each type one character a second, half of them alone and
//! half of them five to a document.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use automerge::{ActorId, Automerge};
use bytes::Bytes;
use futures_util::future::try_join_all;
use tokio::time::{Instant as Deadline, MissedTickBehavior, interval_at, timeout};

use super::{Bench, idle, push};
use crate::client::Client;
use crate::figures::{Figures, Meter, Unit, as_f64};
use crate::history::{self, Edit};
use crate::server::Server;
use crate::sync::{self, Checksum};
use crate::wire::Incoming;

const IDLE: u32 = 5_000;
/// Connections that edit a document of their own.
const ALONE: u32 = 500;
/// Documents that several edit, and how many do.
const SHARED: u32 = 100;
const SHARED_BY: u32 = 5;
const EDITS_EACH: u32 = 20;
const EVERY: Duration = Duration::from_secs(1);
const CHANGES: usize = 20;
/// After this long without one more, what has not come is missed.
const SILENCE: Duration = Duration::from_secs(10);
const JOINING_AT_ONCE: usize = 50;

pub(super) async fn run(bench: &Bench) -> Result<Figures> {
    let server = bench.server().await?;
    let idle = idle::join(&server, bench.scale.of(IDLE)).await?;
    let writers = writers(bench, &server).await?;
    server.settle().await?;
    let count = writers.len();
    let meter = Meter::start(&server)?;
    let began = Deadline::now();
    let typing = writers.into_iter().enumerate().map(|(number, writer)| {
        // spread over the second
        let first = began + EVERY.mul_f64(as_f64(number) / as_f64(count));
        tokio::spawn(writer.type_all(first))
    });
    let typed = try_join_all(typing.collect::<Vec<_>>()).await?;
    let spent = meter.stop(&server).await?;
    let mut total = Tally::default();
    for tally in typed {
        total.add(tally?);
    }
    let connected = idle.iter().filter(|task| !task.is_finished()).count();
    let mut figures = Figures::default();
    figures.count("idle, still connected", connected);
    figures.count("active", count);
    figures.rate("edits", total.acknowledged.len(), spent.wall);
    figures.rate("deliveries", total.seen.len(), spent.wall);
    figures.percentiles("acknowledged", &mut total.acknowledged);
    figures.percentiles("seen", &mut total.seen);
    figures.count("missed", total.missed);
    let share = spent.server_cpu.as_secs_f64() / spent.wall.as_secs_f64() * 100.0;
    figures.add("server CPU, of one core", share, Unit::Percent);
    figures.cpu(&spent);
    let usage = server.usage()?;
    figures.megabytes("RSS", usage.rss_kib);
    figures.megabytes("peak RSS", usage.peak_kib);
    let all_idle = idle.len();
    idle.iter().for_each(tokio::task::JoinHandle::abort);
    server.stop().await?;
    ensure!(total.missed == 0, "{} deliveries missed", total.missed);
    ensure!(
        connected == all_idle,
        "{} idle connections were cut off",
        all_idle - connected
    );
    Ok(figures)
}

/// A document and who edits it.
struct Room {
    id: String,
    /// The number of each edit of anybody.
    index: HashMap<Checksum, usize>,
    /// When each was sent.
    sent: Mutex<Vec<Option<Instant>>>,
}

/// One of those who edit.
struct Writer {
    client: Client,
    room: Arc<Room>,
    /// Number and edit, in their order.
    edits: Vec<(usize, Edit)>,
}

#[derive(Default)]
struct Tally {
    acknowledged: Vec<Duration>,
    seen: Vec<Duration>,
    missed: usize,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.acknowledged.extend(other.acknowledged);
        self.seen.extend(other.seen);
        self.missed += other.missed;
    }
}

/// Uploads the documents, and connects everybody to them.
async fn writers(bench: &Bench, server: &Server) -> Result<Vec<Writer>> {
    let (alone, shared) = (bench.scale.of(ALONE), bench.scale.of(SHARED));
    let mut prepared = Vec::new();
    let mut waiting = Vec::new();
    for number in 0..alone + shared {
        let document = history::text_document(number.into(), CHANGES)?;
        let upload = history::prepare(number.into(), &document)?;
        let by = if number < alone { 1 } else { SHARED_BY };
        waiting.push(room(&upload.id, &document, by)?);
        prepared.push(upload);
    }
    push::upload(server, &prepared).await?;
    let mut places = Vec::new();
    for (upload, (room, lists)) in prepared.iter().zip(waiting) {
        places.extend(
            lists
                .into_iter()
                .map(|edits| (upload, Arc::clone(&room), edits)),
        );
    }
    let mut writers = Vec::new();
    let mut places = places.into_iter().enumerate().peekable();
    while places.peek().is_some() {
        let some = places.by_ref().take(JOINING_AT_ONCE);
        let joining = some.map(|(number, (upload, room, edits))| async move {
            let mut client = Client::join(server.url(), &format!("active-{number}")).await?;
            client.pull(upload).await?;
            Ok::<_, anyhow::Error>(Writer {
                client,
                room,
                edits,
            })
        });
        writers.extend(try_join_all(joining).await?);
    }
    Ok(writers)
}

type EditsOfEach = Vec<Vec<(usize, Edit)>>;

/// Edits of each writer, who does not wait for those of the others.
fn room(id: &str, document: &Automerge, by: u32) -> Result<(Arc<Room>, EditsOfEach)> {
    let mut lists = Vec::new();
    let mut index = HashMap::new();
    for writer in 0..by {
        let mut fork = document.clone();
        fork.set_actor(ActorId::from(format!("writer-{writer}").as_bytes()));
        let mut list = Vec::new();
        for edit in history::typed(&mut fork, usize::try_from(EDITS_EACH)?)? {
            let number = index.len();
            let known = index.insert(sync::checksum(&edit.hash), number);
            ensure!(known.is_none(), "two edits have one checksum");
            list.push((number, edit));
        }
        lists.push(list);
    }
    let room = Room {
        id: id.to_owned(),
        sent: Mutex::new(vec![None; index.len()]),
        index,
    };
    Ok((Arc::new(room), lists))
}

impl Writer {
    async fn type_all(mut self, first: Deadline) -> Result<Tally> {
        let frames = self
            .edits
            .iter()
            .map(|(_, edit)| self.client.sync_frame(&self.room.id, &edit.message))
            .collect::<Result<Vec<Bytes>>>()?;
        let mut ticks = interval_at(first, EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut tally = Tally::default();
        for (at, frame) in frames.into_iter().enumerate() {
            loop {
                tokio::select! {
                    _ = ticks.tick() => break,
                    message = self.client.next() => self.hear(message?, &mut tally).await?,
                }
            }
            self.note_sent(at)?;
            self.client.send(frame).await?;
        }
        let mut left = self.left(&tally);
        while left > 0 {
            let Ok(message) = timeout(SILENCE, self.client.next()).await else {
                break;
            };
            self.hear(message?, &mut tally).await?;
            left = self.left(&tally);
        }
        tally.missed = left;
        Ok(tally)
    }

    /// What has still to come: acknowledgements of its own edits, and the edits of the others.
    fn left(&self, tally: &Tally) -> usize {
        self.room.index.len() - tally.acknowledged.len() - tally.seen.len()
    }

    fn note_sent(&self, at: usize) -> Result<()> {
        let (number, _) = self.edits.get(at).context("no such edit")?;
        let mut sent = self
            .room
            .sent
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *sent.get_mut(*number).context("no such number")? = Some(Instant::now());
        Ok(())
    }

    fn since(&self, number: usize) -> Option<Duration> {
        let sent = self
            .room
            .sent
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Some(sent.get(number).copied()??.elapsed())
    }

    async fn hear(&mut self, message: Incoming, tally: &mut Tally) -> Result<()> {
        let (document, data) = match message {
            Incoming::Sync { document, data } => (document, data),
            Incoming::Error(message) => bail!("the server's error: {message}"),
            Incoming::Unavailable(document) => bail!("document {document} is unavailable"),
            Incoming::Peer(_) | Incoming::Ephemeral(_) | Incoming::Other => return Ok(()),
        };
        let heads = sync::heads(&data)?;
        let last = self
            .edits
            .iter()
            .rposition(|(_, edit)| heads.contains(&edit.hash.0));
        // the acknowledgement of an edit is one of all before it
        while last.is_some_and(|last| last >= tally.acknowledged.len()) {
            let (number, _) = self
                .edits
                .get(tally.acknowledged.len())
                .context("no such edit")?;
            let since = self
                .since(*number)
                .context("acknowledged before it was sent")?;
            tally.acknowledged.push(since);
        }
        let news: Vec<_> = sync::chunks(&data)
            .filter_map(|checksum| self.since(*self.room.index.get(&checksum)?))
            .collect();
        if !news.is_empty() {
            tally.seen.extend(news);
            self.client.confirm(&document, &data).await?;
        }
        Ok(())
    }
}
