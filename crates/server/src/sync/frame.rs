//! WebSocket frames: those of clients taken apart, ours made. Pure.
//!
//! Source: RFC 6455, section 5. Clients mask, we do not; nobody extends the protocol here. A connection that is at
//! rest, which most are, holds no buffer: what was read is in the buffer of its reader until it is taken, and only what
//! is left of a frame that has not come whole is kept.

#[cfg(any(test, feature = "fuzz"))]
pub(super) mod fuzz;

use bytes::Bytes;
use engine::limits::FRAME_BYTES_MAX;

const FINAL: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;
/// The longest payload of a frame that says something about the connection. Source: RFC 6455, section 5.5.
const CONTROL_BYTES_MAX: usize = 125;
/// The longest head of a frame: two bytes, a length of eight, a mask of four.
pub(super) const HEAD_BYTES_MAX: usize = 14;
/// What is set aside at first for a payload that has only begun; more once it has come.
const FIRST_BYTES: usize = 16 << 10;

/// What a client has sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Received {
    /// A whole binary message.
    Binary(Bytes),
    /// To be answered with the same bytes.
    Ping(Vec<u8>),
    /// An answer to our ping.
    Pong,
    /// It wants to end, or agrees to; with what it says of it, to be said back.
    Close(Vec<u8>),
}

