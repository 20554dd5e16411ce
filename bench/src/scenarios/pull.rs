//! Downloads: a new device that asks for every document.

use anyhow::{Result, ensure};

use super::{Bench, push};
use crate::bulk::{self, Batch};
use crate::client::Client;
use crate::figures::{Figures, Meter};

/// What the server may still have in memory.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Start {
    /// It has just received the documents.
    Warm,
    /// It has just started.
    Cold,
}

pub(super) async fn run(bench: &Bench, start: Start) -> Result<Figures> {
    let documents = push::documents(bench)?;
    let mut server = bench.server().await?;
    push::upload(&server, &documents).await?;
    server.settle().await?;
    if start == Start::Cold {
        server.restart().await?;
    }
    let batch = Batch::pull(
        Client::join(server.url(), "bench-reader").await?,
        &documents,
    )?;
    let meter = Meter::start(&server)?;
    let (mut done, received) = batch.run().await;
    let spent = meter.stop(&server).await?;
    let mut figures = Figures::default();
    figures.rate("documents pulled", done.times.len(), spent.wall);
    figures.percentiles("pulled", &mut done.times);
    figures.cpu(&spent);
    figures.megabytes("peak RSS", server.usage()?.peak_kib);
    server.stop().await?;
    bulk::check(&received)?;
    ensure!(
        done.broken.is_none(),
        "{:#}",
        done.broken.unwrap_or_else(|| anyhow::anyhow!("unknown"))
    );
    Ok(figures)
}
