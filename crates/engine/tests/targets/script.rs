//! What the instructions of a script say.
//!
//! | letter | operands | what happens |
//! |---|---|---|
//! | `O` | connection, access (0 read, 1 write) | a socket is opened, if it is not |
//! | `J` | connection | it joins |
//! | `X` `G` `D` | connection | it is closed, congested, drained |
//! | `A` | connection, access (0 none, 1 read, 2 write) | its access changes |
//! | `S` | connection, document, heads, need, have, first change, changes, flags | a sync message, or a request |
//! | `M` | place, value, and those of `S` | the same with a byte turned |
//! | `P` | connection, document, first change, changes, lies | a whole document is pushed |
//! | `B` | connection, document, length | a bundle |
//! | `Y` `F` | connection, document, length, bytes | a sync message, a frame, of these bytes |
//! | `E` `U` | connection, document, count | an ephemeral message; "I do not have it" |
//! | `L` `W` `H` `N` | connection, which | leaves, watches our storage, tells heads, other frames |
//! | `K` `Q` | how many, fault | the store commits, or fails to |
//! | `R` `r` `h` `g` | how many | it answers questions, fails to, reads and holds the answer, lets go of it |
//! | `Z` | which, how | it answers what was not asked |
//! | `C` | how | the worker is done |
//! | `T` | tenths of a second | time passes |
//! | `I` | announce | the server starts again |
//!
//! In the end store, worker and clock go on until nothing is left to do. Then a device that has nothing asks for each
//! document, and must get it.

use bytes::Bytes;
use engine::{Access, Announce, ChangeHash, Input, storage::Fault};
use minicbor::Encoder;

use super::{
    library,
    stage::{DOCUMENTS, SLOTS, Stage, document},
};

/// Most instructions that are carried out.
const INSTRUCTIONS_MAX: usize = 200;
/// Longer than any wait of the engine.
const LONG_MS: u64 = 40_000;

struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// An operand less than `n`.
    fn below(&mut self, n: usize) -> usize {
        let value = match self.byte().unwrap_or(b'0') {
            byte @ b'0'..=b'9' => byte - b'0',
            byte @ b'a'..=b'z' => byte - b'a' + 10,
            byte => byte,
        };
        usize::from(value) % n
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken.to_vec()
    }
}

/// Carries out a script, and then what must be possible after any.
pub fn perform(data: &[u8], stage: &mut Stage) {
    let mut script = Script(data);
    for _ in 0..INSTRUCTIONS_MAX {
        let Some(letter) = script.byte() else { break };
        instruction(letter, &mut script, stage);
    }
    for _ in 0..3 {
        stage.settle();
        stage.pass(LONG_MS);
    }
    stage.settle();
    if !stage.checks.lied {
        (0..DOCUMENTS).for_each(|n| a_new_device_gets_it(n, stage));
    }
}

fn instruction(letter: u8, script: &mut Script<'_>, stage: &mut Stage) {
    match letter {
        b'O' | b'J' | b'X' | b'G' | b'D' | b'A' => connection(letter, script, stage),
        b'S' | b'M' | b'P' | b'B' | b'Y' => {
            let at = (letter == b'M').then(|| (script.below(256), script.below(256)));
            let (slot, n) = (script.below(SLOTS), script.below(DOCUMENTS));
            let (kind, mut data) = sync(letter, script);
            if let Some((place, value)) = at {
                let length = data.len();
                data[place % length] ^= value as u8;
            }
            stage.frame(slot, frame(kind, &name(slot), Some(n), &data, &[]));
        }
        b'F' => {
            let (slot, _, length) = (script.below(SLOTS), script.byte(), script.below(256));
            stage.frame(slot, script.bytes(length).into());
        }
        b'E' | b'U' | b'L' | b'W' | b'H' | b'N' => {
            let (slot, n, which) = (
                script.below(SLOTS),
                script.below(DOCUMENTS),
                script.below(36),
            );
            let frame = other_frame(letter, &name(slot), n, which);
            stage.frame(slot, frame);
        }
        b'K' => stage.commit(script.below(36), None),
        b'Q' => {
            let (count, fault) = (script.below(36), script.below(2));
            stage.commit(count, Some([Fault::Full, Fault::Failed][fault]));
        }
        b'R' => stage.answer(script.below(36)),
        b'r' => stage.fail_to_read(),
        b'h' => stage.read_and_hold(),
        b'g' => stage.let_go(),
        b'Z' => stage.lie(script.below(4), script.below(36)),
        b'C' => stage.work(script.below(9)),
        b'T' => stage.pass(script.below(256) as u64 * 100),
        b'I' => stage.restart([Announce::None, Announce::All][script.below(2)]),
        _ => {}
    }
}

