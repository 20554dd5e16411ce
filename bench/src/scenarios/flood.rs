//! What a flood of bad requests does to those who are let in: to edits on their way, and to a device that logs in.
//!
//! Quiet and flooded spans take turns, so that an hour in which the machine is slow is one for both.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::time::{MissedTickBehavior, interval};

use super::{Bench, fanout::Stage};
use crate::attack::{self, Attack, Tally};
use crate::device::{Address, Algorithm, Device};
use crate::figures::{Figures, Unit, as_f64};
use crate::http::Connection;
use crate::owner;
use crate::server::Server;

const EVERY: Duration = Duration::from_millis(25);
/// Edits of one span: ten seconds.
const EDITS: u32 = 400;
/// Quiet spans, and flooded ones.
const SPANS: u32 = 3;
const LOGIN_EVERY: Duration = Duration::from_millis(100);

pub(super) async fn run(bench: &Bench) -> Result<Figures> {
    let edits = bench.scale.of(EDITS);
    let server = bench.owned_server().await?;
    let device = Device::new(Algorithm::Es256, 1)?;
    owner::approve(&server, &device).await?;
    let mut stage = Stage::set(server, 2 * SPANS * edits).await?;
    let (mut quiet, mut flooded, mut logins) = (Span::default(), Span::default(), Vec::new());
    let mut tally = Tally::default();
    for span in 0..usize::try_from(SPANS)? {
        quiet.measure(&mut stage, edits).await?;
        let attack = Attack::start(stage.server(), &device).await?;
        let count = usize::try_from(EVERY.as_millis() * u128::from(edits))?
            / usize::try_from(LOGIN_EVERY.as_millis())?;
        // numbers that no other span uses, nor the flood, which has the same device's key
        let numbers = (span + 1) * 10_000..(span + 1) * 10_000 + count.max(1);
        let asks = login_requests(stage.server(), &device, numbers).await?;
        let connection = Connection::open(stage.server().address()?, attack::source(0)).await?;
        let task = tokio::spawn(log_in(connection, asks));
        flooded.measure(&mut stage, edits).await?;
        logins.extend(task.await??);
        tally.add(&attack.stop().await?);
    }
    let figures = figures(quiet, flooded, &tally, logins, stage.missed())?;
    stage.stop().await?;
    Ok(figures)
}

/// What happened in all quiet spans, or in all flooded ones.
#[derive(Default)]
struct Span {
    times: Vec<Duration>,
    server_cpu: Duration,
}

impl Span {
    async fn measure(&mut self, stage: &mut Stage, edits: u32) -> Result<()> {
        let (before, cpu_before) = (stage.times().len(), stage.server().usage()?.cpu);
        stage.write_paced(edits, EVERY).await?;
        stage.wait_for_all().await?;
        let cpu = stage.server().usage()?.cpu;
        self.server_cpu += cpu.saturating_sub(cpu_before);
        let times = stage.times().get(before..);
        self.times.extend(times.context("times were lost")?);
        Ok(())
    }
}

/// A login's time, or nothing if it was refused.
type Login = Option<Duration>;

async fn login_requests(
    server: &Server,
    device: &Device,
    numbers: Range<usize>,
) -> Result<Vec<Vec<u8>>> {
    let (url, nonce) = (server.authenticate_url()?, owner::nonce(server).await?);
    let address = Address {
        url: &url,
        nonce: &nonce,
    };
    let login = |number| device.login(&device.proof(&address, number));
    Ok(numbers.map(login).collect())
}

async fn log_in(mut connection: Connection, requests: Vec<Vec<u8>>) -> Result<Vec<Login>> {
    let mut ticks = interval(LOGIN_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut logins = Vec::new();
    for request in requests {
        ticks.tick().await;
        let sent = Instant::now();
        let answer = connection.ask(&request).await?;
        logins.push((answer.status == 200).then(|| sent.elapsed()));
    }
    Ok(logins)
}

fn figures(
    mut quiet: Span,
    mut flooded: Span,
    tally: &Tally,
    logins: Vec<Login>,
    missed: usize,
) -> Result<Figures> {
    let mut figures = Figures::default();
    for percent in [50, 99] {
        let name = |kind| format!("seen p{percent}, {kind}");
        let before = figures.0.len();
        figures.percentile(&name("quiet"), &mut quiet.times, percent);
        figures.percentile(&name("flooded"), &mut flooded.times, percent);
        let [quiet, flooded] = figures.0.get(before..).context("no times")? else {
            anyhow::bail!("no edit has reached anybody");
        };
        let ratio = flooded.value / quiet.value;
        figures.add(&name("flooded to quiet"), ratio, Unit::Times);
    }
    figures.count("missed", missed);
    figures.rate("bad requests", tally.sent, tally.during);
    figures.count(
        "bad requests without an answer",
        tally.sent - tally.answered(),
    );
    for (status, count) in &tally.answers {
        figures.count(&format!("bad requests answered {status}"), *count);
    }
    let more = flooded.server_cpu.saturating_sub(quiet.server_cpu);
    let each = more.as_secs_f64() * 1e6 / as_f64(tally.sent.max(1));
    figures.add("server CPU per bad request", each, Unit::Microseconds);
    let mut times: Vec<_> = logins.iter().copied().flatten().collect();
    figures.count("logins meanwhile", times.len());
    figures.count("logins refused", logins.len() - times.len());
    figures.percentiles("login, flooded,", &mut times);
    Ok(figures)
}
