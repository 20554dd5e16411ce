//! Files that are damaged, foreign, newer, private, shared between processes, or without room.
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected ends")]

mod support;

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::{Read as _, Seek, SeekFrom, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt},
    path::Path,
    process,
};

use engine::{
    ChangeHash,
    storage::{Answer, Fault, Orphan, StoredChunk, Write, WriteAction},
};
use rusqlite::Connection;
use store::{
    AccountStore, GroupFile, NewSession, Occasion, OpenProblem, SessionAccess, SessionKind,
};
use support::{TestStore, all_chunks, append, document};

const CONTENT: &[u8] = b"nowhere else in the file stands this";

/// Flips a bit in the middle of the only place where these bytes stand.
fn flip_bit(path: &Path, bytes: &[u8]) {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut content = vec![];
    file.read_to_end(&mut content).unwrap();
    let mut places = content
        .windows(bytes.len())
        .enumerate()
        .filter(|(_, window)| *window == bytes);
    let (at, _) = places.next().unwrap();
    assert_eq!(places.next(), None);
    let at = at + bytes.len() / 2;
    file.seek(SeekFrom::Start(at as u64)).unwrap();
    file.write_all(&[content.get(at).unwrap() ^ 4]).unwrap();
}

fn damage_of(store: &mut TestStore) -> String {
    let error = store.try_reopen().unwrap_err();
    assert!(
        matches!(error.problem, OpenProblem::Damaged { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("group.db"), "{error}");
    error.to_string()
}

#[test]
fn a_flipped_bit_in_a_chunk_is_found_at_the_next_start() {
    let mut store = TestStore::create();
    store
        .write(&append(document(1), 0, b"another document"))
        .unwrap();
    store.write(&append(document(2), 0, CONTENT)).unwrap();
    store.close();
    flip_bit(&store.path(), CONTENT);
    let error = damage_of(&mut store);
    assert!(error.contains("chunk 0 of document number 2"), "{error}");
}

#[test]
fn a_flipped_bit_in_the_heads_is_found_at_the_next_start() {
    let mut store = TestStore::create();
    store.write(&append(document(1), 0, b"x")).unwrap();
    store.close();
    flip_bit(&store.path(), &[100; 32]);
    let error = damage_of(&mut store);
    assert!(error.contains(&document(1).to_string()), "{error}");
}

#[test]
fn a_flipped_bit_in_an_index_is_found_at_the_next_start() {
    let mut store = TestStore::create();
    store.write(&append(document(1), 0, b"x")).unwrap();
    store.write(&replace(CONTENT)).unwrap();
    store.close();
    flip_bit(&store.path(), CONTENT);
    damage_of(&mut store);
}

#[test]
fn a_flipped_bit_in_an_orphan_is_found_at_the_next_start() {
    let mut store = TestStore::create();
    store.write(&queue_orphan(CONTENT)).unwrap();
    store.reopen();
    store.close();
    flip_bit(&store.path(), CONTENT);
    let error = damage_of(&mut store);
    assert!(error.contains("an orphan of document number 1"), "{error}");
}

fn queue_orphan(bytes: &'static [u8]) -> Write {
    let action = WriteAction::Append {
        chunk: None,
        heads: vec![],
        changes: 0,
        orphans: vec![Orphan {
            hash: ChangeHash::from_bytes([3; 32]),
            bytes: bytes.into(),
        }],
        adopted: vec![],
    };
    Write {
        document: document(1),
        action,
    }
}

#[test]
fn a_look_from_outside_tells_pushed_chunks_from_tails_and_when_they_came() {
    let before = now_ms();
    let store = TestStore::create();
    store.write(&append(document(1), 0, b"tail")).unwrap();
    let mut pushed = append(document(2), 0, b"pushed");
    if let WriteAction::Append {
        chunk: Some(chunk), ..
    } = &mut pushed.action
    {
        chunk.kind = engine::storage::ChunkKind::Pushed;
    }
    store.write(&pushed).unwrap();
    let documents = GroupFile::open(&store.path()).unwrap().documents().unwrap();
    let looks: Vec<_> = documents
        .iter()
        .map(|document| (document.has_pushed, document.tail_bytes))
        .collect();
    assert_eq!(looks, [(false, 4), (true, 0)]);
    let time = before..=now_ms();
    for document in documents {
        assert!(time.contains(&document.created_at_ms), "{document:?}");
        assert!(time.contains(&document.changed_at_ms), "{document:?}");
    }
}

#[test]
fn a_document_that_is_taken_out_of_quarantine_is_as_it_was_before() {
    let mut store = TestStore::create();
    let stored = append(document(1), 0, b"stored");
    store.write(&stored).unwrap();
    let before = GroupFile::open(&store.path()).unwrap().documents().unwrap();
    let reason = "it took the worker too long".to_owned();
    let quarantine = Write {
        document: document(1),
        action: WriteAction::Quarantine {
            reason: reason.clone(),
        },
    };
    store.write(&quarantine).unwrap();
    store.close();
    let end = |number| store::end_quarantine(&store.path(), document(number)).unwrap();
    assert_eq!((end(2), end(1)), (None, Some(reason)));
    assert_eq!(end(1), None);
    // which looks at its checksum
    store.reopen();
    let after = GroupFile::open(&store.path()).unwrap().documents().unwrap();
    assert_eq!(after, before);
}

fn now_ms() -> i64 {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since_epoch.unwrap().as_millis()).unwrap()
}

#[test]
fn each_file_has_a_storage_id_of_its_own() {
    let (one, other) = (TestStore::create(), TestStore::create());
    let id = one.store().storage_id();
    assert_eq!(id.len(), 36, "{id}");
    assert_ne!(id, other.store().storage_id());
}

#[test]
fn a_private_folder_is_made_with_those_above_it_and_nobody_else_may_enter() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("above").join("below");
    for _ in 0..2 {
        store::create_private_dir(&path).unwrap();
        for made in [&path, path.parent().unwrap()] {
            let mode = fs::metadata(made).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o700, "{}", made.display());
        }
    }
}

