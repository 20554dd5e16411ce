//! The way of changes into a graph: in their order, out of it, twice, or not at all.
//!
//! A change whose dependencies have not arrived is an *orphan*: it waits in a bounded queue, which is stored too,
//! and is not advertised. The dependency that completes it takes it along.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use crate::{
    chunk::{self, ChangeChunk, Chunk},
    graph::{Graph, LinkError, Linked, Node, Place},
    ids::ChangeHash,
    limits::{HEADS_MAX, ORPHAN_BYTES_MAX, ORPHANS_MAX},
    planted::{Bug, is_planted},
    storage::Orphan,
};

/// Why a batch of changes is not taken, none of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IntakeError {
    /// See [`LinkError::Sequence`].
    Sequence,
    /// More orphans than we keep.
    TooManyOrphans,
    /// More heads than a document may have.
    TooManyHeads,
    /// The graph is full.
    Full,
}

/// The orphans of a document.
#[derive(Default)]
pub(crate) struct Orphans {
    by_hash: BTreeMap<ChangeHash, Waiting>,
    /// Missing dependencies, each with an orphan that was found to wait for it.
    waiting: BTreeSet<(ChangeHash, ChangeHash)>,
    /// Those that wait for themselves: they lack nothing, and are taken along by whatever is taken next.
    held: BTreeSet<ChangeHash>,
    bytes: usize,
}

struct Waiting {
    change: ChangeChunk,
    /// The dependency that it was found to lack.
    missing: ChangeHash,
}

/// What a batch of changes did to graph and orphans.
#[derive(Default)]
pub(crate) struct Taken {
    /// The new nodes.
    pub(crate) nodes: std::ops::Range<Node>,
    /// Their bytes, one after the other.
    pub(crate) chunk: Bytes,
    /// New orphans.
    pub(crate) orphans: Vec<Orphan>,
    /// Orphans that left the queue, because they are among the nodes or can never be.
    pub(crate) adopted: Vec<ChangeChunk>,
}

impl Taken {
    /// Whether there is anything to store.
    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.orphans.is_empty() && self.adopted.is_empty()
    }
}

impl Orphans {
    /// The queue as the store has it, to be readmitted once there is a graph. What is no sound change is left out: it
    /// was checked when it came.
    pub(crate) fn from_stored(stored: &[Orphan]) -> Self {
        let mut orphans = Self::default();
        for orphan in stored {
            if let Ok([Chunk::Change(change)]) = chunk::parse_all(&orphan.bytes).as_deref() {
                orphans.insert(change.clone(), change.hash);
            }
        }
        orphans
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_hash.is_empty()
    }

    /// Empties the queue.
    pub(crate) fn take_all(&mut self) -> Vec<ChangeChunk> {
        let orphans = std::mem::take(self).by_hash.into_values();
        orphans.map(|orphan| orphan.change).collect()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many there are, and their bytes, counted anew.
    #[cfg(feature = "simulator")]
    pub(crate) fn weigh(&self) -> (usize, usize) {
        let bytes = self
            .by_hash
            .values()
            .map(|orphan| orphan.change.bytes.len());
        (self.by_hash.len(), bytes.sum())
    }

    /// What must still come before these, which are orphans or not here at all, can be taken in; ascending.
    pub(crate) fn missing_for(
        &self,
        hashes: impl IntoIterator<Item = ChangeHash>,
        graph: &Graph,
    ) -> Vec<ChangeHash> {
        let is_not_there = |hash: &ChangeHash| graph.find(hash).is_none();
        let mut stack: Vec<_> = hashes.into_iter().filter(is_not_there).collect();
        let (mut seen, mut missing) = (BTreeSet::new(), BTreeSet::new());
        while let Some(hash) = stack.pop() {
            match self.by_hash.get(&hash) {
                // of all that wait for each other, each is looked at once
                Some(orphan) if seen.insert(hash) => {
                    let deps = orphan.change.deps.iter().copied();
                    stack.extend(deps.filter(is_not_there));
                }
                Some(_) => {}
                None => {
                    missing.insert(hash);
                }
            }
        }
        missing.into_iter().collect()
    }

    /// Gives back what a failed write had taken, and forgets what it had added.
    pub(crate) fn undo<'a>(
        &mut self,
        added: impl IntoIterator<Item = &'a ChangeHash>,
        adopted: Vec<ChangeChunk>,
        graph: &Graph,
    ) {
        for hash in added {
            drop(self.remove(hash));
        }
        adopted
            .into_iter()
            .for_each(|change| self.keep(change, graph));
    }

