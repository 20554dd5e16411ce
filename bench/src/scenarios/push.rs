//! Uploads: a device that brings its documents to a server that has none of them.

use anyhow::{Result, bail};

use super::Bench;
use crate::bulk::{Batch, Done};
use crate::client::Client;
use crate::figures::{Figures, Meter};
use crate::history::{self, Prepared};
use crate::server::Server;

pub(super) const CHANGES: usize = 100;
const DOCUMENTS: u32 = 500;

pub(super) fn documents(bench: &Bench) -> Result<Vec<Prepared>> {
    history::prepare_many(bench.scale.of(DOCUMENTS).into(), CHANGES)
}

pub(super) async fn run(bench: &Bench) -> Result<Figures> {
    let documents = documents(bench)?;
    let server = bench.server().await?;
    let batch = Batch::push(
        Client::join(server.url(), "bench-writer").await?,
        &documents,
    )?;
    let meter = Meter::start(&server)?;
    let (mut done, _) = batch.run().await;
    let spent = meter.stop(&server).await?;
    let mut figures = Figures::default();
    figures.rate("documents acknowledged", done.times.len(), spent.wall);
    figures.percentiles("acknowledged", &mut done.times);
    figures.cpu(&spent);
    figures.megabytes("peak RSS", server.usage()?.peak_kib);
    server.stop().await?;
    whole(done)?;
    Ok(figures)
}

/// Uploads outside of the measured part.
pub(super) async fn upload(server: &Server, documents: &[Prepared]) -> Result<()> {
    let client = Client::join(server.url(), "bench-writer").await?;
    whole(Batch::push(client, documents)?.run().await.0)
}

fn whole(done: Done) -> Result<()> {
    match done.broken {
        Some(error) => bail!(error.context(format!("after {} documents", done.times.len()))),
        None => Ok(()),
    }
}
