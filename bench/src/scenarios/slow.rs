//! Readers that stop reading: what was meant for them must neither pile up in memory nor slow down the writer.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use super::Bench;
use crate::client::Client;
use crate::figures::{Figures, Meter};
use crate::history;

/// The most that the server may ever have had resident beside 20 readers that do not read: what it takes itself, and
/// for each of them what its outbox may hold before the engine holds back, twice over.
const BOUNDED_PEAK_MEGABYTES: f64 = 48.0;
/// The writer must not fall below this.
const BOUNDED_EDITS_A_SECOND: f64 = 100.0;
const EDITS: u32 = 500;
const EDIT_BYTES: usize = 100_000;
const CHANGES: usize = 100;

/// As [`run`], and fails if it costs the server or the writer too much.
pub(super) async fn bounded(bench: &Bench, readers: usize) -> Result<Figures> {
    let figures = run(bench, readers).await?;
    let peak = figures.value("peak RSS").context("no peak")?;
    let edits = figures.value("edits acknowledged").context("no rate")?;
    ensure!(
        peak <= BOUNDED_PEAK_MEGABYTES,
        "peak RSS {peak:.1} MB, of {BOUNDED_PEAK_MEGABYTES} MB"
    );
    ensure!(
        edits >= BOUNDED_EDITS_A_SECOND,
        "{edits:.0} edits a second, of {BOUNDED_EDITS_A_SECOND} at least"
    );
    Ok(figures)
}

pub(super) async fn run(bench: &Bench, readers: usize) -> Result<Figures> {
    let mut document = history::text_document(0, CHANGES)?;
    let prepared = history::prepare(0, &document)?;
    let edits = history::blobs(
        &mut document,
        usize::try_from(bench.scale.of(EDITS))?,
        EDIT_BYTES,
    )?;
    let server = bench.server().await?;
    let mut writer = Client::join(server.url(), "bench-writer").await?;
    writer.push(&prepared).await?;
    let mut stalled = Vec::new();
    for number in 0..readers {
        let mut reader = Client::join(server.url(), &format!("stalled-{number}")).await?;
        reader.pull(&prepared).await?;
        // Kept open, and never read again.
        stalled.push(reader);
    }
    let mut times = Vec::new();
    let meter = Meter::start(&server)?;
    for edit in &edits {
        let started = Instant::now();
        writer.edit(&prepared.id, edit).await?;
        times.push(started.elapsed());
    }
    let spent = meter.stop(&server).await?;
    drop(stalled);
    let mut figures = Figures::default();
    figures.rate("edits acknowledged", edits.len(), spent.wall);
    figures.percentiles("acknowledged", &mut times);
    figures.megabytes("peak RSS", server.usage()?.peak_kib);
    figures.cpu(&spent);
    server.stop().await?;
    Ok(figures)
}