fn connection(letter: u8, script: &mut Script<'_>, stage: &mut Stage) {
    let slot = script.below(SLOTS);
    let connection = stage.connection(slot);
    match letter {
        b'O' => stage.open(slot, [Access::Read, Access::Write][script.below(2)]),
        b'J' => stage.frame(slot, frame("join", &name(slot), None, &[], &[])),
        b'X' => stage.input(Input::Closed { connection }),
        b'G' => stage.input(Input::Congested { connection }),
        b'D' => stage.input(Input::Drained { connection }),
        _ => {
            let access = [None, Some(Access::Read), Some(Access::Write)][script.below(3)];
            stage.input(Input::AccessChanged { connection, access });
        }
    }
}

fn name(slot: usize) -> String {
    format!("device {slot}")
}

/// The type of a sync frame, and its data.
fn sync(letter: u8, script: &mut Script<'_>) -> (&'static str, Vec<u8>) {
    match letter {
        b'P' => {
            let (from, count, lies) = (script.below(14), script.below(15), script.below(2) == 1);
            let chunk = library::document(from, count, lies);
            ("sync", message(&[], &[], None, &chunk, 8))
        }
        b'B' => {
            let contents = vec![7; script.below(36)];
            (
                "sync",
                message(&[], &[], None, &library::chunk(3, &contents), 8),
            )
        }
        b'Y' => {
            let length = script.below(256);
            ("sync", script.bytes(length))
        }
        _ => {
            let heads = hashes(script.below(36));
            let need = hashes(script.below(36));
            let have = script.below(36);
            let (from, count) = (script.below(14), script.below(15));
            let flags = script.below(36);
            let changes = library::changes().iter().skip(from).take(count);
            let changes: Vec<u8> = changes.flat_map(|change| change.chunk.to_vec()).collect();
            let is_request = heads.is_empty() && changes.is_empty() && flags.is_multiple_of(2);
            let kind = if is_request { "request" } else { "sync" };
            (kind, message(&heads, &need, Some(have), &changes, flags))
        }
    }
}

/// 0: none; up to 14: that change; then what nobody has, and some at once.
fn hashes(which: usize) -> Vec<ChangeHash> {
    let all = library::changes();
    match which {
        0 => vec![],
        1..=14 => vec![all[which - 1].hash],
        15 => vec![ChangeHash::from_bytes([15; 32])],
        _ => {
            let pair = [which % all.len(), (which + 3) % all.len()];
            pair.map(|at| all[at].hash).to_vec()
        }
    }
}

/// A sync message. Of its flags 1 makes it version 2, the others are those of the protocol, in their order; 0 is none.
fn message(
    heads: &[ChangeHash],
    need: &[ChangeHash],
    have: Option<usize>,
    changes: &[u8],
    flags: usize,
) -> Vec<u8> {
    let mut out = vec![0x42 + (flags % 2) as u8];
    write_hashes(&mut out, heads);
    write_hashes(&mut out, need);
    match have {
        // no `have` at all; then an empty filter, a full one, behind different hashes
        None | Some(0) => out.push(0),
        Some(have) => {
            out.push(1);
            write_hashes(&mut out, &hashes(have / 2));
            let filter: &[u8] = if have.is_multiple_of(2) {
                &[]
            } else {
                &[1, 8, 7, 0xff]
            };
            library::leb128(&mut out, filter.len());
            out.extend(filter);
        }
    }
    if changes.is_empty() {
        out.push(0);
    } else {
        out.push(1);
        library::leb128(&mut out, changes.len());
        out.extend(changes);
    }
    if flags > 0 {
        out.extend([2, 2, 0x80 | (flags / 2 % 8) as u8]);
    }
    out
}

fn write_hashes(out: &mut Vec<u8>, hashes: &[ChangeHash]) {
    library::leb128(out, hashes.len());
    for hash in hashes {
        out.extend(hash.as_bytes());
    }
}

