//! What the fuzzer gives the handlers, and what must hold of all that they take.
//!
//! An input is a request as it is sent: a line with verb and target, headers one a line, an empty line, the body. What
//! is checked here is all that a handler takes out of it before it asks the door; tokens and proofs of atproto have
//! targets of their own.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what must hold may panic"
)]

use std::{fmt::Debug, fmt::Display, net::IpAddr, str::FromStr};

use serde_json::json;

use super::input::{self, Wanted, WantedAccess};
use crate::{
    door::{InvalidToken, SyncClaims, TOKEN_BYTES_MAX, TokenKeys, Wish, root_in, scheme},
    group::Group,
    secret::SecretKey,
    settings::TrustedProxies,
};

/// Longest text that says what is wrong, in bytes.
const PROBLEM_BYTES_MAX: usize = 120;

/// A request, as far as handlers look at it.
#[derive(Default)]
struct Asked<'a> {
    query: &'a str,
    /// Names in lower case.
    headers: Vec<(String, &'a str)>,
    body: &'a [u8],
}

/// What is accepted can be written and is accepted again, and the same; bounds hold; a token that we have not signed is
/// none.
pub(crate) fn http_bodies(data: &[u8]) {
    let asked = Asked::parse(data);
    authenticate(&asked);
    request_access(&asked);
    other_bodies(&asked);
    query(&asked);
    headers(&asked);
}

impl<'a> Asked<'a> {
    fn parse(data: &'a [u8]) -> Self {
        let end = data.windows(2).position(|window| window == b"\n\n");
        let (head, body) = match end {
            Some(at) => (&data[..at], &data[at + 2..]),
            None => (&[][..], data),
        };
        // a head is text by the time that handlers see it
        let mut lines = std::str::from_utf8(head).unwrap_or_default().lines();
        let target = lines.next().and_then(|line| line.split(' ').nth(1));
        let query = target.and_then(|target| target.split_once('?'));
        let headers = lines.filter_map(|line| line.split_once(": "));
        Self {
            query: query.map_or("", |(_, query)| query),
            headers: headers
                .map(|(name, value)| (name.to_ascii_lowercase(), value))
                .collect(),
            body,
        }
    }

    fn all(&self, name: &str) -> impl DoubleEndedIterator<Item = &'a str> {
        let of_name = self.headers.iter().filter(move |(known, _)| known == name);
        of_name.map(|(_, value)| *value)
    }
}

/// It was written in one way only, and is read again as what it is.
fn is_read_again<T>(value: &T)
where
    T: FromStr + Display + PartialEq + Debug,
    T::Err: Debug,
{
    assert_eq!(value.to_string().parse::<T>().as_ref().unwrap(), value);
}

/// A problem is a text of ours, and short: nothing of what was sent is in it.
fn is_told(problem: &'static str) {
    assert!(
        (1..=PROBLEM_BYTES_MAX).contains(&problem.len()),
        "{problem}"
    );
}

fn authenticate(asked: &Asked<'_>) {
    let root = root_in(asked.body);
    match Wish::parse(asked.body) {
        Ok(wish) => {
            is_read_again(&wish.group);
            wish.root.iter().for_each(is_read_again);
            assert_eq!(root, wish.root.as_ref().map(ToString::to_string));
            let body = json!({ "lexiconAuthorityDomain": wish.group.as_str(), "rootDocUrl": root });
            assert_eq!(Wish::parse(body.to_string().as_bytes()), Ok(wish));
        }
        Err(problem) => is_told(problem),
    }
}

fn request_access(asked: &Asked<'_>) {
    let wanted = match WantedAccess::parse(asked.body) {
        Ok(wanted) => wanted,
        Err(problem) => return is_told(problem),
    };
    assert!((1..=16).contains(&wanted.groups.len()));
    assert!(wanted.device_name.len() <= 200 && !wanted.device_name.contains(char::is_control));
    for (at, (group, _)) in wanted.groups.iter().enumerate() {
        is_read_again(group);
        assert!(
            wanted.groups[..at].iter().all(|(other, _)| other != group),
            "twice"
        );
    }
    let groups: Vec<_> = wanted.groups.iter().map(written).collect();
    let body = json!({
        "clientId": wanted.client_id.as_str(),
        "deviceName": wanted.device_name,
        "groups": groups,
        "attestation": wanted.attestation,
        "proof": wanted.proof,
    });
    let again = WantedAccess::parse(body.to_string().as_bytes());
    assert!(again.is_ok_and(|again| again == wanted), "{body}");
}

