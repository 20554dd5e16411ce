//! The documents that scenarios work on, and every message about them that can be made before the clock runs.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use automerge::sync::{Message, State, SyncDoc as _};
use automerge::transaction::Transactable as _;
use automerge::{ActorId, Automerge, ChangeHash, ObjType, ROOT, ReadDoc as _};

use crate::sync;

/// A document ready to be uploaded.
#[derive(Clone)]
pub(crate) struct Prepared {
    /// Its id, as on the wire.
    pub(crate) id: String,
    /// Its only head.
    pub(crate) head: ChangeHash,
    /// What a client says first: what it has, but nothing of it.
    pub(crate) offer: Vec<u8>,
    /// What it sends to a server that has nothing: the whole document.
    pub(crate) upload: Vec<u8>,
}

/// One change, in the sync message with which a client sends it.
pub(crate) struct Edit {
    pub(crate) hash: ChangeHash,
    pub(crate) message: Vec<u8>,
}

/// The wire's name of the document with this number.
pub(crate) fn document_id(number: u64) -> String {
    let mut id = [0xb5; 16];
    id.iter_mut()
        .zip(number.to_be_bytes())
        .for_each(|(to, from)| *to = from);
    bs58::encode(id).with_check().into_string()
}

/// A text typed by one actor, one character and one change at a time; the first change creates it.
pub(crate) fn text_document(number: u64, changes: usize) -> Result<Automerge> {
    let mut document = Automerge::new();
    document.set_actor(ActorId::from(document_id(number).as_bytes()));
    let mut first = document.transaction();
    let text = first.put_object(ROOT, "text", ObjType::Text)?;
    first.splice_text(&text, 0, 0, "g")?;
    first.commit();
    for at in 1..changes {
        type_character(&mut document, &text, at)?;
    }
    Ok(document)
}

fn type_character(document: &mut Automerge, text: &automerge::ObjId, at: usize) -> Result<()> {
    let mut change = document.transaction();
    change.splice_text(text, at, 0, letter(at))?;
    change.commit();
    Ok(())
}

fn letter(at: usize) -> &'static str {
    const LETTERS: [&str; 8] = ["m", "i", "s", "t", " ", "o", "n", "e"];
    LETTERS.get(at % LETTERS.len()).copied().unwrap_or("x")
}

/// As [`text_document`], kept in `cache` from one run to the next.
pub(crate) fn cached_text_document(cache: &Path, changes: usize) -> Result<Automerge> {
    let path = cache.join(format!("text-{changes}.automerge"));
    if let Ok(saved) = fs::read(&path) {
        let mut document =
            Automerge::load(&saved).with_context(|| format!("{} is damaged", path.display()))?;
        document.set_actor(ActorId::from(b"bench, once more".as_slice()));
        return Ok(document);
    }
    let document = text_document(0, changes)?;
    fs::create_dir_all(cache)?;
    let unfinished = path.with_extension("unfinished");
    fs::write(&unfinished, document.save())?;
    fs::rename(&unfinished, &path)?;
    Ok(document)
}

/// Works out both messages of an upload by syncing, in memory, with a peer that has nothing.
pub(crate) fn prepare(number: u64, document: &Automerge) -> Result<Prepared> {
    let (mut ours, mut theirs) = (State::new(), State::new());
    let mut empty = Automerge::new();
    let offer = document
        .generate_sync_message(&mut ours)
        .context("no first message")?;
    empty.receive_sync_message(&mut theirs, offer.clone())?;
    let answer = empty
        .generate_sync_message(&mut theirs)
        .context("no answer")?;
    document.clone().receive_sync_message(&mut ours, answer)?;
    let upload = document
        .generate_sync_message(&mut ours)
        .context("no upload")?;
    let head = document
        .get_heads()
        .first()
        .copied()
        .context("a document without changes")?;
    Ok(Prepared {
        id: document_id(number),
        head,
        offer: offer.encode(),
        upload: Message::encode(upload),
    })
}

/// Documents 0 to `count`, each with `changes` changes.
pub(crate) fn prepare_many(count: u64, changes: usize) -> Result<Vec<Prepared>> {
    (0..count)
        .map(|number| prepare(number, &text_document(number, changes)?))
        .collect()
}

/// The next `count` characters typed into the document's text.
pub(crate) fn typed(document: &mut Automerge, count: usize) -> Result<Vec<Edit>> {
    let (_, text) = document
        .get(ROOT, "text")?
        .context("a document without a text")?;
    let length = document.length(&text);
    (length..length + count)
        .map(|at| edit(document, |document| type_character(document, &text, at)))
        .collect()
}

/// `count` changes that each put `bytes` of noise into the same place: incompressible, as pictures are.
pub(crate) fn blobs(document: &mut Automerge, count: usize, bytes: usize) -> Result<Vec<Edit>> {
    let mut noise = Noise(0x2545_f491_4f6c_dd1d);
    (0..count)
        .map(|_| {
            let blob: Vec<u8> = noise.by_ref().take(bytes).collect();
            edit(document, |document| {
                let mut change = document.transaction();
                change.put(ROOT, "picture", blob)?;
                change.commit();
                Ok(())
            })
        })
        .collect()
}

fn edit(document: &mut Automerge, make: impl FnOnce(&mut Automerge) -> Result<()>) -> Result<Edit> {
    let before = document.get_heads();
    make(document)?;
    let change = document
        .get_last_local_change()
        .context("the edit made no change")?;
    let (hash, bytes) = (change.hash(), change.raw_bytes().to_vec());
    Ok(Edit {
        hash,
        message: sync::edit(before, hash, bytes),
    })
}

/// xorshift64: noise that is the same in every run.
pub(crate) struct Noise(u64);

impl Noise {
    /// Another noise for each number.
    pub(crate) fn new(number: u64) -> Self {
        // an odd factor keeps numbers apart, and xorshift must not begin at 0
        Self(number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `limit`, and 0 if that is 0.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next();
        // the low bits of xorshift are its worst
        (self.0 >> 16).checked_rem(limit).unwrap_or(0)
    }
}

impl Iterator for Noise {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let [byte, ..] = self.0.to_be_bytes();
        Some(byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_brings_the_document_and_the_offer_does_not() {
        let prepared = prepare(3, &text_document(3, 100).unwrap()).unwrap();
        assert!(sync::brings(&prepared.upload, &prepared.head).unwrap());
        assert!(!sync::brings(&prepared.offer, &prepared.head).unwrap());
        assert!(
            sync::heads(&prepared.offer)
                .unwrap()
                .contains(&prepared.head.0)
        );
    }

    #[test]
    fn a_cached_document_is_the_document_that_was_built() {
        let cache = tempfile::tempdir().unwrap();
        let built = cached_text_document(cache.path(), 50).unwrap();
        let loaded = cached_text_document(cache.path(), 50).unwrap();
        assert_eq!(built.get_heads(), loaded.get_heads());
    }

    #[test]
    fn every_document_has_its_own_id() {
        assert_ne!(document_id(1), document_id(2));
    }
}
