//! The two directions of a WebSocket over a stream. Neither has a buffer while nothing is under way: thousands of
//! sockets are idle most of the time.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    io::{self, IoSlice},
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use engine::OutFrame;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, ReadHalf, WriteHalf},
    task::yield_now,
};

use super::frame::{self, Received, Sent, Violation};

/// Bytes that are read at once. What one read brings may wait for the group, and is bounded by this.
const READ_BYTES: usize = 16 << 10;
/// How many reads in a row, of a peer that always has more to say, before others have their turn: what is read may be
/// thousands of pings, or of frames that are parts of nothing, which wait for nobody.
const READS_MAX: u8 = 8;
/// What is shared is copied behind what is not, up to this length, so that several frames go out in one system call; of
/// a longer one the copy would cost more.
const COPIED_BYTES: usize = 4 << 10;
/// The longest buffer that is kept for the next who writes.
const SPARE_BYTES_MAX: usize = 64 << 10;

thread_local! {
    /// What was read and not yet taken apart: never for longer than one call.
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
    /// A buffer for the next who writes. Mostly all is written at once and it comes back; who has to wait for a peer
    /// keeps it meanwhile.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What comes in.
pub(super) struct Incoming<S> {
    stream: ReadHalf<S>,
    frames: frame::Reader,
    /// What came together with what was taken.
    waiting: VecDeque<Received>,
    violation: Option<Violation>,
    /// How many reads in a row have brought something.
    reads: u8,
}

impl<S: AsyncRead> Incoming<S> {
    /// The incoming direction, of which the first bytes may have come with the handshake.
    pub(super) fn new(stream: ReadHalf<S>, early: &[u8]) -> Self {
        let mut incoming = Self {
            stream,
            frames: frame::Reader::default(),
            waiting: VecDeque::new(),
            violation: None,
            reads: 0,
        };
        if let Some(first) = incoming.take_apart(early) {
            incoming.waiting.push_front(first);
        }
        incoming
    }

    /// The next thing that was received; nothing once the stream has ended. May be dropped while it waits without
    /// losing anything.
    pub(super) async fn next(&mut self) -> Option<Result<Received, Violation>> {
        loop {
            if let Some(next) = self.waiting.pop_front() {
                if self.waiting.is_empty() {
                    self.waiting = VecDeque::new();
                }
                return Some(Ok(next));
            }
            if let Some(violation) = self.violation {
                return Some(Err(violation));
            }
            if self.reads >= READS_MAX {
                self.reads = 0;
                yield_now().await;
            }
            match poll_fn(|cx| self.poll_read(cx)).await {
                Ok(Some(next)) => return Some(Ok(next)),
                Ok(None) => {}
                Err(_) => return None,
            }
        }
    }

    /// Waits until the other side closes, or has answered our close. What it sends meanwhile is thrown away: were it
    /// left unread, the end of the connection would overtake our last words.
    pub(super) async fn answered(mut self) {
        while let Some(received) = self.next().await {
            match received {
                Ok(Received::Close(_)) => return,
                Ok(Received::Binary(_) | Received::Ping(_) | Received::Pong) => {}
                Err(_) => {
                    while poll_fn(|cx| self.poll_discard(cx)).await.is_ok() {}
                    return;
                }
            }
        }
    }

    /// Reads once; the first thing that is whole then, if any is. The end of the stream is an error.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Received>>> {
        READ.with_borrow_mut(|buffer| {
            let Poll::Ready(read) = poll_read_some(&mut self.stream, cx, buffer) else {
                self.reads = 0;
                return Poll::Pending;
            };
            self.reads += 1;
            Poll::Ready(Ok(self.take_apart(read?)))
        })
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        READ.with_borrow_mut(|buffer| poll_read_some(&mut self.stream, cx, buffer).map_ok(|_| ()))
    }

    /// The first whole thing in `read`; the others wait.
    fn take_apart(&mut self, mut read: &[u8]) -> Option<Received> {
        let mut first = None;
        loop {
            match self.frames.take(&mut read) {
                Ok(None) => return first,
                Ok(Some(next)) if first.is_none() => first = Some(next),
                Ok(Some(next)) => self.waiting.push_back(next),
                Err(violation) => {
                    self.violation = Some(violation);
                    return first;
                }
            }
        }
    }
}

