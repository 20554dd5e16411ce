//! What broken and hostile clients send: each closes its own socket at most. An honest client works on all the while,
//! and what is stored stays as it is.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

use std::time::{Duration, Instant};

use automerge::{ActorId, ROOT, transaction::Transactable};
use bytes::Bytes;
use engine::DocumentId;
use minicbor::Encoder;
use serde_json::{Value, json};
use support::{
    Client, Event, PATIENCE, Replica, Server, frame, hostile, join_frame, random_id, soon,
    sync_frame, sync_frame_as, within,
};
use tokio::{io::AsyncWriteExt, sync::watch, task::JoinHandle, time::timeout};
use tokio_tungstenite::tungstenite::Message;

mod support;

/// How long an honest client waits for an acknowledgement, whatever others do.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(1);
/// Most memory that the server may have had, whatever was sent.
const MEMORY_BYTES_MAX: u64 = 200 << 20;
/// Close codes. Source: RFC 6455, section 7.4.1.
const PROTOCOL_ERROR: Option<u16> = Some(1002);
const NOT_UNDERSTOOD: Option<u16> = Some(1003);
const POLICY: Option<u16> = Some(1008);
const TOO_BIG: Option<u16> = Some(1009);
/// The socket stays open.
const OPEN: Option<u16> = None;

/// A server with a document on it, and an honest client that writes into another one all the time.
struct Scene {
    server: Server,
    victim: Replica,
    stored: Value,
    stop: watch::Sender<bool>,
    honest: JoinHandle<(Duration, Replica)>,
    failures: Vec<String>,
}

/// Something to send, and the close code that must come of it.
struct Case {
    name: String,
    joins: bool,
    frames: Vec<Message>,
    expected: Option<u16>,
}

impl Case {
    fn new(name: impl Into<String>, frame: impl Into<Bytes>, expected: Option<u16>) -> Self {
        Self {
            name: name.into(),
            joins: true,
            frames: vec![Message::Binary(frame.into())],
            expected,
        }
    }

    fn unjoined(name: &str, frames: &[Bytes], expected: Option<u16>) -> Self {
        Self {
            name: name.into(),
            joins: false,
            frames: frames.iter().cloned().map(Message::Binary).collect(),
            expected,
        }
    }
}

impl Scene {
    async fn new() -> Self {
        let server = Server::start().await;
        let mut owner = Client::join(&server.url, "owner").await;
        let mut victim = Replica::new("owner", "one");
        owner.push(&mut victim).await;
        // what was pushed whole has been looked at once a change onto it is acknowledged
        owner.edit(&mut victim, "two").await;
        owner.close().await;
        let stored = server.document(victim.id).await.unwrap();
        assert_eq!(stored["heads"], json!(victim.heads()));
        let (stop, stopped) = watch::channel(false);
        let honest = tokio::spawn(write_all_the_time(server.url.clone(), stopped));
        Self {
            server,
            victim,
            stored,
            stop,
            honest,
            failures: vec![],
        }
    }

    fn sync(&self, data: &[u8]) -> Bytes {
        sync_frame("sync", "attacker", self.victim.id, data)
    }

    /// A sync message for the victim that carries this.
    fn changes(&self, entries: &[&[u8]]) -> Bytes {
        let heads = self.victim.doc.get_heads();
        self.sync(&hostile::sync_message(&heads, entries))
    }

    async fn attacker(&self) -> Client {
        Client::join(&self.server.url, "attacker").await
    }

    async fn run(&mut self, cases: impl IntoIterator<Item = Case>) {
        for case in cases {
            let mut client = if case.joins {
                self.attacker().await
            } else {
                Client::open(&self.server.url, "attacker").await
            };
            for message in case.frames {
                client.send_message(message).await;
            }
            self.check(&case.name, &mut client, case.expected).await;
        }
    }

