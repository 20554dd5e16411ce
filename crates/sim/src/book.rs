//! The checkers' own book: which changes came in from whom, what is on disk, what has been promised.
//!
//! It knows nothing of graphs: what is on disk it keeps as Automerge documents of its own, which take in every chunk
//! that the store says it has.

use std::collections::{BTreeMap, BTreeSet};

use automerge::{Automerge, ReadDoc};
use engine::{
    Access, ChangeHash, DocumentId,
    storage::{ChunkKind, StoredChunk, Write, WriteAction},
};

use crate::{
    chunks::{self, unless_it_panics},
    frames::{Received, ours, theirs},
    link::Packet,
    violation::{Checker, Step, Violation},
};

/// A document of a group.
pub(crate) type Place = (usize, DocumentId);

#[derive(Default)]
pub(crate) struct Book {
    /// Changes that came in, for this document, from a session that could write.
    admitted: BTreeSet<(Place, ChangeHash)>,
    /// What is on disk.
    stored: BTreeMap<Place, Automerge>,
    /// Heads of chunks that no Automerge can load, for as long as the engine does not know that they are gone.
    unproven: BTreeMap<Place, BTreeSet<ChangeHash>>,
    /// Where such a chunk has gone.
    proven: BTreeSet<Place>,
    /// Documents of which such a chunk was stored once.
    were_unloadable: BTreeSet<Place>,
    /// Heads that somebody was told of.
    told: BTreeMap<Place, BTreeSet<ChangeHash>>,
    /// Whole documents whose contents were looked at, by a hash of their bytes.
    seen_whole: BTreeSet<(Place, Vec<u8>)>,
}

fn has(doc: Option<&Automerge>, hash: &ChangeHash) -> bool {
    doc.is_some_and(|doc| doc.get_change_by_hash(&theirs(hash)).is_some())
}

impl Book {
    /// A frame has reached the engine.
    pub(crate) fn note_incoming(&mut self, group: usize, access: Option<Access>, packet: &Packet) {
        if let (Some(Access::Write), Some(document)) = (access, packet.document) {
            let brings = packet.brings.iter();
            self.admitted
                .extend(brings.map(|hash| ((group, document), *hash)));
        }
    }

    /// The session of a connection may write from now on, and what it sent before may still be looked at.
    pub(crate) fn note_may_write(&mut self, group: usize, unheard: Vec<(DocumentId, ChangeHash)>) {
        let unheard = unheard.into_iter();
        self.admitted
            .extend(unheard.map(|(document, hash)| ((group, document), hash)));
    }

    /// A frame leaves for a connection whose session has this access.
    pub(crate) fn check_outgoing(
        &mut self,
        group: usize,
        access: Option<Access>,
        received: &Received,
    ) -> Step {
        if matches!(received.kind.as_str(), "peer" | "error") {
            return Ok(());
        }
        if access.is_none() && received.kind != "doc-unavailable" {
            let what = format!("a {} frame for a session that has ended", received.kind);
            return Err(Violation::new(Checker::Private, what));
        }
        match received.kind.as_str() {
            "sync" => self.check_sync(group, received),
            "ephemeral" => check_ephemeral(group, received),
            "remote-heads-changed" => {
                let place = place(group, received)?;
                self.check_told(place, received.stored_heads())
            }
            _ => Ok(()),
        }
    }

    fn check_sync(&mut self, group: usize, received: &Received) -> Step {
        let place = place(group, received)?;
        let message = received.sync_message();
        self.check_told(place, message.heads.iter().map(ours).collect())?;
        for bytes in message.changes.iter() {
            self.check_changes(place, bytes)?;
        }
        Ok(())
    }

