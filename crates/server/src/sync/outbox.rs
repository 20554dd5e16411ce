//! What waits to be written to one socket: bounded, and never in the way of others.

use std::{
    mem,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use engine::OutFrame;
use smallvec::SmallVec;
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

/// Bytes in an outbox beyond which the engine is asked to hold back what can wait.
const CONGESTED_BYTES: usize = 256 << 10;
/// Bytes in an outbox below which it may go on.
const DRAINED_BYTES: usize = 64 << 10;
/// Bytes of short frames in an outbox at which the socket is closed: its peer asks and asks, and does not read.
const OUTBOX_BYTES_MAX: usize = engine::limits::FRAME_BYTES_MAX + (16 << 20);
/// A longer frame is a document, which is as long as it is. The engine has one such read for a peer at a time, and none
/// while its outbox is full.
const SHORT_FRAME_BYTES_MAX: usize = engine::limits::READING_BYTES_MAX;

/// How long a peer that is cut off may take for what is half written to it and for our last words.
const LAST_WORDS_MAX: Duration = Duration::from_millis(500);
/// How long a peer may take for what waited for it before our close.
const LEAVE_MAX: Duration = Duration::from_secs(30);

/// Something to write.
pub(super) enum Outgoing {
    Frame(OutFrame),
    /// A question whether the peer is there.
    Ping,
    /// The answer to one.
    Pong(Vec<u8>),
    /// The last thing that is written. The code is one of RFC 6455, section 7.4.
    Close {
        code: u16,
        reason: String,
    },
}

/// What frames weigh in an outbox, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Weight {
    bytes: usize,
    /// Of those that are short.
    short_bytes: usize,
}

impl Weight {
    pub(super) fn of(frame: &OutFrame) -> Self {
        let bytes = frame.len();
        let is_short = bytes <= SHORT_FRAME_BYTES_MAX;
        Self {
            bytes,
            short_bytes: if is_short { bytes } else { 0 },
        }
    }

    pub(super) fn bytes(self) -> usize {
        self.bytes
    }

    pub(super) fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.short_bytes += other.short_bytes;
    }
}

/// What waits; mostly one frame, for which nothing is allocated.
type Queue = SmallVec<[Outgoing; 1]>;

/// The group's end of an outbox.
pub(super) struct Outbox(Arc<Shared>);

/// The socket's end.
pub(super) struct OutboxReader {
    shared: Arc<Shared>,
    /// Taken from the queue together, to lock it once.
    taken: <Queue as IntoIterator>::IntoIter,
    is_cut: bool,
}

/// Where what only says that somebody is there is put.
pub(super) struct SignsOfLife(Arc<Shared>);

/// Where it shows that the group is done with a socket.
pub(super) struct Ending(Arc<Shared>);

impl Ending {
    /// Waits until the group is done with the socket, and then for as long as its peer has for what waits for it; or, if
    /// it has been cut off, for our last words. It may give signs of life as long as it wants.
    pub(super) async fn overdue(&self) {
        self.until(|shared| shared.is_over() || shared.is_cut())
            .await;
        let mut patience = pin!(sleep(LEAVE_MAX));
        tokio::select! {
            biased;
            () = self.until(Shared::is_cut) => {}
            () = patience.as_mut() => return,
        }
        patience.as_mut().reset(Instant::now() + LAST_WORDS_MAX);
        patience.await;
    }

    async fn until(&self, is_so: impl Fn(&Shared) -> bool) {
        while !is_so(&self.0) {
            self.0.ending.notified().await;
        }
    }
}

impl SignsOfLife {
    /// Asks the peer for one. A question that was not written yet is enough.
    pub(super) fn ping(&self) {
        self.0.queue().ping = true;
        self.0.filled.notify_one();
    }

    /// Puts an answer to a ping in. One that was not written yet is dropped, so that nobody fills an outbox with pings.
    /// Source: RFC 6455, section 5.5.3.
    pub(super) fn pong(&self, payload: Vec<u8>) {
        self.0.queue().pong = Some(payload);
        self.0.filled.notify_one();
    }
}

/// Thousands of sockets are idle most of the time: an empty outbox has nothing on the heap but this.
#[derive(Default)]
struct Shared {
    queue: Mutex<Waiting>,
    filled: Notify,
    is_abandoned: AtomicBool,
    /// The last word was put in.
    is_closed: AtomicBool,
    is_cut: AtomicBool,
    ending: Notify,
    bytes: AtomicUsize,
    short_bytes: AtomicUsize,
    congested: AtomicBool,
}

#[derive(Default)]
struct Waiting {
    outgoing: Queue,
    ping: bool,
    pong: Option<Vec<u8>>,
}

