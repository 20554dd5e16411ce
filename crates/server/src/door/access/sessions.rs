//! What a session is, and what it does: refresh itself, open sockets, keep a root document.

use std::{net::IpAddr, sync::Arc};

use atproto::Proof;
use store::{
    AccountError, AccountStore, Device, NewSession, Occasion, Refreshed, Session, SessionAccess,
    SessionKind,
};

use super::{AccessError, Call, scheme};
use crate::{
    door::{
        Door, Event, RootUrl, SessionId, Ticket, TooMany, lock, now_ms,
        token::{AccessClaims, RefreshClaims},
        uptime_ms,
    },
    group::Group,
};

/// How long an access token is good, in seconds.
const ACCESS_S: i64 = 600;
/// How long a session is good unused, in milliseconds.
const SLIDE_MS: i64 = 30 * 24 * 3_600 * 1_000;
/// How long a refresh token may be shown again, because the answer was lost, in milliseconds.
const REFRESH_GRACE_MS: i64 = 60_000;
/// Most sessions of one device; the oldest makes room.
const OF_DEVICE_MAX: usize = 8;

/// A session, as its device gets it.
pub struct Granted {
    /// Its id.
    pub id: SessionId,
    /// The access token, bound to the device's key.
    pub access_token: String,
    /// The refresh token, likewise.
    pub refresh_token: String,
    /// When the access token ends, Unix time in seconds.
    pub access_expires_at_s: i64,
    /// What it may do now.
    pub groups: Vec<(Group, SessionAccess)>,
}

/// Who calls, by an access token.
pub struct Caller {
    /// The session's id.
    pub id: SessionId,
    /// The session.
    pub session: Session,
    /// Its device.
    pub device: Device,
    /// What it may do now.
    pub groups: Vec<(Group, SessionAccess)>,
}

impl Door {
    /// Begins a session of a device.
    pub(super) async fn begin(
        self: &Arc<Self>,
        device: Device,
        groups: Vec<(Group, SessionAccess)>,
        address: IpAddr,
    ) -> Result<Granted, AccessError> {
        self.limits.begin(&device.id)?;
        let now_ms = now_ms();
        let id = SessionId::random().map_err(AccountError::from)?;
        let ends_at_ms = self.approved_until(&device, groups.iter().map(|(group, _)| group))?;
        let session = NewSession {
            id: id.to_string(),
            kind: SessionKind::Access,
            device: Some(device.id.clone()),
            name: device.name.clone(),
            groups: texts(&groups),
            expires_at_ms: ends_at_ms.min(now_ms.saturating_add(SLIDE_MS)),
            slide_ms: SLIDE_MS,
            ends_at_ms,
        };
        let (of, address_text) = (device.id.clone(), address.to_string());
        self.write(move |accounts| {
            let occasion = Occasion {
                address: Some(&address_text),
                ..Occasion::at(now_ms)
            };
            end_oldest(accounts, &of, &occasion)?;
            accounts.add(&session, &occasion)
        })
        .await?;
        self.note(Event {
            event: "login",
            detail: "requestAccess".into(),
            app: Some(device.app),
            device: Some(device.id),
            address: Some(address),
        });
        Ok(self.tokens(id, &device.jkt, 0, ends_at_ms, groups))
    }

    fn tokens(
        &self,
        id: SessionId,
        thumbprint: &str,
        generation: u32,
        ends_at_ms: i64,
        groups: Vec<(Group, SessionAccess)>,
    ) -> Granted {
        let (keys, ends_at_s) = (self.keys(), ends_at_ms / 1_000);
        let access_expires_at_s = (now_ms() / 1_000 + ACCESS_S).min(ends_at_s);
        Granted {
            access_token: keys.access.sign(&AccessClaims {
                session: id.clone(),
                thumbprint: thumbprint.to_owned(),
                expires_at_s: access_expires_at_s,
            }),
            refresh_token: keys.refresh.sign(&RefreshClaims {
                session: id.clone(),
                thumbprint: thumbprint.to_owned(),
                generation,
                expires_at_s: ends_at_s,
            }),
            id,
            access_expires_at_s,
            groups,
        }
    }