    /// Has a change wait for a dependency that the graph lacks; for itself if it lacks none.
    fn keep(&mut self, change: ChangeChunk, graph: &Graph) {
        let missing = change.deps.iter().find(|dep| graph.find(dep).is_none());
        let missing = missing.copied().unwrap_or(change.hash);
        self.insert(change, missing);
    }

    fn insert(&mut self, change: ChangeChunk, missing: ChangeHash) {
        let hash = change.hash;
        drop(self.remove(&hash));
        self.bytes += change.bytes.len();
        self.waiting.insert((missing, hash));
        if missing == hash {
            self.held.insert(hash);
        }
        self.by_hash.insert(hash, Waiting { change, missing });
    }

    fn remove(&mut self, hash: &ChangeHash) -> Option<ChangeChunk> {
        let Waiting { change, missing } = self.by_hash.remove(hash)?;
        self.waiting.remove(&(missing, *hash));
        self.held.remove(hash);
        self.bytes -= change.bytes.len();
        Some(change)
    }

    /// Takes out the orphans that were found to wait for `hash`.
    fn remove_waiting_for(&mut self, hash: ChangeHash) -> Vec<ChangeChunk> {
        let (first, last) = (
            ChangeHash::from_bytes([0; 32]),
            ChangeHash::from_bytes([255; 32]),
        );
        let waiting = self.waiting.range((hash, first)..=(hash, last));
        let waiting: Vec<_> = waiting.map(|(_, orphan)| *orphan).collect();
        waiting
            .iter()
            .filter_map(|orphan| self.remove(orphan))
            .collect()
    }
}

/// A batch on its way in.
struct Batch<'a> {
    graph: &'a mut Graph,
    orphans: &'a mut Orphans,
    pieces: Vec<Bytes>,
    length: usize,
    /// Every change so far became a node as it came: none was known, or had to wait.
    as_it_came: bool,
    new_orphans: BTreeSet<ChangeHash>,
    adopted: Vec<ChangeChunk>,
    heads_before: usize,
}

/// Takes `changes`, whose bytes are `whole`, into the graph; what cannot be linked yet becomes an orphan.
///
/// # Errors
/// [`IntakeError`]; graph and orphans are as they were.
pub(crate) fn take(
    graph: &mut Graph,
    orphans: &mut Orphans,
    changes: Vec<ChangeChunk>,
    whole: &Bytes,
) -> Result<Taken, IntakeError> {
    let start = graph.len();
    let (pieces, new_orphans, adopted) = (vec![], BTreeSet::new(), vec![]);
    let heads_before = graph.count_heads();
    let mut batch = Batch {
        graph,
        orphans,
        pieces,
        length: 0,
        as_it_came: true,
        new_orphans,
        adopted,
        heads_before,
    };
    let outcome = changes
        .into_iter()
        .try_for_each(|change| batch.take_one(change));
    let outcome = outcome
        .and_then(|()| batch.adopt_held())
        .and_then(|()| batch.within_limits());
    let Batch {
        graph,
        orphans,
        pieces,
        as_it_came,
        new_orphans,
        adopted,
        ..
    } = batch;
    if let Err(error) = outcome {
        graph.truncate(start);
        orphans.undo(&new_orphans, adopted, graph);
        return Err(error);
    }
    // the usual batch goes to the disk as it came
    let chunk = if as_it_came {
        detached(whole)
    } else {
        pieces.concat().into()
    };
    let bytes = |hash: ChangeHash| {
        Some(Orphan {
            hash,
            bytes: orphans.by_hash.get(&hash)?.change.bytes.clone(),
        })
    };
    let new_orphans = new_orphans.into_iter().filter_map(bytes).collect();
    Ok(Taken {
        nodes: start..graph.len(),
        chunk,
        orphans: new_orphans,
        adopted,
    })
}