fn other_frame(letter: u8, name: &str, n: usize, which: usize) -> Bytes {
    match letter {
        b'E' => frame("ephemeral", name, Some(n), &[7], &[("sessionId", "s")]),
        b'U' => frame("doc-unavailable", name, Some(n), &[], &[]),
        b'L' => frame("leave", name, None, &[], &[]),
        b'W' => storages(name, which),
        b'H' => {
            let fields = [(
                "newHeads",
                if which.is_multiple_of(2) {
                    "hex"
                } else {
                    "base58"
                },
            )];
            frame("remote-heads-changed", name, None, &[], &fields)
        }
        _ => match which % 4 {
            0 => frame("sync", "somebody else", Some(n), &[0x42, 0, 0, 0, 0], &[]),
            1 => frame("no such type", name, Some(n), &[], &[]),
            2 => frame(
                "ephemeral",
                "somebody else",
                Some(n),
                &[7],
                &[("sessionId", "s")],
            ),
            _ => Bytes::from_static(&[0xf6]),
        },
    }
}

fn storages(name: &str, which: usize) -> Bytes {
    let mut e = Encoder::new(Vec::new());
    e.map(3).unwrap();
    e.str("type")
        .unwrap()
        .str("remote-subscription-change")
        .unwrap();
    e.str("senderId").unwrap().str(name).unwrap();
    e.str(if which.is_multiple_of(2) {
        "add"
    } else {
        "remove"
    })
    .unwrap();
    e.array(1).unwrap().str("storage").unwrap();
    e.into_writer().into()
}

/// A frame of texts, and of data if there is any; counts go up by themselves.
fn frame(kind: &str, name: &str, n: Option<usize>, data: &[u8], more: &[(&str, &str)]) -> Bytes {
    let mut e = Encoder::new(Vec::new());
    e.begin_map().unwrap();
    e.str("type").unwrap().str(kind).unwrap();
    e.str("senderId").unwrap().str(name).unwrap();
    if let Some(n) = n {
        e.str("documentId")
            .unwrap()
            .str(&document(n).to_string())
            .unwrap();
    }
    for (key, value) in more {
        e.str(key).unwrap();
        match *value {
            "hex" | "base58" => {
                let length = if *value == "hex" { 64 } else { 50 };
                e.map(1).unwrap().str("theirs").unwrap().map(1).unwrap();
                e.str("heads")
                    .unwrap()
                    .array(1)
                    .unwrap()
                    .str(&"a".repeat(length))
                    .unwrap();
            }
            text => drop(e.str(text).unwrap().str("count").unwrap().u64(1)),
        }
    }
    if !data.is_empty() {
        e.str("data").unwrap().bytes(data).unwrap();
    }
    e.end().unwrap();
    e.into_writer().into()
}

/// A device that has nothing asks for a document: it is sent all that is stored, or told that there is none.
fn a_new_device_gets_it(n: usize, stage: &mut Stage) {
    let slot = n % SLOTS;
    let connection = stage.connection(slot);
    stage.input(Input::Closed { connection });
    stage.open(slot, Access::Read);
    stage.frame(slot, frame("join", "new device", None, &[], &[]));
    let connection = stage.connection(slot);
    let wish = message(&[], &[], Some(2), &[], 8);
    stage.take_received(connection);
    stage.frame(slot, frame("request", "new device", Some(n), &wish, &[]));
    stage.settle();
    stage.pass(LONG_MS);
    stage.settle();
    let mut received = stage.take_received(connection);
    // where all documents are announced, it hears of others too
    received.retain(|frame| frame.document == Some(document(n)));
    let (heads, mut stored) = stage.stored(document(n));
    if heads.is_empty() {
        let told = received.iter().any(|frame| frame.kind == "doc-unavailable");
        return assert!(told, "nobody says that it is not there: {received:?}");
    }
    let mut sent: Vec<_> = received
        .iter()
        .flat_map(|frame| library::chunks_anywhere(&frame.data))
        .flat_map(|chunk| library::changes_of(&chunk))
        .collect();
    for hashes in [&mut sent, &mut stored] {
        hashes.sort_unstable();
        hashes.dedup();
    }
    assert_eq!(sent, stored, "document {n} as a new device gets it");
    let told = received.iter().rfind(|frame| frame.kind == "sync");
    assert_eq!(told.map(|frame| &frame.heads), Some(&heads));
}