#[test]
fn a_read_that_failed_shows_until_one_succeeds() {
    let store = TestStore::create();
    store.write(&append(document(1), 0, b"x")).unwrap();
    let raw = Connection::open(store.path()).unwrap();
    let health = store.store().health_reader();
    raw.execute_batch("ALTER TABLE chunks RENAME TO away")
        .unwrap();
    assert_eq!(store.read(&all_chunks(document(1))), Err(Fault::Failed));
    assert_eq!(health.get(), store::Health::Failed);
    raw.execute_batch("ALTER TABLE away RENAME TO chunks")
        .unwrap();
    assert!(store.read(&all_chunks(document(1))).is_ok());
    assert_eq!(health.get(), store::Health::Good);
}

#[test]
fn another_programs_database_without_a_version_is_left_alone_too() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("account.db");
    let raw = Connection::open(&path).unwrap();
    raw.pragma_update(None, "application_id", 42).unwrap();
    let error = AccountStore::open(&path).err().unwrap();
    assert!(
        matches!(error.problem, OpenProblem::Foreign { application_id: 42 }),
        "{error}"
    );
}

fn replace(index: &'static [u8]) -> Write {
    let action = WriteAction::Replace {
        snapshot: StoredChunk {
            number: 0,
            kind: engine::storage::ChunkKind::Snapshot,
            bytes: b"snapshot"[..].into(),
        },
        index: index.into(),
        covers_through: 0,
        heads: vec![ChangeHash::from_bytes([9; 32])],
        changes: 1,
    };
    Write {
        document: document(1),
        action,
    }
}

#[test]
fn damage_that_happens_while_the_file_is_open_refuses_that_document_alone() {
    let store = TestStore::create();
    store.write(&append(document(1), 0, b"sound")).unwrap();
    store.write(&append(document(2), 0, CONTENT)).unwrap();
    let connection = Connection::open(store.path()).unwrap();
    connection
        .execute("UPDATE chunks SET bytes = x'00' WHERE document = 2", [])
        .unwrap();
    assert_eq!(store.read(&all_chunks(document(2))), Err(Fault::Failed));
    assert!(matches!(
        store.read(&all_chunks(document(1))),
        Ok(Answer::Chunks { .. })
    ));
    assert_eq!(store.store().health_reader().get(), store::Health::Failed);
}

#[test]
fn a_file_cut_in_half_is_damaged() {
    let mut store = TestStore::create();
    for number in 0..20 {
        store
            .write(&append(document(1), number, &[number; 3_000]))
            .unwrap();
    }
    store.close();
    let file = OpenOptions::new().write(true).open(store.path()).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    damage_of(&mut store);
}

#[test]
fn a_file_that_is_no_database_is_damaged() {
    let mut store = TestStore::create();
    store.close();
    fs::write(store.path(), [7; 5_000]).unwrap();
    damage_of(&mut store);
}

#[test]
fn another_programs_database_is_left_alone() {
    let mut store = TestStore::create();
    store.close();
    Connection::open(store.path())
        .unwrap()
        .pragma_update(None, "application_id", 42)
        .unwrap();
    let error = store.try_reopen().unwrap_err();
    assert!(
        matches!(error.problem, OpenProblem::Foreign { application_id: 42 }),
        "{error}"
    );
}

