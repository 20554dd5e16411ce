//! The graph's answers beside Automerge's own, over random histories that come in any order.

use std::collections::BTreeSet;

use automerge::{Automerge, Change, ReadDoc};
use bytes::Bytes;
use proptest::prelude::*;

use super::Graph;
use crate::{
    bloom::BloomFilter,
    chunk::{self, ChangeChunk, Chunk},
    ids::ChangeHash,
    index::IndexBuilder,
    intake::{self, Orphans},
    message::Have,
};

#[path = "../../tests/world/dice.rs"]
mod dice;
#[path = "../../tests/world/history.rs"]
mod history;

use dice::Dice;

type Hashes = Vec<automerge::ChangeHash>;

fn ours(hash: &automerge::ChangeHash) -> ChangeHash {
    ChangeHash::from_bytes(hash.0)
}

fn all_ours(hashes: &[automerge::ChangeHash]) -> Vec<ChangeHash> {
    hashes.iter().map(ours).collect()
}

fn hashes(changes: &[Change]) -> BTreeSet<ChangeHash> {
    changes.iter().map(|change| ours(&change.hash())).collect()
}

/// What three actors have written at the same time, who merge now and then.
fn document(dice: &mut Dice) -> Automerge {
    let actor = |name: &str| Automerge::new().with_actor(name.as_bytes().into());
    let mut docs = ["a", "b", "c"].map(actor);
    for _ in 0..dice.below(40) {
        let at = dice.below(docs.len());
        if dice.one_in(4) {
            let mut other = docs[dice.below(docs.len())].clone();
            docs[at].merge(&mut other).unwrap();
        } else {
            history::edit_any(&mut docs[at], dice);
        }
    }
    let [mut first, mut second, mut third] = docs;
    first.merge(&mut second).unwrap();
    first.merge(&mut third).unwrap();
    first
}

/// Both sides, with as much as has come.
#[derive(Default)]
struct Sides {
    graph: Graph,
    orphans: Orphans,
    doc: Automerge,
    /// Hashes of all that has come, orphans too.
    came: Hashes,
}

impl Sides {
    fn take(&mut self, batch: &[Change], dice: &mut Dice) {
        let bytes = batch
            .iter()
            .flat_map(|change| history::chunk_of(change, dice));
        let bytes = Bytes::from_iter(bytes);
        let chunks = chunk::parse_all(&bytes).unwrap();
        let changes: Vec<ChangeChunk> = chunks
            .into_iter()
            .map(|chunk| match chunk {
                Chunk::Change(change) => change,
                other @ (Chunk::Document { .. } | Chunk::Bundle { .. }) => {
                    panic!("{other:?} is no change")
                }
            })
            .collect();
        let came = batch.iter().map(Change::hash);
        assert!(
            changes
                .iter()
                .map(|change| change.hash)
                .eq(came.clone().map(|hash| ours(&hash)))
        );
        self.came.extend(came);
        let taken = intake::take(&mut self.graph, &mut self.orphans, changes, &bytes);
        assert!(taken.is_ok());
        self.graph.set_durable(self.graph.len());
        self.doc.load_incremental(&bytes).unwrap();
    }

    fn compare(&self, dice: &mut Dice) {
        let all = hashes(&self.doc.get_changes(&[]));
        assert_eq!(self.graph.len() as usize, all.len());
        assert!(all.iter().all(|hash| self.graph.find(hash).is_some()));
        assert_eq!(self.graph.heads(), all_ours(&self.doc.get_heads()));
        assert_eq!(**self.graph.durable_heads(), *self.graph.heads());
        assert_eq!(
            self.missing(),
            all_ours(&self.doc.get_missing_deps(&self.came))
        );
        let known: Vec<_> = self
            .came
            .iter()
            .filter(|hash| all.contains(&ours(hash)))
            .collect();
        let some: Hashes = known
            .into_iter()
            .filter(|_| dice.one_in(8))
            .copied()
            .collect();
        compare_since(&self.graph, &self.doc, &some);
    }

    /// What must come before all that has come can be taken in.
    fn missing(&self) -> Vec<ChangeHash> {
        let came = self.came.iter().map(ours);
        self.orphans.missing_for(came, &self.graph)
    }
}

/// Compares what is not among these and their ancestors.
fn compare_since(graph: &Graph, doc: &Automerge, since: &[automerge::ChangeHash]) {
    let have = Have {
        last_sync: all_ours(since).into(),
        bloom: BloomFilter::parse(&[]).unwrap(),
    };
    let lacking = graph.lacking(&[have]).unwrap();
    let lacking = lacking.iter().map(|node| *graph.hash(*node).unwrap());
    assert_eq!(
        lacking.collect::<BTreeSet<_>>(),
        hashes(&doc.get_changes(since))
    );
}

fn index_of(doc: &Automerge) -> Vec<u8> {
    let mut index = IndexBuilder::new();
    for change in doc.get_changes(&[]) {
        let (deps, actor) = (all_ours(change.deps()), change.actor_id().to_bytes());
        index
            .push(ours(&change.hash()), actor, change.seq(), &deps)
            .unwrap();
    }
    index.finish()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn heads_missing_changes_and_what_came_since_are_those_of_automerge(seed: u64) {
        let mut dice = Dice(seed);
        let doc = document(&mut dice);
        let mut changes = doc.get_changes(&[]);
        if dice.one_in(2) {
            (1..changes.len()).rev().for_each(|at| changes.swap(at, dice.below(at + 1)));
        }
        let mut sides = Sides::default();
        while !changes.is_empty() {
            let batch = changes.split_off(changes.len() - (1 + dice.below(changes.len().min(8))));
            sides.take(&batch, &mut dice);
            sides.compare(&mut dice);
        }
        prop_assert_eq!(sides.graph.heads(), all_ours(&doc.get_heads()));

        // what could not be stored is as if it had never come
        let length = u32::try_from(dice.below(sides.graph.len() as usize + 1)).unwrap();
        sides.graph.truncate(length);
        let first = (0..length).map(|node| sides.graph.hash(node).unwrap());
        let first: BTreeSet<_> = first.copied().collect();
        let mut cut = Automerge::new();
        let kept = doc.get_changes(&[]).into_iter().filter(|change| first.contains(&ours(&change.hash())));
        cut.apply_changes(kept.collect::<Vec<_>>()).unwrap();
        prop_assert_eq!(sides.graph.heads(), all_ours(&cut.get_heads()));

        let read = Graph::from_index(&index_of(&doc)).unwrap();
        prop_assert_eq!(read.heads(), all_ours(&doc.get_heads()));
        compare_since(&read, &doc, &cut.get_heads());
    }
}
