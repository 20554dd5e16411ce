//! Gives chunks the checksums that belong to them: a fuzzer that had to find those by itself would not get far.

use std::io::{Read, Write};

use flate2::{Compression, read::DeflateDecoder, write::DeflateEncoder};
use sha2::{Digest, Sha256};

use crate::leb128::{self, Reader};

const HEAD_BYTES: usize = 8;
/// Most bytes that are inflated to be hashed; bombs are for the parser to stop.
const INFLATED_BYTES_MAX: u64 = 1 << 20;

/// The chunks with lengths and checksums that belong to their contents. A deflated one whose contents are not deflated
/// is deflated first. From the first thing that is no chunk on, everything is left as it is.
pub(super) fn repaired(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len());
    let mut rest = data;
    while let Some((chunk, after)) = one(rest) {
        out.extend(chunk);
        rest = after;
    }
    out.extend_from_slice(rest);
    out
}

fn one(data: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (head, rest) = data.split_at_checked(HEAD_BYTES)?;
    let mut reader = Reader::new(rest);
    let kind = reader.byte().ok()?;
    let length = usize::try_from(reader.number().ok()?).ok()?;
    // one that is cut off goes to the end
    let contents = reader.take(length.min(reader.remaining())).ok()?;
    let (hashed, contents) = match kind {
        2 => packed(contents),
        _ => (contents.to_vec(), contents.to_vec()),
    };
    let mut named = vec![if kind == 2 { 1 } else { kind }];
    leb128::write(&mut named, hashed.len() as u64);
    let hash = Sha256::new()
        .chain_update(&named)
        .chain_update(&hashed)
        .finalize();
    let mut chunk = head.get(..4)?.to_vec();
    chunk.extend(hash.iter().take(4));
    chunk.push(kind);
    leb128::write(&mut chunk, contents.len() as u64);
    chunk.extend(contents);
    Some((chunk, reader.rest()))
}

/// What a deflated chunk is hashed over, and its contents.
fn packed(contents: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut inflated = vec![];
    let unpacked = DeflateDecoder::new(contents)
        .take(INFLATED_BYTES_MAX)
        .read_to_end(&mut inflated);
    if unpacked.is_ok() {
        return (inflated, contents.to_vec());
    }
    let mut encoder = DeflateEncoder::new(vec![], Compression::fast());
    encoder.write_all(contents).unwrap();
    (contents.to_vec(), encoder.finish().unwrap())
}
