//! A document's change graph: which changes there are, on which they depend, and where their bytes lie.
//!
//! This is all that the sync protocol needs of a document; its contents are never looked at. Nodes stand in the
//! order in which they came, so dependencies come before what depends on them, and "everything up to node n" is
//! one number. About 70 bytes a change.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

use hashbrown::HashTable;

use crate::{
    chunk::ChangeChunk,
    ids::ChangeHash,
    index::{IndexError, IndexReader},
    message::Have,
    planted::{Bug, is_planted},
};

/// Heads of a document, ascending; shared by all who were told of them.
pub(crate) type Heads = Arc<[ChangeHash]>;

/// Position of a change in its graph.
pub(crate) type Node = u32;

/// Why a change is not taken into the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkError {
    /// This dependency is not there yet.
    Missing(ChangeHash),
    /// The change is not the next of its actor: its sequence number is taken, or leaves a gap. Automerge refuses
    /// every batch with such a change in it, for ever.
    Sequence,
    /// The graph is full (2^32 changes).
    Full,
}

/// Whether a change was new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Linked {
    New(Node),
    Known,
}

/// Where the bytes of a change lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Somewhere within the snapshot; not to be had without it.
    Snapshot,
    /// In the tail chunk that holds the node, from `start`, `length` bytes.
    Tail { start: u32, length: u32 },
}

#[derive(Default)]
pub(crate) struct Graph {
    nodes: Vec<Entry>,
    by_hash: HashTable<Node>,
    /// Sequence number of each actor's last change; changes of an actor have 1, 2, 3...
    last_seqs: Vec<u64>,
    actors: BTreeMap<Box<[u8]>, u32>,
    /// Heads of all nodes. Sets, because a hostile device can make as many heads as it sends changes.
    heads: BTreeSet<Node>,
    /// Nodes below are on disk.
    durable: Node,
    durable_heads: BTreeSet<Node>,
    durable_hashes: Heads,
    /// Memory in bytes of what is not in the tables: lists of dependencies, and actors.
    beside_bytes: usize,
}

/// What an actor costs besides its id, in bytes, about.
const ACTOR_BYTES: usize = 64;

struct Entry {
    hash: ChangeHash,
    deps: Deps,
    actor: u32,
    place: Place,
}

enum Deps {
    None,
    One(Node),
    Many(Box<[Node]>),
}

impl Deps {
    fn new(mut nodes: Vec<Node>) -> Self {
        nodes.sort_unstable();
        nodes.dedup();
        match *nodes {
            [] => Self::None,
            [one] => Self::One(one),
            _ => Self::Many(nodes.into()),
        }
    }

    fn as_slice(&self) -> &[Node] {
        match self {
            Self::None => &[],
            Self::One(node) => std::slice::from_ref(node),
            Self::Many(nodes) => nodes,
        }
    }

    /// Memory in bytes beside the node itself.
    fn cost_bytes(&self) -> usize {
        match self {
            Self::None | Self::One(_) => 0,
            Self::Many(nodes) => size_of_val::<[Node]>(nodes),
        }
    }
}

impl Graph {
    /// The graph of a stored snapshot, all of it durable.
    ///
    /// # Errors
    /// [`IndexError`] if the bytes are no index.
    pub(crate) fn from_index(index: &[u8]) -> Result<Self, IndexError> {
        let mut graph = Self::default();
        graph.merge_index(index)?;
        graph.set_durable(graph.len());
        Ok(graph)
    }

    /// Takes in the changes of a snapshot's index that are not here yet, and marks all of them as lying in the
    /// snapshot. New ones count as not yet durable.
    pub(crate) fn merge_index(&mut self, index: &[u8]) -> Result<(), IndexError> {
        let reader = IndexReader::new(index)?;
        let actors: Vec<Box<[u8]>> = reader.actors().iter().map(|id| Box::from(*id)).collect();
        let mut positions: Vec<Node> = Vec::with_capacity(reader.changes());
        self.nodes
            .reserve(reader.changes().saturating_sub(self.nodes.len()));
        let mut numbers: Vec<Option<u32>> = vec![None; actors.len()];
        for change in reader {
            let change = change?;
            let position = match self.find(&change.hash) {
                Some(node) => node,
                None => {
                    let deps = change
                        .deps
                        .iter()
                        .filter_map(|at| positions.get(*at as usize));
                    let deps = Deps::new(deps.copied().collect());
                    let slot = numbers
                        .get_mut(change.actor as usize)
                        .ok_or(IndexError::Malformed)?;
                    let id = actors
                        .get(change.actor as usize)
                        .ok_or(IndexError::Malformed)?;
                    let actor = *slot.get_or_insert_with(|| self.actor(id));
                    let entry = Entry {
                        hash: change.hash,
                        deps,
                        actor,
                        place: Place::Snapshot,
                    };
                    self.append(entry).ok_or(IndexError::Malformed)?
                }
            };
            positions.push(position);
        }
        Ok(())
    }

