//! Frames of the automerge-repo WebSocket protocol, version "1": one CBOR map each.
//!
//! Source: automerge-repo `network/messages.ts` and its WebSocket adapter. Unknown types and fields are skipped,
//! absent fields may be `undefined`, byte strings may carry tag 64, maps may be indefinite. A known field of
//! another type than it should have makes the frame malformed.
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "CBOR has two dozen types, and each field wants one or two"
)]

use bytes::Bytes;
use minicbor::{
    Decoder, Encoder,
    data::{Tag, Type},
};

use crate::{
    effect::OutFrame,
    excerpt::Excerpt,
    ids::{ChangeHash, DocumentId},
    limits::{CBOR_DEPTH_MAX, NAME_BYTES_MAX},
    names::Names,
};

/// The one version of the protocol that there is.
const PROTOCOL_VERSION: &str = "1";

/// Why a frame cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MalformedFrame;

impl From<minicbor::decode::Error> for MalformedFrame {
    fn from(_: minicbor::decode::Error) -> Self {
        Self
    }
}

/// A frame from a client. Texts borrow from it.
#[derive(Debug, PartialEq)]
pub(crate) enum Frame<'a> {
    Join {
        sender: &'a str,
        versions: Versions,
    },
    Leave {
        sender: &'a str,
    },
    Sync {
        sender: &'a str,
        document: DocumentId,
        kind: SyncKind,
        data: Excerpt<'a>,
    },
    Unavailable {
        sender: &'a str,
        document: DocumentId,
    },
    Ephemeral(Ephemeral<'a>),
    WatchStorages {
        sender: &'a str,
        add: Vec<&'a str>,
        remove: Vec<&'a str>,
    },
    RemoteHeads {
        sender: &'a str,
        encoding: Option<HeadsEncoding>,
    },
    /// A type that we do not know, or one that says nothing to us.
    Skipped,
}

/// Whether the client speaks a version of the protocol that we speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Versions {
    Supported,
    Unsupported,
}

/// `request`: "I have nothing of it, have you?"; `sync`: everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SyncKind {
    Request,
    Sync,
}

/// A message to the other peers of a document that is stored nowhere.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ephemeral<'a> {
    pub(crate) sender: &'a str,
    pub(crate) document: DocumentId,
    pub(crate) session: &'a str,
    pub(crate) count: u64,
    pub(crate) data: Bytes,
}

/// How a client writes heads in `remote-heads-changed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadsEncoding {
    /// automerge-repo 1
    Hex,
    /// automerge-repo 2
    Base58Check,
}

/// The fields of a frame, as far as they are known to us.
#[derive(Default)]
struct Fields<'a> {
    kind: Option<&'a str>,
    sender: Option<&'a str>,
    document: Option<&'a str>,
    data: Option<&'a [u8]>,
    session: Option<&'a str>,
    count: Option<u64>,
    versions: Option<Vec<&'a str>>,
    add: Vec<&'a str>,
    remove: Vec<&'a str>,
    heads_encoding: Option<HeadsEncoding>,
}

impl<'a> Frame<'a> {
    /// Reads a frame; `names` are the documents of the frames before it.
    ///
    /// # Errors
    /// [`MalformedFrame`] if it is no CBOR map, lacks a field of its type, or holds one of the wrong kind.
    pub(crate) fn parse(frame: &'a Bytes, names: &mut Names) -> Result<Self, MalformedFrame> {
        let fields = Fields::parse(frame)?;
        match fields.kind.ok_or(MalformedFrame)? {
            "join" => {
                let supported = fields
                    .versions
                    .as_ref()
                    .is_none_or(|all| all.contains(&PROTOCOL_VERSION));
                let versions = if supported {
                    Versions::Supported
                } else {
                    Versions::Unsupported
                };
                Ok(Self::Join {
                    sender: fields.sender()?,
                    versions,
                })
            }
            "leave" => Ok(Self::Leave {
                sender: fields.sender()?,
            }),
            "request" => fields.sync(frame, names, SyncKind::Request),
            "sync" => fields.sync(frame, names, SyncKind::Sync),
            "doc-unavailable" => Ok(Self::Unavailable {
                sender: fields.sender()?,
                document: fields.document(names)?,
            }),
            "ephemeral" => Ok(Self::Ephemeral(Ephemeral {
                sender: fields.sender()?,
                document: fields.document(names)?,
                session: name(fields.session)?,
                count: fields.count.ok_or(MalformedFrame)?,
                data: fields.data_of(frame)?.keep(),
            })),
            "remote-subscription-change" => Ok(Self::WatchStorages {
                sender: fields.sender()?,
                add: fields.add,
                remove: fields.remove,
            }),
            "remote-heads-changed" => Ok(Self::RemoteHeads {
                sender: fields.sender()?,
                encoding: fields.heads_encoding,
            }),
            _ => Ok(Self::Skipped),
        }
    }
}