    /// The session that calls, by its access token and a proof of its key.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn caller(&self, call: &Call<'_>) -> Result<Caller, AccessError> {
        let token = self.token(call)?;
        let claims = self.keys().access.verify(token, now_ms() / 1_000);
        let claims = claims.map_err(|problem| self.stranger(call, AccessError::Token(problem)))?;
        self.session_of(call, token, claims.session, &claims.thumbprint)
    }

    /// A new pair of tokens for a session, by its refresh token and a proof of its key. A token that was used before
    /// ends the session: somebody else has it.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn refresh(self: &Arc<Self>, call: &Call<'_>) -> Result<Granted, AccessError> {
        let token = self.token(call)?;
        let claims = self.keys().refresh.verify(token, now_ms() / 1_000);
        let claims = claims.map_err(|problem| self.stranger(call, AccessError::Token(problem)))?;
        let caller = self.session_of(call, token, claims.session, &claims.thumbprint)?;
        let id = caller.id.to_string();
        let refreshed = self
            .write(move |accounts| {
                let now_ms = now_ms();
                let refreshed =
                    accounts.refresh(&id, claims.generation, now_ms, REFRESH_GRACE_MS)?;
                if refreshed == Refreshed::Reused {
                    let occasion = Occasion {
                        reason: Some("a refresh token was used twice"),
                        ..Occasion::at(now_ms)
                    };
                    accounts.revoke(&id, &occasion)?;
                }
                Ok(refreshed)
            })
            .await?;
        match refreshed {
            Refreshed::Next(generation) | Refreshed::Repeated(generation) => Ok(self.tokens(
                caller.id,
                &caller.device.jkt,
                generation,
                caller.session.ends_at_ms,
                caller.groups,
            )),
            Refreshed::Reused | Refreshed::Ended => Err(AccessError::Session),
        }
    }

    fn token<'a>(&self, call: &Call<'a>) -> Result<&'a str, AccessError> {
        self.site()?;
        scheme(call.authorization, "dpop").ok_or(AccessError::Missing(
            "the header Authorization: DPoP with a token of this server is needed",
        ))
    }

    /// The session that a token of ours names, if it is in force, once its key has proven itself. In this order: who
    /// only has a token, or had a session once, must not cost signatures, nor the memory for proofs that all share.
    fn session_of(
        &self,
        call: &Call<'_>,
        token: &str,
        id: SessionId,
        thumbprint: &str,
    ) -> Result<Caller, AccessError> {
        let caller = self.session_in_force(id)?;
        let caller = caller.ok_or_else(|| self.stranger(call, AccessError::Session))?;
        self.prove(call, token, thumbprint)?;
        self.note_use(&caller.id, &caller.session);
        Ok(caller)
    }

    fn prove(&self, call: &Call<'_>, token: &str, thumbprint: &str) -> Result<(), AccessError> {
        let [proof] = call.proofs else {
            return Err(AccessError::Missing("exactly one DPoP header is needed"));
        };
        let proof = Proof::parse(proof)
            .map_err(|problem| self.stranger(call, AccessError::Proof(problem)))?;
        if proof.thumbprint().to_string() != thumbprint {
            let problem = "the token is bound to another key than the proof's";
            return Err(self.stranger(call, AccessError::WrongProof(problem)));
        }
        let proof = self.verify_proof(proof, call, Some(token));
        let proof = proof.map_err(|problem| match matches!(problem, AccessError::Nonce) {
            true => problem,
            false => self.stranger(call, problem),
        })?;
        self.use_proof(&proof)
    }

    /// A session with its device, if both are in force.
    fn session_in_force(&self, id: SessionId) -> Result<Option<Caller>, AccountError> {
        let (reader, now_ms) = (self.reader(), now_ms());
        let session = reader.session(id.as_str())?;
        let Some(session) = session.filter(|session| session.is_in_force(now_ms)) else {
            return Ok(None);
        };
        let device = match &session.device {
            Some(device) => reader.device(device)?,
            None => None,
        };
        let Some(device) = device.filter(|device| device.revoked_at_ms.is_none()) else {
            return Ok(None);
        };
        let scopes = reader.scopes(id.as_str(), now_ms)?;
        drop(reader);
        let groups: Vec<_> = scopes
            .into_iter()
            .filter_map(|(group, access)| Some((group.parse().ok()?, access)))
            .collect();
        Ok(Some(Caller {
            id,
            session,
            device,
            groups,
        }))
    }

    /// Ends a session of the caller's device.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn end_session(
        self: &Arc<Self>,
        caller: &Caller,
        id: Option<SessionId>,
    ) -> Result<(), AccessError> {
        let id = id.unwrap_or_else(|| caller.id.clone());
        let of_device = self.reader().sessions_of_device(&caller.device.id)?;
        if !of_device.iter().any(|session| session.id == id.as_str()) {
            return Err(AccessError::Denied("this device has no such session"));
        }
        let revoke = move |accounts: &AccountStore| {
            let occasion = Occasion {
                reason: Some("the app has ended it"),
                ..Occasion::at(now_ms())
            };
            accounts.revoke(id.as_str(), &occasion)
        };
        self.write(revoke).await?;
        Ok(())
    }

    /// The sessions of the caller's app, with their devices.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn sessions_of_app(&self, caller: &Caller) -> Result<Vec<(Session, Device)>, AccountError> {
        let (reader, now_ms) = (self.reader(), now_ms());
        let mut sessions = vec![];
        for device in reader.devices()? {
            if device.app != caller.device.app || device.revoked_at_ms.is_some() {
                continue;
            }
            let of_device = reader.sessions_of_device(&device.id)?;
            let in_force = of_device
                .into_iter()
                .filter(|session| session.is_in_force(now_ms));
            sessions.extend(in_force.map(|session| (session, device.clone())));
        }
        Ok(sessions)
    }

    /// When the last of a device's approvals for these groups ends, Unix time in milliseconds.
    pub(in crate::door) fn approved_until<'a>(
        &self,
        device: &Device,
        groups: impl Iterator<Item = &'a Group>,
    ) -> Result<i64, AccountError> {
        let reader = self.reader();
        let approvals = reader.approvals(&device.id)?;
        let mut until_ms = 0;
        for group in groups {
            let approval = approvals
                .iter()
                .find(|approval| approval.group == group.as_str());
            let grant = reader.grant(&device.app, group.as_str())?;
            if let (Some(approval), Some(grant)) = (approval, grant) {
                until_ms = until_ms.max(approval.expires_at_ms.min(grant.expires_at_ms));
            }
        }
        Ok(until_ms)
    }

    /// A ticket for one WebSocket.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn issue_ticket(&self, caller: &Caller, group: &Group) -> Result<Ticket, AccessError> {
        caller.access_to(group)?;
        let ticket = lock(&self.tickets).issue(&caller.id, group, uptime_ms());
        let ticket = ticket.map_err(AccountError::from)?;
        ticket.ok_or_else(|| TooMany::for_a_slot().into())
    }

    /// The root document of the caller's app in a group.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn root_document(
        &self,
        caller: &Caller,
        group: &Group,
    ) -> Result<Option<String>, AccessError> {
        caller.access_to(group)?;
        Ok(self.reader().root(&caller.device.app, group.as_str())?)
    }

    /// Stores the root document of the caller's app in a group, if there is none; the one that is stored then.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn put_root_document(
        self: &Arc<Self>,
        caller: &Caller,
        group: &Group,
        url: RootUrl,
    ) -> Result<String, AccessError> {
        if caller.access_to(group)? != SessionAccess::Write {
            return Err(AccessError::Denied("this session may only read this group"));
        }
        let (app, device) = (caller.device.app.clone(), caller.device.id.clone());
        let (group, url) = (group.to_string(), url.to_string());
        let put = move |accounts: &AccountStore| {
            accounts.put_root_first(&app, &group, &url, Some(&device), &Occasion::at(now_ms()))
        };
        self.write(put)
            .await?
            .ok_or(AccessError::Denied("this session may only read this group"))
    }

    /// The groups that the owner has given apps access to.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn granted_groups(&self) -> Result<Vec<Group>, AccountError> {
        let grants = self.reader().grants()?;
        let mut groups: Vec<Group> = grants
            .iter()
            .filter_map(|grant| grant.group.parse().ok())
            .collect();
        groups.sort();
        groups.dedup();
        Ok(groups)
    }
}