    /// How many changes there are.
    pub(crate) fn len(&self) -> Node {
        Node::try_from(self.nodes.len()).unwrap_or(Node::MAX)
    }

    /// How many of them, from the first, are on disk.
    pub(crate) fn durable(&self) -> Node {
        self.durable
    }

    /// Heads of what is on disk, ascending.
    pub(crate) fn durable_heads(&self) -> &Heads {
        &self.durable_hashes
    }

    /// Heads of everything, ascending.
    pub(crate) fn heads(&self) -> Vec<ChangeHash> {
        self.hashes_of(&self.heads)
    }

    /// How many heads there are.
    pub(crate) fn count_heads(&self) -> usize {
        self.heads.len()
    }

    /// Whether a change that is not there, and lacks nothing, would be one head more: it builds on none of them.
    pub(crate) fn would_branch(&self, change: &ChangeChunk) -> bool {
        let is_beneath = |dep| {
            let node = self.find(dep);
            node.is_some_and(|node| !self.heads.contains(&node))
        };
        self.find(&change.hash).is_none() && change.deps.iter().all(is_beneath)
    }

    /// The node with this hash.
    pub(crate) fn find(&self, hash: &ChangeHash) -> Option<Node> {
        self.by_hash
            .find(key(hash), |node| self.hash(*node) == Some(hash))
            .copied()
    }

    /// The node with this hash, if it is on disk.
    pub(crate) fn find_durable(&self, hash: &ChangeHash) -> Option<Node> {
        self.find(hash).filter(|node| *node < self.durable)
    }

    /// Where a node's bytes lie.
    pub(crate) fn place(&self, node: Node) -> Option<Place> {
        self.nodes.get(node as usize).map(|entry| entry.place)
    }