impl<'a> Fields<'a> {
    fn parse(frame: &'a [u8]) -> Result<Self, MalformedFrame> {
        let mut decoder = Decoder::new(frame);
        let mut fields = Self::default();
        each_entry(&mut decoder, |decoder, key| {
            match key {
                "type" => fields.kind = text(decoder)?,
                "senderId" => fields.sender = text(decoder)?,
                "documentId" => fields.document = text(decoder)?,
                "sessionId" => fields.session = text(decoder)?,
                "data" => fields.data = bytes(decoder)?,
                "count" => fields.count = number(decoder)?,
                "supportedProtocolVersions" => fields.versions = texts(decoder)?,
                "add" => fields.add = texts(decoder)?.unwrap_or_default(),
                "remove" => fields.remove = texts(decoder)?.unwrap_or_default(),
                "newHeads" => fields.heads_encoding = heads_encoding(decoder)?,
                _ => skip(decoder, CBOR_DEPTH_MAX)?,
            }
            Ok(())
        })?;
        Ok(fields)
    }

    fn sender(&self) -> Result<&'a str, MalformedFrame> {
        name(self.sender)
    }

    fn document(&self, names: &mut Names) -> Result<DocumentId, MalformedFrame> {
        let text = self.document.ok_or(MalformedFrame)?;
        names.parse(text).map_err(|_| MalformedFrame)
    }

    fn sync(
        &self,
        frame: &'a Bytes,
        names: &mut Names,
        kind: SyncKind,
    ) -> Result<Frame<'a>, MalformedFrame> {
        Ok(Frame::Sync {
            sender: self.sender()?,
            document: self.document(names)?,
            kind,
            data: self.data_of(frame)?,
        })
    }

    fn data_of(&self, frame: &'a Bytes) -> Result<Excerpt<'a>, MalformedFrame> {
        let data = self.data.filter(|data| !data.is_empty());
        Ok(Excerpt::new(frame, data.ok_or(MalformedFrame)?))
    }
}

fn name(text: Option<&str>) -> Result<&str, MalformedFrame> {
    text.filter(|text| !text.is_empty() && text.len() <= NAME_BYTES_MAX)
        .ok_or(MalformedFrame)
}

/// Calls `visit` for each entry of a map with text keys, in front of its value.
fn each_entry<'b>(
    decoder: &mut Decoder<'b>,
    mut visit: impl FnMut(&mut Decoder<'b>, &'b str) -> Result<(), MalformedFrame>,
) -> Result<(), MalformedFrame> {
    let mut left = decoder.map()?;
    loop {
        match &mut left {
            Some(0) => return Ok(()),
            Some(count) => *count -= 1,
            None if decoder.datatype()? == Type::Break => {
                decoder.skip()?;
                return Ok(());
            }
            None => {}
        }
        let key = decoder.str()?;
        visit(decoder, key)?;
    }
}

/// Takes `undefined` or `null`, if that is what comes next.
fn absent(decoder: &mut Decoder<'_>) -> Result<bool, MalformedFrame> {
    let absent = matches!(decoder.datatype()?, Type::Undefined | Type::Null);
    if absent {
        decoder.skip()?;
    }
    Ok(absent)
}

