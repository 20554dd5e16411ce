//! Which ephemeral messages were relayed already.

use std::collections::BTreeMap;

use crate::limits::EPHEMERAL_SOURCES_MAX;

/// The last count of each source of ephemeral messages of one document.
///
/// Source: automerge-repo `network/messages.ts`: a message is new if its count is above the last one of the same
/// sender and session.
#[derive(Default)]
pub(crate) struct EphemeralCounts {
    last: BTreeMap<(Box<str>, Box<str>), Last>,
    /// Counts messages, to tell which source was quiet for longest.
    heard: u64,
}

struct Last {
    count: u64,
    heard: u64,
}

impl EphemeralCounts {
    /// Whether a message is new; if so, it is not the next time.
    pub(crate) fn is_new(&mut self, sender: &str, session: &str, count: u64) -> bool {
        self.heard += 1;
        let heard = self.heard;
        match self.last.get_mut(&(sender.into(), session.into())) {
            Some(last) if count <= last.count => false,
            Some(last) => {
                *last = Last { count, heard };
                true
            }
            None => {
                if self.last.len() >= EPHEMERAL_SOURCES_MAX {
                    self.forget_quietest();
                }
                self.last
                    .insert((sender.into(), session.into()), Last { count, heard });
                true
            }
        }
    }

    /// How many sources are remembered.
    #[cfg(feature = "simulator")]
    pub(crate) fn sources(&self) -> usize {
        self.last.len()
    }

    fn forget_quietest(&mut self) {
        let quietest = self.last.iter().min_by_key(|(_, last)| last.heard);
        if let Some(source) = quietest.map(|(source, _)| source.clone()) {
            self.last.remove(&source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_higher_counts_of_a_source_are_new() {
        let mut counts = EphemeralCounts::default();
        let mut is_new = |sender, session, count| counts.is_new(sender, session, count);
        assert!(is_new("a", "s", 1));
        assert!(!is_new("a", "s", 1));
        assert!(is_new("a", "s", 5));
        assert!(!is_new("a", "s", 3));
        assert!(is_new("a", "t", 1), "another session");
        assert!(is_new("b", "s", 1), "another sender");
    }

    #[test]
    fn sources_are_bounded_and_the_quietest_is_forgotten() {
        let mut counts = EphemeralCounts::default();
        counts.is_new("a", "first", 9);
        for n in 0..EPHEMERAL_SOURCES_MAX {
            counts.is_new("b", &n.to_string(), 1);
        }
        assert_eq!(counts.last.len(), EPHEMERAL_SOURCES_MAX);
        assert!(counts.is_new("a", "first", 1), "forgotten");
        assert!(!counts.is_new("b", "900", 1), "remembered");
    }
}
