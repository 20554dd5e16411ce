//! A document of a million changes: everything that is done with it, and what the server and its worker take for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use automerge::ReadDoc as _;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::Bench;
use crate::bulk;
use crate::client::Client;
use crate::figures::{Figures, Meter};
use crate::held::Held;
use crate::history::{self, Prepared};
use crate::process;
use crate::server::Server;

const CHANGES: u32 = 1_000_000;
const LIVE_EDITS: usize = 100;
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Longer than the worker may take for a job.
const DIGESTED_MAX: Duration = Duration::from_secs(180);
/// Any tail is worth a snapshot.
const COMPACT_SOON: &str = "[compaction]\nfloor_bytes = 1\nratio_percent = 1\nquiet_ms = 100\n";
/// The server's own memory must never have been more.
const PEAK_KIB_MAX: u64 = 1 << 20;

pub(super) async fn run(bench: &Bench) -> Result<Figures> {
    let changes = usize::try_from(bench.scale.of(CHANGES))?;
    let half = history::cached_text_document(&bench.scratch, changes / 2)?;
    let mut document = history::cached_text_document(&bench.scratch, changes)?;
    ensure!(
        document.get_missing_deps(&half.get_heads()).is_empty(),
        "half of the history is another history"
    );
    let prepared = history::prepare(0, &document)?;
    let edits = history::typed(&mut document, LIVE_EDITS)?;
    let mut server = bench.server().await?;
    let mut figures = Figures::default();
    let mut writer = Client::join(server.url(), "bench-writer").await?;

    let watch = WorkerWatch::start(&server)?;
    let started = Instant::now();
    writer.push(&prepared).await?;
    figures.seconds("push", started.elapsed());
    digested(&server, &prepared, |row| {
        row.get("indexed") == Some(&Value::Bool(true))
    })
    .await?;
    figures.seconds("pushed, indexed and at rest after", started.elapsed());
    figures.megabytes("index, peak RSS of the worker", watch.stop().await?);
    figures.megabytes("push, peak RSS", server.usage()?.peak_kib);

    pull(&server, &prepared, "pull", &mut figures).await?;
    let mut times = Vec::new();
    let meter = Meter::start(&server)?;
    for edit in &edits {
        let sent = Instant::now();
        writer.edit(&prepared.id, edit).await?;
        times.push(sent.elapsed());
    }
    let spent = meter.stop(&server).await?;
    figures.percentiles("live edit acknowledged", &mut times);
    figures.cpu_each("server CPU per live edit", &spent, edits.len());

    let mut stale = Held::new(half);
    catch_up(&server, &prepared, &mut stale, &mut figures).await?;
    ensure!(
        stale.document.get_heads() == document.get_heads(),
        "the stale device has another document"
    );
    let mut peak_kib = server.usage()?.peak_kib;
    figures.megabytes("until then, peak RSS", peak_kib);
    drop(writer);

    figures.seconds("restart", server.restart_with(COMPACT_SOON).await?);
    let mut fresh = Held::default();
    let name = "pull after a restart";
    pull_all(&server, &prepared, &mut fresh, name, &mut figures).await?;
    ensure!(
        fresh.document.get_heads() == document.get_heads(),
        "what came back is another document"
    );
    compact(&server, &prepared, &mut fresh, &mut figures).await?;
    peak_kib = peak_kib.max(server.usage()?.peak_kib);
    figures.megabytes("after the restart, peak RSS", server.usage()?.peak_kib);
    server.stop().await?;
    ensure!(peak_kib <= PEAK_KIB_MAX, "peak RSS of {peak_kib} KiB");
    Ok(figures)
}

async fn pull(
    server: &Server,
    prepared: &Prepared,
    name: &str,
    figures: &mut Figures,
) -> Result<()> {
    let mut reader = Client::join(server.url(), "bench-reader").await?;
    let meter = Meter::start(server)?;
    let data = reader.pull(prepared).await?;
    let spent = meter.stop(server).await?;
    figures.seconds(name, spent.wall);
    figures.seconds(&format!("{name}, server CPU"), spent.server_cpu);
    bulk::check_one(prepared, &data)
}

/// By a device that loads what it gets: its own work is in the time.
async fn pull_all(
    server: &Server,
    prepared: &Prepared,
    held: &mut Held,
    name: &str,
    figures: &mut Figures,
) -> Result<()> {
    let mut reader = Client::join(server.url(), "bench-new").await?;
    let meter = Meter::start(server)?;
    held.pull(&mut reader, &prepared.id).await?;
    let spent = meter.stop(server).await?;
    figures.seconds(&format!("{name}, and loaded"), spent.wall);
    figures.seconds(&format!("{name}, server CPU"), spent.server_cpu);
    Ok(())
}

/// A device that was away for the second half of the history.
async fn catch_up(
    server: &Server,
    prepared: &Prepared,
    stale: &mut Held,
    figures: &mut Figures,
) -> Result<()> {
    let mut client = Client::join(server.url(), "bench-stale").await?;
    let meter = Meter::start(server)?;
    stale.tell(&mut client, &prepared.id).await?;
    stale.until_in_step(&mut client, &prepared.id).await?;
    let spent = meter.stop(server).await?;
    figures.seconds("stale device, until in step and loaded", spent.wall);
    figures.seconds("stale device, server CPU", spent.server_cpu);
    Ok(())
}

/// One more edit, after which the worker makes a new snapshot.
async fn compact(
    server: &Server,
    prepared: &Prepared,
    held: &mut Held,
    figures: &mut Figures,
) -> Result<()> {
    let watch = WorkerWatch::start(server)?;
    let mut writer = Client::join(server.url(), "bench-last").await?;
    for edit in history::typed(&mut held.document, 1)? {
        writer.edit(&prepared.id, &edit).await?;
    }
    let started = Instant::now();
    digested(server, prepared, |row| {
        row.get("tailBytes").and_then(Value::as_u64) == Some(0)
    })
    .await?;
    figures.seconds("compacted after", started.elapsed());
    figures.megabytes("compaction, peak RSS of the worker", watch.stop().await?);
    Ok(())
}

/// Waits until the worker is done with the document.
async fn digested(
    server: &Server,
    prepared: &Prepared,
    is_done: impl Fn(&Value) -> bool,
) -> Result<()> {
    let deadline = Instant::now() + DIGESTED_MAX;
    while Instant::now() < deadline {
        let row = server.show(&prepared.id).await?;
        if let Some(reason) = row.get("quarantine").and_then(Value::as_str) {
            bail!("the document is quarantined: {reason}");
        }
        if is_done(&row) {
            return server.settle().await;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    bail!("the worker is not done in {} s", DIGESTED_MAX.as_secs())
}

/// Looks at the worker, which comes and goes, as often as it must to see its peak.
struct WorkerWatch {
    is_over: Arc<AtomicBool>,
    peak_kib: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl WorkerWatch {
    fn start(server: &Server) -> Result<Self> {
        let pid = server.pid()?;
        let (is_over, peak_kib) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (over, peak) = (Arc::clone(&is_over), Arc::clone(&peak_kib));
        let task = tokio::spawn(async move {
            while !over.load(Ordering::Relaxed) {
                peak.fetch_max(process::children_peak_kib(pid), Ordering::Relaxed);
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        Ok(Self {
            is_over,
            peak_kib,
            task,
        })
    }

    async fn stop(self) -> Result<u64> {
        self.is_over.store(true, Ordering::Relaxed);
        self.task.await.context("the watch has ended")?;
        Ok(self.peak_kib.load(Ordering::Relaxed))
    }
}
