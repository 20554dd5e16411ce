//! What a checker says.

use std::fmt;

/// Who watches for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Checker {
    /// Every head that was ever told is recoverable if the machine stops now.
    Durable,
    /// No byte of a document leaves to a session that may not read it, and none is taken from one that may not write.
    Private,
    /// Once the faults are over, all have the same heads within a bound.
    Convergent,
    /// Queues, outboxes, orphans and jobs stay within their limits.
    Bounded,
    /// Without input there is no output.
    Quiet,
    /// The same run again leaves the same trace.
    SameAgain,
    /// The run did enough to mean something.
    Busy,
    /// Nothing panics, and no file is damaged by what a disk may do.
    Sound,
}

/// Something that must not be.
#[derive(Debug, Clone)]
pub struct Violation {
    /// Whose it is.
    pub checker: Checker,
    /// In words.
    pub what: String,
}

impl Violation {
    pub(crate) fn new(checker: Checker, what: impl Into<String>) -> Self {
        Self {
            checker,
            what: what.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.checker, self.what)
    }
}

/// One step of the world.
pub(crate) type Step = Result<(), Violation>;
