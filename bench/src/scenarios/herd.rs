//! All devices at once: the server is killed under a thousand approved devices, and each comes back as fast as it can,
//! with something that it has changed meanwhile.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use automerge::sync::{Message, State, SyncDoc as _};
use futures_util::future::{join_all, try_join_all};
use tokio::time::{sleep, timeout};

use super::Bench;
use crate::bulk::Batch;
use crate::client::Client;
use crate::device::{Algorithm, Device};
use crate::figures::{Figures, Unit, as_f64};
use crate::history::{self, Prepared};
use crate::owner;
use crate::process;

const DEVICES: u32 = 1_000;
/// Documents that all devices choose from.
const SHARED: u64 = 100;
/// How many of these each device has open, beside one of its own.
const OPEN_EACH: usize = 10;
const CHANGES: usize = 100;
const JOINING_AT_ONCE: usize = 50;
/// A device that was refused a connection tries again so soon; a stock client waits five seconds.
const AGAIN_AFTER: Duration = Duration::from_millis(10);
const HERD_MAX: Duration = Duration::from_secs(120);
/// From the moment at which the server can be reached.
const IN_STEP_MAX: Duration = Duration::from_secs(30);

pub(super) async fn run(bench: &Bench) -> Result<Figures> {
    let devices = (0..bench.scale.of(DEVICES))
        .map(|number| Device::new(Algorithm::Es256k, number))
        .collect::<Result<Vec<_>>>()?;
    let mut server = bench.owned_server().await?;
    let mut figures = Figures::default();
    let started = Instant::now();
    let tokens = owner::let_in(&server, &devices).await?;
    figures.seconds("to approve all", started.elapsed());
    let base = format!("ws://{}/", server.address()?);
    let urls: Vec<_> = tokens
        .iter()
        .map(|token| format!("{base}?token={token}"))
        .collect();
    let belongings = belongings(urls.len())?;
    let mut members = Vec::new();
    let all: Vec<_> = urls.iter().zip(&belongings).enumerate().collect();
    for some in all.chunks(JOINING_AT_ONCE) {
        let joining = some.iter().map(|(number, (url, documents))| async move {
            let client = Client::join(url, &name(*number)).await?;
            let (done, client) = Batch::push(client, &documents.before)?.run_and_stay().await;
            done.broken.map_or(Ok(client), Err)
        });
        members.extend(try_join_all(joining).await?);
    }
    server.settle().await?;
    figures.megabytes("RSS before", server.usage()?.rss_kib);
    let herd = Herd::default();
    let coming_back = members
        .into_iter()
        .zip(urls.iter().zip(&belongings))
        .enumerate()
        .map(|(number, (client, (url, documents)))| {
            herd.come_back(number, client, url, &documents.after)
        });
    let generator_before = process::generator_cpu()?;
    let restart = async {
        let took = server.kill_and_restart().await?;
        herd.ready_at.set(Some(Instant::now()));
        Ok::<_, anyhow::Error>(took)
    };
    let both = async { tokio::join!(restart, join_all(coming_back)) };
    let (took, back) = timeout(HERD_MAX, both)
        .await
        .context("not all are back in time")?;
    let took = took?;
    let back = back.into_iter().collect::<Result<Vec<_>>>()?;
    let generator = process::generator_cpu()?.saturating_sub(generator_before);
    figures.seconds("restart, until ready", took);
    herd.report(&mut figures, back.len())?;
    server.settle().await?;
    let usage = server.usage()?;
    figures.seconds("server CPU, from its start to rest", usage.cpu);
    figures.seconds("generator CPU", generator);
    figures.megabytes("RSS after", usage.rss_kib);
    figures.megabytes("peak RSS", usage.peak_kib);
    server.stop().await?;
    ensure!(
        herd.errors.get() == 0,
        "{} tries failed after the server was ready",
        herd.errors.get()
    );
    Ok(figures)
}

fn name(number: usize) -> String {
    format!("device-{number}")
}

/// What a device has open, before the server is killed and after.
struct Belongings {
    before: Vec<Prepared>,
    after: Vec<Prepared>,
}