    /// Notes whether the socket is closed as it should be, or still answers as it should.
    async fn check(&mut self, name: &str, client: &mut Client, expected: Option<u16>) {
        let outcome = match expected {
            Some(_) => timeout(PATIENCE, client.closed()).await.ok(),
            None => close_code_unless_answered(client).await,
        };
        if outcome != expected {
            let failure = format!("{name}: closed with {outcome:?}, expected {expected:?}");
            self.failures.push(failure);
        }
    }

    /// Says what went wrong with whom: the cases, the honest client, the document, the memory.
    async fn end(mut self) {
        self.stop.send_replace(true);
        let (slowest, written) = soon("the honest client", self.honest).await.unwrap();
        if slowest > ACKNOWLEDGED_WITHIN {
            let failure = format!("an honest client waited {slowest:?} for an acknowledgement");
            self.failures.push(failure);
        }
        let peak = self.server.peak_memory_bytes();
        println!(
            "slowest acknowledgement {slowest:?}, peak {} MB",
            peak >> 20
        );
        if peak > MEMORY_BYTES_MAX {
            self.failures
                .push(format!("the server took {} MB", peak >> 20));
        }
        let stored = self.server.document(self.victim.id).await.unwrap();
        if stored != self.stored {
            let failure = format!("the document was {}, and is now {stored}", self.stored);
            self.failures.push(failure);
        }
        let written_heads = json!(written.heads());
        let honest = self.server.document(written.id).await.unwrap();
        assert_eq!(honest["heads"], written_heads, "{honest}");
        let stderr = self.server.stderr();
        assert!(!stderr.contains("panicked"), "{stderr}");
        assert!(self.failures.is_empty(), "{:#?}", self.failures);
        let mut late = Client::join(&self.server.url, "late").await;
        let copy = late.pull(self.victim.id).await.unwrap();
        assert_eq!(copy.value().unwrap(), "two");
    }
}

/// Asks for a document that nobody knows, and waits for the answer or the close.
async fn close_code_unless_answered(client: &mut Client) -> Option<u16> {
    let mut unknown = Replica::empty(random_id(), "attacker");
    client.sync(&mut unknown).await;
    let id = unknown.id.to_string();
    loop {
        match client.next().await {
            Event::Closed { code, .. } => return Some(code),
            Event::Frame(frame) if frame.document == id => return None,
            Event::Frame(_) => {}
        }
    }
}

/// Edits a document, waits for the acknowledgement, and so on; hands back the longest that it waited.
async fn write_all_the_time(url: String, stopped: watch::Receiver<bool>) -> (Duration, Replica) {
    let mut client = Client::join(&url, "honest").await;
    let mut note = Replica::new("honest", "0");
    client.push(&mut note).await;
    let mut slowest = Duration::ZERO;
    for n in 1u64.. {
        let started = Instant::now();
        client.edit(&mut note, &n.to_string()).await;
        slowest = slowest.max(started.elapsed());
        if *stopped.borrow() {
            break;
        }
    }
    (slowest, note)
}

fn cbor(write: impl FnOnce(&mut Encoder<Vec<u8>>)) -> Vec<u8> {
    let mut encoder = Encoder::new(vec![]);
    write(&mut encoder);
    encoder.into_writer()
}

/// A sync frame without the `field`, in whose place `value` stands.
fn with_field(id: DocumentId, field: &str, value: &[u8]) -> Vec<u8> {
    let id = id.to_string();
    let fields = [
        ("type", "sync"),
        ("senderId", "attacker"),
        ("targetId", "server"),
        ("documentId", id.as_str()),
    ];
    let mut bytes = cbor(|e| {
        e.map(6).unwrap();
        for (key, value) in fields.iter().filter(|(key, _)| *key != field) {
            e.str(key).unwrap().str(value).unwrap();
        }
        if field != "data" {
            e.str("data").unwrap().bytes(&[0x43]).unwrap();
        }
        // up to six fields, of which the last has no value yet
        let left = 5 - fields.iter().filter(|(key, _)| *key != field).count();
        for n in usize::from(field != "data")..left {
            e.str(&format!("other{n}")).unwrap().null().unwrap();
        }
        e.str(field).unwrap();
    });
    bytes.extend(value);
    bytes
}

