//! One document with a long history.

use std::time::Instant;

use anyhow::Result;

use super::Bench;
use crate::bulk;
use crate::client::Client;
use crate::figures::{Figures, Meter, Spent};
use crate::history::{self, Prepared};
use crate::server::Server;

const CHANGES: u32 = 100_000;
const LIVE_EDITS: usize = 100;

pub(super) async fn run(bench: &Bench) -> Result<Figures> {
    let mut document =
        history::cached_text_document(&bench.scratch, usize::try_from(bench.scale.of(CHANGES))?)?;
    let prepared = history::prepare(0, &document)?;
    let edits = history::typed(&mut document, LIVE_EDITS)?;
    let mut server = bench.server().await?;
    let mut figures = Figures::default();
    let mut writer = Client::join(server.url(), "bench-writer").await?;
    let meter = Meter::start(&server)?;
    writer.push(&prepared).await?;
    let pushed = meter.stop(&server).await?;
    figures.seconds("push", pushed.wall);
    figures.seconds("push, server CPU", pushed.server_cpu);
    let pulled = pull(&server, &prepared, "bench-reader-1").await?;
    figures.seconds("pull", pulled.wall);
    figures.seconds("pull, server CPU", pulled.server_cpu);
    let mut times = Vec::new();
    let meter = Meter::start(&server)?;
    for edit in &edits {
        let started = Instant::now();
        writer.edit(&prepared.id, edit).await?;
        times.push(started.elapsed());
    }
    let spent = meter.stop(&server).await?;
    figures.percentiles("live edit acknowledged", &mut times);
    figures.cpu_each("server CPU per live edit", &spent, edits.len());
    figures.megabytes("peak RSS", server.usage()?.peak_kib);
    server.stop().await?;
    // The same again, without the edits: what is pulled after the restart is then what was pushed.
    server = bench.server().await?;
    Client::join(server.url(), "bench-writer")
        .await?
        .push(&prepared)
        .await?;
    server.settle().await?;
    server.restart().await?;
    let cold = pull(&server, &prepared, "bench-reader-2").await?;
    figures.seconds("pull after a restart", cold.wall);
    figures.seconds("pull after a restart, server CPU", cold.server_cpu);
    figures.megabytes("pull after a restart, peak RSS", server.usage()?.peak_kib);
    server.stop().await?;
    Ok(figures)
}

async fn pull(server: &Server, prepared: &Prepared, name: &str) -> Result<Spent> {
    let mut reader = Client::join(server.url(), name).await?;
    let meter = Meter::start(server)?;
    let data = reader.pull(prepared).await?;
    let spent = meter.stop(server).await?;
    bulk::check_one(prepared, &data)?;
    Ok(spent)
}
