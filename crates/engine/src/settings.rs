//! What the owner may set about an engine.

/// Settings of one group's engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Our peer id towards clients.
    pub peer_id: String,
    /// Our storage id: stable for as long as the group's file exists.
    pub storage_id: String,
    /// Which documents a peer is told of without having asked.
    pub announce: Announce,
    /// When tails are made into snapshots.
    pub compaction: Compaction,
    /// Most memory for change graphs, in bytes; the least recently used go first, those who do not keep pace
    /// with theirs excepted.
    pub graph_bytes_max: usize,
    /// How long a graph stays in memory without being used, in milliseconds.
    pub graph_idle_ms: u64,
}

/// Which documents a peer is told of without having asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announce {
    /// Only those that it has asked for or sent.
    None,
    /// All of the group.
    All,
}

/// When a document's tail is made into a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compaction {
    /// A tail shorter than this many bytes is left alone.
    pub floor_bytes: u64,
    /// A tail longer than this percentage of the snapshot is compacted.
    pub ratio_percent: u64,
    /// How long the document must have been left alone before, in milliseconds.
    pub quiet_ms: u64,
}

impl Compaction {
    /// The tail beyond which a document with such a snapshot is compacted, in bytes.
    pub(crate) fn threshold_bytes(&self, snapshot_bytes: u64) -> u64 {
        self.floor_bytes
            .max(snapshot_bytes.saturating_mul(self.ratio_percent) / 100)
    }
}

impl Default for Compaction {
    fn default() -> Self {
        Self {
            floor_bytes: 64 << 10,
            ratio_percent: 100,
            quiet_ms: 5_000,
        }
    }
}
