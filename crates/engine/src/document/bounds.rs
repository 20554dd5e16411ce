//! What a simulator asks of a document at each step: is it within its bounds, and do its counts count?

use super::{Document, State};
use crate::limits::{
    EPHEMERAL_SOURCES_MAX, ORPHAN_BYTES_MAX, ORPHANS_MAX, QUEUED_BYTES_MAX, UNSTORED_BYTES_MAX,
};

impl Document {
    /// What is wrong, in words, if anything is.
    pub(crate) fn out_of_bounds(&self) -> Option<String> {
        let (counted, queued) = self.queue.weigh();
        if counted != queued {
            return Some(format!("counts {counted} queued bytes, and has {queued}"));
        }
        let unstored: usize = self.appends.iter().map(|append| append.bytes()).sum();
        if self.unstored_bytes != unstored {
            let counted = self.unstored_bytes;
            return Some(format!(
                "counts {counted} unstored bytes, and has {unstored}"
            ));
        }
        let sent = || self.appends.iter().filter(|append| append.is_sent());
        let last = sent().next_back().map_or(0, |append| append.bytes());
        let sent: usize = sent().map(|append| append.bytes()).sum();
        let sources = self.ephemeral.sources();
        let limits = [
            ("queued bytes", queued, QUEUED_BYTES_MAX),
            // what was taken in when there was room yet may be of any length
            ("unstored bytes", sent, UNSTORED_BYTES_MAX + last),
            ("adopted bytes", unstored - sent, 2 * ORPHAN_BYTES_MAX),
            ("ephemeral sources", sources, EPHEMERAL_SOURCES_MAX),
        ];
        let beyond = limits.into_iter().find(|(_, is, max)| is > max);
        beyond
            .map(|(what, is, max)| format!("has {is} {what}, and at most {max} are allowed"))
            .or_else(|| self.orphans_out_of_bounds())
    }

    fn orphans_out_of_bounds(&self) -> Option<String> {
        let State::Hot(hot) = &self.state else {
            return None;
        };
        let (count, bytes) = hot.orphans.weigh();
        if bytes != hot.orphans.bytes() {
            let counted = hot.orphans.bytes();
            return Some(format!(
                "counts {counted} bytes of orphans, and has {bytes}"
            ));
        }
        // what a failed write gives back comes on top of what was taken in meanwhile
        let is_beyond = count > 2 * ORPHANS_MAX || bytes > 2 * ORPHAN_BYTES_MAX;
        is_beyond.then(|| format!("keeps {count} orphans of {bytes} bytes"))
    }
}