impl Shared {
    /// A panic while the lock was held leaves a queue that is whole all the same.
    fn queue(&self) -> MutexGuard<'_, Waiting> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.is_closed.load(Ordering::Acquire) || self.is_abandoned.load(Ordering::Acquire)
    }

    fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Acquire)
    }

    fn push(&self, outgoing: Outgoing) {
        self.queue().outgoing.push(outgoing);
        self.filled.notify_one();
    }
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
    let shared = Arc::new(Shared::default());
    let reader = OutboxReader {
        shared: Arc::clone(&shared),
        taken: Queue::new().into_iter(),
        is_cut: false,
    };
    (Outbox(shared), reader)
}

impl Outbox {
    /// Puts a frame in. A socket that is gone takes nothing, and that is fine: its end is announced elsewhere.
    pub(super) fn send(&self, frame: OutFrame) -> Level {
        let shared = &self.0;
        let weight = Weight::of(&frame);
        let add = |sum: &AtomicUsize, bytes| sum.fetch_add(bytes, Ordering::AcqRel) + bytes;
        let bytes = add(&shared.bytes, weight.bytes);
        let short_bytes = add(&shared.short_bytes, weight.short_bytes);
        shared.push(Outgoing::Frame(frame));
        if short_bytes > OUTBOX_BYTES_MAX {
            Level::Overflowing
        } else if bytes > CONGESTED_BYTES && !shared.congested.swap(true, Ordering::AcqRel) {
            Level::Congested
        } else {
            Level::Fine
        }
    }

    /// Whether it is too much now, so that the socket will say once it is not.
    pub(super) fn is_congested(&self) -> bool {
        self.0.congested.load(Ordering::Acquire)
    }

    /// Puts the last word in, and takes out what waits but for the frame that was put in last, which says why: a peer
    /// whose right to it has ended gets no more of it, however slowly it reads.
    pub(super) fn cut(&self, code: u16, reason: String) {
        self.cut_to(1, code, reason);
    }

    /// Puts the last word in, and takes out all that waits: it is more than can be kept.
    pub(super) fn give_up(&self, code: u16, reason: String) {
        self.cut_to(0, code, reason);
    }

    /// Leaves so many of the frames that were put in last.
    fn cut_to(&self, frames: usize, code: u16, reason: String) {
        let shared = &self.0;
        shared.is_cut.store(true, Ordering::Release);
        {
            let mut queue = shared.queue();
            let before = queue.outgoing.len().saturating_sub(frames);
            queue.outgoing = queue.outgoing.drain(before..).collect();
        }
        self.close(code, reason);
    }

    /// Puts the last word in. What waits before it has its time.
    pub(super) fn close(&self, code: u16, reason: String) {
        self.0.push(Outgoing::Close { code, reason });
        self.0.is_closed.store(true, Ordering::Release);
        self.0.ending.notify_one();
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.0.is_abandoned.store(true, Ordering::Release);
        self.0.filled.notify_one();
        self.0.ending.notify_one();
    }
}

impl OutboxReader {
    /// Where it shows that the group is done with the socket.
    pub(super) fn ending(&self) -> Ending {
        Ending(Arc::clone(&self.shared))
    }

    /// Where pings and the answers to them are put.
    pub(super) fn signs_of_life(&self) -> SignsOfLife {
        SignsOfLife(Arc::clone(&self.shared))
    }

    /// The next thing to write; nothing once the group has let go of the socket.
    pub(super) async fn next(&mut self) -> Option<Outgoing> {
        loop {
            // what is read first was set last
            let is_abandoned = self.shared.is_abandoned.load(Ordering::Acquire);
            if let Some(next) = self.next_now() {
                return Some(next);
            }
            if is_abandoned {
                return None;
            }
            self.shared.filled.notified().await;
        }
    }

    /// The next thing to write, if there is one already.
    pub(super) fn next_now(&mut self) -> Option<Outgoing> {
        if !self.is_cut && self.shared.is_cut() {
            self.is_cut = true;
            self.taken = Queue::new().into_iter();
        }
        if let Some(next) = self.taken.next() {
            return Some(next);
        }
        let mut queue = self.shared.queue();
        if let Some(payload) = queue.pong.take() {
            return Some(Outgoing::Pong(payload));
        }
        if mem::take(&mut queue.ping) {
            return Some(Outgoing::Ping);
        }
        // an idle socket keeps no queue
        self.taken = mem::take(&mut queue.outgoing).into_iter();
        drop(queue);
        self.taken.next()
    }