fn belongings(devices: usize) -> Result<Vec<Belongings>> {
    let shared = history::prepare_many(SHARED, CHANGES)?;
    (0..devices)
        .map(|device| {
            let at = device * OPEN_EACH;
            let chosen: Vec<_> = shared
                .iter()
                .cycle()
                .skip(at % shared.len())
                .take(OPEN_EACH)
                .cloned()
                .collect();
            let number = SHARED + u64::try_from(device)?;
            let mut own = history::text_document(number, CHANGES)?;
            let (mut before, mut after) = (chosen.clone(), chosen);
            before.push(history::prepare(number, &own)?);
            after.push(changed(number, &mut own)?);
            Ok(Belongings { before, after })
        })
        .collect()
}

/// The document with one more change, that the server does not have.
fn changed(number: u64, document: &mut automerge::Automerge) -> Result<Prepared> {
    let edit = history::typed(document, 1)?.pop().context("no edit")?;
    let offer = document
        .generate_sync_message(&mut State::new())
        .context("no first message")?;
    Ok(Prepared {
        id: history::document_id(number),
        head: edit.hash,
        offer: Message::encode(offer),
        upload: edit.message,
    })
}

/// What is common to all who come back.
#[derive(Default)]
struct Herd {
    ready_at: Cell<Option<Instant>>,
    /// Tries before the server was ready, and after.
    tries: Cell<usize>,
    errors: Cell<usize>,
    /// How long after the server was ready each device had joined, and was in step.
    joined: RefCell<Vec<Duration>>,
    in_step: RefCell<Vec<Duration>>,
    /// From a device's joining until all its documents were in step.
    first_sync: RefCell<Vec<Duration>>,
}

impl Herd {
    /// Waits for the connection to break, and comes back.
    async fn come_back(
        &self,
        number: usize,
        mut client: Client,
        url: &str,
        documents: &[Prepared],
    ) -> Result<Client> {
        while client.next().await.is_ok() {}
        let client = self.join(url, &name(number)).await;
        let since = Instant::now();
        self.joined.borrow_mut().push(self.after_ready());
        let (done, client) = Batch::push(client, documents)?.run_and_stay().await;
        if let Some(error) = done.broken {
            return Err(error.context(format!("device {number}")));
        }
        self.first_sync.borrow_mut().push(since.elapsed());
        self.in_step.borrow_mut().push(self.after_ready());
        Ok(client)
    }

    async fn join(&self, url: &str, name: &str) -> Client {
        loop {
            let was_ready = self.ready_at.get().is_some();
            match Client::join(url, name).await {
                Ok(client) => return client,
                Err(error) if was_ready => {
                    self.errors.set(self.errors.get() + 1);
                    eprintln!("{name}: {error:#}");
                }
                Err(_) => self.tries.set(self.tries.get() + 1),
            }
            sleep(AGAIN_AFTER).await;
        }
    }

    /// A device may be in before the server's first line was read.
    fn after_ready(&self) -> Duration {
        self.ready_at
            .get()
            .map(|at| at.elapsed())
            .unwrap_or_default()
    }

    fn report(&self, figures: &mut Figures, back: usize) -> Result<()> {
        figures.count("devices back and in step", back);
        figures.count("tries while it was away", self.tries.get());
        figures.count("tries that failed when it was ready", self.errors.get());
        let (mut joined, mut in_step) = (self.joined.take(), self.in_step.take());
        let last = |times: &[Duration]| times.iter().max().copied().unwrap_or_default();
        figures.seconds("all joined, after it was ready", last(&joined));
        figures.seconds("all in step, after it was ready", last(&in_step));
        let slowest = last(&in_step);
        figures.percentiles("joined, after it was ready,", &mut joined);
        figures.percentiles("in step, after it was ready,", &mut in_step);
        figures.percentiles("first sync", &mut self.first_sync.take());
        let each = slowest.as_secs_f64() * 1e6 / as_f64(back.max(1));
        figures.add("for each device", each, Unit::Microseconds);
        ensure!(slowest <= IN_STEP_MAX, "in step after {slowest:?}");
        Ok(())
    }
}
