//! A device that the owner has approved logs in, again and again.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;

use super::Bench;
use crate::device::{Address, Algorithm, Device};
use crate::figures::{Figures, Meter};
use crate::http::Connection;
use crate::owner;
use crate::server::Server;

const LOGINS: u32 = 20_000;
const CONNECTIONS: usize = 16;
/// So many more, one after the other over one connection.
const ALONE: u32 = 500;

pub(super) async fn run(bench: &Bench) -> Result<Figures> {
    let server = bench.owned_server().await?;
    let mut figures = Figures::default();
    for (algorithm, number) in [(Algorithm::Es256, 1), (Algorithm::Es256k, 2)] {
        let device = Device::new(algorithm, number)?;
        owner::approve(&server, &device).await?;
        measure(bench, &server, &device, algorithm.name(), &mut figures).await?;
    }
    server.stop().await?;
    Ok(figures)
}

async fn measure(
    bench: &Bench,
    server: &Server,
    device: &Device,
    name: &str,
    figures: &mut Figures,
) -> Result<()> {
    let count = usize::try_from(bench.scale.of(LOGINS))?;
    let alone = usize::try_from(bench.scale.of(ALONE))?;
    let mut requests = requests(server, device, count + alone).await?;
    let mut alone = over_one(server, &requests.split_off(count)).await?;
    server.settle().await?;
    let meter = Meter::start(server)?;
    let lists = requests.chunks(count.div_ceil(CONNECTIONS));
    let times = try_join_all(lists.map(|list| over_one(server, list))).await?;
    let spent = meter.stop(server).await?;
    let mut times = times.concat();
    figures.rate(&format!("{name} logins"), count, spent.wall);
    figures.percentiles(&format!("{name} login"), &mut times);
    figures.percentiles(&format!("{name} login, one at a time,"), &mut alone);
    figures.cpu_each(&format!("{name} server CPU per login"), &spent, count);
    figures.seconds(&format!("{name} server CPU"), spent.server_cpu);
    figures.seconds(&format!("{name} generator CPU"), spent.generator_cpu);
    Ok(())
}

/// Made before the clock runs: signing is the device's work.
async fn requests(server: &Server, device: &Device, count: usize) -> Result<Vec<Vec<u8>>> {
    let (url, nonce) = (server.authenticate_url()?, owner::nonce(server).await?);
    let address = Address {
        url: &url,
        nonce: &nonce,
    };
    let login = |number| device.login(&device.proof(&address, number));
    Ok((1..=count).map(login).collect())
}

/// The next when the last is answered.
async fn over_one(server: &Server, requests: &[Vec<u8>]) -> Result<Vec<Duration>> {
    let mut connection = Connection::open(server.address()?, Ipv4Addr::LOCALHOST).await?;
    let mut times = Vec::new();
    for request in requests {
        let sent = Instant::now();
        let answer = connection.ask(request).await?;
        times.push(sent.elapsed());
        ensure!(
            answer.status == 200,
            "a login was answered {}: {}",
            answer.status,
            String::from_utf8_lossy(&answer.body)
        );
    }
    Ok(times)
}
