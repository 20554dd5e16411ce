//! How a device comes to a session.
//!
//! It shows service auth of the owner, and a key. A key that the owner has approved is let in. An app that attests
//! itself and has a grant brings its devices along. Everybody else waits for the owner.

use std::sync::Arc;

use atproto::{
    ClientAttestation, ClientAttestationError, ClientId, ClientMetadata, Jwks, Proof, Thumbprint,
    Unverified, client_attestation,
};
use store::{
    AccountError, AppKind, Attested, Device, NewDevice, NewPending, Occasion, PendingDoor,
    Recorded, SessionAccess, Use,
};

use super::{
    AccessError, Call, SERVICE, scheme,
    sessions::{Granted, texts},
};
use crate::{
    door::{Door, SessionId, TooMany, authenticate::browser_kind, now_ms},
    group::Group,
    outbound::ClientError,
};

/// What an app asks for. There may be an attestation in it, so it cannot be printed.
#[derive(Clone)]
pub struct AccessRequest {
    /// The app.
    pub client_id: ClientId,
    /// What its device is to be called; may be empty.
    pub device_name: String,
    /// The groups, each once, and what it wants to do there.
    pub groups: Vec<(Group, SessionAccess)>,
    /// A client attestation.
    pub attestation: Option<String>,
    /// A DPoP proof, for calls through a PDS, which drops the header.
    pub proof: Option<String>,
}

/// What became of it.
pub enum AccessAnswer {
    /// It has a session.
    Granted(Granted),
    /// The owner decides; this is the id of the request.
    Pending(String),
}