/// Reads at least one byte.
fn poll_read_some<'b, S: AsyncRead>(
    stream: &mut ReadHalf<S>,
    cx: &mut Context<'_>,
    buffer: &'b mut [u8],
) -> Poll<io::Result<&'b [u8]>> {
    let mut read = ReadBuf::new(buffer);
    ready!(Pin::new(stream).poll_read(cx, &mut read))?;
    let length = read.filled().len();
    if length == 0 {
        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
    }
    Poll::Ready(Ok(buffer.get(..length).unwrap_or_default()))
}

/// What goes out.
pub(super) struct Outgoing<S> {
    stream: WriteHalf<S>,
    /// Whole frames, and perhaps the beginning of one that ends in `long`.
    heads: Vec<u8>,
    /// How much of it is written.
    written: usize,
    long: Bytes,
}

impl<S: AsyncWrite> Outgoing<S> {
    pub(super) fn new(stream: WriteHalf<S>) -> Self {
        Self {
            stream,
            heads: Vec::new(),
            written: 0,
            long: Bytes::new(),
        }
    }

    /// Hands a message over; it is written by the next [`Self::flush`], or before, if it is long.
    pub(super) async fn feed(&mut self, OutFrame { own, shared }: OutFrame) -> io::Result<()> {
        let copied = if shared.len() <= COPIED_BYTES {
            shared.len()
        } else {
            0
        };
        let heads = self.buffer();
        heads.reserve(frame::HEAD_BYTES_MAX + own.len() + copied);
        frame::put_head(heads, Sent::Binary, own.len() + shared.len());
        heads.extend_from_slice(&own);
        if copied == shared.len() {
            heads.extend_from_slice(&shared);
            return Ok(());
        }
        self.long = shared;
        self.flush().await
    }

    /// Hands over a frame that says something about the connection.
    pub(super) fn feed_control(&mut self, sent: Sent, payload: &[u8]) {
        frame::put(self.buffer(), sent, payload);
    }

    /// Where frames are put together.
    fn buffer(&mut self) -> &mut Vec<u8> {
        if self.heads.capacity() == 0 {
            self.heads = SPARE.take();
        }
        &mut self.heads
    }

    /// Writes what was handed over. Whoever drops it while it waits has lost nothing: the next one goes on.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let heads = self.heads.get(self.written..).unwrap_or_default();
            if heads.is_empty() && self.long.is_empty() {
                (self.written, self.long) = (0, Bytes::new());
                give_back(mem::take(&mut self.heads));
                return Pin::new(&mut self.stream).poll_flush(cx);
            }
            let stream = Pin::new(&mut self.stream);
            let count = ready!(if self.long.is_empty() {
                stream.poll_write(cx, heads)
            } else {
                stream.poll_write_vectored(cx, &[IoSlice::new(heads), IoSlice::new(&self.long)])
            })?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_heads = count.min(heads.len());
            self.written += of_heads;
            self.long.advance(count - of_heads);
        }
    }
}

/// Keeps a buffer for the next who writes.
fn give_back(mut buffer: Vec<u8>) {
    if (1..=SPARE_BYTES_MAX).contains(&buffer.capacity()) {
        buffer.clear();
        SPARE.set(buffer);
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use tokio::task::{LocalSet, spawn_local};

    use super::*;

    /// A peer that always has one more ping to send, up to an end.
    struct Pings {
        read: Rc<Cell<usize>>,
    }

    const ALL_BYTES: usize = 16 << 20;
    /// An empty ping, masked with zeros.
    const PING: [u8; 6] = [0x89, 0x80, 0, 0, 0, 0];

    impl AsyncRead for Pings {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            while buffer.remaining() >= PING.len() && self.read.get() < ALL_BYTES {
                buffer.put_slice(&PING);
                self.read.set(self.read.get() + PING.len());
            }
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Pings {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_peer_that_pings_without_end_lets_the_others_have_their_turn() {
        let read = Rc::new(Cell::new(0));
        let pings = Pings {
            read: Rc::clone(&read),
        };
        let turns = Rc::new(Cell::new(0));
        let others = Rc::clone(&turns);
        let both = async move {
            let other = spawn_local(async move {
                loop {
                    others.set(others.get() + 1);
                    yield_now().await;
                }
            });
            let reader = spawn_local(async move {
                let (incoming, _outgoing) = tokio::io::split(pings);
                let mut incoming = Incoming::new(incoming, &[]);
                while incoming.next().await.is_some() {}
            });
            reader.await.unwrap();
            other.abort();
        };
        LocalSet::new().run_until(both).await;
        assert!(read.get() >= ALL_BYTES, "all was read");
        let between_turns = ALL_BYTES / turns.get();
        assert!(
            between_turns <= usize::from(READS_MAX) * READ_BYTES,
            "{between_turns} bytes"
        );
    }
}
