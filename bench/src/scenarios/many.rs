//! Very many small documents, and whether they are a burden afterwards.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Bench;
use crate::bulk::{self, Batch, Done};
use crate::client::Client;
use crate::figures::{Figures, Meter};
use crate::history::{self, Prepared};
use crate::server::Server;

const DOCUMENTS: u32 = 20_000;
const PULLED: usize = 100;

pub(super) async fn run(bench: &Bench) -> Result<Figures> {
    let documents = history::prepare_many(bench.scale.of(DOCUMENTS).into(), 1)?;
    let mut server = bench.server().await?;
    let mut figures = Figures::default();
    let pushed = push(&server, &documents, &mut figures).await?;
    figures.seconds("restart", server.restart().await?);
    let (first, _) = documents.split_at(documents.len() / 2);
    let mut times = pull_some(&server, first, &pushed).await?;
    figures.percentiles("one pulled cold", &mut times);
    server.stop().await?;
    Ok(figures)
}

/// Uploads over two connections; returns how far that came of which the first half of the documents went.
pub(super) async fn push(
    server: &Server,
    documents: &[Prepared],
    figures: &mut Figures,
) -> Result<Done> {
    let (first, second) = documents.split_at(documents.len() / 2);
    let first_batch = Batch::push(Client::join(server.url(), "bench-writer-1").await?, first)?;
    let second_batch = Batch::push(Client::join(server.url(), "bench-writer-2").await?, second)?;
    let meter = Meter::start(server)?;
    let ((mut one, _), (two, _)) = tokio::join!(first_batch.run(), second_batch.run());
    let spent = meter.stop(server).await?;
    let acknowledged = one.times.len() + two.times.len();
    figures.count("acknowledged", acknowledged);
    figures.seconds("until then", spent.wall);
    figures.rate("documents acknowledged", acknowledged, spent.wall);
    figures.cpu(&spent);
    figures.megabytes("peak RSS", server.usage()?.peak_kib);
    one.broken = one.broken.or(two.broken);
    Ok(one)
}

/// Pulls one after the other, of those that were acknowledged.
pub(super) async fn pull_some(
    server: &Server,
    documents: &[Prepared],
    pushed: &Done,
) -> Result<Vec<Duration>> {
    // Turns finish in about the order they began, so all but the last window of a broken run are there.
    let there = pushed
        .times
        .len()
        .saturating_sub(if pushed.broken.is_some() { PULLED } else { 0 });
    ensure!(there > 0, "too few acknowledged: {}", pushed.times.len());
    let mut client = Client::join(server.url(), "bench-reader").await?;
    let mut times = Vec::new();
    for document in documents
        .iter()
        .take(there)
        .step_by((there / PULLED).max(1))
        .take(PULLED)
    {
        let started = Instant::now();
        let data = client.pull(document).await?;
        times.push(started.elapsed());
        bulk::check_one(document, &data)?;
    }
    Ok(times)
}
