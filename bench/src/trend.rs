//! What a server takes over a long time: looked at every few seconds, and whether it grows.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::figures::kib_f64;
use crate::process;

/// The first part of a run, in which caches fill.
const WARM_UP: f64 = 0.1;
/// What is compared: so much of the run after the warm-up, and as much at its end.
const WINDOW: f64 = 0.1;
/// More growth than this, of the level after the warm-up, is not flat.
pub(crate) const GROWTH_MAX: f64 = 0.1;

/// One look at a server.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) at: Duration,
    /// Of the server process alone; the worker comes and goes.
    pub(crate) rss_kib: u64,
    pub(crate) open_files: usize,
    pub(crate) threads: usize,
    pub(crate) data: DataSize,
}

/// Bytes of a data directory.
#[derive(Clone, Copy, Default)]
pub(crate) struct DataSize {
    pub(crate) all: u64,
    pub(crate) wal: u64,
}

impl Sample {
    pub(crate) fn take(at: Duration, pid: u32, data: &Path) -> Result<Self> {
        Ok(Self {
            at,
            rss_kib: process::resident_kib(pid)?,
            open_files: process::entries(pid, "fd")?,
            threads: process::entries(pid, "task")?,
            data: data_size(data)?,
        })
    }
}

/// Of all files under `folder`. One that goes while it is looked at counts nothing.
fn data_size(folder: &Path) -> Result<DataSize> {
    let mut size = DataSize::default();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        if metadata.is_dir() {
            let inner = data_size(&entry.path())?;
            size.all += inner.all;
            size.wal += inner.wal;
        } else {
            size.all += metadata.len();
            if entry.file_name().to_string_lossy().ends_with("-wal") {
                size.wal += metadata.len();
            }
        }
    }
    Ok(size)
}

/// How resident memory went.
pub(crate) struct Trend {
    /// The median right after the warm-up, in KiB.
    pub(crate) level_kib: u64,
    /// The median at the end, in KiB.
    pub(crate) end_kib: u64,
    /// Of the line that fits best after the warm-up, in KiB a minute.
    pub(crate) slope: f64,
    minutes: f64,
}

impl Trend {
    /// # Errors
    /// If there are too few samples to say anything.
    pub(crate) fn of(samples: &[Sample]) -> Result<Self> {
        let minutes = |sample: &Sample| sample.at.as_secs_f64() / 60.0;
        let whole = samples.last().map(minutes).context("no samples")?;
        let between = |from: f64, to: f64| -> Vec<Sample> {
            let is_in = |sample: &&Sample| (from * whole..=to * whole).contains(&minutes(sample));
            samples.iter().filter(is_in).copied().collect()
        };
        let points: Vec<_> = between(WARM_UP, 1.0)
            .iter()
            .map(|sample| (minutes(sample), kib_f64(sample.rss_kib)))
            .collect();
        Ok(Self {
            level_kib: median(&between(WARM_UP, WARM_UP + WINDOW))?,
            end_kib: median(&between(1.0 - WINDOW, 1.0))?,
            slope: slope(&points).context("too few samples")?,
            minutes: whole * (1.0 - WARM_UP),
        })
    }

    /// Flat: neither the end nor the line is more than [`GROWTH_MAX`] above the level after the warm-up.
    pub(crate) fn is_flat(&self) -> bool {
        let (level, end) = (kib_f64(self.level_kib), kib_f64(self.end_kib));
        let most = level * GROWTH_MAX;
        end - level <= most && self.slope * self.minutes <= most
    }
}

fn median(samples: &[Sample]) -> Result<u64> {
    let mut sizes: Vec<_> = samples.iter().map(|sample| sample.rss_kib).collect();
    sizes.sort_unstable();
    sizes
        .get(sizes.len() / 2)
        .copied()
        .context("too few samples")
}

/// Of the straight line through these points whose squared distances are least.
fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let count = f64::from(u32::try_from(points.len()).ok()?);
    let sum = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>();
    let (x, y) = (sum(|p| p.0), sum(|p| p.1));
    let spread = count * sum(|p| p.0 * p.0) - x * x;
    (spread > 0.0).then(|| (count * sum(|p| p.0 * p.1) - x * y) / spread)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sample every 5 seconds for an hour, of the size that is given for its minute.
    fn hour(rss_kib: impl Fn(u64) -> u64) -> Trend {
        let sample = |number: u64| Sample {
            at: Duration::from_secs(5 * number),
            rss_kib: rss_kib(5 * number / 60),
            open_files: 0,
            threads: 0,
            data: DataSize::default(),
        };
        Trend::of(&(0..=720).map(sample).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn a_server_whose_caches_fill_first_is_flat() {
        let trend = hour(|minute| 20_000 + 1_000 * minute.min(5));
        assert_eq!((trend.level_kib, trend.end_kib), (25_000, 25_000));
        assert!(trend.slope.abs() < 1.0, "{}", trend.slope);
        assert!(trend.is_flat());
    }

    #[test]
    fn a_slow_leak_is_not_flat_and_its_slope_is_told() {
        let trend = hour(|minute| 20_000 + 50 * minute);
        assert!((trend.slope - 50.0).abs() < 1.0, "{}", trend.slope);
        assert!(!trend.is_flat());
    }

    #[test]
    fn peaks_do_not_make_a_trend() {
        let trend = hour(|minute| if minute % 7 == 0 { 40_000 } else { 20_000 });
        assert!(trend.is_flat(), "{}", trend.slope);
    }

    #[test]
    fn growth_that_shows_at_the_end_alone_is_not_flat() {
        assert!(!hour(|minute| if minute < 50 { 20_000 } else { 23_000 }).is_flat());
    }

    #[test]
    fn files_are_counted_with_those_in_folders() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("groups")).unwrap();
        fs::write(folder.path().join("groups/a.db"), [0; 100]).unwrap();
        fs::write(folder.path().join("groups/a.db-wal"), [0; 10]).unwrap();
        let size = data_size(folder.path()).unwrap();
        assert_eq!((size.all, size.wal), (110, 10));
    }
}
