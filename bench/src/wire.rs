//! The automerge-repo protocol as a client speaks it: one CBOR map per binary frame. Only what the scenarios need;
//! whatever else a server sends is [`Incoming::Other`].

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

/// What a server sends.
pub(crate) enum Incoming {
    /// The answer to a join, with the server's peer id.
    Peer(String),
    /// A sync message of a document.
    Sync { document: String, data: Bytes },
    /// An ephemeral message, its payload.
    Ephemeral(Bytes),
    /// The server has no such document.
    Unavailable(String),
    /// The server's complaint, before it closes.
    Error(String),
    /// Of no interest to a benchmark.
    Other,
}

/// The two addresses that every message carries.
#[derive(Clone, Copy)]
pub(crate) struct Route<'a> {
    pub(crate) from: &'a str,
    pub(crate) to: &'a str,
}

pub(crate) fn join(from: &str) -> Result<Bytes> {
    let mut cbor = Encoder::new(Vec::new());
    cbor.map(4)?.str("type")?.str("join")?;
    cbor.str("senderId")?.str(from)?;
    cbor.str("peerMetadata")?
        .map(1)?
        .str("isEphemeral")?
        .bool(true)?;
    cbor.str("supportedProtocolVersions")?.array(1)?.str("1")?;
    Ok(cbor.into_writer().into())
}

/// A `sync` or `request` message: `request` is for documents of which the sender has nothing.
pub(crate) fn sync(kind: &str, route: Route<'_>, document: &str, data: &[u8]) -> Result<Bytes> {
    let mut cbor = Encoder::new(Vec::with_capacity(data.len() + 160));
    cbor.map(5)?;
    head(&mut cbor, kind, route, document)?;
    cbor.str("data")?.bytes(data)?;
    Ok(cbor.into_writer().into())
}

pub(crate) fn ephemeral(
    route: Route<'_>,
    document: &str,
    count: u64,
    data: &[u8],
) -> Result<Bytes> {
    let mut cbor = Encoder::new(Vec::with_capacity(data.len() + 200));
    cbor.map(7)?;
    head(&mut cbor, "ephemeral", route, document)?;
    cbor.str("sessionId")?.str("bench-session")?;
    cbor.str("count")?.u64(count)?;
    cbor.str("data")?.bytes(data)?;
    Ok(cbor.into_writer().into())
}

fn head(cbor: &mut Encoder<Vec<u8>>, kind: &str, route: Route<'_>, document: &str) -> Result<()> {
    cbor.str("type")?.str(kind)?;
    cbor.str("senderId")?.str(route.from)?;
    cbor.str("targetId")?.str(route.to)?;
    cbor.str("documentId")?.str(document)?;
    Ok(())
}

#[derive(Default)]
struct Fields<'a> {
    kind: Option<&'a str>,
    sender: Option<&'a str>,
    document: Option<&'a str>,
    message: Option<&'a str>,
    data: Option<&'a [u8]>,
}

/// Reads one frame. The payload stays where it is: it is a slice of the frame.
pub(crate) fn read(frame: &Bytes) -> Result<Incoming> {
    let fields = fields(frame)?;
    let document = || Ok::<_, anyhow::Error>(fields.document.context("no documentId")?.to_owned());
    let data = || Ok::<_, anyhow::Error>(frame.slice_ref(fields.data.context("no data")?));
    Ok(match fields.kind.context("a frame without a type")? {
        "peer" => Incoming::Peer(fields.sender.context("no senderId")?.to_owned()),
        "sync" | "request" => Incoming::Sync {
            document: document()?,
            data: data()?,
        },
        "ephemeral" => Incoming::Ephemeral(data()?),
        "doc-unavailable" => Incoming::Unavailable(document()?),
        "error" => Incoming::Error(fields.message.unwrap_or("(no message)").to_owned()),
        _ => Incoming::Other,
    })
}

fn fields(frame: &[u8]) -> Result<Fields<'_>> {
    let mut cbor = Decoder::new(frame);
    let mut found = Fields::default();
    let Some(entries) = cbor.map()? else {
        bail!("a map of unknown length")
    };
    for _ in 0..entries {
        match cbor.str()? {
            "type" => found.kind = Some(cbor.str()?),
            "senderId" => found.sender = Some(cbor.str()?),
            "documentId" => found.document = Some(cbor.str()?),
            "message" => found.message = Some(cbor.str()?),
            "data" => found.data = Some(octets(&mut cbor)?),
            _ => cbor.skip()?,
        }
    }
    Ok(found)
}

/// Byte strings come plain or, from some encoders, with tag 64 (a typed array).
fn octets<'a>(cbor: &mut Decoder<'a>) -> Result<&'a [u8]> {
    if cbor.datatype()? == Type::Tag {
        cbor.tag()?;
    }
    Ok(cbor.bytes()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: Route<'_> = Route {
        from: "me",
        to: "server",
    };

    #[test]
    fn a_sync_message_is_read_as_it_was_written() {
        let frame = sync("sync", ROUTE, "4NMNnkMhL8jXrdJ9jamS58PAVdXu", &[1, 2, 3]).unwrap();
        let Incoming::Sync { document, data } = read(&frame).unwrap() else {
            panic!("not a sync message")
        };
        assert_eq!(
            (document.as_str(), data.as_ref()),
            ("4NMNnkMhL8jXrdJ9jamS58PAVdXu", [1, 2, 3].as_slice())
        );
    }

    #[test]
    fn an_ephemeral_message_keeps_its_payload() {
        let frame = ephemeral(ROUTE, "d", 7, &[9; 100]).unwrap();
        let Incoming::Ephemeral(data) = read(&frame).unwrap() else {
            panic!("not ephemeral")
        };
        assert_eq!(data.as_ref(), [9; 100]);
    }

    #[test]
    fn a_truncated_frame_is_an_error() {
        let frame = sync("sync", ROUTE, "d", &[1, 2, 3]).unwrap();
        assert!(read(&frame.slice(..frame.len() - 1)).is_err());
    }
}