fn text<'b>(decoder: &mut Decoder<'b>) -> Result<Option<&'b str>, MalformedFrame> {
    if absent(decoder)? {
        Ok(None)
    } else {
        Ok(Some(decoder.str()?))
    }
}

fn bytes<'b>(decoder: &mut Decoder<'b>) -> Result<Option<&'b [u8]>, MalformedFrame> {
    if absent(decoder)? {
        return Ok(None);
    }
    // RFC 8746, tag 64: a typed array of unsigned bytes
    if decoder.datatype()? == Type::Tag && decoder.tag()? != Tag::new(64) {
        return Err(MalformedFrame);
    }
    Ok(Some(decoder.bytes()?))
}

/// A whole number, which JavaScript may write as a float.
fn number(decoder: &mut Decoder<'_>) -> Result<Option<u64>, MalformedFrame> {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    if absent(decoder)? {
        return Ok(None);
    }
    match decoder.datatype()? {
        Type::F16 | Type::F32 | Type::F64 => {
            let value = decoder.f64()?;
            let whole = (0.0..=EXACT_MAX).contains(&value) && value.fract() == 0.0;
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "whole, not negative, and at most 2^53"
            )]
            if whole {
                Ok(Some(value as u64))
            } else {
                Err(MalformedFrame)
            }
        }
        // anything but a whole number is refused there
        _ => Ok(Some(decoder.u64()?)),
    }
}

fn texts<'b>(decoder: &mut Decoder<'b>) -> Result<Option<Vec<&'b str>>, MalformedFrame> {
    if absent(decoder)? {
        return Ok(None);
    }
    let mut left = decoder.array()?;
    let mut texts = Vec::new();
    loop {
        match &mut left {
            Some(0) => return Ok(Some(texts)),
            Some(count) => *count -= 1,
            None if decoder.datatype()? == Type::Break => {
                decoder.skip()?;
                return Ok(Some(texts));
            }
            None => {}
        }
        texts.push(decoder.str()?);
    }
}

/// `newHeads: { [storageId]: { heads: [...], timestamp } }`: only how the first head is written matters to us.
fn heads_encoding(decoder: &mut Decoder<'_>) -> Result<Option<HeadsEncoding>, MalformedFrame> {
    if absent(decoder)? {
        return Ok(None);
    }
    let mut encoding = None;
    each_entry(decoder, |decoder, _| {
        each_entry(decoder, |decoder, key| {
            if key != "heads" {
                return skip(decoder, CBOR_DEPTH_MAX);
            }
            let heads = texts(decoder)?.unwrap_or_default();
            encoding = encoding.or(heads.first().map(|head| {
                if head.len() == 2 * ChangeHash::BYTES {
                    HeadsEncoding::Hex
                } else {
                    HeadsEncoding::Base58Check
                }
            }));
            Ok(())
        })
    })?;
    Ok(encoding)
}

/// Skips one value of any kind, nested at most `depth` deep.
fn skip(decoder: &mut Decoder<'_>, depth: usize) -> Result<(), MalformedFrame> {
    let depth = depth.checked_sub(1).ok_or(MalformedFrame)?;
    match decoder.datatype()? {
        Type::Array | Type::ArrayIndef => {
            let left = decoder.array()?;
            skip_items(decoder, left, depth)
        }
        Type::Map | Type::MapIndef => {
            let pairs = decoder.map()?;
            let left = pairs
                .map(|pairs| pairs.checked_mul(2).ok_or(MalformedFrame))
                .transpose()?;
            skip_items(decoder, left, depth)
        }
        Type::Tag => {
            decoder.tag()?;
            skip(decoder, depth)
        }
        // a break where a value should be
        Type::Break => Err(MalformedFrame),
        _ => Ok(decoder.skip()?),
    }
}

