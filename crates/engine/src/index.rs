//! The index of a snapshot: hash, actor and dependencies of every change in it.
//!
//! A whole-document chunk does not hold the hashes of its changes; working them out means materialising the
//! document (4 s for 260,000 changes). The worker process does that once, and its result is kept beside the
//! snapshot in this form, about 36 bytes per change:
//!
//! ```text
//! 01                                         format version
//! number of actors, each: length, bytes
//! number of changes, each: 32 bytes hash, actor's number, number of dependencies,
//!                          each dependency as (own position - its position)
//! ```
//!
//! All numbers are unsigned LEB128. Dependencies come before what depends on them. Sequence numbers are not
//! written: the n-th change of an actor has sequence number n.

use std::collections::BTreeMap;

use crate::{
    ids::ChangeHash,
    leb128::{self, Malformed, Reader},
};

const FORMAT_VERSION: u8 = 1;

/// Why changes cannot be indexed, or bytes are no index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// A change came before one that it depends on.
    #[error("a change comes before its dependency")]
    DependencyMissing,
    /// A change is there twice.
    #[error("a change is there twice")]
    Duplicate,
    /// An actor's sequence numbers are not 1, 2, 3...
    #[error("an actor's sequence numbers have a gap or a duplicate")]
    Sequence,
    /// The bytes are no index.
    #[error("not an index of changes")]
    Malformed,
}

impl From<Malformed> for IndexError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// Builds an index, change by change in topological order.
#[derive(Default)]
pub struct IndexBuilder {
    actors: BTreeMap<Vec<u8>, (u32, u64)>,
    actor_order: Vec<u8>,
    positions: BTreeMap<ChangeHash, u32>,
    changes: Vec<u8>,
}

impl IndexBuilder {
    /// An index of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a change: its hash, the bytes of its actor, its sequence number (from 1) and the hashes of its
    /// dependencies, in any order.
    ///
    /// # Errors
    /// [`IndexError`] if the change is there already, a dependency is not, or `seq` is not the actor's next.
    pub fn push(
        &mut self,
        hash: ChangeHash,
        actor: &[u8],
        seq: u64,
        deps: &[ChangeHash],
    ) -> Result<(), IndexError> {
        let position = u32::try_from(self.positions.len()).map_err(|_| IndexError::Malformed)?;
        let back = deps
            .iter()
            .map(|dep| self.positions.get(dep).map(|at| u64::from(position - at)))
            .collect::<Option<Vec<u64>>>()
            .ok_or(IndexError::DependencyMissing)?;
        let actor = self.actor(actor, seq)?;
        if self.positions.insert(hash, position).is_some() {
            return Err(IndexError::Duplicate);
        }
        self.changes.extend(hash.as_bytes());
        leb128::write(&mut self.changes, u64::from(actor));
        leb128::write(&mut self.changes, back.len() as u64);
        for distance in back {
            leb128::write(&mut self.changes, distance);
        }
        Ok(())
    }

    /// The index's bytes.
    pub fn finish(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.actor_order.len() + self.changes.len() + 16);
        out.push(FORMAT_VERSION);
        leb128::write(&mut out, self.actors.len() as u64);
        out.extend(self.actor_order);
        leb128::write(&mut out, self.positions.len() as u64);
        out.extend(self.changes);
        out
    }

    fn actor(&mut self, actor: &[u8], seq: u64) -> Result<u32, IndexError> {
        if let Some((number, last)) = self.actors.get_mut(actor) {
            if last.checked_add(1) != Some(seq) {
                return Err(IndexError::Sequence);
            }
            *last = seq;
            return Ok(*number);
        }
        if seq != 1 {
            return Err(IndexError::Sequence);
        }
        let number = u32::try_from(self.actors.len()).map_err(|_| IndexError::Malformed)?;
        leb128::write(&mut self.actor_order, actor.len() as u64);
        self.actor_order.extend(actor);
        self.actors.insert(actor.to_vec(), (number, 1));
        Ok(number)
    }
}

/// An index being read: first its actors, then its changes one by one.
pub struct IndexReader<'a> {
    actors: Vec<&'a [u8]>,
    changes: usize,
    read: usize,
    rest: Reader<'a>,
}

/// One change of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexedChange {
    /// Its hash.
    pub hash: ChangeHash,
    /// Position of its actor in [`IndexReader::actors`].
    pub actor: u32,
    /// Positions of its dependencies, each smaller than its own.
    pub deps: Vec<u32>,
}

