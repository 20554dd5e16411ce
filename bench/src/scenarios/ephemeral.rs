//! Presence: cursors and the like, which are passed on and never stored.

use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Bench;
use crate::client::Client;
use crate::figures::{Figures, Meter};
use crate::history;
use crate::wire::Incoming;

const READERS: usize = 50;
const MESSAGES: u32 = 1_000;
const EVERY: Duration = Duration::from_millis(10);
const MESSAGE_BYTES: usize = 100;
/// After this long without one more, what has not come is missed.
const SILENCE: Duration = Duration::from_secs(5);

pub(super) async fn run(bench: &Bench) -> Result<Figures> {
    let prepared = history::prepare(0, &history::text_document(0, super::push::CHANGES)?)?;
    let count = bench.scale.of(MESSAGES);
    let server = bench.server().await?;
    let mut writer = Client::join(server.url(), "bench-writer").await?;
    writer.push(&prepared).await?;
    let (report, mut seen) = mpsc::unbounded_channel();
    for number in 0..READERS {
        let mut reader = Client::join(server.url(), &format!("reader-{number}")).await?;
        reader.pull(&prepared).await?;
        tokio::spawn(listen(reader, report.clone()));
    }
    let frames = (0..count)
        .map(|number| writer.ephemeral_frame(&prepared.id, u64::from(number) + 1, &payload(number)))
        .collect::<Result<Vec<_>>>()?;
    meanwhile(&mut writer, server.settle()).await??;
    let meter = Meter::start(&server)?;
    let mut sent = Vec::new();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for frame in frames {
        meanwhile(&mut writer, ticks.tick()).await?;
        sent.push(Instant::now());
        writer.send(frame).await?;
    }
    let due = sent.len() * READERS;
    let mut times = Vec::new();
    while times.len() < due
        && let Ok(Some((number, at))) = timeout(SILENCE, seen.recv()).await
    {
        let at: Instant = at;
        times.push(at - *sent.get(number).context("a message that was never sent")?);
    }
    let spent = meter.stop(&server).await?;
    let mut figures = Figures::default();
    figures.percentiles("seen", &mut times);
    figures.count("missed", due - times.len());
    figures.cpu_each("server CPU per update", &spent, times.len());
    figures.cpu(&spent);
    server.stop().await?;
    Ok(figures)
}

/// Waits for `event`, and reads what comes meanwhile: a peer that answers no ping is cut off.
async fn meanwhile<T>(writer: &mut Client, event: impl Future<Output = T>) -> Result<T> {
    let mut event = pin!(event);
    loop {
        tokio::select! {
            outcome = event.as_mut() => return Ok(outcome),
            message = writer.next() => drop(message?),
        }
    }
}

/// The message's number as CBOR bytes, and filling.
fn payload(number: u32) -> Vec<u8> {
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(MESSAGE_BYTES, 0);
    let mut cbor = minicbor::Encoder::new(Vec::new());
    cbor.bytes(&payload).expect("a Vec takes every byte");
    cbor.into_writer()
}

fn number_of(data: &[u8]) -> Option<usize> {
    let number = minicbor::Decoder::new(data).bytes().ok()?.first_chunk()?;
    usize::try_from(u32::from_be_bytes(*number)).ok()
}

async fn listen(mut reader: Client, report: mpsc::UnboundedSender<(usize, Instant)>) {
    while let Ok(message) = reader.next().await {
        if let Incoming::Ephemeral(data) = message {
            let news = number_of(&data).map(|number| (number, Instant::now()));
            if news.is_none_or(|news| report.send(news).is_err()) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_says_its_number() {
        assert_eq!(number_of(&payload(777)), Some(777));
    }
}