fn skip_items(
    decoder: &mut Decoder<'_>,
    mut left: Option<u64>,
    depth: usize,
) -> Result<(), MalformedFrame> {
    loop {
        match &mut left {
            Some(0) => return Ok(()),
            Some(count) => *count -= 1,
            None if decoder.datatype()? == Type::Break => return Ok(decoder.skip()?),
            None => {}
        }
        skip(decoder, depth)?;
    }
}

/// Writes frames to one client; writing into memory cannot fail.
type Out = Encoder<Vec<u8>>;

/// Runs an encoder over a buffer of about `size` bytes.
fn encode(
    size: usize,
    write: impl FnOnce(&mut Out) -> Result<(), minicbor::encode::Error<std::convert::Infallible>>,
) -> OutFrame {
    let mut encoder = Encoder::new(Vec::with_capacity(size));
    match write(&mut encoder) {
        Ok(()) => encoder.into_writer().into(),
        Err(_) => unreachable!("writing CBOR into memory does not fail"),
    }
}

/// A frame that ends in the byte string `data`, which others are sent too; `write` writes all before its bytes.
fn encode_shared(
    size: usize,
    data: &Bytes,
    write: impl FnOnce(&mut Out) -> Result<(), minicbor::encode::Error<std::convert::Infallible>>,
) -> OutFrame {
    let OutFrame { own, .. } = encode(size, |e| {
        write(e)?;
        e.str("data")?.bytes_len(data.len() as u64)?;
        Ok(())
    });
    OutFrame {
        own,
        shared: data.clone(),
    }
}

/// Our answer to `join`.
pub(crate) fn peer(us: &str, storage_id: &str, target: &str) -> OutFrame {
    encode(us.len() + storage_id.len() + target.len() + 120, |e| {
        e.map(5)?;
        e.str("type")?.str("peer")?.str("senderId")?.str(us)?;
        e.str("peerMetadata")?.map(2)?;
        e.str("storageId")?
            .str(storage_id)?
            .str("isEphemeral")?
            .bool(false)?;
        e.str("selectedProtocolVersion")?.str(PROTOCOL_VERSION)?;
        e.str("targetId")?.str(target)?;
        Ok(())
    })
}

/// What a client is told before its socket is closed.
pub(crate) fn error(us: &str, target: &str, message: &str) -> OutFrame {
    encode(us.len() + target.len() + message.len() + 60, |e| {
        e.map(4)?;
        e.str("type")?.str("error")?.str("senderId")?.str(us)?;
        e.str("message")?
            .str(message)?
            .str("targetId")?
            .str(target)?;
        Ok(())
    })
}

/// A sync message of a document.
pub(crate) fn sync(us: &str, target: &str, document: &str, data: &Bytes) -> OutFrame {
    let size = us.len() + target.len() + document.len() + 80;
    encode_shared(size, data, |e| {
        e.map(5)?;
        e.str("type")?
            .str("sync")?
            .str("senderId")?
            .str(us)?
            .str("targetId")?
            .str(target)?;
        e.str("documentId")?.str(document)?;
        Ok(())
    })
}

/// "We do not have it, and nobody here has."
pub(crate) fn unavailable(us: &str, target: &str, document: &str) -> OutFrame {
    encode(us.len() + target.len() + document.len() + 80, |e| {
        e.map(4)?;
        e.str("type")?
            .str("doc-unavailable")?
            .str("senderId")?
            .str(us)?;
        e.str("targetId")?
            .str(target)?
            .str("documentId")?
            .str(document)?;
        Ok(())
    })
}

/// An ephemeral message on its way to another peer of the document: everything as its sender wrote it, but for
/// the target.
pub(crate) fn ephemeral(message: &Ephemeral<'_>, target: &str, document: &str) -> OutFrame {
    let texts = message.sender.len() + message.session.len() + target.len() + document.len();
    encode_shared(texts + 110, &message.data, |e| {
        e.map(7)?;
        e.str("type")?
            .str("ephemeral")?
            .str("senderId")?
            .str(message.sender)?;
        e.str("targetId")?
            .str(target)?
            .str("count")?
            .u64(message.count)?;
        e.str("sessionId")?
            .str(message.session)?
            .str("documentId")?
            .str(document)?;
        Ok(())
    })
}