/// Why nothing more can be read from a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    /// A text, which nobody here reads.
    #[error("only binary frames are understood")]
    Text,
    /// Longer than a message may be.
    #[error("the frame is too long")]
    TooLong,
    /// No frame, or none that may come there.
    #[error("malformed frame")]
    Malformed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Kind {
    fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// A frame's head, which has been found sound.
#[derive(Debug, Clone, Copy)]
struct Head {
    kind: Kind,
    is_final: bool,
    length: usize,
    mask: [u8; 4],
}

/// Takes the bytes of one client apart, in whatever pieces they come.
#[derive(Default)]
pub(super) struct Reader {
    /// A head of which a part has come.
    head: Vec<u8>,
    /// A frame of which the payload has not come whole.
    begun: Option<Box<Frame>>,
    /// The frames so far of a message in several.
    message: Option<Vec<u8>>,
}

/// A frame, and what has come of its payload.
struct Frame {
    head: Head,
    payload: Vec<u8>,
}

impl Reader {
    /// Takes bytes off the front of `input`, until something is whole; nothing if all are taken and nothing is.
    ///
    /// # Errors
    /// [`Violation`]; what follows means nothing then.
    pub(super) fn take(&mut self, input: &mut &[u8]) -> Result<Option<Received>, Violation> {
        loop {
            let mut frame = match (self.begun.take(), input.is_empty()) {
                (Some(begun), _) => *begun,
                (None, true) => return Ok(None),
                (None, false) => match self.head(input)? {
                    Some(head) => Frame::begin(head, input.len()),
                    None => return Ok(None),
                },
            };
            frame.fill(input);
            if frame.payload.len() < frame.head.length {
                self.begun = Some(Box::new(frame));
                return Ok(None);
            }
            if let Some(received) = self.whole(frame)? {
                return Ok(Some(received));
            }
        }
    }

    /// The next head, if it has come whole.
    fn head(&mut self, input: &mut &[u8]) -> Result<Option<Head>, Violation> {
        let kept = self.head.len();
        let found = if kept == 0 {
            Head::parse(input)?
        } else {
            let room = HEAD_BYTES_MAX - kept;
            let mut both = self.head.clone();
            both.extend_from_slice(input.get(..room).unwrap_or(input));
            Head::parse(&both)?
        };
        let Some((head, length)) = found else {
            self.head.extend_from_slice(input);
            *input = &[];
            return Ok(None);
        };
        self.check(&head)?;
        self.head = Vec::new();
        *input = input.get(length - kept..).unwrap_or_default();
        Ok(Some(head))
    }

    /// Whether a frame may come now, and is not too long.
    fn check(&self, head: &Head) -> Result<(), Violation> {
        let so_far = match (head.kind, &self.message) {
            (Kind::Continuation, Some(message)) => message.len(),
            (Kind::Continuation, None) | (Kind::Text | Kind::Binary, Some(_)) => {
                return Err(Violation::Malformed);
            }
            (Kind::Text, None) => return Err(Violation::Text),
            (Kind::Binary, None) | (Kind::Close | Kind::Ping | Kind::Pong, _) => 0,
        };
        if head.length > FRAME_BYTES_MAX - so_far {
            return Err(Violation::TooLong);
        }
        Ok(())
    }

    /// What a frame says; nothing if more of its message follows.
    fn whole(&mut self, Frame { head, payload }: Frame) -> Result<Option<Received>, Violation> {
        let message = match head.kind {
            Kind::Close => return closing(payload).map(|said| Some(Received::Close(said))),
            Kind::Ping => return Ok(Some(Received::Ping(payload))),
            Kind::Pong => return Ok(Some(Received::Pong)),
            Kind::Binary | Kind::Continuation | Kind::Text => match self.message.take() {
                Some(mut message) => {
                    message.extend_from_slice(&payload);
                    message
                }
                None => payload,
            },
        };
        if head.is_final {
            return Ok(Some(Received::Binary(message.into())));
        }
        self.message = Some(message);
        Ok(None)
    }
}

impl Frame {
    /// A frame of which `there` bytes may be there already: what a head claims is not set aside before it comes.
    fn begin(head: Head, there: usize) -> Self {
        let room = head.length.min(FIRST_BYTES.max(there));
        Self {
            head,
            payload: Vec::with_capacity(room),
        }
    }

    /// Takes what has come of the payload, up to its end.
    fn fill(&mut self, input: &mut &[u8]) {
        let from = self.payload.len();
        let missing = self.head.length - from;
        let (now, later) = input.split_at(missing.min(input.len()));
        *input = later;
        if self.payload.capacity() - from < now.len() {
            // twice as much each time, and never more than the payload
            self.payload.reserve_exact(missing.min(from.max(now.len())));
        }
        self.payload.extend_from_slice(now);
        if let Some(new) = self.payload.get_mut(from..) {
            unmask(new, self.head.mask, from);
        }
    }
}

impl Head {
    /// The head at the front of `bytes`, and its length; nothing if it has not come whole.
    fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, Violation> {
        let Some(([first, second], rest)) = bytes.split_first_chunk() else {
            return Ok(None);
        };
        let (kind, is_final) = (kind(*first)?, first & FINAL != 0);
        if second & MASKED == 0 {
            return Err(Violation::Malformed);
        }
        let short = second & !MASKED;
        let (length, rest) = match short {
            LENGTH_64 => match rest.split_first_chunk() {
                Some((length, rest)) => (u64::from_be_bytes(*length), rest),
                None => return Ok(None),
            },
            LENGTH_16 => match rest.split_first_chunk() {
                Some((length, rest)) => (u16::from_be_bytes(*length).into(), rest),
                None => return Ok(None),
            },
            length => (length.into(), rest),
        };
        let length = usize::try_from(length).map_err(|_| Violation::TooLong)?;
        if kind.is_control() && (length > CONTROL_BYTES_MAX || !is_final) {
            return Err(Violation::Malformed);
        }
        // the mask need not be there to know that a frame is too long
        if length > FRAME_BYTES_MAX {
            return Err(Violation::TooLong);
        }
        let Some((mask, rest)) = rest.split_first_chunk() else {
            return Ok(None);
        };
        let head = Self {
            kind,
            is_final,
            length,
            mask: *mask,
        };
        Ok(Some((head, bytes.len() - rest.len())))
    }
}

fn kind(first: u8) -> Result<Kind, Violation> {
    if first & RESERVED != 0 {
        return Err(Violation::Malformed);
    }
    match first & 0x0f {
        0 => Ok(Kind::Continuation),
        1 => Ok(Kind::Text),
        2 => Ok(Kind::Binary),
        8 => Ok(Kind::Close),
        9 => Ok(Kind::Ping),
        10 => Ok(Kind::Pong),
        _ => Err(Violation::Malformed),
    }
}

/// Takes the mask off bytes, the first of which is byte `from` of its payload.
fn unmask(bytes: &mut [u8], mask: [u8; 4], from: usize) {
    let [a, b, c, d] = mask;
    let mask = match from % 4 {
        0 => [a, b, c, d],
        1 => [b, c, d, a],
        2 => [c, d, a, b],
        _ => [d, a, b, c],
    };
    let (words, rest) = bytes.as_chunks_mut::<4>();
    let word_mask = u32::from_ne_bytes(mask);
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ word_mask).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

/// A close's payload, if it is one: nothing, or a code that may be sent and a text. Source: RFC 6455, section 7.4.
fn closing(payload: Vec<u8>) -> Result<Vec<u8>, Violation> {
    let is_sound = match payload.split_first_chunk() {
        None => payload.is_empty(),
        Some((code, reason)) => {
            let code = u16::from_be_bytes(*code);
            matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
                && std::str::from_utf8(reason).is_ok()
        }
    };
    is_sound.then_some(payload).ok_or(Violation::Malformed)
}

/// What we send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xa,
}