/// The bytes, without the buffer they came in if that may be much larger.
fn detached(bytes: &Bytes) -> Bytes {
    const WORTH_COPYING_MAX: usize = 16 << 10;
    if bytes.len() <= WORTH_COPYING_MAX {
        Bytes::copy_from_slice(bytes)
    } else {
        bytes.clone()
    }
}

/// Takes orphans that were stored once more, now that there is more for them to depend on.
///
/// # Errors
/// [`IntakeError`]; graph and orphans are as they were.
pub(crate) fn readmit(
    graph: &mut Graph,
    orphans: &mut Orphans,
    stored: Vec<ChangeChunk>,
) -> Result<Taken, IntakeError> {
    for change in stored {
        // whoever waits for a hash that is there already is woken by it below
        orphans.keep(change, graph);
    }
    let awaited = orphans.waiting.iter().map(|(missing, _)| *missing);
    let ready: BTreeSet<ChangeHash> = awaited
        .filter(|hash| orphans.by_hash.contains_key(hash))
        .collect();
    let start = graph.len();
    let (pieces, new_orphans, adopted) = (vec![], BTreeSet::new(), vec![]);
    let heads_before = graph.count_heads();
    let mut batch = Batch {
        graph,
        orphans,
        pieces,
        length: 0,
        as_it_came: false,
        new_orphans,
        adopted,
        heads_before,
    };
    ready
        .into_iter()
        .try_for_each(|hash| batch.adopt_behind(hash))?;
    batch.adopt_held()?;
    let Batch {
        graph,
        pieces,
        adopted,
        ..
    } = batch;
    let chunk = pieces.concat().into();
    Ok(Taken {
        nodes: start..graph.len(),
        chunk,
        orphans: vec![],
        adopted,
    })
}

