//! The stored chunks behind a document's snapshot, and the bytes of the most recent of them.

use std::{collections::VecDeque, ops::Range};

use bytes::Bytes;

use crate::graph::Node;

/// The tail chunks of a document that are, or are about to be, on disk; ascending by number and by node.
#[derive(Default)]
pub(crate) struct Tail {
    chunks: VecDeque<TailChunk>,
    cached_bytes: usize,
}

pub(crate) struct TailChunk {
    pub(crate) number: u64,
    pub(crate) nodes: Range<Node>,
    /// Kept for as long as they are recent.
    bytes: Option<Bytes>,
}

impl Tail {
    pub(crate) fn push(&mut self, number: u64, nodes: Range<Node>, bytes: Bytes) {
        self.cached_bytes += bytes.len();
        self.chunks.push_back(TailChunk {
            number,
            nodes,
            bytes: Some(bytes),
        });
    }

    /// The chunk that holds a node.
    pub(crate) fn chunk_of(&self, node: Node) -> Option<&TailChunk> {
        let at = self.chunks.partition_point(|chunk| chunk.nodes.end <= node);
        self.chunks
            .get(at)
            .filter(|chunk| chunk.nodes.contains(&node))
    }

    /// The first node of the chunks numbered higher than `number`; nothing if there is none.
    pub(crate) fn first_node_after(&self, number: u64) -> Option<Node> {
        let at = self.chunks.partition_point(|chunk| chunk.number <= number);
        self.chunks.get(at).map(|chunk| chunk.nodes.start)
    }

    /// Forgets the chunks whose nodes begin at `length` or later: they could not be stored.
    pub(crate) fn truncate(&mut self, length: Node) {
        while self
            .chunks
            .back()
            .is_some_and(|chunk| chunk.nodes.start >= length)
        {
            let dropped = self.chunks.pop_back();
            self.cached_bytes -= dropped
                .and_then(|chunk| chunk.bytes)
                .map_or(0, |bytes| bytes.len());
        }
    }

    /// Forgets the chunks numbered up to and including `number`: a snapshot has taken their place.
    pub(crate) fn drop_through(&mut self, number: u64) {
        while self
            .chunks
            .front()
            .is_some_and(|chunk| chunk.number <= number)
        {
            let dropped = self.chunks.pop_front();
            self.cached_bytes -= dropped
                .and_then(|chunk| chunk.bytes)
                .map_or(0, |bytes| bytes.len());
        }
    }

    /// Lets go of the oldest bytes beyond `bytes_max`.
    pub(crate) fn trim(&mut self, bytes_max: usize) {
        for chunk in &mut self.chunks {
            if self.cached_bytes <= bytes_max {
                return;
            }
            self.cached_bytes -= chunk.bytes.take().map_or(0, |bytes| bytes.len());
        }
    }

    pub(crate) fn cost_bytes(&self) -> usize {
        self.cached_bytes + self.chunks.capacity() * size_of::<TailChunk>()
    }
}

impl TailChunk {
    pub(crate) fn bytes(&self) -> Option<&Bytes> {
        self.bytes.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail() -> Tail {
        let mut tail = Tail::default();
        tail.push(3, 10..12, Bytes::from_static(b"ab"));
        tail.push(4, 12..13, Bytes::from_static(b"c"));
        // 13..20 came in a snapshot that was absorbed
        tail.push(6, 20..24, Bytes::from_static(b"defg"));
        tail
    }

    #[test]
    fn nodes_are_found_in_their_chunks() {
        let tail = tail();
        let number = |node| tail.chunk_of(node).map(|chunk| chunk.number);
        assert_eq!(
            [9, 10, 11, 12, 13, 20, 23, 24].map(number),
            [
                None,
                Some(3),
                Some(3),
                Some(4),
                None,
                Some(6),
                Some(6),
                None
            ]
        );
        let after = [2, 3, 4, 5, 6].map(|n| tail.first_node_after(n));
        assert_eq!(after, [Some(10), Some(12), Some(20), Some(20), None]);
    }

    #[test]
    fn the_oldest_bytes_go_first() {
        let mut tail = tail();
        tail.trim(5);
        let cached = |node| tail.chunk_of(node).and_then(TailChunk::bytes).is_some();
        assert_eq!([10, 12, 20].map(cached), [false, true, true]);
    }

    #[test]
    fn both_ends_can_be_forgotten() {
        let mut tail = tail();
        tail.drop_through(3);
        tail.truncate(20);
        assert_eq!(
            tail.chunks
                .iter()
                .map(|chunk| chunk.number)
                .collect::<Vec<_>>(),
            [4]
        );
        assert_eq!(tail.cached_bytes, 1);
    }
}
