//! The memory of connections that have joined and do nothing.

use anyhow::Result;
use futures_util::future::try_join_all;
use tokio::task::JoinHandle;

use super::Bench;
use crate::client::Client;
use crate::figures::{Figures, Meter, Unit, kib_f64};
use crate::server::Server;

const JOINING_AT_ONCE: u32 = 50;

pub(super) async fn run(bench: &Bench, connections: u32) -> Result<Figures> {
    let connections = bench.scale.of(connections);
    let server = bench.server().await?;
    server.settle().await?;
    let before = server.usage()?.rss_kib;
    let meter = Meter::start(&server)?;
    let open = join(&server, connections).await?;
    let spent = meter.stop(&server).await?;
    let after = server.usage()?.rss_kib;
    let mut figures = Figures::default();
    figures.count(
        "still connected",
        open.iter().filter(|task| !task.is_finished()).count(),
    );
    figures.megabytes("RSS", after);
    figures.megabytes("RSS without them", before);
    let each = kib_f64(after.saturating_sub(before)) * 1.024 / f64::from(connections);
    figures.add("RSS of one", each, Unit::Kilobytes);
    figures.rate("joins", open.len(), spent.wall);
    open.iter().for_each(JoinHandle::abort);
    server.stop().await?;
    Ok(figures)
}

/// Opens connections that read for ever, so that the server's pings are answered. A task that has ended is one that was
/// cut off.
pub(super) async fn join(server: &Server, connections: u32) -> Result<Vec<JoinHandle<()>>> {
    let mut open = Vec::new();
    for first in (0..connections).step_by(JOINING_AT_ONCE as usize) {
        let names: Vec<_> = (first..connections.min(first + JOINING_AT_ONCE))
            .map(|n| format!("idle-{n}"))
            .collect();
        for mut client in
            try_join_all(names.iter().map(|name| Client::join(server.url(), name))).await?
        {
            open.push(tokio::spawn(
                async move { while client.next().await.is_ok() {} },
            ));
        }
    }
    Ok(open)
}