impl<'a> IndexReader<'a> {
    /// Reads the head of an index.
    ///
    /// # Errors
    /// [`IndexError::Malformed`] if the bytes are none.
    pub fn new(bytes: &'a [u8]) -> Result<Self, IndexError> {
        let mut rest = Reader::new(bytes);
        if rest.byte()? != FORMAT_VERSION {
            return Err(IndexError::Malformed);
        }
        let count = rest.count(1)?;
        let actors = (0..count)
            .map(|_| rest.prefixed())
            .collect::<Result<_, _>>()?;
        let changes = rest.count(ChangeHash::BYTES + 2)?;
        Ok(Self {
            actors,
            changes,
            read: 0,
            rest,
        })
    }

    /// The actors' bytes.
    pub fn actors(&self) -> &[&'a [u8]] {
        &self.actors
    }

    /// How many changes there are.
    pub fn changes(&self) -> usize {
        self.changes
    }

    fn change(&mut self) -> Result<IndexedChange, IndexError> {
        let position = u32::try_from(self.read).map_err(|_| IndexError::Malformed)?;
        let hash = ChangeHash::from_bytes(self.rest.array()?);
        let actor = u32::try_from(self.rest.number()?).map_err(|_| IndexError::Malformed)?;
        if actor as usize >= self.actors.len() {
            return Err(IndexError::Malformed);
        }
        let count = self.rest.count(1)?;
        let deps = (0..count)
            .map(|_| {
                let distance = u32::try_from(self.rest.number()?).map_err(|_| Malformed)?;
                position
                    .checked_sub(distance)
                    .filter(|at| *at < position)
                    .ok_or(Malformed)
            })
            .collect::<Result<_, Malformed>>()?;
        Ok(IndexedChange { hash, actor, deps })
    }
}

impl Iterator for IndexReader<'_> {
    type Item = Result<IndexedChange, IndexError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.read == self.changes {
            return None;
        }
        let change = self.change();
        // after an error nothing more can be made of the bytes
        self.read = if change.is_ok() {
            self.read + 1
        } else {
            self.changes
        };
        Some(change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u8) -> ChangeHash {
        ChangeHash::from_bytes([n; 32])
    }

    #[test]
    fn an_index_gives_back_what_was_put_in() {
        let mut builder = IndexBuilder::new();
        builder.push(hash(1), b"a", 1, &[]).unwrap();
        builder.push(hash(2), b"a", 2, &[hash(1)]).unwrap();
        builder.push(hash(3), b"b", 1, &[hash(1)]).unwrap();
        builder.push(hash(4), b"b", 2, &[hash(2), hash(3)]).unwrap();
        let bytes = builder.finish();
        let reader = IndexReader::new(&bytes).unwrap();
        assert_eq!(reader.actors(), [b"a", b"b"]);
        let changes: Vec<_> = reader.map(Result::unwrap).collect();
        assert_eq!(
            changes,
            [
                IndexedChange {
                    hash: hash(1),
                    actor: 0,
                    deps: vec![]
                },
                IndexedChange {
                    hash: hash(2),
                    actor: 0,
                    deps: vec![0]
                },
                IndexedChange {
                    hash: hash(3),
                    actor: 1,
                    deps: vec![0]
                },
                IndexedChange {
                    hash: hash(4),
                    actor: 1,
                    deps: vec![1, 2]
                },
            ]
        );
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let mut builder = IndexBuilder::new();
        builder.push(hash(1), b"a", 1, &[]).unwrap();
        assert_eq!(
            builder.push(hash(2), b"a", 2, &[hash(9)]),
            Err(IndexError::DependencyMissing)
        );
        assert_eq!(
            builder.push(hash(2), b"a", 1, &[]),
            Err(IndexError::Sequence)
        );
        assert_eq!(
            builder.push(hash(2), b"b", 2, &[]),
            Err(IndexError::Sequence)
        );
        assert_eq!(
            builder.push(hash(1), b"a", 2, &[]),
            Err(IndexError::Duplicate)
        );
    }

    #[test]
    fn bytes_that_are_no_index_are_refused() {
        let mut builder = IndexBuilder::new();
        builder.push(hash(1), b"a", 1, &[]).unwrap();
        builder.push(hash(2), b"a", 2, &[hash(1)]).unwrap();
        let bytes = builder.finish();
        for end in 0..bytes.len() {
            let refused = match IndexReader::new(&bytes[..end]) {
                Err(_) => true,
                Ok(mut reader) => reader.any(|change| change.is_err()),
            };
            assert!(refused, "cut at {end}");
        }
    }
}
