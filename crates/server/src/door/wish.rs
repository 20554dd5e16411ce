//! What `POST /authenticate` asks for. Pure; an error says what had to be there.

use serde::Deserialize;

use super::RootUrl;
use crate::group::Group;

/// What a body asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) group: Group,
    pub(crate) root: Option<RootUrl>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    lexicon_authority_domain: Option<String>,
    root_doc_url: Option<String>,
}

impl Wish {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, &'static str> {
        let body: Body = serde_json::from_slice(body)
            .map_err(|_| "the body must be JSON: {\"lexiconAuthorityDomain\", \"rootDocUrl\"}")?;
        let group = body.lexicon_authority_domain.as_deref().map(str::parse);
        let Some(Ok(group)) = group else {
            return Err(
                "lexiconAuthorityDomain must be an NSID authority such as xyz.groundmist.library",
            );
        };
        let root = body.root_doc_url.as_deref().map(str::parse).transpose();
        let root = root.map_err(|_| "rootDocUrl must be an Automerge URL, or null")?;
        Ok(Self { group, root })
    }
}

/// The root document that a body names, if it is one: every answer repeats it. Apps that do not look at the status of
/// an answer take the root document out of it, whatever it is, and would lose their own.
pub fn root_in(body: &[u8]) -> Option<String> {
    let body: Body = serde_json::from_slice(body).ok()?;
    let root: RootUrl = body.root_doc_url?.parse().ok()?;
    Some(root.to_string())
}

/// What a header `Authorization` of this scheme holds.
pub(crate) fn scheme<'a>(authorization: Option<&'a str>, wanted: &str) -> Option<&'a str> {
    let (scheme, token) = authorization?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case(wanted) && !token.is_empty()).then_some(token)
}