    /// Heads that somebody is told of are on disk, and are promised from now on.
    fn check_told(&mut self, place: Place, heads: Vec<ChangeHash>) -> Step {
        for head in heads {
            if has(self.stored.get(&place), &head) {
                self.told.entry(place).or_default().insert(head);
            } else if !self
                .unproven
                .get(&place)
                .is_some_and(|heads| heads.contains(&head))
            {
                let (group, document) = place;
                let what =
                    format!("{document} in group {group}: told of {head}, which is not on disk");
                return Err(Violation::new(Checker::Durable, what));
            }
        }
        Ok(())
    }

    fn check_changes(&mut self, place: Place, bytes: &[u8]) -> Step {
        let is_whole = bytes.get(8) == Some(&chunks::DOCUMENT);
        // a snapshot goes out as it is, time and again
        if is_whole && !self.seen_whole.insert((place, bytes.to_vec())) {
            return Ok(());
        }
        // what cannot be told from its bytes was pushed so
        for hash in chunks::hashes(bytes) {
            if !self.admitted.contains(&(place, hash)) {
                let (group, document) = place;
                let what =
                    format!("{document} in group {group}: sent {hash}, which is not its own");
                return Err(Violation::new(Checker::Private, what));
            }
        }
        Ok(())
    }

    /// A write is on disk.
    pub(crate) fn note_stored(&mut self, group: usize, write: &Write) -> Step {
        let place = (group, write.document);
        let WriteAction::Append {
            chunk,
            heads,
            orphans,
            ..
        } = &write.action
        else {
            return Ok(());
        };
        for orphan in orphans {
            self.check_admitted(place, &orphan.bytes)?;
        }
        let Some(chunk) = chunk else { return Ok(()) };
        self.check_admitted(place, &chunk.bytes)?;
        let doc = self.stored.entry(place).or_default();
        match (load_into(doc, chunk), chunk.kind) {
            (Ok(()), _) => Ok(()),
            (Err(_), ChunkKind::Pushed) => {
                self.note_unloadable(place, heads.iter().copied());
                Ok(())
            }
            (Err(problem), ChunkKind::Tail | ChunkKind::Snapshot) => {
                let what = format!("{}: stored changes do not load: {problem}", write.document);
                Err(Violation::new(Checker::Sound, what))
            }
        }
    }

    fn check_admitted(&self, place: Place, bytes: &[u8]) -> Step {
        for hash in chunks::hashes(bytes) {
            if !self.admitted.contains(&(place, hash)) {
                let (group, document) = place;
                let what = format!(
                    "{document} in group {group}: stored change {hash}, which came from nobody who may write"
                );
                return Err(Violation::new(Checker::Private, what));
            }
        }
        Ok(())
    }

    /// Holds what a document is on disk now against what it was: nothing may be gone.
    pub(crate) fn check_kept(&mut self, place: Place, chunks: &[StoredChunk]) -> Step {
        let now = load(chunks);
        if let Some(before) = self.stored.get(&place) {
            check_all_there(place, before, &now)?;
        }
        self.stored.insert(place, now);
        self.note_proven(place, chunks);
        Ok(())
    }

    /// A chunk that cannot be loaded is there, and says that it has these heads.
    fn note_unloadable(&mut self, place: Place, heads: impl IntoIterator<Item = ChangeHash>) {
        self.unproven.entry(place).or_default().extend(heads);
        self.were_unloadable.insert(place);
        // another one may have gone before, of which the engine has not heard yet that everything is known
        self.proven.remove(&place);
    }

    /// A chunk that cannot be loaded is told of no more once it is gone.
    fn note_proven(&mut self, place: Place, chunks: &[StoredChunk]) {
        let is_gone = !chunks.iter().any(|chunk| chunk.kind == ChunkKind::Pushed);
        if is_gone && self.unproven.contains_key(&place) {
            self.proven.insert(place);
        }
    }

    /// The engine of a group has heard of all that is on disk.
    pub(crate) fn note_heard(&mut self, group: usize) {
        let (heard, unheard) = std::mem::take(&mut self.proven)
            .into_iter()
            .partition(|place| place.0 == group);
        self.proven = unheard;
        let heard: BTreeSet<Place> = heard;
        self.unproven.retain(|place, _| !heard.contains(place));
    }