impl Door {
    /// Gives a device of the owner a session, or has the owner decide.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn request_access(
        self: &Arc<Self>,
        call: &Call<'_>,
        request: AccessRequest,
    ) -> Result<AccessAnswer, AccessError> {
        let (proof, token) = self
            .proof_of_request(call, &request)
            .map_err(|problem| self.stranger(call, problem))?;
        let known = self
            .reader()
            .device_by_jkt(&proof.thumbprint().to_string())?;
        if known.is_none() {
            // before any cryptography: anybody can make a key and a proof by it
            self.limits.refuse(call.address)?;
        }
        // those of a key that is known are counted once they have failed, if that is not our fault or the directory's
        let refused = |problem: AccessError| {
            let is_theirs = !matches!(
                problem,
                AccessError::Nonce
                    | AccessError::Account(_)
                    | AccessError::Directory(_)
                    | AccessError::Key(_)
            );
            match known.is_some() && is_theirs {
                true => self.stranger(call, problem),
                false => problem,
            }
        };
        let proof = self.verify_proof(proof, call, token).map_err(refused)?;
        self.service_auth(call).await.map_err(refused)?;
        self.use_proof(&proof)?;
        let app = request.client_id.as_str().to_owned();
        if known.as_ref().is_some_and(|device| device.app != app) {
            return Err(AccessError::Denied("this key was approved for another app"));
        }
        if let Some(device) = known {
            let groups = self.allowed(&device, &request.groups)?;
            if !groups.is_empty() {
                let granted = self.begin(device, groups, call.address).await?;
                return Ok(AccessAnswer::Granted(granted));
            }
        }
        self.introduce(call, request, &proof.jkt()).await
    }

    /// The proof of the header, which names the service auth; or, through a PDS, the one in the body, which cannot.
    fn proof_of_request<'a>(
        &self,
        call: &Call<'a>,
        request: &AccessRequest,
    ) -> Result<(Unverified<Proof>, Option<&'a str>), AccessError> {
        self.site()?;
        let token = scheme(call.authorization, "bearer");
        let (proof, token) = match (call.proofs, &request.proof) {
            ([proof], None) => (*proof, token),
            ([], Some(proof)) => (proof.as_str(), None),
            _ => {
                return Err(AccessError::Missing(
                    "one DPoP proof is needed, in the header DPoP or, through a PDS, in the field proof",
                ));
            }
        };
        let proof = Proof::parse(proof).map_err(AccessError::Proof)?;
        Ok((proof, token))
    }

    /// What of the groups a device may have now.
    fn allowed(
        &self,
        device: &Device,
        wanted: &[(Group, SessionAccess)],
    ) -> Result<Vec<(Group, SessionAccess)>, AccountError> {
        let (reader, now_ms) = (self.reader(), now_ms());
        let mut allowed = vec![];
        for (group, access) in wanted {
            if let Some(most) = reader.device_access(&device.id, group.as_str(), now_ms)? {
                allowed.push((group.clone(), most.min(*access)));
            }
        }
        Ok(allowed)
    }

    /// A device that nobody knows: by its app's attestation and the owner's grant, or else the owner decides.
    async fn introduce(
        self: &Arc<Self>,
        call: &Call<'_>,
        request: AccessRequest,
        thumbprint: &Thumbprint,
    ) -> Result<AccessAnswer, AccessError> {
        let metadata = self.clients.metadata(&request.client_id).await;
        let metadata = metadata.map_err(AccessError::Client)?;
        if call
            .origin
            .is_some_and(|origin| !metadata.allows_origin(origin))
        {
            return Err(AccessError::Denied(
                "the request comes from an origin that is none of the app's",
            ));
        }
        let kind = match call.origin {
            _ if request.client_id.metadata_url().is_none() => AppKind::Unverified,
            Some(origin) => browser_kind(&metadata, origin),
            None => AppKind::Native,
        };
        if let Some(attestation) = &request.attestation {
            self.attested(attestation, &metadata, thumbprint).await?;
            if let Some(granted) = self
                .admit_attested(call, &request, thumbprint, kind)
                .await?
            {
                return Ok(AccessAnswer::Granted(granted));
            }
        }
        self.have_owner_decide(call, request, thumbprint, kind, &metadata)
            .await
    }

    /// Whether an attestation is the app's, for this server and this key.
    async fn attested(
        self: &Arc<Self>,
        attestation: &str,
        metadata: &ClientMetadata,
        thumbprint: &Thumbprint,
    ) -> Result<(), AccessError> {
        let (did, client_id) = (self.did()?, metadata.client_id());
        let service = format!("{did}{SERVICE}");
        let expected = client_attestation::Expected {
            client_id,
            audiences: &[service.as_str(), did.as_str()],
            jkt: *thumbprint,
            now_s: now_ms() / 1_000,
        };
        let verify = |keys: Result<Option<Arc<Jwks>>, ClientError>| {
            let keys = keys.map_err(AccessError::Client)?;
            let keys = keys.ok_or(AccessError::Denied("the app's metadata name no keys"))?;
            let attestation = ClientAttestation::parse(attestation);
            let verified = attestation.and_then(|attestation| attestation.verify(&keys, &expected));
            verified.map_err(AccessError::Attestation)
        };
        let verified = match verify(self.clients.keys(metadata).await) {
            // the app may have other keys by now
            Err(AccessError::Attestation(
                ClientAttestationError::Signature(_) | ClientAttestationError::KeyId,
            )) => verify(self.clients.fresh_keys(metadata).await)?,
            other => other?,
        };
        let id = format!("{} {}", client_id.as_str(), verified.jti());
        match self
            .use_once("client_attestation", &id, verified.expires_at_s())
            .await?
        {
            Use::First => Ok(()),
            Use::Again | Use::Full => Err(AccessError::AttestationUsed),
        }
    }

    async fn admit_attested(
        self: &Arc<Self>,
        call: &Call<'_>,
        request: &AccessRequest,
        thumbprint: &Thumbprint,
        kind: AppKind,
    ) -> Result<Option<Granted>, AccessError> {
        let device = NewDevice {
            id: SessionId::random().map_err(AccountError::from)?.to_string(),
            app: request.client_id.as_str().to_owned(),
            jkt: thumbprint.to_string(),
            origin: call.origin.map(str::to_owned),
            kind,
            name: request.device_name.clone(),
            address: call.address.to_string(),
            groups: texts(&request.groups),
        };
        let address = call.address.to_string();
        let added = self
            .write(move |accounts| {
                let occasion = Occasion {
                    address: Some(&address),
                    ..Occasion::at(now_ms())
                };
                accounts.add_attested_device(&device, &occasion)
            })
            .await?;
        let device = match added {
            Attested::Device(device) => device,
            Attested::NotGranted => return Ok(None),
            Attested::Revoked => {
                return Err(AccessError::Denied(
                    "the owner of this server has revoked this device",
                ));
            }
            Attested::OtherApp => {
                return Err(AccessError::Denied("this key was approved for another app"));
            }
        };
        let groups = self.allowed(&device, &request.groups)?;
        if groups.is_empty() {
            return Ok(None);
        }
        self.begin(device, groups, call.address).await.map(Some)
    }

    /// Has the owner decide. The pairing window need not be open: it is the owner's PDS that vouches for who asks.
    async fn have_owner_decide(
        self: &Arc<Self>,
        call: &Call<'_>,
        request: AccessRequest,
        thumbprint: &Thumbprint,
        kind: AppKind,
        metadata: &ClientMetadata,
    ) -> Result<AccessAnswer, AccessError> {
        let pending = NewPending {
            id: SessionId::random().map_err(AccountError::from)?.to_string(),
            door: PendingDoor::RequestAccess,
            app: request.client_id.as_str().to_owned(),
            jkt: thumbprint.to_string(),
            origin: call.origin.map(str::to_owned),
            kind,
            app_name: metadata.client_name().map(str::to_owned),
            name: request.device_name,
            address: call.address.to_string(),
            groups: texts(&request.groups),
        };
        let id = pending.id.clone();
        let recorded = self.record(pending, call.address).await?;
        match recorded {
            Recorded::New => Ok(AccessAnswer::Pending(id)),
            Recorded::Again { id } => Ok(AccessAnswer::Pending(id)),
            Recorded::Denied => Err(AccessError::Denied("the owner has denied this device")),
            Recorded::Closed => Err(AccessError::Denied("the owner takes no requests now")),
            Recorded::Full => Err(AccessError::TooMany(TooMany::for_a_slot())),
            Recorded::OtherApp => Err(AccessError::Denied("this key is known for another app")),
        }
    }
}
