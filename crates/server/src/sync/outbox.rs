//! What waits to be written to one socket: bounded, and never in the way of others.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use bytes::Bytes;
use tokio::sync::mpsc;

/// Bytes in an outbox beyond which the engine is asked to hold back what can wait.
const CONGESTED_BYTES: usize = 256 << 10;
/// Bytes in an outbox below which it may go on.
const DRAINED_BYTES: usize = 64 << 10;
/// Bytes in an outbox, beyond the largest frame, at which the socket is closed: its peer asks and asks, and does
/// not read.
const OUTBOX_BYTES_MAX: usize = engine::limits::FRAME_BYTES_MAX + (16 << 20);

/// Something to write.
pub(super) enum Outgoing {
    Frame(Bytes),
    /// The last thing that is written. The code is one of RFC 6455, section 7.4.
    Close {
        code: u16,
        reason: String,
    },
}

/// The group's end of an outbox.
pub(super) struct Outbox {
    queue: mpsc::UnboundedSender<Outgoing>,
    gauge: Arc<Gauge>,
}

/// The socket's end.
pub(super) struct OutboxReader {
    queue: mpsc::UnboundedReceiver<Outgoing>,
    gauge: Arc<Gauge>,
}

#[derive(Default)]
struct Gauge {
    bytes: AtomicUsize,
    congested: AtomicBool,
}

/// What putting a frame in did to an outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Fine,
    /// It has just become too much.
    Congested,
    /// It is hopeless.
    Overflowing,
}

pub(super) fn outbox() -> (Outbox, OutboxReader) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let gauge = Arc::new(Gauge::default());
    let reader = OutboxReader {
        queue: receiver,
        gauge: Arc::clone(&gauge),
    };
    (
        Outbox {
            queue: sender,
            gauge,
        },
        reader,
    )
}

impl Outbox {
    /// Puts a frame in. A socket that is gone takes nothing, and that is fine: its end is announced elsewhere.
    pub(super) fn send(&self, frame: Bytes) -> Level {
        let bytes = self.gauge.bytes.fetch_add(frame.len(), Ordering::AcqRel) + frame.len();
        drop(self.queue.send(Outgoing::Frame(frame)));
        if bytes > OUTBOX_BYTES_MAX {
            Level::Overflowing
        } else if bytes > CONGESTED_BYTES && !self.gauge.congested.swap(true, Ordering::AcqRel) {
            Level::Congested
        } else {
            Level::Fine
        }
    }

    /// Puts the last word in.
    pub(super) fn close(&self, code: u16, reason: String) {
        drop(self.queue.send(Outgoing::Close { code, reason }));
    }
}

impl OutboxReader {
    /// The next thing to write; nothing once the group has let go of the socket.
    pub(super) async fn next(&mut self) -> Option<Outgoing> {
        self.queue.recv().await
    }

    /// The next thing to write, if there is one already.
    pub(super) fn next_now(&mut self) -> Option<Outgoing> {
        self.queue.try_recv().ok()
    }

    /// Says that `bytes` have been written; whether that ended a congestion.
    pub(super) fn written(&self, bytes: usize) -> bool {
        let left = self.gauge.bytes.fetch_sub(bytes, Ordering::AcqRel) - bytes;
        left < DRAINED_BYTES
            && self.gauge.congested.load(Ordering::Acquire)
            && self.gauge.congested.swap(false, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_outbox_is_congested_once_and_drained_once() {
        let (outbox, mut reader) = outbox();
        let frame = || Bytes::from(vec![0; 100 << 10]);
        assert_eq!(
            [outbox.send(frame()), outbox.send(frame())],
            [Level::Fine; 2]
        );
        assert_eq!(outbox.send(frame()), Level::Congested);
        assert_eq!(outbox.send(frame()), Level::Fine, "it was said already");
        let mut drained = vec![];
        while let Some(Outgoing::Frame(frame)) = reader.next_now() {
            drained.push(reader.written(frame.len()));
        }
        assert_eq!(drained, [false, false, false, true]);
    }

    #[test]
    fn what_nobody_reads_overflows() {
        let (outbox, _reader) = outbox();
        let frame = Bytes::from(vec![0; 1 << 20]);
        let levels: Vec<_> = (0..=OUTBOX_BYTES_MAX >> 20)
            .map(|_| outbox.send(frame.clone()))
            .collect();
        assert_eq!(levels.last(), Some(&Level::Overflowing));
    }
}
