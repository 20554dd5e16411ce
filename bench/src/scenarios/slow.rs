//! Readers that stop reading: what was meant for them must neither pile up in memory nor slow down the writer.

use anyhow::Result;

use super::Bench;
use crate::client::Client;
use crate::figures::{Figures, Meter};
use crate::history;
use std::time::Instant;

const READERS: usize = 4;
const EDITS: u32 = 500;
const EDIT_BYTES: usize = 100_000;
const CHANGES: usize = 100;

pub(super) async fn run(bench: &Bench) -> Result<Figures> {
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
    for number in 0..READERS {
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