#[test]
fn a_newer_versions_file_is_left_alone() {
    let mut store = TestStore::create();
    store.close();
    Connection::open(store.path())
        .unwrap()
        .pragma_update(None, "user_version", 99)
        .unwrap();
    let error = store.try_reopen().unwrap_err();
    assert!(
        matches!(error.problem, OpenProblem::TooNew { found: 99, .. }),
        "{error}"
    );
}

#[test]
fn the_storage_id_stays_and_the_files_are_private() {
    let mut store = TestStore::create();
    store.write(&append(document(1), 0, b"x")).unwrap();
    let id = store.store().storage_id().to_owned();
    for entry in fs::read_dir(store.folder.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.file_name());
    }
    store.reopen();
    assert_eq!(store.store().storage_id(), id);
}

#[test]
fn a_group_can_be_looked_into_while_it_is_open_and_after() {
    let mut store = TestStore::create();
    store.write(&append(document(1), 0, b"one")).unwrap();
    for _ in 0..2 {
        let file = GroupFile::open(&store.path()).unwrap();
        let documents = file.documents().unwrap();
        let [summary] = &documents[..] else {
            panic!("{documents:?}")
        };
        assert_eq!(
            (summary.id, summary.changes, summary.tail_bytes),
            (document(1), 1, 3)
        );
        assert_eq!(file.document(document(1)).unwrap().as_ref(), Some(summary));
        assert_eq!(file.document(document(9)).unwrap(), None);
        let chunks = file.chunks(document(1)).unwrap();
        assert_eq!(
            chunks
                .iter()
                .map(|chunk| &chunk.bytes[..])
                .collect::<Vec<_>>(),
            [b"one"]
        );
        drop(file);
        if store.is_open() {
            store.close();
        }
    }
    let missing = GroupFile::open(&store.folder.path().join("missing.db"));
    assert!(missing.is_err_and(|error| error.to_string().contains("missing.db")));
    assert!(!store.folder.path().join("missing.db").exists());
}

#[test]
fn a_session_is_seen_by_another_process_and_revoked_by_it() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("account.db");
    let (server, command) = (
        AccountStore::open(&path).unwrap(),
        AccountStore::open(&path).unwrap(),
    );
    let before = server.change_counter().unwrap();
    let new = NewSession {
        id: "s1".into(),
        name: "laptop".into(),
        kind: SessionKind::Token,
        device: None,
        groups: vec![("com.example.notes".into(), SessionAccess::Read)],
        expires_at_ms: i64::MAX,
        slide_ms: 0,
        ends_at_ms: i64::MAX,
    };
    let occasion = Occasion::at(1);
    command.add(&new, &occasion).unwrap();
    assert!(command.add(&new, &occasion).is_err(), "an id is used once");
    assert_ne!(server.change_counter().unwrap(), before);
    let session = server.session("s1").unwrap().unwrap();
    assert_eq!(
        (&session.groups, session.last_used_at_ms),
        (&new.groups, None)
    );
    assert!(session.is_in_force(0));
    server.touch(["s1"], 2).unwrap();
    let used = command.session("s1").unwrap().unwrap();
    assert_eq!(used.last_used_at_ms, Some(2));
    assert!(command.revoke("s1", &occasion).unwrap());
    let again = command.revoke("s1", &occasion).unwrap();
    assert!(!again, "it is revoked already");
    let other = command.revoke("s2", &occasion).unwrap();
    assert!(!other, "there is none");
    assert!(!server.session("s1").unwrap().unwrap().is_in_force(0));
    assert_eq!(server.sessions().unwrap().len(), 1);
    assert_eq!(server.session("s2").unwrap(), None);
}

/// The locks that this process holds on a file, as the kernel counts them. Source: proc_locks(5).
fn locks_on(path: &Path) -> usize {
    let file = format!(":{}", fs::metadata(path).unwrap().ino());
    let ours = process::id().to_string();
    let locks = fs::read_to_string("/proc/locks").unwrap();
    let held = locks.lines().filter_map(|line| {
        // behind the number: kind, how strict, read or write, process, device and inode, from, to
        let fields: Vec<_> = line.split_whitespace().skip(1).collect();
        let is_ours = fields.get(3) == Some(&ours.as_str());
        let is_on_it = fields.get(4).is_some_and(|inode| inode.ends_with(&file));
        (is_ours && is_on_it).then(|| fields.join(" "))
    });
    // it is read in parts, between which others come and go: a lock may be there twice, with another number
    held.collect::<BTreeSet<_>>().len()
}

#[test]
fn a_database_that_is_opened_twice_stays_locked_against_those_who_would_clean_it_up() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("account.db");
    let _first = AccountStore::open(&path).unwrap();
    assert_eq!(locks_on(&path), 1);
    let _second = AccountStore::open(&path).unwrap();
    assert_eq!(locks_on(&path), 1, "of both");
}