    /// Says what has been written; whether that ended a congestion.
    pub(super) fn written(&self, weight: Weight) -> bool {
        let Shared {
            bytes: waiting,
            short_bytes,
            congested,
            ..
        } = &*self.shared;
        short_bytes.fetch_sub(weight.short_bytes, Ordering::AcqRel);
        let left = waiting.fetch_sub(weight.bytes, Ordering::AcqRel) - weight.bytes;
        left < DRAINED_BYTES
            && congested.load(Ordering::Acquire)
            && congested.swap(false, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_outbox_is_congested_once_and_drained_once() {
        let (outbox, mut reader) = outbox();
        let frame = || OutFrame::from(vec![0; 100 << 10]);
        assert_eq!(
            [outbox.send(frame()), outbox.send(frame())],
            [Level::Fine; 2]
        );
        assert_eq!(outbox.send(frame()), Level::Congested);
        assert_eq!(outbox.send(frame()), Level::Fine, "it was said already");
        let mut drained = vec![];
        while let Some(Outgoing::Frame(frame)) = reader.next_now() {
            drained.push(reader.written(Weight::of(&frame)));
        }
        assert_eq!(drained, [false, false, false, true]);
    }

    /// Otherwise it would not say that it has drained, and what was left would never be sent.
    #[test]
    fn what_the_engine_sends_at_once_to_who_catches_up_makes_an_outbox_congested() {
        let (outbox, _reader) = outbox();
        let frames = engine::limits::CATCH_UP_BYTES_MAX / 128;
        let levels: Vec<_> = (0..frames)
            .map(|_| outbox.send(vec![0; 128].into()))
            .collect();
        assert!(levels.contains(&Level::Congested));
    }

    #[tokio::test]
    async fn what_was_put_in_comes_out_in_its_order_and_then_nothing_more() {
        let (outbox, mut reader) = outbox();
        let reading = tokio::spawn(async move {
            let mut seen = vec![];
            while let Some(next) = reader.next().await {
                seen.push(match next {
                    Outgoing::Frame(frame) => frame.len(),
                    Outgoing::Ping => 0,
                    Outgoing::Pong(payload) => payload.len(),
                    Outgoing::Close { code, .. } => code.into(),
                });
            }
            seen
        });
        for length in 1..=100 {
            outbox.send(vec![0; length].into());
            tokio::task::yield_now().await;
        }
        outbox.close(1008, "over".into());
        drop(outbox);
        let expected: Vec<usize> = (1..=100).chain([1008]).collect();
        assert_eq!(reading.await.unwrap(), expected);
    }

    #[test]
    fn of_many_pings_the_last_is_answered_and_one_is_enough() {
        let (_outbox, mut reader) = outbox();
        let signs = reader.signs_of_life();
        for number in 0..100 {
            signs.ping();
            signs.pong(vec![number]);
        }
        let pong = reader.next_now();
        assert!(matches!(pong, Some(Outgoing::Pong(payload)) if payload == [99]));
        assert!(matches!(reader.next_now(), Some(Outgoing::Ping)));
        assert!(reader.next_now().is_none());
    }

    #[test]
    fn who_is_cut_off_gets_the_reason_and_nothing_else_that_waits() {
        let (outbox, mut reader) = outbox();
        for length in 1..=3 {
            outbox.send(vec![0; length].into());
        }
        assert!(reader.next_now().is_some(), "the others are taken with it");
        outbox.send(vec![0; 4].into());
        outbox.send(vec![0; 5].into());
        outbox.cut(1008, "over".into());
        assert!(matches!(reader.next_now(), Some(Outgoing::Frame(why)) if why.len() == 5));
        assert!(matches!(
            reader.next_now(),
            Some(Outgoing::Close { code: 1008, .. })
        ));
        assert!(reader.next_now().is_none());
    }

    #[test]
    fn who_is_given_up_gets_the_reason_alone() {
        let (outbox, mut reader) = outbox();
        for length in 1..=3 {
            outbox.send(vec![0; length].into());
        }
        outbox.give_up(1008, "too much".into());
        assert!(matches!(
            reader.next_now(),
            Some(Outgoing::Close { code: 1008, .. })
        ));
        assert!(reader.next_now().is_none());
    }

    #[test]
    fn what_nobody_reads_overflows() {
        let (outbox, _reader) = outbox();
        let frame = OutFrame::from(vec![0; 1 << 20]);
        let levels: Vec<_> = (0..=OUTBOX_BYTES_MAX >> 20)
            .map(|_| outbox.send(frame.clone()))
            .collect();
        assert_eq!(levels.last(), Some(&Level::Overflowing));
    }

    /// Who asked for it was closed, each time that it came back.
    #[test]
    fn a_document_goes_however_long_it_is_and_short_frames_behind_it_are_counted_alone() {
        let (outbox, mut reader) = outbox();
        let document = OutFrame::from(vec![0; OUTBOX_BYTES_MAX + 1]);
        assert_eq!(outbox.send(document), Level::Congested);
        let short = OutFrame::from(vec![0; 1 << 20]);
        let in_time = OUTBOX_BYTES_MAX >> 20;
        for _ in 0..in_time {
            assert_eq!(outbox.send(short.clone()), Level::Fine);
        }
        assert_eq!(outbox.send(short.clone()), Level::Overflowing);
        // written in one batch, they are not taken for one long frame
        let mut written = Weight::default();
        while let Some(Outgoing::Frame(frame)) = reader.next_now() {
            written.add(Weight::of(&frame));
        }
        assert!(reader.written(written));
        assert_eq!(outbox.send(short), Level::Congested);
    }
}
