//! The owner's decisions: the checkers' own table of who may do what, and the way of each decision into the real
//! account database.

use engine::Access;
use store::{
    AccountError, AccountStore, AppKind, Approved, NewApproval, NewPending, NewSession, Occasion,
    PendingDoor, SessionAccess, SessionKind,
};

use crate::violation::{Checker, Violation};

/// A time that no run reaches, Unix time in milliseconds.
const NEVER_MS: i64 = i64::MAX / 4;

/// What was decided about one session, its device and its app's grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) approved: SessionAccess,
    pub(crate) approved_until_ms: i64,
    pub(crate) granted: Option<SessionAccess>,
    pub(crate) revoked: bool,
}

/// One session of one device of one app, for one group.
pub(crate) struct Session {
    pub(crate) id: String,
    group: String,
    app: String,
    /// What holds.
    pub(crate) now: Decision,
    /// What held before a decision of which it is not known whether it was written down.
    before: Option<Decision>,
}

#[derive(Default)]
pub(crate) struct Owner {
    pub(crate) sessions: Vec<Session>,
    used_tickets: std::collections::BTreeSet<u64>,
}

impl Decision {
    fn access(&self, now_ms: i64) -> Option<SessionAccess> {
        let granted = self.granted.filter(|_| !self.revoked)?;
        (now_ms < self.approved_until_ms).then(|| granted.min(self.approved))
    }
}

impl Owner {
    /// Lets one more device in; the number of its session.
    pub(crate) fn admit(
        &mut self,
        account: &AccountStore,
        group: &str,
        access: SessionAccess,
    ) -> Result<usize, AccountError> {
        let number = self.sessions.len();
        let (id, app) = (format!("session-{number}"), format!("https://{number}.app"));
        let groups = vec![(group.to_owned(), access)];
        let occasion = Occasion::at(0);
        let pending = NewPending {
            id: id.clone(),
            door: PendingDoor::Authenticate,
            app: app.clone(),
            jkt: id.clone(),
            origin: None,
            kind: AppKind::Native,
            app_name: None,
            name: id.clone(),
            address: "192.0.2.1".into(),
            groups: groups.clone(),
        };
        account.record_pending(&pending, 1_000, &occasion)?;
        let now = Decision {
            approved: access,
            approved_until_ms: NEVER_MS,
            granted: Some(access),
            revoked: false,
        };
        let session = Session {
            id: id.clone(),
            group: group.into(),
            app,
            now,
            before: None,
        };
        session.approve(account, access, NEVER_MS)?;
        account.add(
            &NewSession {
                id: id.clone(),
                name: id.clone(),
                kind: SessionKind::Authenticate,
                device: Some(id),
                groups: vec![(group.to_owned(), SessionAccess::Write)],
                expires_at_ms: NEVER_MS,
                slide_ms: 0,
                ends_at_ms: NEVER_MS,
            },
            &occasion,
        )?;
        self.sessions.push(session);
        Ok(number)
    }

    /// Decides anew about a session. A decision that the database could not write down is no decision, but it may be
    /// found there later.
    pub(crate) fn decide(
        &mut self,
        account: &AccountStore,
        session: usize,
        decision: Decision,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(session) else {
            return false;
        };
        let written = session.write(account, &decision);
        match written {
            Ok(()) => {
                session.now = decision;
                session.before = None;
                true
            }
            Err(_) => {
                // what it was, and what it may have become
                session.before.get_or_insert(decision);
                false
            }
        }
    }

    /// What a session may do, by this table.
    pub(crate) fn access(&self, session: usize, now_ms: i64) -> Option<SessionAccess> {
        self.sessions.get(session)?.now.access(now_ms)
    }

    /// Asks the real database what a session may do, and holds it against this table.
    pub(crate) fn ask(
        &mut self,
        account: &AccountStore,
        session: usize,
        now_ms: i64,
    ) -> Result<Option<Option<Access>>, Violation> {
        let Some(session) = self.sessions.get_mut(session) else {
            return Ok(Some(None));
        };
        let Ok(said) = account.access(&session.id, &session.group, now_ms) else {
            return Ok(None);
        };
        let decided = session.now.access(now_ms);
        let possible = session.before.as_ref().map(|before| before.access(now_ms));
        if said != decided && possible.is_none() {
            let what = format!("{} may {decided:?}, and is let {said:?}", session.id);
            return Err(Violation::new(Checker::Private, what));
        }
        Ok(Some(said.map(engine_access)))
    }

    /// Writes down again what may have been written down by half.
    pub(crate) fn make_sure(&mut self, account: &AccountStore) -> bool {
        let mut sure = true;
        for session in &mut self.sessions {
            if session.before.is_some() {
                let now = session.now.clone();
                match session.write(account, &now) {
                    Ok(()) => session.before = None,
                    Err(_) => sure = false,
                }
            }
        }
        sure
    }

    /// Uses a ticket; whether it admits.
    pub(crate) fn use_ticket(
        &mut self,
        account: &AccountStore,
        ticket: u64,
        now_ms: i64,
    ) -> Result<bool, Violation> {
        let mut hash = [0; 32];
        hash.iter_mut()
            .zip(ticket.to_le_bytes())
            .for_each(|(byte, from)| *byte = from);
        let used = account.use_once("ticket", &hash, NEVER_MS, 1_000_000, now_ms);
        let admits = matches!(used, Ok(store::Use::First));
        if admits && !self.used_tickets.insert(ticket) {
            let what = format!("ticket {ticket} admits a second time");
            return Err(Violation::new(Checker::Private, what));
        }
        Ok(admits)
    }
}

impl Session {
    fn approve(
        &self,
        account: &AccountStore,
        access: SessionAccess,
        expires_at_ms: i64,
    ) -> Result<(), AccountError> {
        let approval = NewApproval {
            id: self.id.clone(),
            groups: vec![(self.group.clone(), access)],
            name: None,
            expires_at_ms,
        };
        let approved = account.approve(&approval, &Occasion::at(0))?;
        assert!(
            matches!(approved, Approved::Device(_)),
            "{} cannot be approved: {approved:?}",
            self.id
        );
        Ok(())
    }

    fn write(&self, account: &AccountStore, decision: &Decision) -> Result<(), AccountError> {
        let occasion = Occasion::at(0);
        if decision.revoked {
            account.revoke(&self.id, &occasion)?;
            return Ok(());
        }
        self.approve(account, decision.approved, decision.approved_until_ms)?;
        match decision.granted {
            Some(granted) => {
                account.put_grant(&self.app, &self.group, granted, NEVER_MS, &occasion)?;
            }
            None => {
                account.remove_grant(&self.app, Some(&self.group), &occasion)?;
            }
        }
        Ok(())
    }
}

pub(crate) fn engine_access(access: SessionAccess) -> Access {
    match access {
        SessionAccess::Read => Access::Read,
        SessionAccess::Write => Access::Write,
    }
}