impl Caller {
    /// What the session may do in a group.
    ///
    /// # Errors
    /// [`AccessError::Denied`] if that is nothing.
    pub fn access_to(&self, group: &Group) -> Result<SessionAccess, AccessError> {
        let found = self.groups.iter().find(|(known, _)| known == group);
        found.map(|(_, access)| *access).ok_or(AccessError::Denied(
            "this session has no access to this group",
        ))
    }
}

/// Makes room for one more session of a device.
fn end_oldest(
    accounts: &AccountStore,
    device: &str,
    occasion: &Occasion<'_>,
) -> Result<(), AccountError> {
    let mut sessions = accounts.sessions_of_device(device)?;
    sessions.retain(|session| {
        session.kind == SessionKind::Access && session.is_in_force(occasion.now_ms)
    });
    sessions.sort_by_key(|session| session.created_at_ms);
    let too_many = (sessions.len() + 1).saturating_sub(OF_DEVICE_MAX);
    for session in sessions.iter().take(too_many) {
        accounts.revoke(&session.id, occasion)?;
    }
    Ok(())
}

pub(super) fn texts(groups: &[(Group, SessionAccess)]) -> Vec<(String, SessionAccess)> {
    groups
        .iter()
        .map(|(group, access)| (group.to_string(), *access))
        .collect()
}