/// Bytes that look random, the same in every run (splitmix64).
fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_le_bytes()[0]
    };
    (0..count).map(|_| next()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_is_no_message_closes_its_socket() {
    let mut scene = Scene::new().await;
    let mut cases: Vec<_> = [1, 2, 9, 100, 1_000, 100_000]
        .into_iter()
        .zip(0..)
        .map(|(count, seed)| {
            Case::new(
                format!("{count} random bytes"),
                noise(seed, count),
                PROTOCOL_ERROR,
            )
        })
        .collect();
    let whole = scene.sync(&[0x43, 0, 0, 0, 0]);
    cases.extend((0..whole.len()).step_by(11).map(|end| {
        Case::new(
            format!("cut off after {end} bytes"),
            whole.slice(..end),
            PROTOCOL_ERROR,
        )
    }));
    let bare: [(&str, &[u8]); 9] = [
        ("null", &[0xf6]),
        ("undefined", &[0xf7]),
        ("a break", &[0xff]),
        ("a number", &[7]),
        ("an empty map", &[0xa0]),
        ("an empty array", &[0x80]),
        ("an endless map", &[0xbf]),
        ("reserved", &[0xbc]),
        ("a key that is a number", &[0xa1, 1, 1]),
    ];
    cases.extend(bare.map(|(name, bytes)| Case::new(name, bytes.to_vec(), PROTOCOL_ERROR)));
    cases.push(Case {
        name: "a text frame".into(),
        joins: true,
        frames: vec![Message::text("hello")],
        expected: NOT_UNDERSTOOD,
    });
    scene.run(cases).await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nesting_and_lengths_are_bounded_before_anything_is_allocated() {
    let mut scene = Scene::new().await;
    let id = scene.victim.id;
    let deep = |byte: u8, depth: usize| with_field(id, "other", &vec![byte; depth]);
    let claim = |field: &str, value: &[u8]| with_field(id, field, value);
    let huge = [0xff; 8];
    let long = |major: u8| [&[major][..], &huge].concat();
    let cases = vec![
        Case::new("100 arrays", deep(0x81, 100), PROTOCOL_ERROR),
        Case::new("a million arrays", deep(0x81, 1_000_000), PROTOCOL_ERROR),
        Case::new(
            "a million open arrays",
            deep(0x9f, 1_000_000),
            PROTOCOL_ERROR,
        ),
        Case::new("a million open maps", deep(0xbf, 1_000_000), PROTOCOL_ERROR),
        Case::new("a million tags", deep(0xc1, 1_000_000), PROTOCOL_ERROR),
        Case::new("a huge map", long(0xbb), PROTOCOL_ERROR),
        Case::new("a huge text", claim("other", &long(0x7b)), PROTOCOL_ERROR),
        Case::new("a huge array", claim("other", &long(0x9b)), PROTOCOL_ERROR),
        Case::new(
            "a huge map within",
            claim("other", &long(0xbb)),
            PROTOCOL_ERROR,
        ),
        Case::new("huge data", claim("data", &long(0x5b)), PROTOCOL_ERROR),
        Case::new("a huge type", claim("type", &long(0x7b)), PROTOCOL_ERROR),
        Case::new("a huge add", claim("add", &long(0x9b)), PROTOCOL_ERROR),
        Case::new(
            "huge newHeads",
            claim("newHeads", &long(0xbb)),
            PROTOCOL_ERROR,
        ),
        Case::new(
            "huge versions",
            claim("supportedProtocolVersions", &long(0x9b)),
            PROTOCOL_ERROR,
        ),
    ];
    scene.run(cases).await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_of_the_wrong_type_closes_its_socket() {
    let mut scene = Scene::new().await;
    let id = scene.victim.id;
    let values: [(&str, Vec<u8>); 7] = [
        ("null", vec![0xf6]),
        ("undefined", vec![0xf7]),
        ("true", vec![0xf5]),
        ("a number", vec![7]),
        ("a float", vec![0xf9, 0x7e, 0]),
        ("an array", vec![0x80]),
        ("a map", vec![0xa0]),
    ];
    let mut cases = vec![];
    for field in ["type", "senderId", "documentId", "data"] {
        for (name, value) in &values {
            cases.push(Case::new(
                format!("{field} is {name}"),
                with_field(id, field, value),
                PROTOCOL_ERROR,
            ));
        }
    }
    let text_data = [&[0x64][..], b"text"].concat();
    // tag 65: big-endian numbers of 16 bits
    let tagged = vec![0xd8, 65, 0x41, 0x43];
    let bytes = [&[0x48][..], b"attacker"].concat();
    for (name, field, value) in [
        ("data is a text", "data", &text_data),
        ("data is an array of 16-bit numbers", "data", &tagged),
        ("senderId is bytes", "senderId", &bytes),
        ("documentId is bytes", "documentId", &bytes),
        ("count is a text", "count", &text_data),
        ("count is negative", "count", &vec![0x20]),
        ("count is no number", "count", &vec![0xf9, 0x7e, 0]),
        ("add is a text", "add", &text_data),
    ] {
        cases.push(Case::new(
            name,
            with_field(id, field, value),
            PROTOCOL_ERROR,
        ));
    }
    scene.run(cases).await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_id_that_is_none_closes_its_socket_and_touches_no_file() {
    let mut scene = Scene::new().await;
    let before = files(&scene.server);
    let mut wrong_check = scene.victim.id.to_string();
    let last = if wrong_check.pop() == Some('2') {
        '3'
    } else {
        '2'
    };
    wrong_check.push(last);
    let long = "a".repeat(1 << 20);
    let url = format!("automerge:{}", scene.victim.id);
    let ids = [
        "",
        ".",
        "..",
        "/",
        "../../../etc/passwd",
        "/etc/passwd",
        "..\\..\\x",
        "\0",
        "__proto__",
        "constructor",
        "null",
        "*",
        "%2e%2e%2f",
        "automerge:",
        "é",
        "0OIl",
        "1111",
        "' OR 1=1 --",
        &wrong_check,
        &long,
        &url,
    ];
    let data = hostile::sync_message(&[], &[]);
    let cases = ids.iter().flat_map(|id| {
        ["request", "sync"].map(|kind| {
            let shown: String = id.chars().take(30).collect();
            let frame = sync_frame_as(kind, "attacker", id, &data);
            Case::new(format!("{kind} of {shown:?}"), frame, PROTOCOL_ERROR)
        })
    });
    let cases: Vec<_> = cases.collect();
    scene.run(cases).await;
    assert_eq!(files(&scene.server), before);
    scene.end().await;
}

/// All files of the server, by name.
fn files(server: &Server) -> Vec<std::path::PathBuf> {
    let mut folders = vec![server.folder().to_owned()];
    let mut files = vec![];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_out_of_turn_close_their_socket() {
    let mut scene = Scene::new().await;
    let sync = scene.sync(&hostile::sync_message(&[], &[]));
    let foreign = |kind: &str| {
        let data = hostile::sync_message(&[], &[]);
        sync_frame(kind, "honest", scene.victim.id, &data)
    };
    let empty = sync_frame("sync", "attacker", scene.victim.id, &[]);
    let no_sender = frame(&[("type", "join")], None);
    let empty_sender = join_frame("");
    let long_sender = join_frame(&"a".repeat(100_000));
    let join = join_frame("attacker");
    let unknown = frame(&[("type", "hello"), ("senderId", "attacker")], None);
    let old = cbor(|e| {
        e.map(3).unwrap();
        e.str("type").unwrap().str("join").unwrap();
        e.str("senderId").unwrap().str("attacker").unwrap();
        e.str("supportedProtocolVersions").unwrap();
        e.array(1).unwrap().str("0").unwrap();
    });
    let many = vec![join.clone(); 1_000];
    let cases = vec![
        Case::unjoined("sync before join", &[sync], PROTOCOL_ERROR),
        Case::unjoined(
            "unknown type before join",
            std::slice::from_ref(&unknown),
            PROTOCOL_ERROR,
        ),
        Case::unjoined("join without senderId", &[no_sender], PROTOCOL_ERROR),
        Case::unjoined(
            "join with an empty senderId",
            &[empty_sender],
            PROTOCOL_ERROR,
        ),
        Case::unjoined("join with a long senderId", &[long_sender], PROTOCOL_ERROR),
        Case::unjoined("no version that we speak", &[old.into()], PROTOCOL_ERROR),
        Case::unjoined("a thousand joins", &many, PROTOCOL_ERROR),
        Case::new("second join", join, PROTOCOL_ERROR),
        Case::new("join as another", join_frame("honest"), PROTOCOL_ERROR),
        Case::new("sync in another's name", foreign("sync"), POLICY),
        Case::new("request in another's name", foreign("request"), POLICY),
        Case::new("sync without data", empty, PROTOCOL_ERROR),
        Case::new("unknown type", unknown, OPEN),
    ];
    scene.run(cases).await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_message_that_is_none_closes_its_socket() {
    let mut scene = Scene::new().await;
    let whole = hostile::sync_message(&scene.victim.doc.get_heads(), &[]);
    let with_bloom =
        |bloom: &[u8]| [&[0x43, 0, 0, 1, 0][..], &hostile::prefixed(bloom), &[0]].concat();
    let claim = |before: &[u8]| [&[0x43][..], before, &hostile::leb128(u64::MAX)].concat();
    let mut huge_bloom = hostile::leb128(u64::from(u32::MAX));
    huge_bloom.extend([1, 7]);
    let mut slow_bloom = vec![1, 10];
    slow_bloom.extend(hostile::leb128(u64::from(u32::MAX)));
    slow_bloom.extend([0xff, 0xff]);
    let mut messages = vec![
        ("another version", vec![0x44, 0, 0, 0, 0]),
        ("a stored state", [&[0x41][..], &whole[1..]].concat()),
        ("2^64 heads", claim(&[])),
        ("2^64 needs", claim(&[0])),
        ("2^64 haves", claim(&[0, 0])),
        ("2^64 changes", claim(&[0, 0, 0])),
        ("a filter of 2^32 entries", with_bloom(&huge_bloom)),
        ("a filter without bits", with_bloom(&[4, 0, 7])),
        ("a filter with 2^32 probes", with_bloom(&slow_bloom)),
        ("a filter without probes", with_bloom(&[1, 10, 0, 0, 0])),
        ("a number that does not end", vec![0x43, 0xff, 0xff, 0xff]),
        ("random bytes", noise(1, 500)),
    ];
    for end in [1, 2, 20, whole.len() - 5] {
        messages.push(("cut off", whole[..end].to_vec()));
    }
    let cases: Vec<_> = messages
        .into_iter()
        .map(|(name, data)| Case::new(name, scene.sync(&data), PROTOCOL_ERROR))
        .collect();
    scene.run(cases).await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_unsound_is_refused_with_its_whole_message() {
    let mut scene = Scene::new().await;
    let contents = hostile::change_contents(b"attacker", 1, b"");
    let sound = hostile::chunk(hostile::CHANGE, &contents);
    let wrong_checksum = hostile::chunk_with(hostile::CHANGE, &contents, [1, 2, 3, 4]);
    let mut wrong_magic = sound.clone();
    wrong_magic[0] ^= 1;
    let mut flipped = sound.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let of = |kind: u8, contents: &[u8]| hostile::chunk(kind, contents);
    let gap = of(
        hostile::CHANGE,
        &hostile::change_contents(b"attacker", 9, b""),
    );
    let zero = of(
        hostile::CHANGE,
        &hostile::change_contents(b"attacker", 0, b""),
    );
    let unknown_type = of(9, &contents);
    let no_deflate = of(hostile::DEFLATED_CHANGE, &noise(3, 100));
    let twin = twin_of_the_last_change(&scene.victim);
    let first_twin = of(
        hostile::CHANGE,
        &hostile::change_contents(b"owner", 1, b"x"),
    );
    let entries: [(&str, Vec<&[u8]>); 13] = [
        ("wrong checksum", vec![&wrong_checksum]),
        ("wrong magic", vec![&wrong_magic]),
        ("a flipped bit", vec![&flipped]),
        ("cut off", vec![&sound[..sound.len() - 1]]),
        ("too long", vec![&sound, &[0]]),
        ("unknown type", vec![&unknown_type]),
        ("no contents", vec![&b"\x85oJ\x83\0\0\0\0\x01\0"[..]]),
        ("sequence number 0", vec![&zero]),
        ("a gap before it", vec![&gap]),
        ("not deflated", vec![&no_deflate]),
        ("sound, then wrong checksum", vec![&sound, &wrong_checksum]),
        ("a second change under a taken number", vec![&twin]),
        ("a second first change", vec![&sound, &first_twin]),
    ];
    let cases: Vec<_> = entries
        .iter()
        .map(|(name, entries)| Case::new(*name, scene.changes(entries), POLICY))
        .collect();
    scene.run(cases).await;
    scene.end().await;
}

/// Another change of the same actor with the same sequence number as the document's last.
fn twin_of_the_last_change(replica: &Replica) -> Vec<u8> {
    let first = replica.doc.get_changes(&[])[0].hash();
    let fork = replica.doc.fork_at(&[first]).unwrap();
    let mut fork = fork.with_actor(ActorId::from(b"owner".as_slice()));
    let mut tx = fork.transaction();
    tx.put(ROOT, "key", "another two").unwrap();
    tx.commit();
    let change = fork.get_last_local_change().unwrap();
    assert_eq!(change.seq(), 2);
    change.raw_bytes().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deflate_bomb_takes_neither_memory_nor_time() {
    let bomb = hostile::deflate_bomb(1 << 30);
    let long = |n: u8| hostile::long_deflated_change(&[n; 16], 31 << 20);
    let longs: Vec<_> = (0..5).map(long).collect();
    let document = hostile::document_bomb(1 << 30);
    let mut scene = Scene::new().await;
    let entries: Vec<_> = longs.iter().map(Vec::as_slice).collect();
    scene
        .run([
            Case::new("1 GB in one change", scene.changes(&[&bomb]), POLICY),
            Case::new("155 MB in five changes", scene.changes(&entries), POLICY),
        ])
        .await;
    // onto a document that exists, and as a new one
    let onto = scene.changes(&[&document]);
    scene
        .run([Case::new("1 GB in a document", onto, POLICY)])
        .await;
    let id = random_id();
    let heads = [automerge::ChangeHash([7; 32])];
    let pushed = hostile::sync_message(&heads, &[&document]);
    let mut attacker = scene.attacker().await;
    attacker
        .send(sync_frame("sync", "attacker", id, &pushed))
        .await;
    // the worker gives way to everything else that this machine has to do
    let a_minute = Duration::from_secs(60);
    let code = within(a_minute, "the worker to refuse it", attacker.close_code()).await;
    assert_eq!(Some(code), POLICY, "1 GB in a new document");
    let mut other = scene.attacker().await;
    assert!(other.pull(id).await.is_none(), "it is gone again");
    assert_eq!(scene.server.document(id).await, None);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_of_200_mb_is_refused_from_its_header() {
    let mut scene = Scene::new().await;
    let header = |first: u8, bytes: u64| {
        // RFC 6455, section 5.2: masked, a length of 64 bits, the mask
        [&[first, 0xff][..], &bytes.to_be_bytes(), &[0; 4]].concat()
    };
    let cases = [
        ("200 MB", header(0x82, 200 << 20), TOO_BIG),
        ("2^62 bytes", header(0x82, 1 << 62), TOO_BIG),
        ("200 MB to be continued", header(0x02, 200 << 20), TOO_BIG),
    ];
    for (name, header, expected) in cases {
        let mut client = scene.attacker().await;
        client.stream().write_all(&header).await.unwrap();
        let code = Some(client.close_code().await);
        if code != expected {
            scene.failures.push(format!("{name}: {code:?}"));
        }
    }
    // pieces that are short enough each
    let mut client = scene.attacker().await;
    let piece = vec![0; 30 << 20];
    for first in [0x02, 0x00, 0x00] {
        let header = header(first, piece.len() as u64);
        // the server may have closed it before the last piece is written
        let stream = client.stream();
        if stream.write_all(&header).await.is_err() || stream.write_all(&piece).await.is_err() {
            break;
        }
    }
    let code = Some(client.close_code().await);
    if code != TOO_BIG {
        scene.failures.push(format!("90 MB in pieces: {code:?}"));
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_websocket_frames_close_their_socket() {
    let mut scene = Scene::new().await;
    let long_ping = [&[0x89, 0xfe, 0x01, 0x00, 0, 0, 0, 0][..], &[0; 256]].concat();
    let cases: [(&str, &[u8]); 4] = [
        ("a reserved bit", &[0xc2, 0x80, 0, 0, 0, 0]),
        ("an unknown opcode", &[0x83, 0x80, 0, 0, 0, 0]),
        ("without a mask", &[0x82, 0x01, 0x00]),
        ("a long ping", &long_ping),
    ];
    for (name, bytes) in cases {
        let mut client = scene.attacker().await;
        client.stream().write_all(bytes).await.unwrap();
        let code = Some(soon(name, client.close_code()).await);
        if code != PROTOCOL_ERROR {
            scene.failures.push(format!("{name}: {code:?}"));
        }
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_unknown_documents_are_unavailable_and_not_stored() {
    const COUNT: usize = 5_000;
    let scene = Scene::new().await;
    let data = hostile::sync_message(&[], &[]);
    let mut client = scene.attacker().await;
    let requests: Vec<_> = (0..COUNT)
        .map(|_| sync_frame("request", "attacker", random_id(), &data))
        .collect();
    client.send_all(requests).await;
    let mut answered = std::collections::BTreeSet::new();
    while answered.len() < COUNT {
        let received = client.frame().await;
        assert_eq!(received.kind, "doc-unavailable");
        assert!(answered.insert(received.document), "told twice");
    }
    let listed = scene.server.cli(&["docs", "ls", "--json"]).await.json();
    assert_eq!(
        listed.as_array().unwrap().len(),
        2,
        "the victim, and the honest client's"
    );
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_visitors_under_one_name_are_all_served() {
    let mut scene = Scene::new().await;
    let mut visitors = vec![];
    for _ in 0..200 {
        visitors.push(scene.attacker().await);
    }
    for (n, visitor) in visitors.iter_mut().enumerate() {
        scene.check(&format!("visitor {n}"), visitor, OPEN).await;
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_of_a_visitor_who_vanishes_are_there_whole_or_not_at_all() {
    let scene = Scene::new().await;
    let mut visitor = scene.attacker().await;
    let mut created: Vec<_> = (0..100)
        .map(|n| Replica::new("attacker", &format!("document {n}")))
        .collect();
    for replica in &mut created {
        visitor.sync(replica).await;
    }
    // without a word
    drop(visitor);
    let mut later = Client::join(&scene.server.url, "later").await;
    for replica in &created {
        if let Some(copy) = later.pull(replica.id).await {
            assert_eq!(copy.heads(), replica.heads());
            let stored = scene.server.document(copy.id).await.unwrap();
            assert_eq!(stored["heads"], json!(replica.heads()));
        } else {
            assert_eq!(scene.server.document(replica.id).await, None);
        }
    }
    scene.end().await;
}
