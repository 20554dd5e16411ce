//! A group of very many documents: what it costs to start with them, to keep them, and to speak of all of them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::time::timeout;

use super::{Bench, many};
use crate::bulk::Batch;
use crate::client::{ANSWER_WAIT_MAX, Client};
use crate::figures::{Figures, Meter};
use crate::history::{self, Prepared};
use crate::server::Server;
use crate::wire::Incoming;

const DOCUMENTS: u32 = 100_000;
/// The group of the token that the server prints.
const ANNOUNCE_ALL: &str = "[groups.\"dev.example.notes\"]\nannounce = \"all\"\n";
/// A start must not take longer.
const START_MAX: Duration = Duration::from_secs(10);
/// The server's own memory must never have been more.
const PEAK_KIB_MAX: u64 = 320 << 10;

pub(super) async fn run(bench: &Bench) -> Result<Figures> {
    let documents = history::prepare_many(bench.scale.of(DOCUMENTS).into(), 1)?;
    let mut server = bench.server().await?;
    let mut figures = Figures::default();
    let pushed = many::push(&server, &documents, &mut figures).await?;
    let start = server.restart().await?;
    figures.seconds("restart, until ready", start);
    server.settle().await?;
    figures.megabytes("RSS at rest after it", server.usage()?.rss_kib);
    let (first, _) = documents.split_at(documents.len() / 2);
    let mut times = many::pull_some(&server, first, &pushed).await?;
    figures.percentiles("one pulled cold", &mut times);
    let offered = offer_all(&server, &documents, &mut figures).await?;
    let mut peak_kib = server.usage()?.peak_kib;
    server.restart_with(ANNOUNCE_ALL).await?;
    server.settle().await?;
    let told = hear_of_all(&server, documents.len(), &mut figures).await?;
    peak_kib = peak_kib.max(server.usage()?.peak_kib);
    server.stop().await?;
    ensure!(
        pushed.broken.is_none() && offered == documents.len() && told == documents.len(),
        "of {} documents {} were pushed, {offered} were found in step, {told} were announced",
        documents.len(),
        pushed.times.len()
    );
    ensure!(start <= START_MAX, "the start took {start:?}");
    ensure!(peak_kib <= PEAK_KIB_MAX, "peak RSS of {peak_kib} KiB");
    Ok(figures)
}

/// A device that has all the documents itself comes back, and names each.
async fn offer_all(
    server: &Server,
    documents: &[Prepared],
    figures: &mut Figures,
) -> Result<usize> {
    let client = Client::join(server.url(), "bench-owner").await?;
    let batch = Batch::push(client, documents)?;
    let meter = Meter::start(server)?;
    let (mut done, client) = batch.run_and_stay().await;
    let spent = meter.stop(server).await?;
    let usage = server.usage()?;
    drop(client);
    figures.count("offered and in step", done.times.len());
    figures.seconds("offered, until all are", spent.wall);
    figures.seconds("offered, server CPU", spent.server_cpu);
    figures.percentiles("offered, one", &mut done.times);
    figures.megabytes("offered, RSS while all are open", usage.rss_kib);
    figures.megabytes("offered, peak RSS", usage.peak_kib);
    Ok(done.times.len())
}

/// A device that has nothing is told of all.
async fn hear_of_all(server: &Server, expected: usize, figures: &mut Figures) -> Result<usize> {
    let meter = Meter::start(server)?;
    let started = Instant::now();
    let mut client = Client::join(server.url(), "bench-newcomer").await?;
    let (mut heard, mut bytes, mut first) = (BTreeSet::new(), 0, None);
    while heard.len() < expected
        && let Ok(message) = timeout(ANSWER_WAIT_MAX, client.next()).await
    {
        if let Incoming::Sync { document, data } = message? {
            first.get_or_insert_with(|| started.elapsed());
            bytes += data.len();
            heard.insert(document);
        }
    }
    let spent = meter.stop(server).await?;
    let usage = server.usage()?;
    figures.count("announced", heard.len());
    figures.milliseconds("announced, the first after", first.unwrap_or_default());
    figures.seconds("announced, until all are", spent.wall);
    figures.seconds("announced, server CPU", spent.server_cpu);
    figures.megabytes("announced, sync messages", u64::try_from(bytes)? >> 10);
    figures.megabytes("announced, peak RSS", usage.peak_kib);
    Ok(heard.len())
}