impl Batch<'_> {
    /// Links a change, and the orphans that waited for it, and those that waited for them.
    fn take_one(&mut self, change: ChangeChunk) -> Result<(), IntakeError> {
        match self.link_or_keep(change)? {
            Some(hash) => self.adopt_behind(hash),
            None => Ok(()),
        }
    }

    /// Links the orphans that waited for `hash`, and those that waited for them.
    fn adopt_behind(&mut self, hash: ChangeHash) -> Result<(), IntakeError> {
        let mut ready = VecDeque::from(self.orphans.remove_waiting_for(hash));
        self.as_it_came &= ready.is_empty();
        while let Some(orphan) = ready.pop_front() {
            if let Some(hash) = self.adopt(orphan)? {
                ready.extend(self.orphans.remove_waiting_for(hash));
            }
        }
        Ok(())
    }

    /// Links the orphans that lack nothing: there were too many heads when they were woken, or a write failed that had
    /// taken them along.
    fn adopt_held(&mut self) -> Result<(), IntakeError> {
        while !self.has_all_heads()
            && let Some(hash) = self.orphans.held.first().copied()
        {
            self.adopt_behind(hash)?;
        }
        Ok(())
    }

    /// Whether an orphan that would be one head more is to wait.
    fn has_all_heads(&self) -> bool {
        self.graph.count_heads() >= HEADS_MAX.max(self.heads_before)
    }

    /// The change's hash, if it is now a node and was none before.
    fn link_or_keep(&mut self, change: ChangeChunk) -> Result<Option<ChangeHash>, IntakeError> {
        match self.link(&change) {
            Ok(linked) => {
                self.as_it_came &= linked.is_some();
                // it came once more, after what it waited for
                if let Some(orphan) = self.orphans.remove(&change.hash) {
                    self.leave_queue(orphan);
                }
                Ok(linked)
            }
            Err(LinkError::Missing(missing)) => {
                self.as_it_came = false;
                if !self.orphans.by_hash.contains_key(&change.hash) {
                    self.new_orphans.insert(change.hash);
                    // it may wait for long, and the message around it need not
                    let bytes = Bytes::copy_from_slice(&change.bytes);
                    self.orphans
                        .insert(ChangeChunk { bytes, ..change }, missing);
                }
                Ok(None)
            }
            Err(LinkError::Sequence) => Err(IntakeError::Sequence),
            Err(LinkError::Full) => Err(IntakeError::Full),
        }
    }

    /// Links an orphan; one that can never be linked leaves the queue, and does not spoil the batch.
    fn adopt(&mut self, orphan: ChangeChunk) -> Result<Option<ChangeHash>, IntakeError> {
        // it waits on: whoever brought what it waits for is not to be refused for it
        if self.has_all_heads() && self.graph.would_branch(&orphan) {
            let hash = orphan.hash;
            self.orphans.insert(orphan, hash);
            return Ok(None);
        }
        match self.link(&orphan) {
            Ok(linked) => {
                self.leave_queue(orphan);
                Ok(linked)
            }
            Err(LinkError::Missing(missing)) => {
                self.orphans.insert(orphan, missing);
                Ok(None)
            }
            Err(LinkError::Sequence) => {
                self.leave_queue(orphan);
                Ok(None)
            }
            Err(LinkError::Full) => Err(IntakeError::Full),
        }
    }

    fn leave_queue(&mut self, orphan: ChangeChunk) {
        if !self.new_orphans.remove(&orphan.hash) {
            self.adopted.push(orphan);
        }
    }

    fn link(&mut self, change: &ChangeChunk) -> Result<Option<ChangeHash>, LinkError> {
        let start = u32::try_from(self.length).map_err(|_| LinkError::Full)?;
        let length = u32::try_from(change.bytes.len()).map_err(|_| LinkError::Full)?;
        match self.graph.link(change, Place::Tail { start, length })? {
            Linked::Known => Ok(None),
            Linked::New(_) => {
                self.length += change.bytes.len();
                self.pieces.push(change.bytes.clone());
                Ok(Some(change.hash))
            }
        }
    }

    fn within_limits(&self) -> Result<(), IntakeError> {
        let orphans = &self.orphans;
        if is_planted(Bug::KeepsEveryOrphan) {
            return Ok(());
        }
        if orphans.by_hash.len() > ORPHANS_MAX || orphans.bytes > ORPHAN_BYTES_MAX {
            return Err(IntakeError::TooManyOrphans);
        }
        // one more is what a device makes that has edited beside them
        let heads_max = HEADS_MAX.max((self.heads_before + 1).min(2 * HEADS_MAX));
        if self.graph.count_heads() > heads_max {
            return Err(IntakeError::TooManyHeads);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u8) -> ChangeHash {
        ChangeHash::from_bytes([n; 32])
    }

    /// The n-th change of one actor, each on top of the one before; its bytes are its number.
    fn change(n: u8) -> ChangeChunk {
        let deps = if n == 1 { vec![] } else { vec![hash(n - 1)] };
        let bytes = Bytes::copy_from_slice(&[n]);
        ChangeChunk {
            hash: hash(n),
            deps,
            actor: (*b"a").into(),
            seq: n.into(),
            bytes,
        }
    }

    #[derive(Default)]
    struct Document {
        graph: Graph,
        orphans: Orphans,
    }

    impl Document {
        fn take(&mut self, changes: &[u8]) -> Result<Taken, IntakeError> {
            let whole = Bytes::copy_from_slice(changes);
            let changes = changes.iter().map(|n| change(*n)).collect();
            take(&mut self.graph, &mut self.orphans, changes, &whole)
        }

        fn take_all(&mut self, changes: Vec<ChangeChunk>) -> Taken {
            take(&mut self.graph, &mut self.orphans, changes, &Bytes::new()).unwrap()
        }
    }

    #[test]
    fn changes_in_order_go_to_the_disk_as_they_came() {
        let mut document = Document::default();
        let taken = document.take(&[1, 2, 3]).unwrap();
        assert_eq!((taken.nodes, &taken.chunk[..]), (0..3, &[1, 2, 3][..]));
        let again = document.take(&[2, 3]).unwrap();
        assert!(again.is_empty());
        // but for those that are there already
        let taken = document.take(&[3, 4, 5]).unwrap();
        assert_eq!((taken.nodes, &taken.chunk[..]), (3..5, &[4, 5][..]));
    }

    #[test]
    fn changes_out_of_order_are_linked_in_order() {
        let mut document = Document::default();
        let taken = document.take(&[3, 2, 1]).unwrap();
        assert_eq!(
            (taken.nodes.clone(), &taken.chunk[..]),
            (0..3, &[1, 2, 3][..])
        );
        assert!(taken.orphans.is_empty() && taken.adopted.is_empty());
        assert!(document.orphans.is_empty() && document.orphans.bytes() == 0);
    }

    #[test]
    fn an_orphan_waits_and_is_taken_along_by_what_it_waited_for() {
        let mut document = Document::default();
        let taken = document.take(&[1, 3, 4]).unwrap();
        assert_eq!(
            (taken.nodes, &taken.chunk[..], taken.orphans.len()),
            (0..1, &[1][..], 2)
        );
        let missing = document.orphans.missing_for([hash(4)], &document.graph);
        assert_eq!(missing, [hash(2)]);
        let taken = document.take(&[2]).unwrap();
        assert_eq!(
            (taken.nodes, &taken.chunk[..], taken.adopted.len()),
            (1..4, &[2, 3, 4][..], 2)
        );
        assert!(document.orphans.is_empty());
    }

    #[test]
    fn a_refused_batch_leaves_everything_as_it_was() {
        let mut document = Document::default();
        document.take(&[1, 3]).unwrap();
        let forged = ChangeChunk {
            hash: hash(9),
            seq: 1,
            ..change(2)
        };
        let mut changes = vec![change(2), change(5)];
        changes.push(forged);
        let refused = take(
            &mut document.graph,
            &mut document.orphans,
            changes,
            &Bytes::new(),
        );
        assert_eq!(refused.err(), Some(IntakeError::Sequence));
        assert_eq!(document.graph.len(), 1);
        let taken = document.take(&[2]).unwrap();
        assert_eq!((taken.nodes, &taken.chunk[..]), (1..3, &[2, 3][..]));
        assert!(document.orphans.is_empty());
    }

    #[test]
    fn an_orphan_that_can_never_be_linked_does_not_spoil_what_it_waited_for() {
        let mut document = Document::default();
        document.take(&[1]).unwrap();
        let forged = ChangeChunk {
            hash: hash(9),
            seq: 7,
            deps: vec![hash(2)],
            ..change(2)
        };
        take(
            &mut document.graph,
            &mut document.orphans,
            vec![forged],
            &Bytes::new(),
        )
        .unwrap();
        let taken = document.take(&[2]).unwrap();
        assert_eq!((taken.nodes, taken.adopted.len()), (1..2, 1));
        assert!(document.orphans.is_empty());
    }

    /// So many orphans of so many bytes each, which all wait for the same change.
    fn orphans_of(count: usize, bytes: usize) -> Vec<ChangeChunk> {
        let bytes = Bytes::from(vec![0; bytes]);
        let orphan = |n: u32| {
            let mut name = [1; 32];
            name[..4].copy_from_slice(&n.to_le_bytes());
            ChangeChunk {
                hash: ChangeHash::from_bytes(name),
                deps: vec![hash(200)],
                bytes: bytes.clone(),
                ..change(1)
            }
        };
        (0..u32::try_from(count).unwrap()).map(orphan).collect()
    }

    #[test]
    fn orphans_are_kept_up_to_their_number_and_bytes_and_not_one_more() {
        for (most, more) in [
            (orphans_of(ORPHANS_MAX, 1), orphans_of(ORPHANS_MAX + 1, 1)),
            (
                orphans_of(2, ORPHAN_BYTES_MAX / 2),
                orphans_of(2, ORPHAN_BYTES_MAX / 2 + 1),
            ),
        ] {
            let Document {
                mut graph,
                mut orphans,
            } = Document::default();
            let refused = take(&mut graph, &mut orphans, more, &Bytes::new());
            assert_eq!(refused.err(), Some(IntakeError::TooManyOrphans));
            assert!(
                orphans.waiting.is_empty(),
                "nor is what they waited for kept"
            );
            assert_eq!(orphans.bytes(), 0);
            let mut take = |changes| take(&mut graph, &mut orphans, changes, &Bytes::new());
            let count = most.len();
            let taken = take(most).unwrap();
            assert_eq!(taken.orphans.len(), count, "nothing of the others is left");
            // sent again they are not counted again
            let again = take(orphans_of(count, 1)).unwrap();
            assert!(again.is_empty());
        }
    }

    /// The first change of an actor of its own.
    fn first(n: u32, deps: &[ChangeHash]) -> ChangeChunk {
        let mut name = [3; 32];
        name[..4].copy_from_slice(&n.to_le_bytes());
        ChangeChunk {
            hash: ChangeHash::from_bytes(name),
            deps: deps.to_vec(),
            actor: n.to_le_bytes().into(),
            ..change(1)
        }
    }

    /// As many heads as there may be, and orphans of which some waited for the last one of them.
    fn full_of_heads(orphans: Vec<ChangeChunk>) -> Document {
        let mut document = Document::default();
        document.take_all(orphans);
        let others = 0..u32::try_from(HEADS_MAX).unwrap() - 1;
        document.take_all(others.map(|n| first(n, &[])).collect());
        document.take(&[1]).unwrap();
        document
    }

    #[test]
    fn an_orphan_for_which_there_are_too_many_heads_is_taken_as_soon_as_there_are_fewer() {
        let orphans = [70_000, 70_001, 70_002].map(|n| first(n, &[hash(1)]));
        let mut document = full_of_heads(orphans.to_vec());
        // one of them took the place of what they had waited for
        assert_eq!(document.graph.count_heads(), HEADS_MAX);
        assert_eq!(document.orphans.by_hash.len(), 2);
        let known = document.take(&[1]).unwrap();
        assert!(known.is_empty(), "there is no room");
        // two heads become one, and then three
        for (merged, waiting) in [(vec![0, 1], 1), (vec![2, 3, 4], 0)] {
            let deps: Vec<_> = merged.iter().map(|n| first(*n, &[]).hash).collect();
            let taken = document.take_all(vec![first(80_000 + merged[0], &deps)]);
            assert_eq!((taken.nodes.len(), taken.adopted.len()), (2, 1));
            assert_eq!(document.orphans.by_hash.len(), waiting);
        }
        assert_eq!(document.graph.count_heads(), HEADS_MAX - 1);
    }

    #[test]
    fn an_orphan_that_is_no_head_more_is_taken_however_many_there_are() {
        let deps = [hash(1), first(0, &[]).hash];
        let document = full_of_heads(vec![first(70_000, &deps)]);
        assert!(document.orphans.is_empty());
    }

    /// It was woken by one of them, on which another orphan had been built just before, and lacked the other.
    #[test]
    fn an_orphan_that_lacks_something_waits_for_that_however_many_heads_there_are() {
        let other = first(70_000, &[]);
        let (first_there, merging) = (
            first(70_001, &[hash(1)]),
            first(70_002, &[hash(1), other.hash]),
        );
        let mut document = Document::default();
        document.take_all(vec![first_there, merging]);
        let others = 0..u32::try_from(HEADS_MAX).unwrap() - 1;
        document.take_all(others.map(|n| first(n, &[])).collect());
        document.take(&[1]).unwrap();
        assert_eq!(document.orphans.by_hash.len(), 1);
        assert_eq!(document.graph.count_heads(), HEADS_MAX);
        // one head more, and the orphan takes its place
        let taken = document.take_all(vec![other]);
        assert_eq!((taken.nodes.len(), taken.adopted.len()), (2, 1));
        assert!(document.orphans.is_empty());
    }

    /// What they waited for was brought by a whole document.
    #[test]
    fn of_orphans_that_are_taken_once_more_one_makes_room_for_another() {
        let branch = first(70_000, &[hash(1)]);
        let merged: Vec<_> = (0..2).map(|n| first(n, &[]).hash).collect();
        let merging = first(70_001, &merged);
        assert!(branch.hash < merging.hash, "it is looked at first");
        let mut document = full_of_heads(vec![]);
        document.take(&[2]).unwrap();
        assert_eq!(document.graph.count_heads(), HEADS_MAX);
        let taken = readmit(
            &mut document.graph,
            &mut document.orphans,
            vec![branch, merging],
        )
        .unwrap();
        assert_eq!((taken.nodes.len(), taken.adopted.len()), (2, 2));
        assert!(document.orphans.is_empty());
    }

    /// A whole document brought it, with what it waited for.
    #[test]
    fn an_orphan_that_is_there_leaves_the_queue_however_many_heads_there_are() {
        let orphan = first(70_000, &[hash(200)]);
        let mut document = full_of_heads(vec![orphan.clone()]);
        let place = Place::Tail {
            start: 0,
            length: 1,
        };
        let missing = ChangeChunk {
            hash: hash(200),
            ..first(70_001, &[])
        };
        for change in [&missing, &orphan] {
            document.graph.link(change, place).unwrap();
        }
        let waiting = document.orphans.take_all();
        let taken = readmit(&mut document.graph, &mut document.orphans, waiting).unwrap();
        assert_eq!((taken.nodes.len(), taken.adopted.len()), (0, 1));
        assert!(document.orphans.is_empty());
    }

    #[test]
    fn of_orphans_that_are_read_back_those_are_left_out_that_are_no_single_sound_change() {
        let mut doc = automerge::Automerge::new();
        let mut stored = vec![];
        for n in 0..2 {
            let mut transaction = doc.transaction();
            let put = automerge::transaction::Transactable::put;
            put(&mut transaction, automerge::ROOT, "key", n).unwrap();
            transaction.commit();
            let change = doc.get_last_local_change().unwrap();
            stored.push(Orphan {
                hash: ChangeHash::from_bytes(change.hash().0),
                bytes: change.raw_bytes().to_vec().into(),
            });
        }
        let sound = stored[0].clone();
        let with = |bytes: Vec<u8>| Orphan {
            hash: hash(9),
            bytes: bytes.into(),
        };
        let read = Orphans::from_stored(&[
            with(vec![1, 2, 3]),
            with(
                stored
                    .iter()
                    .flat_map(|orphan| orphan.bytes.to_vec())
                    .collect(),
            ),
            with(doc.save()),
            sound.clone(),
        ]);
        assert_eq!(read.by_hash.keys().collect::<Vec<_>>(), [&sound.hash]);
        assert_eq!(read.bytes(), sound.bytes.len());
    }

    #[test]
    fn orphans_that_are_read_back_find_their_place_in_whatever_order_they_lie() {
        let mut document = Document::default();
        document.take(&[1]).unwrap();
        // a chain of three, of which the second was there already when the last ones were stored
        let taken = readmit(
            &mut document.graph,
            &mut document.orphans,
            vec![change(4), change(2), change(3), change(7)],
        )
        .unwrap();
        assert_eq!(
            (taken.nodes.clone(), &taken.chunk[..]),
            (1..4, &[2, 3, 4][..])
        );
        let adopted: Vec<_> = taken.adopted.iter().map(|change| change.hash).collect();
        assert_eq!(adopted, [hash(2), hash(3), hash(4)]);
        let waiting: Vec<_> = document.orphans.by_hash.keys().copied().collect();
        assert_eq!((waiting, document.orphans.bytes()), (vec![hash(7)], 1));
        let taken = document.take(&[5, 6]).unwrap();
        assert_eq!((taken.nodes, taken.adopted.len()), (4..7, 1));
    }

    #[test]
    fn an_orphan_keeps_its_own_bytes_and_not_the_message_that_it_came_in() {
        let mut document = Document::default();
        document.take(&[1]).unwrap();
        let message = Bytes::from(vec![3; 1 << 20]);
        let orphan = ChangeChunk {
            bytes: message.slice(7..8),
            ..change(3)
        };
        take(
            &mut document.graph,
            &mut document.orphans,
            vec![orphan],
            &message,
        )
        .unwrap();
        assert!(message.is_unique(), "nobody else holds it");
    }
}
