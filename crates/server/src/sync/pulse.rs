//! Whether there is still somebody at the other end: any byte that comes in says so, and any that goes out after the
//! way was blocked, for then the other end has taken what was before it.
//!
//! Looking at whole messages instead would cut off whoever needs a minute for a long one.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, sleep_until},
};

/// When the last sign of life came.
#[derive(Clone)]
pub(crate) struct Pulse(Arc<Beat>);

struct Beat {
    started: Instant,
    /// Since then, in milliseconds.
    last_ms: AtomicU64,
    /// Whether nobody listens just now, for a reason of ours.
    is_excused: AtomicBool,
}

impl Pulse {
    pub(crate) fn new() -> Self {
        let started = Instant::now();
        Self(Arc::new(Beat {
            started,
            last_ms: AtomicU64::new(0),
            is_excused: AtomicBool::new(false),
        }))
    }

    /// Waits until there has been no sign of life for that long.
    pub(crate) async fn silent_for(&self, time: Duration) {
        loop {
            let dead_at = self.last() + time;
            if dead_at <= Instant::now() {
                return;
            }
            sleep_until(dead_at).await;
        }
    }

    /// Nobody listens for as long as this lives, for a reason of ours: the other end cannot be silent meanwhile.
    pub(super) fn excuse(&self) -> Excuse<'_> {
        self.0.is_excused.store(true, Ordering::Relaxed);
        Excuse(self)
    }

    /// When the last sign of life came.
    pub(super) fn last(&self) -> Instant {
        if self.0.is_excused.load(Ordering::Relaxed) {
            return Instant::now();
        }
        self.0.started + Duration::from_millis(self.0.last_ms.load(Ordering::Relaxed))
    }

    pub(super) fn beat(&self) {
        let ms = u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.last_ms.store(ms, Ordering::Relaxed);
    }
}

/// A time in which the other end is not expected to be heard.
pub(super) struct Excuse<'a>(&'a Pulse);

impl Drop for Excuse<'_> {
    fn drop(&mut self) {
        self.0.0.is_excused.store(false, Ordering::Relaxed);
        self.0.beat();
    }
}

/// A stream whose signs of life are noted.
pub(crate) struct Watched<S> {
    stream: S,
    pulse: Pulse,
    is_blocked: bool,
}

impl<S> Watched<S> {
    pub(crate) fn new(stream: S, pulse: Pulse) -> Self {
        Self {
            stream,
            pulse,
            is_blocked: false,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
        if buffer.filled().len() > before {
            self.pulse.beat();
        }
        Poll::Ready(outcome)
    }
}

impl<S> Watched<S> {
    /// Gives the stream back.
    pub(crate) fn into_inner(self) -> S {
        self.stream
    }

    /// Notes what became of a write.
    fn wrote(&mut self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &outcome {
            Poll::Pending => self.is_blocked = true,
            Poll::Ready(Ok(_)) if self.is_blocked => {
                self.is_blocked = false;
                self.pulse.beat();
            }
            Poll::Ready(_) => {}
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.wrote(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
