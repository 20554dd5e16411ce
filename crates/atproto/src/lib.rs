//! What atproto and OAuth say of identities, keys, tokens and apps, as parsers and checks.
//!
//! Nothing here has a clock, a socket, a file or randomness: texts come in, and what they prove comes out. A token goes
//! the same way, whatever its kind:
//!
//! 1. **Parse.** [`Proof::parse`], [`ServiceAuth::parse`] and [`ClientAttestation::parse`] measure the text, take it
//!    apart and refuse what no honest client sends. What comes out is [`Unverified`]: claims.
//! 2. **Check.** What is known already is compared: whose it has to be, for what, and when. A token that fails here has
//!    made us fetch nothing.
//! 3. **Fetch.** What the signature is checked with is somebody else's to find: a [`DidDocument`] for the account's
//!    key, [`ClientMetadata`] and [`Jwks`] for an app's. A proof has its key with it.
//! 4. **Verify.** All is checked, the signature last. What comes out is [`Verified`], and there is no other way to one.
//! 5. **Use once.** Whoever keeps state remembers the token's id until its end.
//!
//! ```
//! use atproto::{Proof, ProofError, dpop};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let url = "https://sync.example.com/authenticate".parse()?;
//! let expected = dpop::Expected {
//!     method: "POST",
//!     url: &url,
//!     access_token: Some("the token beside it"),
//!     now_s: 1_795_449_753,
//!     nonce: &|nonce| nonce == "ours",
//! };
//! let answer = Proof::parse("no proof").and_then(|proof| proof.verify(&expected));
//! assert!(matches!(answer, Err(ProofError::Jwt(_))));
//! # Ok(())
//! # }
//! ```
//!
//! [`Hints`] are the exception: nobody but the PDS that made an access token can verify it, so they stay what they are.
//!
//! Errors say what is wrong in words that may be shown to a client, and never quote what came in: it may be a secret.

pub mod access_token;
pub mod claims;
pub mod client_attestation;
mod client_id;
mod client_metadata;
mod did;
mod did_document;
pub mod dpop;
mod handle;
mod jwk;
mod jwks;
pub mod jwt;
mod key;
mod redirect_uri;
pub mod service_auth;
mod strict;

pub use access_token::{Hints, HintsError};
pub use claims::Untimely;
pub use client_attestation::{ClientAttestation, ClientAttestationError};
pub use client_id::{ClientId, ClientIdKind, InvalidClientId};
pub use client_metadata::{ApplicationType, ClientKeys, ClientMetadata, ClientMetadataError};
pub use did::{Did, DidMethod, InvalidDid};
pub use did_document::{DidDocument, DidDocumentError, Loopback, SigningKeyError};
pub use dpop::{Proof, ProofError};
pub use handle::{Handle, InvalidHandle};
pub use jwks::{Jwks, JwksError};
pub use jwt::{JwtError, Unverified, Verified};
pub use key::{
    Algorithm, InvalidKey, InvalidSignature, InvalidThumbprint, Malleability, PublicKey, Thumbprint,
};
pub use redirect_uri::{InvalidRedirectUri, RedirectUri, RedirectUriKind};
pub use service_auth::{ServiceAuth, ServiceAuthError};