/// "These heads of the document are in our storage." `timestamp_ms`: Unix time.
pub(crate) fn remote_heads(
    us: &str,
    target: &str,
    document: &str,
    storage_id: &str,
    heads: &[ChangeHash],
    encoding: HeadsEncoding,
    timestamp_ms: u64,
) -> OutFrame {
    encode(
        us.len() + target.len() + document.len() + heads.len() * 68 + 160,
        |e| {
            e.map(5)?;
            e.str("type")?
                .str("remote-heads-changed")?
                .str("senderId")?
                .str(us)?;
            e.str("targetId")?
                .str(target)?
                .str("documentId")?
                .str(document)?;
            e.str("newHeads")?.map(1)?.str(storage_id)?.map(2)?;
            e.str("heads")?.array(heads.len() as u64)?;
            for head in heads {
                match encoding {
                    HeadsEncoding::Hex => e.str(&head.to_string())?,
                    HeadsEncoding::Base58Check => {
                        e.str(&bs58::encode(head.as_bytes()).with_check().into_string())?
                    }
                };
            }
            e.str("timestamp")?.u64(timestamp_ms)?;
            Ok(())
        },
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use bytes::Bytes as Octets;

    use super::*;

    const DOCUMENT: DocumentId = DocumentId::from_bytes([7; 16]);

    fn read(frame: &Octets) -> Result<Frame<'_>, MalformedFrame> {
        Frame::parse(frame, &mut Names::default())
    }

    /// As cbor-x writes it: maps with 16-bit lengths, byte strings plain.
    fn cbor_x(fields: &[(&str, Value<'_>)]) -> Octets {
        let mut out = vec![0xb9, 0, u8::try_from(fields.len()).unwrap()];
        for (key, value) in fields {
            let mut e = Encoder::new(&mut out);
            e.str(key).unwrap();
            match value {
                Value::Text(text) => e.str(text).map(|_| ()),
                Value::Bytes(bytes) => e.bytes(bytes).map(|_| ()),
                Value::Tagged(bytes) => e.tag(Tag::new(64)).unwrap().bytes(bytes).map(|_| ()),
                Value::Number(number) => e.u64(*number).map(|_| ()),
                Value::Float(number) => e.f64(*number).map(|_| ()),
                Value::Undefined => e.undefined().map(|_| ()),
                Value::Raw(raw) => {
                    out.extend_from_slice(raw);
                    Ok(())
                }
            }
            .unwrap();
        }
        out.into()
    }

    enum Value<'a> {
        Text(&'a str),
        Bytes(&'a [u8]),
        Tagged(&'a [u8]),
        Number(u64),
        Float(f64),
        Undefined,
        Raw(&'a [u8]),
    }
    use Value::*;

    fn sync_frame(data: Value<'_>, extra: Value<'_>) -> Octets {
        let id = DOCUMENT.to_string();
        cbor_x(&[
            ("type", Text("sync")),
            ("senderId", Text("alice")),
            ("targetId", Text("server")),
            ("data", data),
            ("documentId", Text(&id)),
            ("extra", extra),
        ])
    }

    #[test]
    fn a_sync_frame_is_read_with_and_without_tag_64() {
        let message = Octets::from_static(&[0x42, 1, 2]);
        for data in [Bytes(&message), Tagged(&message)] {
            let frame = sync_frame(data, Undefined);
            let expected = Frame::Sync {
                sender: "alice",
                document: DOCUMENT,
                kind: SyncKind::Sync,
                data: Excerpt::all(&message),
            };
            assert_eq!(read(&frame), Ok(expected));
        }
    }

    #[test]
    fn a_join_without_versions_speaks_version_1() {
        let join = |versions| cbor_x(&[("type", Text("join")), ("senderId", Text("a")), versions]);
        let parsed = |versions| {
            Ok(Frame::Join {
                sender: "a",
                versions,
            })
        };
        let frame = join(("supportedProtocolVersions", Undefined));
        assert_eq!(read(&frame), parsed(Versions::Supported));
        let frame = join((
            "supportedProtocolVersions",
            Raw(&[0x82, 0x61, b'9', 0x61, b'1']),
        ));
        assert_eq!(read(&frame), parsed(Versions::Supported));
        let frame = join(("supportedProtocolVersions", Raw(&[0x81, 0x61, b'9'])));
        assert_eq!(read(&frame), parsed(Versions::Unsupported));
    }

    #[test]
    fn an_indefinite_map_and_unknown_fields_are_read() {
        let mut out = vec![0xbf];
        out.extend([0x61, b'x', 0x9f, 0x01, 0xbf, 0xff, 0xff]); // x: [1, {}], all indefinite
        out.extend([
            0x64, b't', b'y', b'p', b'e', 0x65, b'l', b'e', b'a', b'v', b'e',
        ]);
        out.extend([
            0x68, b's', b'e', b'n', b'd', b'e', b'r', b'I', b'd', 0x61, b'a', 0xff,
        ]);
        assert_eq!(read(&out.into()), Ok(Frame::Leave { sender: "a" }));
    }

    #[test]
    fn a_count_may_be_a_float_but_must_be_whole() {
        let id = DOCUMENT.to_string();
        let frame = |count| {
            cbor_x(&[
                ("type", Text("ephemeral")),
                ("senderId", Text("a")),
                ("documentId", Text(&id)),
                ("sessionId", Text("s")),
                ("count", count),
                ("data", Bytes(&[1])),
            ])
        };
        for (count, expected) in [
            (Number(7), Some(7)),
            (Float(7.0), Some(7)),
            (Raw(&[0xfa, 0x40, 0xe0, 0, 0]), Some(7)),
            (Float(0.0), Some(0)),
            // the greatest up to which a float tells a number from the next
            (Float(9_007_199_254_740_992.0), Some(1 << 53)),
            (Float(9_007_199_254_740_994.0), None),
            (Float(7.5), None),
            (Float(-1.0), None),
            (Float(f64::NAN), None),
            (Raw(&[0x26]), None),
            (Text("7"), None),
            (Undefined, None),
        ] {
            let frame = frame(count);
            let count = match read(&frame) {
                Ok(Frame::Ephemeral(message)) => Some(message.count),
                _ => None,
            };
            assert_eq!(count, expected);
        }
    }

    #[test]
    fn unknown_types_are_skipped() {
        let frame = cbor_x(&[
            ("type", Text("wat")),
            ("documentId", Text("no document id")),
        ]);
        assert_eq!(read(&frame), Ok(Frame::Skipped));
    }

    #[test]
    fn frames_made_to_hurt_are_refused() {
        let deep = [vec![0x81; 1_000_000], vec![0xf6]].concat();
        let deep_field = sync_frame(Bytes(&[1]), Raw(&deep));
        let wide = [vec![0xbb], vec![0xff; 8], vec![1; 64]].concat();
        let long = [vec![0x5b, 0x7f], vec![0xff; 7], vec![1; 64]].concat();
        for frame in [
            Octets::new(),
            vec![0xf6].into(),
            deep.into(),
            deep_field,
            wide.into(),
            long.into(),
            sync_frame(Bytes(&[]), Undefined),
            sync_frame(Undefined, Undefined),
            sync_frame(Text("text"), Undefined),
            cbor_x(&[("senderId", Text("a"))]),
            cbor_x(&[("type", Text("join"))]),
            cbor_x(&[("type", Text("join")), ("senderId", Number(7))]),
            cbor_x(&[
                ("type", Text("join")),
                ("senderId", Text(&"x".repeat(NAME_BYTES_MAX + 1))),
            ]),
        ] {
            assert_eq!(read(&frame), Err(MalformedFrame));
        }
    }

    /// A join with a field more, of this kind.
    fn join_with(extra: &[u8]) -> Octets {
        cbor_x(&[
            ("extra", Raw(extra)),
            ("type", Text("join")),
            ("senderId", Text("a")),
        ])
    }

    #[test]
    fn unknown_fields_of_every_kind_are_skipped_to_their_end() {
        let kinds: &[&[u8]] = &[
            &[0x83, 0x01, 0x61, b'x', 0x80],             // [1, "x", []]
            &[0x9f, 0x01, 0x82, 0x02, 0x03, 0xff],       // [1, [2, 3]], indefinite
            &[0xa2, 0x01, 0x02, 0x61, b'k', 0xa1, 0, 0], // {1: 2, "k": {0: 0}}
            &[0xbf, 0x01, 0x02, 0x03, 0x04, 0xff],       // {1: 2, 3: 4}, indefinite
            &[0xc1, 0xd8, 0x40, 0x42, 0x01, 0x02],       // tags 1 and 64 around two bytes
            &[0x5f, 0x41, 0x01, 0x42, 0x02, 0x03, 0xff], // bytes in two parts
            &[0xfb, 0x40, 0x09, 0, 0, 0, 0, 0, 0],       // 3.125
            &[0xf5],
        ];
        for kind in kinds {
            let joined = read(&join_with(kind)).map(|frame| frame == join());
            assert_eq!(joined, Ok(true), "{kind:02x?}");
        }
    }

    fn join() -> Frame<'static> {
        Frame::Join {
            sender: "a",
            versions: Versions::Supported,
        }
    }

    #[test]
    fn unknown_fields_are_nested_as_deep_as_the_limit_and_no_deeper() {
        let containers: &[(&[u8], &[u8])] = &[
            (&[0x81], &[]),
            (&[0x9f], &[0xff]),
            (&[0xa1, 0x00], &[]),
            (&[0xbf, 0x00], &[0xff]),
            (&[0xc1], &[]),
        ];
        for (open, close) in containers {
            let nested = |depth| [open.repeat(depth), vec![0x00], close.repeat(depth)].concat();
            let parsed = |depth| read(&join_with(&nested(depth))).is_ok();
            // the number in the middle is one level more
            assert!(parsed(CBOR_DEPTH_MAX - 1), "{open:02x?}");
            assert!(!parsed(CBOR_DEPTH_MAX), "{open:02x?}");
        }
    }

    #[test]
    fn a_field_that_ends_where_its_value_should_be_is_refused() {
        let map = [0xbf, 0x61, b'x', 0xff, 0xff];
        assert_eq!(read(&map.to_vec().into()), Err(MalformedFrame));
        assert_eq!(read(&join_with(&[0x81, 0xff])), Err(MalformedFrame));
        // twice as many values as a length can say
        let wide = [vec![0xbb], vec![0xff; 8]].concat();
        assert_eq!(read(&join_with(&wide)), Err(MalformedFrame));
    }

    #[test]
    fn names_are_taken_up_to_their_limit() {
        let longest = "x".repeat(NAME_BYTES_MAX);
        let frame = cbor_x(&[("type", Text("leave")), ("senderId", Text(&longest))]);
        let expected = Frame::Leave { sender: &longest };
        assert_eq!(read(&frame), Ok(expected));
        let frame = cbor_x(&[("type", Text("leave")), ("senderId", Text(""))]);
        assert_eq!(read(&frame), Err(MalformedFrame));
    }

    #[test]
    fn bytes_may_carry_the_tag_of_an_array_of_bytes_and_no_other() {
        let tagged = |tag: u8| sync_frame(Raw(&[0xd8, tag, 0x42, 0x42, 0x01]), Undefined);
        assert!(read(&tagged(64)).is_ok());
        assert_eq!(read(&tagged(65)), Err(MalformedFrame));
    }

    /// How heads are written, as a client's `remote-heads-changed` shows.
    fn shown_by(new_heads: &[u8]) -> Result<Option<HeadsEncoding>, MalformedFrame> {
        let frame = cbor_x(&[
            ("type", Text("remote-heads-changed")),
            ("newHeads", Raw(new_heads)),
            ("senderId", Text("a")),
        ]);
        match read(&frame)? {
            Frame::RemoteHeads { encoding, .. } => Ok(encoding),
            other => panic!("{other:?}"),
        }
    }

    /// `{ [storage]: { heads, timestamp: 7 } }` for each of these.
    fn new_heads(storages: &[&[&str]]) -> Vec<u8> {
        let mut e = Encoder::new(vec![]);
        e.map(storages.len() as u64).unwrap();
        for heads in storages {
            e.str("storage").unwrap().map(2).unwrap();
            e.str("timestamp").unwrap().u64(7).unwrap();
            e.str("heads").unwrap().array(heads.len() as u64).unwrap();
            for head in *heads {
                e.str(head).unwrap();
            }
        }
        e.into_writer()
    }

    #[test]
    fn the_first_head_that_a_client_writes_shows_how_it_writes_heads() {
        let hex = "0f".repeat(32);
        let base58 = bs58::encode([0x0f; 32]).with_check().into_string();
        let shown = |storages: &[&[&str]]| shown_by(&new_heads(storages));
        assert_eq!(shown(&[&[&hex]]), Ok(Some(HeadsEncoding::Hex)));
        assert_eq!(shown(&[&[&base58]]), Ok(Some(HeadsEncoding::Base58Check)));
        assert_eq!(
            shown(&[&[], &[&hex, &base58], &[&base58]]),
            Ok(Some(HeadsEncoding::Hex))
        );
        assert_eq!(shown(&[]), Ok(None));
        assert_eq!(shown(&[&[]]), Ok(None));
        // undefined
        assert_eq!(shown_by(&[0xf7]), Ok(None));
        assert_eq!(shown_by(&[0x80]), Err(MalformedFrame));
    }

    #[test]
    fn the_heads_that_we_tell_of_are_read_as_a_client_reads_them() {
        let heads = [1, 2].map(|n| ChangeHash::from_bytes([n; 32]));
        let base58 = |head: &ChangeHash| bs58::encode(head.as_bytes()).with_check().into_string();
        for (encoding, texts) in [
            (HeadsEncoding::Hex, heads.map(|head| head.to_string())),
            (HeadsEncoding::Base58Check, heads.map(|head| base58(&head))),
        ] {
            let frame = remote_heads("us", "them", "document", "storage", &heads, encoding, 1_700);
            let frame = frame.to_bytes();
            let mut e = Encoder::new(vec![]);
            e.map(5).unwrap();
            for (key, value) in [
                ("type", "remote-heads-changed"),
                ("senderId", "us"),
                ("targetId", "them"),
                ("documentId", "document"),
            ] {
                e.str(key).unwrap().str(value).unwrap();
            }
            e.str("newHeads").unwrap().map(1).unwrap();
            e.str("storage").unwrap().map(2).unwrap();
            e.str("heads").unwrap().array(2).unwrap();
            for text in &texts {
                e.str(text).unwrap();
            }
            e.str("timestamp").unwrap().u64(1_700).unwrap();
            assert_eq!(frame, e.into_writer());
            let Ok(Frame::RemoteHeads {
                encoding: shown, ..
            }) = read(&frame)
            else {
                panic!("{frame:02x?}")
            };
            assert_eq!(shown, Some(encoding));
        }
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            drop(read(&bytes.into()));
        }

        #[test]
        fn a_frame_of_ours_is_read_back(data in proptest::collection::vec(any::<u8>(), 1..100)) {
            let data = Octets::from(data);
            let frame = sync("us", "them", &DOCUMENT.to_string(), &data).to_bytes();
            let expected = Frame::Sync { sender: "us", document: DOCUMENT, kind: SyncKind::Sync, data: Excerpt::all(&data) };
            prop_assert_eq!(read(&frame), Ok(expected));
        }
    }
}