    /// Memory in bytes, about.
    pub(crate) fn cost_bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Entry>() + self.by_hash.capacity() * 5 + self.beside_bytes
    }

    /// Takes a change in, behind everything that is there.
    ///
    /// # Errors
    /// [`LinkError`]; the graph is as it was.
    pub(crate) fn link(&mut self, change: &ChangeChunk, place: Place) -> Result<Linked, LinkError> {
        if self.find(&change.hash).is_some() {
            return Ok(Linked::Known);
        }
        let mut deps = Vec::with_capacity(change.deps.len());
        for dep in &change.deps {
            deps.push(self.find(dep).ok_or(LinkError::Missing(*dep))?);
        }
        let known = self.actors.get(&change.actor).copied();
        let last = known
            .and_then(|actor| self.last_seqs.get(actor as usize))
            .map_or(0, |last| *last);
        if change.seq != last + 1 && !is_planted(Bug::AllowsASequenceNumberTwice) {
            return Err(LinkError::Sequence);
        }
        let actor = known.unwrap_or_else(|| self.actor(&change.actor));
        let entry = Entry {
            hash: change.hash,
            deps: Deps::new(deps),
            actor,
            place,
        };
        self.append(entry).map(Linked::New).ok_or(LinkError::Full)
    }

    /// Forgets the nodes from `length` on: they could not be stored.
    pub(crate) fn truncate(&mut self, length: Node) {
        while self.len() > length {
            let Some(entry) = self.nodes.pop() else { break };
            let node = self.len();
            if let Ok(slot) = self.by_hash.find_entry(key(&entry.hash), |at| *at == node) {
                slot.remove();
            }
            if let Some(last) = self.last_seqs.get_mut(entry.actor as usize) {
                *last -= 1;
            }
            self.beside_bytes -= entry.deps.cost_bytes();
        }
        self.forget_actors();
        self.heads = self.heads_among(length);
        if self.durable > length {
            self.set_durable(length);
        }
    }

    /// Says that the nodes below `length` are on disk.
    pub(crate) fn set_durable(&mut self, length: Node) {
        if length >= self.durable {
            for node in self.durable..length {
                let entry = self.nodes.get(node as usize);
                let deps = entry.map_or(&[][..], |entry| entry.deps.as_slice());
                for dep in deps {
                    self.durable_heads.remove(dep);
                }
                self.durable_heads.insert(node);
            }
        } else {
            self.durable_heads = self.heads_among(length);
        }
        self.durable = length;
        self.durable_hashes = self.hashes_of(&self.durable_heads).into();
    }

    /// Says that the nodes in `nodes` now lie in the snapshot.
    pub(crate) fn set_compacted(&mut self, nodes: Range<Node>) {
        let range = nodes.start as usize..nodes.end as usize;
        for entry in self.nodes.get_mut(range).unwrap_or_default() {
            entry.place = Place::Snapshot;
        }
    }

    /// The durable nodes that a peer with these `have` lacks, ascending; what the peer's filters contain by
    /// mistake is not among them. Nothing if one of the hashes of `last_sync` is not known to us: then the peer
    /// remembers a sync that we do not.
    ///
    /// Source: Automerge sync protocol, "get hashes to send".
    pub(crate) fn lacking(&self, have: &[Have<'_>]) -> Option<Vec<Node>> {
        let mut last_sync = Vec::new();
        for hash in have.iter().flat_map(|have| &have.last_sync) {
            last_sync.push(self.find_durable(hash)?);
        }
        let has = self.ancestors(&last_sync);
        let mut lacks = Marks::new(self.durable);
        let mut found = Vec::new();
        for (entry, node) in self.nodes.iter().zip(0..self.durable) {
            if has.contains(node) {
                continue;
            }
            let follows = entry.deps.as_slice().iter().any(|dep| lacks.contains(*dep));
            if follows || !have.iter().any(|have| have.bloom.contains(&entry.hash)) {
                lacks.insert(node);
                found.push(node);
            }
        }
        Some(found)
    }

    /// Marks these nodes and everything that they depend on.
    fn ancestors(&self, of: &[Node]) -> Marks {
        let top = of.iter().max().map_or(0, |node| node + 1);
        let mut marks = Marks::new(top);
        of.iter().for_each(|node| marks.insert(*node));
        for node in (0..top).rev() {
            if marks.contains(node) {
                let deps = self
                    .nodes
                    .get(node as usize)
                    .map(|entry| entry.deps.as_slice());
                deps.into_iter()
                    .flatten()
                    .for_each(|dep| marks.insert(*dep));
            }
        }
        marks
    }

    fn hash(&self, node: Node) -> Option<&ChangeHash> {
        self.nodes.get(node as usize).map(|entry| &entry.hash)
    }

    fn hashes_of(&self, nodes: &BTreeSet<Node>) -> Vec<ChangeHash> {
        let mut hashes: Vec<_> = nodes
            .iter()
            .filter_map(|node| self.hash(*node))
            .copied()
            .collect();
        hashes.sort_unstable();
        hashes
    }

    /// Heads of the first `length` nodes, ascending.
    pub(crate) fn heads_below(&self, length: Node) -> Heads {
        self.hashes_of(&self.heads_among(length)).into()
    }

    fn heads_among(&self, length: Node) -> BTreeSet<Node> {
        let mut depended_on = Marks::new(length);
        for (entry, _) in self.nodes.iter().zip(0..length) {
            entry
                .deps
                .as_slice()
                .iter()
                .for_each(|dep| depended_on.insert(*dep));
        }
        (0..length)
            .filter(|node| !depended_on.contains(*node))
            .collect()
    }

    /// The number of an actor, which is added if it is new.
    fn actor(&mut self, id: &[u8]) -> u32 {
        if let Some(actor) = self.actors.get(id) {
            return *actor;
        }
        let actor = u32::try_from(self.last_seqs.len()).unwrap_or(u32::MAX);
        self.last_seqs.push(0);
        self.beside_bytes += ACTOR_BYTES + id.len();
        self.actors.insert(id.into(), actor);
        actor
    }

    /// Forgets the actors whose first change is gone. They are the last ones: numbers are given in the order of first
    /// changes.
    fn forget_actors(&mut self) {
        let used = self.last_seqs.iter().rposition(|last| *last > 0);
        let count = used.map_or(0, |last| last + 1);
        if count < self.last_seqs.len() {
            self.last_seqs.truncate(count);
            let beside_bytes = &mut self.beside_bytes;
            self.actors.retain(|id, actor| {
                let stays = (*actor as usize) < count;
                *beside_bytes -= if stays { 0 } else { ACTOR_BYTES + id.len() };
                stays
            });
        }
    }

    fn append(&mut self, entry: Entry) -> Option<Node> {
        let node = Node::try_from(self.nodes.len())
            .ok()
            .filter(|node| *node != Node::MAX)?;
        *self.last_seqs.get_mut(entry.actor as usize)? += 1;
        for dep in entry.deps.as_slice() {
            self.heads.remove(dep);
        }
        self.heads.insert(node);
        self.beside_bytes += entry.deps.cost_bytes();
        let nodes = &self.nodes;
        let rehash = |at: &Node| nodes.get(*at as usize).map_or(0, |entry| key(&entry.hash));
        self.by_hash.insert_unique(key(&entry.hash), node, rehash);
        self.nodes.push(entry);
        Some(node)
    }
}

