//! A public key in the form of a JSON Web Key.

use serde::Deserialize;

use crate::{
    key::{Algorithm, InvalidKey, PublicKey},
    strict::Member,
};

/// The members of a JWK that matter here; others are not looked at. Those that hold private or symmetric parts are
/// known too, so that a key that has one can be told from a public one.
#[derive(Deserialize)]
pub(crate) struct Jwk {
    kty: String,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    pub(crate) kid: Option<String>,
    #[serde(default)]
    d: Member,
    #[serde(default)]
    p: Member,
    #[serde(default)]
    q: Member,
    #[serde(default)]
    dp: Member,
    #[serde(default)]
    dq: Member,
    #[serde(default)]
    qi: Member,
    #[serde(default)]
    oth: Member,
    #[serde(default)]
    k: Member,
}

impl Jwk {
    /// The key, if it is an EC key of one of our curves and nothing but its public half.
    pub(crate) fn public_key(&self) -> Result<PublicKey, InvalidKey> {
        if self.has_private_part() {
            return Err(InvalidKey::Private);
        }
        if self.kty != "EC" {
            return Err(InvalidKey::Kind);
        }
        let (Some(curve), Some(x), Some(y)) = (&self.crv, &self.x, &self.y) else {
            return Err(InvalidKey::Jwk);
        };
        let key = PublicKey::from_coordinates(curve, x, y)?;
        if self.is_meant_for(key.algorithm()) {
            Ok(key)
        } else {
            Err(InvalidKey::Use)
        }
    }

    fn has_private_part(&self) -> bool {
        [
            self.d, self.p, self.q, self.dp, self.dq, self.qi, self.oth, self.k,
        ]
        .contains(&Member::Present)
    }

    fn is_meant_for(&self, algorithm: Algorithm) -> bool {
        self.alg
            .as_deref()
            .is_none_or(|name| name == algorithm.name())
            && self.usage.as_deref().is_none_or(|usage| usage == "sig")
    }
}
