//! Who may do what: the only place that says yes.
//!
//! A [`Grant`] is the proof that a session may read or write a document at this moment. Nothing of a document is
//! sent, and nothing is taken in, without one. It borrows the session, so it cannot outlive a revocation, and
//! nothing outside this module can make one.

use std::marker::PhantomData;

use crate::effect::Refusal;

/// What a session may do with the documents of its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read.
    Read,
    /// Read and write.
    Write,
}

/// What somebody wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    Read,
    Write,
}

/// The access of one connection, as its session has it now.
#[derive(Debug)]
pub(crate) struct Session {
    access: Access,
}

impl Session {
    pub(crate) const fn new(access: Access) -> Self {
        Self { access }
    }

    /// Whether that is something else than before.
    pub(crate) fn set_access(&mut self, access: Access) -> bool {
        std::mem::replace(&mut self.access, access) != access
    }
}

/// Proof that a session may do something, now.
#[derive(Clone, Copy)]
pub(crate) struct Grant<'session> {
    session: PhantomData<&'session Session>,
}

/// Says whether `session` may do what it wants. That the document is one of its group needs no asking: an engine
/// serves one group, and knows no other documents.
///
/// # Errors
/// [`Refusal::NotAllowed`].
pub(crate) const fn authorise(session: &Session, need: Need) -> Result<Grant<'_>, Refusal> {
    match (session.access, need) {
        (Access::Read | Access::Write, Need::Read) | (Access::Write, Need::Write) => Ok(Grant {
            session: PhantomData,
        }),
        (Access::Read, Need::Write) => Err(Refusal::NotAllowed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_only_session_may_read_and_not_write() {
        let mut session = Session::new(Access::Read);
        assert!(authorise(&session, Need::Read).is_ok());
        assert_eq!(
            authorise(&session, Need::Write).err(),
            Some(Refusal::NotAllowed)
        );
        session.set_access(Access::Write);
        assert!(authorise(&session, Need::Write).is_ok());
    }
}
