//! The owner, by service auth.

use std::sync::Arc;

use atproto::{ServiceAuth, ServiceAuthError, Unverified, Verified, service_auth};

use store::Use;

use super::{AccessError, Call, NSID, SERVICE, scheme};
use crate::{
    door::{Door, now_ms},
    settings::BareAudience,
};

impl Door {
    /// The owner, by service auth. The app is not known thereby.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn owner(self: &Arc<Self>, call: &Call<'_>) -> Result<(), AccessError> {
        self.limits.refuse(call.address)?;
        self.service_auth(call).await
    }

    pub(super) async fn service_auth(self: &Arc<Self>, call: &Call<'_>) -> Result<(), AccessError> {
        let token = scheme(call.authorization, "bearer").ok_or(AccessError::Missing(
            "the header Authorization: Bearer with service auth is needed",
        ))?;
        let (owner, _) = self.site()?;
        let did = self.did()?;
        let service = format!("{did}{SERVICE}");
        let audiences = [service.as_str(), did.as_str()];
        let audiences = match self.policy.bare_audience {
            BareAudience::Allow => audiences.as_slice(),
            BareAudience::Refuse => audiences.split_at(1).0,
        };
        let method = format!("{NSID}.{}", call.method);
        let expected = service_auth::Expected {
            issuer: owner,
            audiences,
            method: &method,
            now_s: now_ms() / 1_000,
        };
        let auth = ServiceAuth::parse(token).map_err(AccessError::ServiceAuth)?;
        // all that can be told without a look at the network comes first
        auth.check(&expected).map_err(AccessError::ServiceAuth)?;
        let auth = self.verify(token, auth, &expected).await?;
        match self
            .use_once("service_auth", auth.jti(), auth.expires_at_s())
            .await?
        {
            Use::First => Ok(()),
            Use::Again | Use::Full => Err(AccessError::ServiceAuthUsed),
        }
    }

    /// By the key of the owner's DID document; a fresh one if the key that is known does not fit, as it may have been
    /// changed.
    async fn verify(
        &self,
        token: &str,
        auth: Unverified<ServiceAuth>,
        expected: &service_auth::Expected<'_>,
    ) -> Result<Verified<ServiceAuth>, AccessError> {
        let owner = expected.issuer;
        let known = self.dids.resolve(owner).await;
        let known = known.map_err(AccessError::Directory)?;
        if let Ok(key) = known.signing_key() {
            match auth.verify(key, expected) {
                Err(ServiceAuthError::Signature(_) | ServiceAuthError::Algorithm) => {}
                other => return other.map_err(AccessError::ServiceAuth),
            }
        }
        let fresh = self.dids.resolve_fresh(owner).await;
        let fresh = fresh.map_err(AccessError::Directory)?;
        let key = fresh.signing_key().map_err(AccessError::Key)?;
        let auth = ServiceAuth::parse(token).and_then(|auth| auth.verify(key, expected));
        auth.map_err(AccessError::ServiceAuth)
    }
}
