//! What a scenario measured, and how it is measured: figures with their units, percentiles, and the meter that runs
//! while the clock does.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::process;
use crate::server::Server;

/// The unit of a figure, and with it how it is printed.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Unit {
    Count,
    Times,
    Percent,
    PerSecond,
    Seconds,
    Milliseconds,
    Microseconds,
    Megabytes,
    MegabytesPerSecond,
    Kilobytes,
    KilobytesPerMinute,
}

impl Unit {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Count => "",
            Self::Times => "x",
            Self::Percent => "%",
            Self::PerSecond => "/s",
            Self::Seconds => "s",
            Self::Milliseconds => "ms",
            Self::Microseconds => "us",
            Self::Megabytes => "MB",
            Self::MegabytesPerSecond => "MB/s",
            Self::Kilobytes => "kB",
            Self::KilobytesPerMinute => "kB/min",
        }
    }
}

pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: Unit,
}

/// The figures of one run of one scenario, in the order of the table.
#[derive(Default)]
pub(crate) struct Figures(pub(crate) Vec<Figure>);

impl Figures {
    pub(crate) fn add(&mut self, name: &str, value: f64, unit: Unit) {
        self.0.push(Figure {
            name: name.to_owned(),
            value,
            unit,
        });
    }

    /// A figure that was added under this name, for a scenario that has a bound.
    pub(crate) fn value(&self, name: &str) -> Option<f64> {
        let figure = self.0.iter().find(|figure| figure.name == name)?;
        Some(figure.value)
    }

    pub(crate) fn count(&mut self, name: &str, count: usize) {
        self.add(name, as_f64(count), Unit::Count);
    }

    pub(crate) fn rate(&mut self, name: &str, count: usize, during: Duration) {
        self.add(name, as_f64(count) / during.as_secs_f64(), Unit::PerSecond);
    }

    pub(crate) fn seconds(&mut self, name: &str, time: Duration) {
        self.add(name, time.as_secs_f64(), Unit::Seconds);
    }

    pub(crate) fn milliseconds(&mut self, name: &str, time: Duration) {
        self.add(name, time.as_secs_f64() * 1e3, Unit::Milliseconds);
    }

    pub(crate) fn megabytes(&mut self, name: &str, kib: u64) {
        self.add(name, kib_f64(kib) * 1.024 / 1e3, Unit::Megabytes);
    }

    /// The CPU time of both sides, which is what remains comparable where the generator is the limit.
    pub(crate) fn cpu(&mut self, spent: &Spent) {
        self.seconds("server CPU", spent.server_cpu);
        self.seconds("generator CPU", spent.generator_cpu);
    }

    /// The server's CPU time for each of `count` deliveries.
    pub(crate) fn cpu_each(&mut self, name: &str, spent: &Spent, count: usize) {
        self.add(
            name,
            spent.server_cpu.as_secs_f64() * 1e6 / as_f64(count.max(1)),
            Unit::Microseconds,
        );
    }

    /// The median and the 99th percentile; nothing if nothing was timed.
    pub(crate) fn percentiles(&mut self, name: &str, times: &mut [Duration]) {
        self.percentile(&format!("{name} p50"), times, 50);
        self.percentile(&format!("{name} p99"), times, 99);
    }

    /// One percentile, by nearest rank.
    pub(crate) fn percentile(&mut self, name: &str, times: &mut [Duration], percent: usize) {
        times.sort_unstable();
        let rank = (times.len() * percent).div_ceil(100).saturating_sub(1);
        if let Some(time) = times.get(rank) {
            self.milliseconds(name, *time);
        }
    }
}

pub(crate) fn as_f64(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

pub(crate) fn kib_f64(kib: u64) -> f64 {
    u32::try_from(kib).map_or(f64::INFINITY, f64::from)
}

/// Runs from the start of a measurement to its end.
pub(crate) struct Meter {
    started: Instant,
    server_cpu: Duration,
    generator_cpu: Duration,
}

/// What one measurement took.
pub(crate) struct Spent {
    pub(crate) wall: Duration,
    pub(crate) server_cpu: Duration,
    pub(crate) generator_cpu: Duration,
}

impl Meter {
    pub(crate) fn start(server: &Server) -> Result<Self> {
        let server_cpu = server.usage()?.cpu;
        Ok(Self {
            server_cpu,
            generator_cpu: process::generator_cpu()?,
            started: Instant::now(),
        })
    }

    /// Ends the wall clock when it is called. The server's CPU time is read once it is at rest: what a server puts
    /// off until nobody waits belongs to the bill.
    pub(crate) async fn stop(self, server: &Server) -> Result<Spent> {
        let wall = self.started.elapsed();
        let generator_cpu = process::generator_cpu()?.saturating_sub(self.generator_cpu);
        server.settle().await?;
        let server_cpu = server.usage()?.cpu.saturating_sub(self.server_cpu);
        Ok(Spent {
            wall,
            server_cpu,
            generator_cpu,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_nearest_rank() {
        let mut times: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
        let mut figures = Figures::default();
        figures.percentiles("seen", &mut times);
        let values: Vec<_> = figures.0.iter().map(|figure| figure.value).collect();
        assert_eq!(values, [100.0, 198.0]);
    }

    #[test]
    fn nothing_timed_gives_no_figure() {
        let mut figures = Figures::default();
        figures.percentiles("seen", &mut []);
        assert!(figures.0.is_empty());
    }
}
