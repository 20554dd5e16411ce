//! An hour of ordinary life, and whether the server grows over it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::time::{MissedTickBehavior, interval};

use super::Bench;
use crate::figures::{Figures, Unit};
use crate::people::{self, DEVICES_EACH, Device, HOUSEHOLDS, World};
use crate::server::Server;
use crate::trend::{GROWTH_MAX, Sample, Trend};

const SAMPLE_EVERY: Duration = Duration::from_secs(5);
/// A document that is not in use is looked up this often.
const RECALL_EVERY: Duration = Duration::from_secs(3);
const SECONDS_A_MINUTE: u32 = 60;

pub(super) async fn run(bench: &Bench) -> Result<Figures> {
    let during = Duration::from_secs(bench.scale.of(bench.minutes * SECONDS_A_MINUTE).into());
    let server = bench.server().await?;
    let cpu_before = server.usage()?.cpu;
    let world = World::new(server.url());
    let mut lives: Vec<_> = (0..HOUSEHOLDS * DEVICES_EACH)
        .map(|number| tokio::spawn(Device::new(&world, number).live()))
        .collect();
    lives.push(tokio::spawn(people::recall(world.clone(), RECALL_EVERY)));
    let samples = watch(&server, during).await?;
    let cpu = server.usage()?.cpu.saturating_sub(cpu_before);
    let peak_kib = server.usage()?.peak_kib;
    world.end();
    for life in lives {
        life.await?;
    }
    let lost = world.lost().await?;
    let mut figures = Figures::default();
    what_happened(&mut figures, &world, &server).await?;
    figures.count("acknowledged changes lost", lost);
    let share = cpu.as_secs_f64() / during.as_secs_f64() * 100.0;
    figures.add("server CPU, of one core", share, Unit::Percent);
    figures.megabytes("peak RSS", peak_kib);
    let trend = how_it_went(&mut figures, &samples)?;
    server.stop().await?;
    let failures = std::mem::take(&mut world.record().failures);
    ensure!(
        failures.is_empty(),
        "{} failures, first: {:?}",
        failures.len(),
        failures.first()
    );
    ensure!(lost == 0, "{lost} acknowledged changes are lost");
    ensure!(
        trend.is_flat(),
        "memory grows: {} KiB after the warm-up, {} KiB at the end, {:+.1} KiB a minute; flat is within {} %",
        trend.level_kib,
        trend.end_kib,
        trend.slope,
        GROWTH_MAX * 100.0
    );
    Ok(figures)
}

async fn watch(server: &Server, during: Duration) -> Result<Vec<Sample>> {
    let started = Instant::now();
    let mut samples: Vec<Sample> = Vec::new();
    let mut ticks = interval(SAMPLE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while started.elapsed() < during {
        ticks.tick().await;
        let sample = Sample::take(started.elapsed(), server.pid()?, server.data())?;
        let minute = |sample: &Sample| sample.at.as_secs() / u64::from(SECONDS_A_MINUTE);
        if samples
            .last()
            .is_none_or(|last| minute(last) < minute(&sample))
        {
            eprintln!(
                "minute {}: {} KiB, {} files, {} threads, {} KiB of data",
                minute(&sample),
                sample.rss_kib,
                sample.open_files,
                sample.threads,
                sample.data.all >> 10
            );
        }
        samples.push(sample);
    }
    Ok(samples)
}

async fn what_happened(figures: &mut Figures, world: &World, server: &Server) -> Result<()> {
    let list = server.cli(&["docs", "ls", "--json"]).await?;
    let list: serde_json::Value = serde_json::from_str(&list)?;
    let rows = list.as_array().map_or(&[][..], Vec::as_slice);
    let has_snapshot = |row: &&serde_json::Value| {
        row.get("snapshotBytes")
            .and_then(serde_json::Value::as_u64)
            .is_some_and(|bytes| bytes > 0)
    };
    let mut record = world.record();
    figures.count("visits", record.visits);
    figures.count("visits with something typed while away", record.returns);
    figures.count("old documents opened", record.recalls);
    figures.count("documents", rows.len());
    figures.count(
        "documents with a snapshot",
        rows.iter().filter(has_snapshot).count(),
    );
    figures.count("edits", record.edits);
    figures.count("ephemeral messages sent", record.ephemeral_sent);
    figures.count("ephemeral messages seen", record.ephemeral_seen);
    figures.percentiles("in step again", &mut record.in_step);
    Ok(())
}

fn how_it_went(figures: &mut Figures, samples: &[Sample]) -> Result<Trend> {
    let trend = Trend::of(samples)?;
    figures.megabytes("RSS after the warm-up", trend.level_kib);
    figures.megabytes("RSS at the end", trend.end_kib);
    figures.add("RSS slope", trend.slope * 1.024, Unit::KilobytesPerMinute);
    let most = |of: fn(&Sample) -> usize, part: &[Sample]| part.iter().map(of).max().unwrap_or(0);
    let (early, late) = samples.split_at(samples.len() / 2);
    for (name, of) in [
        (
            "open files",
            (|sample| sample.open_files) as fn(&Sample) -> usize,
        ),
        ("threads", |sample| sample.threads),
    ] {
        figures.count(&format!("{name}, most in the first half"), most(of, early));
        figures.count(&format!("{name}, most in the second half"), most(of, late));
    }
    let kib = |bytes: u64| bytes >> 10;
    let wal = samples.iter().map(|sample| sample.data.wal).max();
    figures.megabytes("write-ahead logs, largest", kib(wal.unwrap_or(0)));
    let data = |sample: Option<&Sample>| sample.map_or(0, |sample| kib(sample.data.all));
    figures.megabytes("data at the end", data(samples.last()));
    figures.count("samples", samples.len());
    Ok(trend)
}
