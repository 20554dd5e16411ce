//! What requests are about: parameters, tokens, addresses and bodies, taken out of texts and bytes. Pure; an error says
//! what had to be there.

use std::net::IpAddr;

use atproto::ClientId;
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    door::{RootUrl, SessionId},
    group::Group,
    settings::TrustedProxies,
};

/// Most groups that can be asked for at once.
const GROUPS_MAX: usize = 16;
/// Longest name of a device, in bytes.
const NAME_BYTES_MAX: usize = 200;
/// A subprotocol whose name is this and a token; browsers cannot set headers, and an address ends up in logs.
const TOKEN_PROTOCOL: &str = "groundmist.token.";

/// The value of a parameter, which `name` ends with `=`. Tokens and tickets need no percent-encoding, so none is undone.
pub(super) fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let mut parameters = query.split('&');
    parameters.find_map(|parameter| parameter.strip_prefix(name))
}

/// The group that a query names.
pub(super) fn group_parameter(query: &str) -> Result<Group, &'static str> {
    let group = url::form_urlencoded::parse(query.as_bytes())
        .find(|(name, _)| name == "group")
        .and_then(|(_, group)| group.parse().ok());
    group.ok_or("the parameter group must be an NSID authority or an NSID")
}

/// The first subprotocol that is a token, as it must be echoed, and the token.
pub(super) fn token_protocol<'a>(
    offered: impl Iterator<Item = &'a str>,
) -> Option<(&'a str, &'a str)> {
    let mut names = offered.flat_map(|names| names.split(',')).map(str::trim);
    names.find_map(|name| Some((name, name.strip_prefix(TOKEN_PROTOCOL)?)))
}

/// Whom a peer speaks for, by what stands in `X-Forwarded-For`, line by line.
pub(super) fn through_proxies<'a>(
    peer: IpAddr,
    lines: impl DoubleEndedIterator<Item = &'a str>,
    trusted: &TrustedProxies,
) -> IpAddr {
    let mut address = peer.to_canonical();
    for hop in lines.rev().flat_map(|line| line.rsplit(',')) {
        if !trusted.contains(address) {
            break;
        }
        let Ok(before) = hop.trim().parse::<IpAddr>() else {
            break;
        };
        address = before.to_canonical();
    }
    address
}

/// A body in JSON, which must be `what`.
pub(super) fn body<T: DeserializeOwned>(
    bytes: &[u8],
    what: &'static str,
) -> Result<T, &'static str> {
    serde_json::from_slice(bytes).map_err(|_| what)
}

/// What `requestAccess` asks for. There may be an attestation in it, so it cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct WantedAccess {
    pub(super) client_id: ClientId,
    /// May be empty.
    pub(super) device_name: String,
    /// Each once, at least one.
    pub(super) groups: Vec<(Group, Wanted)>,
    pub(super) attestation: Option<String>,
    pub(super) proof: Option<String>,
}

#[derive(Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(super) enum Wanted {
    Read,
    Write,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RequestAccess {
    client_id: String,
    #[serde(default)]
    device_name: String,
    groups: Vec<WantedGroup>,
    attestation: Option<String>,
    proof: Option<String>,
}

#[derive(Deserialize)]
struct WantedGroup {
    group: Group,
    access: Wanted,
}

impl WantedAccess {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let input: RequestAccess = body(
            bytes,
            "the body must be {\"clientId\", \"groups\": [{\"group\", \"access\"}], \"deviceName\"?, ..}",
        )?;
        let client_id = input.client_id.parse();
        let client_id =
            client_id.map_err(|_| "clientId must be the client_id of an atproto OAuth client")?;
        let name = &input.device_name;
        if name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            return Err("deviceName must have at most 200 bytes, without control characters");
        }
        let mut groups: Vec<(Group, Wanted)> = vec![];
        for WantedGroup { group, access } in input.groups {
            if groups.iter().all(|(known, _)| *known != group) {
                groups.push((group, access));
            }
        }
        if !(1..=GROUPS_MAX).contains(&groups.len()) {
            return Err("groups must name 1 to 16 groups");
        }
        Ok(Self {
            client_id,
            device_name: input.device_name,
            groups,
            attestation: input.attestation,
            proof: input.proof,
        })
    }
}

/// What `revokeSession` is about: another session, or the caller's own.
#[derive(Deserialize)]
struct RevokeSession {
    id: Option<SessionId>,
}

pub(super) fn session_to_revoke(bytes: &[u8]) -> Result<Option<SessionId>, &'static str> {
    let input: RevokeSession = body(bytes, "the body must be {} or {\"id\"}")?;
    Ok(input.id)
}

/// What `createTicket` is about.
#[derive(Deserialize)]
struct CreateTicket {
    group: Group,
}

pub(super) fn ticket_group(bytes: &[u8]) -> Result<Group, &'static str> {
    let input: CreateTicket = body(bytes, "the body must be {\"group\"}")?;
    Ok(input.group)
}

/// What `putRootDocument` is about.
#[derive(Deserialize)]
struct PutRootDocument {
    group: Group,
    url: String,
}

pub(super) fn root_document(bytes: &[u8]) -> Result<(Group, RootUrl), &'static str> {
    let input: PutRootDocument = body(bytes, "the body must be {\"group\", \"url\"}")?;
    let url = input.url.parse();
    Ok((
        input.group,
        url.map_err(|_| "url must be an Automerge URL")?,
    ))
}