/// Appends the head of a frame whose payload has `length` bytes.
pub(super) fn put_head(out: &mut Vec<u8>, sent: Sent, length: usize) {
    out.push(FINAL | sent as u8);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < LENGTH_16 => out.push(short),
        (_, Ok(length)) => {
            out.push(LENGTH_16);
            out.extend_from_slice(&length.to_be_bytes());
        }
        (_, Err(_)) => {
            out.push(LENGTH_64);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// Appends a frame.
pub(super) fn put(out: &mut Vec<u8>, sent: Sent, payload: &[u8]) {
    put_head(out, sent, payload.len());
    out.extend_from_slice(payload);
}

/// The payload of a close. A reason that is too long for one is cut.
pub(super) fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    let ends = reason.char_indices().map(|(at, char)| at + char.len_utf8());
    let end = ends.take_while(|end| *end <= CONTROL_BYTES_MAX - 2).last();
    let reason = reason.get(..end.unwrap_or(0)).unwrap_or_default();
    [&code.to_be_bytes()[..], reason.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client's frame.
    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [7, 90, 200, 33];
        let mut frame = Vec::new();
        put(&mut frame, Sent::Binary, payload);
        let head = frame.len() - payload.len();
        frame[0] = first;
        frame[1] |= MASKED;
        let mut body = frame.split_off(head);
        unmask(&mut body, mask, 0);
        [frame, mask.to_vec(), body].concat()
    }

    /// What comes of bytes that arrive in pieces of this length.
    fn received(bytes: &[u8], piece: usize) -> Result<Vec<Received>, Violation> {
        let (mut reader, mut all) = (Reader::default(), vec![]);
        for mut input in bytes.chunks(piece) {
            while let Some(one) = reader.take(&mut input)? {
                all.push(one);
            }
            assert!(input.is_empty());
        }
        Ok(all)
    }

    #[test]
    fn frames_are_read_however_they_are_cut() {
        let long: Vec<u8> = (0..70_000u32).map(|n| n.to_le_bytes()[0]).collect();
        let bytes = [
            masked(0x82, b"one"),
            masked(0x82, b""),
            masked(0x02, b"in "),
            masked(0x89, b"ping"),
            masked(0x00, b"three "),
            masked(0x80, b"frames"),
            masked(0x8a, b""),
            masked(0x82, long.get(..300).unwrap()),
            masked(0x82, &long),
            masked(0x88, &close_payload(1000, "bye")),
        ]
        .concat();
        let expected = [
            Received::Binary(Bytes::from_static(b"one")),
            Received::Binary(Bytes::new()),
            Received::Ping(b"ping".to_vec()),
            Received::Binary(Bytes::from_static(b"in three frames")),
            Received::Pong,
            Received::Binary(Bytes::copy_from_slice(&long[..300])),
            Received::Binary(Bytes::from(long)),
            Received::Close(b"\x03\xe8bye".to_vec()),
        ];
        for piece in [1, 2, 3, 5, 7, 13, 1_000, usize::MAX >> 1] {
            assert_eq!(
                received(&bytes, piece).as_deref(),
                Ok(&expected[..]),
                "{piece}"
            );
        }
    }

    #[test]
    fn what_may_not_come_is_refused() {
        let mut unmasked = vec![];
        put(&mut unmasked, Sent::Binary, b"x");
        let long = |length: u64| [&[0x82, 0xff][..], &length.to_be_bytes()].concat();
        let most = u64::try_from(FRAME_BYTES_MAX).unwrap();
        let cases: [(&str, Vec<u8>, Violation); 13] = [
            ("a text", masked(0x81, b"x"), Violation::Text),
            ("a text's first part", masked(0x01, b"x"), Violation::Text),
            ("no mask", unmasked, Violation::Malformed),
            ("a reserved bit", masked(0xc2, b"x"), Violation::Malformed),
            ("an unknown kind", masked(0x83, b"x"), Violation::Malformed),
            ("a cut ping", masked(0x09, b"x"), Violation::Malformed),
            ("a long ping", masked(0x89, &[0; 126]), Violation::Malformed),
            ("a lone end", masked(0x80, b"x"), Violation::Malformed),
            ("a short close", masked(0x88, b"x"), Violation::Malformed),
            (
                "code 1006",
                masked(0x88, &1006u16.to_be_bytes()),
                Violation::Malformed,
            ),
            ("too long", long(most + 1), Violation::TooLong),
            ("longer than memory", long(u64::MAX), Violation::TooLong),
            (
                "too long in two frames",
                [
                    masked(0x02, b"x"),
                    [&[0x80, 0xff][..], &most.to_be_bytes(), &[0; 4]].concat(),
                ]
                .concat(),
                Violation::TooLong,
            ),
        ];
        for (name, bytes, violation) in cases {
            for piece in [1, 1_000] {
                assert_eq!(received(&bytes, piece), Err(violation), "{name}");
            }
        }
        let two = [masked(0x02, b"x"), masked(0x82, b"x")].concat();
        assert_eq!(received(&two, 1_000), Err(Violation::Malformed));
    }

    #[test]
    fn a_length_that_is_only_claimed_takes_no_memory() {
        let head = [&[0x82, 0xff][..], &(1u64 << 24).to_be_bytes(), &[0; 4]].concat();
        let mut reader = Reader::default();
        assert_eq!(reader.take(&mut &head[..]), Ok(None));
        let begun = reader.begun.map(|begun| begun.payload.capacity());
        assert_eq!(begun, Some(FIRST_BYTES));
    }

    #[test]
    fn a_reason_that_is_too_long_is_cut_between_characters() {
        let payload = close_payload(1008, &"\u{e4}".repeat(100));
        assert_eq!(payload.len(), 2 + 122);
        assert!(closing(payload).is_ok());
    }
}