fn written((group, wanted): &(Group, Wanted)) -> serde_json::Value {
    let access = match wanted {
        Wanted::Read => "read",
        Wanted::Write => "write",
    };
    json!({ "group": group.as_str(), "access": access })
}

fn other_bodies(asked: &Asked<'_>) {
    match input::session_to_revoke(asked.body) {
        Ok(session) => session.iter().for_each(is_read_again),
        Err(problem) => is_told(problem),
    }
    match input::ticket_group(asked.body) {
        Ok(group) => is_read_again(&group),
        Err(problem) => is_told(problem),
    }
    match input::root_document(asked.body) {
        Ok((group, url)) => {
            is_read_again(&url);
            // who gives both is understood the same way for a ticket
            assert_eq!(input::ticket_group(asked.body), Ok(group));
        }
        Err(problem) => is_told(problem),
    }
    // claims that we might have signed
    if let Ok(claims) = serde_json::from_slice::<SyncClaims>(asked.body) {
        let keys = keys();
        let token = keys.sync.sign(&claims);
        let read = keys
            .sync
            .verify(&token, claims.expires_at_s.saturating_sub(1));
        let is_over = claims.expires_at_s == i64::MIN;
        assert!(is_over || token.len() > TOKEN_BYTES_MAX || read == Ok(claims.clone()));
        assert_eq!(keys.sync.verify(&token, i64::MAX).ok(), None);
        assert_eq!(
            keys.access.verify(&token, 0).err(),
            Some(InvalidToken::Signature)
        );
    }
}

fn query(asked: &Asked<'_>) {
    match input::group_parameter(asked.query) {
        Ok(group) => {
            is_read_again(&group);
            assert_eq!(input::group_parameter(&format!("group={group}")), Ok(group));
        }
        Err(problem) => is_told(problem),
    }
    for name in ["ticket=", "token="] {
        if let Some(value) = input::parameter(asked.query, name) {
            assert!(asked.query.contains(&format!("{name}{value}")) && !value.contains('&'));
            is_not_ours(value);
        }
    }
}

fn headers(asked: &Asked<'_>) {
    let authorization = asked.all("authorization").next();
    for wanted in ["bearer", "dpop"] {
        if let Some(token) = scheme(authorization, wanted) {
            assert!(!token.is_empty() && token.trim() == token);
            assert_eq!(
                scheme(Some(&format!("{wanted} {token}")), wanted),
                Some(token)
            );
            is_not_ours(token);
        }
    }
    if let Some((name, token)) = input::token_protocol(asked.all("sec-websocket-protocol")) {
        assert!(name.ends_with(token) && !name.contains(',') && name.trim() == name);
        is_not_ours(token);
    }
    comes_from(asked);
}

fn keys() -> TokenKeys {
    TokenKeys::derive(
        &SecretKey::parse(&"5a".repeat(SecretKey::BYTES_MIN)).unwrap(),
        "1",
    )
}

/// Nobody but us can sign a token.
fn is_not_ours(token: &str) {
    assert!(keys().sync.verify(token, 0).is_err());
}

/// Whoever a request comes from has said so itself, or a proxy that is trusted has; and of what it has said itself
/// nothing is believed.
fn comes_from(asked: &Asked<'_>) {
    const PROXY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    let trusted: TrustedProxies = "127.0.0.1, 10.0.0.0/8".parse().unwrap();
    let lines = || asked.all("x-forwarded-for");
    let stranger: IpAddr = [192, 0, 2, 1].into();
    assert_eq!(
        input::through_proxies(stranger, lines(), &trusted),
        stranger
    );
    assert_eq!(
        input::through_proxies(PROXY, lines(), &TrustedProxies::default()),
        PROXY
    );
    let address = input::through_proxies(PROXY, lines(), &trusted);
    assert_eq!(address, address.to_canonical());
    let mut hops = lines().flat_map(|line| line.split(','));
    let is_named = hops.any(|hop| {
        let hop = hop.trim().parse::<IpAddr>();
        hop.is_ok_and(|hop| hop.to_canonical() == address)
    });
    assert!(address == PROXY || is_named);
    // whatever a client has written before the line of its proxy
    let last = ["198.51.100.7"];
    let after = input::through_proxies(PROXY, lines().chain(last), &trusted);
    assert_eq!(after, IpAddr::from([198, 51, 100, 7]));
}
