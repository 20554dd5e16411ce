//! What the machine can do at most, whatever the server: messages through a WebSocket, and commits to the disk.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;

use super::{Bench, bare_fanout::Audience};
use crate::client;
use crate::figures::{Figures, Meter, Unit, as_f64};
use crate::process;

const RUN: Duration = Duration::from_secs(3);
/// Where few things happen in a second; the kernel counts CPU time in steps of 10 ms.
const RUN_PACED: Duration = Duration::from_secs(20);
const PAGE_BYTES: usize = 4096;

/// Through a child process, as the servers are one.
pub(super) async fn echo(bench: &Bench) -> Result<Figures> {
    let server = bench.server().await?;
    let mut figures = Figures::default();
    let meter = Meter::start(&server)?;
    let (small, during) = echoed(server.url(), 200, 64).await?;
    figures.rate("echo of 200 B", small, during);
    let (large, during) = echoed(server.url(), 100_000, 8).await?;
    let megabytes = as_f64(large) * 0.1 / during.as_secs_f64();
    figures.add("echo of 100 kB", megabytes, Unit::MegabytesPerSecond);
    figures.cpu(&meter.stop(&server).await?);
    server.stop().await?;
    Ok(figures)
}

/// Sends `at_once` messages, waits until they are back, and so on.
async fn echoed(url: &str, bytes: usize, at_once: usize) -> Result<(usize, Duration)> {
    let mut socket = client::open(url).await?;
    let message = Message::Binary(Bytes::from(vec![0x5a; bytes]));
    let (started, mut count) = (Instant::now(), 0);
    while started.elapsed() < RUN {
        for _ in 0..at_once {
            socket.feed(message.clone()).await?;
        }
        socket.flush().await?;
        for _ in 0..at_once {
            socket.next().await.context("the echo ended")??;
        }
        count += at_once;
    }
    Ok((count, started.elapsed()))
}

/// The child's side: sends back what comes, until it is ended.
pub(crate) async fn echo_server() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!(
        "{}",
        serde_json::json!({"url": format!("ws://{}", listener.local_addr()?)})
    );
    let audience = Audience::default();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let audience = audience.clone();
        tokio::spawn(async move {
            let mut socket = tokio_tungstenite::accept_async(stream).await?;
            while let Some(message) = socket.next().await {
                let message = message?;
                if let Message::Text(role) = &message {
                    return audience.serve(socket, role).await;
                }
                if message.is_binary() {
                    socket.send(message).await?;
                }
            }
            Ok::<_, anyhow::Error>(())
        });
    }
}

/// One writer, one file: what a commit costs that is not shared, at the end of a file that grows, and in one that has its
/// length already, as a write-ahead log has once it is begun anew.
///
/// The second also as often as `fanout` commits: who commits without a pause finds everything awake, and pays a fraction.
pub(super) fn fsync(bench: &Bench) -> Result<Figures> {
    std::fs::create_dir_all(&bench.scratch)?;
    let directory = tempfile::TempDir::with_prefix_in("fsync-", &bench.scratch)?;
    let mut file = File::create(directory.path().join("log"))?;
    let mut figures = Figures::default();
    let append = Commits {
        name: "append 4 kB and fdatasync".to_owned(),
        during: RUN,
        every: Duration::ZERO,
        file_bytes: u64::MAX,
    };
    append.run(&mut file, &mut figures)?;
    let overwrite = Commits {
        name: "overwrite 4 kB and fdatasync".to_owned(),
        file_bytes: file.metadata()?.len(),
        ..append
    };
    overwrite.run(&mut file, &mut figures)?;
    for hertz in [10, 40] {
        let paced = Commits {
            name: format!("the same {hertz} times a second"),
            during: RUN_PACED,
            every: Duration::from_secs(1) / hertz,
            ..overwrite
        };
        paced.run(&mut file, &mut figures)?;
    }
    directory.close()?;
    Ok(figures)
}

/// Commits over and over.
struct Commits {
    name: String,
    during: Duration,
    /// From one to the next.
    every: Duration,
    /// Where the file is begun anew.
    file_bytes: u64,
}

impl Commits {
    fn run(&self, file: &mut File, figures: &mut Figures) -> Result<()> {
        let Self { name, during, .. } = self;
        let mut times = Vec::new();
        file.rewind()?;
        let (started, cpu_before) = (Instant::now(), process::generator_cpu()?);
        let mut next = started;
        while started.elapsed() < *during {
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            next += self.every;
            if file.stream_position()? >= self.file_bytes {
                file.rewind()?;
            }
            let before = Instant::now();
            file.write_all(&[0x5a; PAGE_BYTES])?;
            file.sync_data()?;
            times.push(before.elapsed());
        }
        let cpu = process::generator_cpu()? - cpu_before;
        figures.rate(name, times.len(), started.elapsed());
        let each = cpu.as_secs_f64() * 1e6 / as_f64(times.len().max(1));
        figures.add(&format!("{name}: CPU of one"), each, Unit::Microseconds);
        figures.percentiles(name, &mut times);
        Ok(())
    }
}
