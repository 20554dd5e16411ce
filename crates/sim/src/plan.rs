//! What kind of world a seed makes. Each seed leaves some kinds of trouble out, so that others come to the fore.

use engine::{Announce, Compaction, Settings};

use crate::dice::Dice;

/// A run, entirely.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub seed: u64,
    pub steps: u64,
    pub(crate) groups: usize,
    /// Devices of each group.
    pub(crate) devices: usize,
    /// Strangers of each group.
    pub(crate) strangers: usize,
    /// Documents of each group; the same ids in all of them.
    pub(crate) documents: u8,
    pub(crate) announce_all: bool,
    pub(crate) crashes: bool,
    pub(crate) disk_trouble: bool,
    pub(crate) worker_trouble: bool,
    pub(crate) access_changes: bool,
    pub(crate) clock_steps: bool,
    /// One in so many frames of the network waits for a cut.
    pub(crate) cuts: bool,
}

/// Steps from one calm to the next.
pub(crate) const CALM_EVERY: u64 = 2_500;

impl Plan {
    /// The world of a seed.
    pub fn new(seed: u64, steps: u64) -> Self {
        let mut dice = Dice(seed ^ 0x7061_6e64_6f72_6121);
        let mut mostly = || !dice.one_in(4);
        let (crashes, disk_trouble, worker_trouble) = (mostly(), mostly(), mostly());
        let (access_changes, clock_steps, cuts) = (mostly(), mostly(), mostly());
        Self {
            seed,
            steps,
            groups: 1 + dice.below(3),
            devices: 1 + dice.below(4),
            strangers: dice.below(3),
            documents: u8::try_from(1 + dice.below(4)).unwrap_or(1),
            announce_all: dice.one_in(4),
            crashes,
            disk_trouble,
            worker_trouble,
            access_changes,
            clock_steps,
            cuts,
        }
    }

    pub(crate) fn engine_settings(&self) -> Settings {
        Settings {
            peer_id: "server".into(),
            storage_id: "storage".into(),
            announce: if self.announce_all {
                Announce::All
            } else {
                Announce::None
            },
            compaction: Compaction {
                floor_bytes: 600,
                ratio_percent: 50,
                quiet_ms: 50,
            },
            graph_bytes_max: 6 << 10,
            graph_idle_ms: 1_000,
        }
    }
}