    /// Holds what a disk would have after a power cut against what was promised.
    pub(crate) fn check_promises(&self, place: Place, chunks: &[StoredChunk]) -> Step {
        let found = load(chunks);
        for head in self.told.get(&place).into_iter().flatten() {
            if !has(Some(&found), head) {
                let (group, document) = place;
                let what = format!(
                    "{document} in group {group}: somebody was told of {head}, and a power cut takes it"
                );
                return Err(Violation::new(Checker::Durable, what));
            }
        }
        Ok(())
    }

    /// After a restart: what is on disk is what was promised, and perhaps more.
    pub(crate) fn reread(&mut self, place: Place, chunks: &[StoredChunk]) -> Step {
        self.check_promises(place, chunks)?;
        self.stored.insert(place, load(chunks));
        self.note_proven(place, chunks);
        self.note_heard(place.0);
        // its write may have failed, and been found all the same
        let pushed = chunks.iter().filter(|it| it.kind == ChunkKind::Pushed);
        for chunk in pushed.filter(|it| load_into(&mut Automerge::new(), it).is_err()) {
            self.note_unloadable(place, chunks::claimed_heads(&chunk.bytes));
        }
        Ok(())
    }

    /// Whether a chunk of it was stored once that Automerge does not load.
    pub(crate) fn was_unloadable(&self, place: Place) -> bool {
        self.were_unloadable.contains(&place)
    }

    /// The documents of which anything was stored, or promised.
    pub(crate) fn places(&self) -> Vec<Place> {
        let all: BTreeSet<Place> = self
            .stored
            .keys()
            .chain(self.told.keys())
            .copied()
            .collect();
        all.into_iter().collect()
    }

    /// The heads of a document on disk, ascending.
    pub(crate) fn heads(&self, place: Place) -> Vec<ChangeHash> {
        let mut heads: Vec<_> = self
            .stored
            .get(&place)
            .map(|doc| doc.get_heads().iter().map(ours).collect())
            .unwrap_or_default();
        heads.sort_unstable();
        heads
    }

    /// Whether a change is on disk, in the graph of its document.
    pub(crate) fn is_stored(&self, place: Place, hash: &ChangeHash) -> bool {
        has(self.stored.get(&place), hash)
    }
}

fn check_all_there((group, document): Place, before: &Automerge, now: &Automerge) -> Step {
    for change in before.get_changes(&[]) {
        let hash = ours(&change.hash());
        if !has(Some(now), &hash) {
            let what = format!("{document} in group {group}: {hash} is on disk no more");
            return Err(Violation::new(Checker::Durable, what));
        }
    }
    Ok(())
}

/// The document that a frame is about.
fn place(group: usize, received: &Received) -> Result<Place, Violation> {
    let document = received.document.parse().map_err(|_| {
        let what = format!("a document called {}", received.document);
        Violation::new(Checker::Sound, what)
    })?;
    Ok((group, document))
}

/// The document that these chunks make; a pushed one that cannot be loaded makes none.
fn load(chunks: &[StoredChunk]) -> Automerge {
    let mut doc = Automerge::new();
    for chunk in chunks {
        if load_into(&mut doc, chunk).is_err() && chunk.kind != ChunkKind::Pushed {
            break;
        }
    }
    doc
}

/// Has a document take a chunk. A pushed one may be anything.
fn load_into(doc: &mut Automerge, chunk: &StoredChunk) -> Result<(), String> {
    let load = |doc: &mut Automerge| match doc.load_incremental(&chunk.bytes) {
        Ok(_) => Ok(()),
        Err(problem) => Err(problem.to_string()),
    };
    match chunk.kind {
        ChunkKind::Tail | ChunkKind::Snapshot => load(doc),
        ChunkKind::Pushed => {
            let mut with_it = doc.clone();
            let load = || {
                let loaded = load(&mut with_it);
                // some are loaded, and panic when they are looked at
                drop(with_it.get_changes(&[]));
                Some(loaded)
            };
            unless_it_panics(load).unwrap_or(Err("a panic".into()))?;
            *doc = with_it;
            Ok(())
        }
    }
}