/// Where a hash goes in the table. The hashes are SHA-256 already; the bytes used are not those that the chunk's
/// checksum repeats.
fn key(hash: &ChangeHash) -> u64 {
    hash.as_bytes()
        .last_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// A set of nodes.
struct Marks(Vec<u64>);

impl Marks {
    fn new(nodes: Node) -> Self {
        Self(vec![0; (nodes as usize).div_ceil(64)])
    }

    fn insert(&mut self, node: Node) {
        if let Some(word) = self.0.get_mut(node as usize / 64) {
            *word |= 1 << (node % 64);
        }
    }

    fn contains(&self, node: Node) -> bool {
        self.0
            .get(node as usize / 64)
            .is_some_and(|word| word & (1 << (node % 64)) != 0)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn hash(n: u8) -> ChangeHash {
        ChangeHash::from_bytes([n; 32])
    }

    fn change(n: u8, actor: &[u8], seq: u64, deps: &[u8]) -> ChangeChunk {
        let deps = deps.iter().map(|n| hash(*n)).collect();
        ChangeChunk {
            hash: hash(n),
            deps,
            actor: actor.into(),
            seq,
            bytes: Bytes::new(),
        }
    }

    const AT: Place = Place::Tail {
        start: 0,
        length: 0,
    };

    /// 1 <- 2 <- 4, 1 <- 3 <- 4
    fn diamond() -> Graph {
        let mut graph = Graph::default();
        for change in [
            change(1, b"a", 1, &[]),
            change(2, b"a", 2, &[1]),
            change(3, b"b", 1, &[1]),
            change(4, b"b", 2, &[2, 3]),
        ] {
            graph.link(&change, AT).unwrap();
        }
        graph
    }

    fn have(last_sync: &[u8]) -> Have<'static> {
        let bloom = crate::bloom::BloomFilter::parse(&[]).unwrap();
        Have {
            last_sync: last_sync.iter().map(|n| hash(*n)).collect(),
            bloom,
        }
    }

    #[test]
    fn heads_follow_the_changes_and_the_disk() {
        let mut graph = diamond();
        assert_eq!(graph.heads(), [hash(4)]);
        assert!(graph.durable_heads().is_empty());
        graph.set_durable(3);
        assert_eq!(**graph.durable_heads(), [hash(2), hash(3)]);
        graph.set_durable(4);
        assert_eq!(**graph.durable_heads(), [hash(4)]);
    }

    #[test]
    fn what_could_not_be_stored_is_forgotten() {
        let mut graph = diamond();
        graph.set_durable(2);
        graph.truncate(2);
        assert_eq!(graph.heads(), [hash(2)]);
        assert_eq!(graph.find(&hash(3)), None);
        // and may come again, with the same sequence number
        assert_eq!(
            graph.link(&change(3, b"b", 1, &[1]), AT),
            Ok(Linked::New(2))
        );
        assert_eq!(graph.heads(), [hash(2), hash(3)]);
    }

    #[test]
    fn a_second_change_with_the_same_sequence_number_is_refused() {
        let mut graph = diamond();
        assert_eq!(
            graph.link(&change(9, b"a", 2, &[1]), AT),
            Err(LinkError::Sequence)
        );
        assert_eq!(
            graph.link(&change(9, b"a", 4, &[4]), AT),
            Err(LinkError::Sequence)
        );
        assert_eq!(
            graph.link(&change(9, b"a", 3, &[8]), AT),
            Err(LinkError::Missing(hash(8)))
        );
        assert_eq!(graph.link(&change(2, b"a", 2, &[1]), AT), Ok(Linked::Known));
        assert_eq!(graph.len(), 4);
    }

    #[test]
    fn a_peer_lacks_what_is_beyond_its_last_sync() {
        let mut graph = diamond();
        graph.set_durable(4);
        assert_eq!(graph.lacking(&[have(&[])]), Some(vec![0, 1, 2, 3]));
        assert_eq!(graph.lacking(&[have(&[2])]), Some(vec![2, 3]));
        assert_eq!(graph.lacking(&[have(&[2, 3])]), Some(vec![3]));
        assert_eq!(graph.lacking(&[have(&[4])]), Some(vec![]));
        assert_eq!(graph.lacking(&[have(&[7])]), None);
    }

    #[test]
    fn what_is_not_on_disk_is_neither_sent_nor_known() {
        let mut graph = diamond();
        graph.set_durable(2);
        assert_eq!(graph.lacking(&[have(&[])]), Some(vec![0, 1]));
        assert_eq!(graph.lacking(&[have(&[3])]), None);
    }

    #[test]
    fn heads_of_a_part_are_those_that_nothing_in_it_depends_on() {
        let graph = diamond();
        let below = |length| graph.heads_below(length).to_vec();
        assert_eq!(below(0), []);
        assert_eq!(below(1), [hash(1)]);
        assert_eq!(below(3), [hash(2), hash(3)]);
        assert_eq!(below(4), [hash(4)]);
    }

    #[test]
    fn what_is_taken_back_is_not_on_disk_any_more() {
        let mut graph = diamond();
        graph.set_durable(4);
        graph.truncate(3);
        assert_eq!(graph.durable(), 3);
        assert_eq!(**graph.durable_heads(), [hash(2), hash(3)]);
        assert_eq!(graph.find_durable(&hash(4)), None);
        graph.set_durable(1);
        assert_eq!(**graph.durable_heads(), [hash(1)]);
    }

    #[test]
    fn what_a_snapshot_has_taken_lies_in_it_and_the_rest_where_it_was() {
        let mut graph = diamond();
        graph.set_compacted(1..3);
        assert_eq!(
            [0, 1, 2, 3, 4].map(|node| graph.place(node)),
            [
                Some(AT),
                Some(Place::Snapshot),
                Some(Place::Snapshot),
                Some(AT),
                None
            ]
        );
    }

    #[test]
    fn what_is_forgotten_leaves_no_actor_and_what_is_kept_is_counted() {
        let mut graph = Graph::default();
        graph.link(&change(1, b"a", 1, &[]), AT).unwrap();
        let cost = graph.beside_bytes;
        let (long, longer) = ([7; 200], [8; 200]);
        graph.link(&change(2, &long, 1, &[]), AT).unwrap();
        graph.link(&change(3, b"a", 2, &[1, 2]), AT).unwrap();
        graph.link(&change(4, &longer, 1, &[2]), AT).unwrap();
        assert!(graph.beside_bytes >= cost + 2 * 200 + 2 * size_of::<Node>());
        graph.truncate(1);
        assert_eq!((graph.actors.len(), graph.beside_bytes), (1, cost));
        // the next one gets the number that is free again
        graph.link(&change(5, b"b", 1, &[1]), AT).unwrap();
        assert_eq!(
            graph.link(&change(6, b"b", 2, &[5]), AT),
            Ok(Linked::New(2))
        );
    }

    #[test]
    fn a_change_costs_about_seventy_bytes_of_memory() {
        let mut graph = Graph::default();
        let changes = 1_000u16;
        for seq in 1..=changes {
            let mut bytes = [0; 32];
            bytes[30..].copy_from_slice(&seq.to_le_bytes());
            let change = ChangeChunk {
                hash: ChangeHash::from_bytes(bytes),
                ..change(0, b"a", seq.into(), &[])
            };
            graph.link(&change, AT).unwrap();
        }
        let each = graph.cost_bytes() / usize::from(changes);
        assert!((69..=140).contains(&each), "{each}");
    }
}

#[cfg(test)]
mod against_automerge;