/// Ephemeral messages say where they were sent.
fn check_ephemeral(group: usize, received: &Received) -> Step {
    let text = String::from_utf8_lossy(&received.data).into_owned();
    let expected = format!("{group} {}", received.document);
    if text.starts_with("by a stranger") || text.starts_with(&expected) {
        Ok(())
    } else {
        let what = format!("an ephemeral message went to {expected}: {text}");
        Err(Violation::new(Checker::Private, what))
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]
mod tests {
    use automerge::{
        ROOT,
        sync::{State, SyncDoc},
        transaction::Transactable,
    };

    use super::*;
    use crate::frames::sync_frame;

    const PLACE: (usize, [u8; 16]) = (0, [1; 16]);

    fn at() -> Place {
        (PLACE.0, DocumentId::from_bytes(PLACE.1))
    }

    /// A whole document that does not load, and the heads that it claims.
    fn counterfeit(value: &str) -> (StoredChunk, Vec<ChangeHash>) {
        let mut doc = Automerge::new();
        let mut transaction = doc.transaction();
        transaction.put(ROOT, "key", value).unwrap();
        transaction.commit();
        let heads = doc.get_heads().iter().map(ours).collect();
        let mut bytes = doc.save();
        // a letter of the value
        let at = bytes
            .windows(value.len())
            .position(|part| part == value.as_bytes())
            .unwrap();
        bytes[at] ^= 1;
        chunks::seal(&mut bytes);
        assert!(Automerge::load(&bytes).is_err());
        let chunk = StoredChunk {
            number: 0,
            kind: ChunkKind::Pushed,
            bytes: bytes.into(),
        };
        (chunk, heads)
    }

    fn write(chunk: &StoredChunk, heads: &[ChangeHash]) -> Write {
        Write {
            document: at().1,
            action: WriteAction::Append {
                chunk: Some(chunk.clone()),
                heads: heads.to_vec(),
                changes: 0,
                orphans: vec![],
                adopted: vec![],
            },
        }
    }

    fn told_of(book: &mut Book, heads: &[ChangeHash]) -> Step {
        let mut message = Automerge::new()
            .generate_sync_message(&mut State::new())
            .unwrap();
        message.heads = heads.iter().map(theirs).collect();
        let frame = sync_frame("sync", "server", at().1, &message.encode());
        book.check_outgoing(0, Some(Access::Write), &Received::parse(&frame))
    }

    #[test]
    fn who_is_told_of_a_counterfeit_that_was_found_after_a_restart_is_told_right() {
        let (chunk, heads) = counterfeit("value");
        let mut book = Book::default();
        // its write failed
        book.reread(at(), &[chunk]).unwrap();
        told_of(&mut book, &heads).unwrap();
        assert!(book.was_unloadable(at()));
    }

    #[test]
    fn a_second_counterfeit_that_is_stored_before_all_was_heard_is_not_proven() {
        let ((first, its_heads), (second, heads)) = (counterfeit("value"), counterfeit("another"));
        let mut book = Book::default();
        for chunk in [&first, &second] {
            let brings = chunks::hashes(&chunk.bytes).into_iter();
            book.admitted.extend(brings.map(|hash| (at(), hash)));
        }
        book.note_stored(0, &write(&first, &its_heads)).unwrap();
        book.check_kept(at(), &[]).unwrap();
        // the engine has heard that it is gone, and not yet of something else that was committed
        book.note_stored(0, &write(&second, &heads)).unwrap();
        book.note_heard(0);
        told_of(&mut book, &heads).unwrap();
    }
}
