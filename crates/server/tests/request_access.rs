//! Door B: service auth, sessions bound to a key, tickets; and the attacks on them.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

use std::time::Duration;

use serde_json::{Value, json};
use support::{
    Client, Replica,
    app::{App, socket, token},
    handshake,
    identity::{
        APP, CLIENT_ID, Device, GROUP, Key, OWNER, STRANGER, World, metadata, now_s,
        service_claims, unique,
    },
    within,
};

mod support;

const AT_ONCE: Duration = Duration::from_secs(1);
#[tokio::test]
async fn a_device_gets_a_session_once_its_owner_has_approved_it() {
    let world = World::new().await;
    let server = world.server().await;
    let app = App::new(&server, &world);
    let session = app.session().await;
    let about = app
        .call("GET", "getSession", "DPoP", token(&session), &Value::Null)
        .await
        .json();
    assert_eq!(about["clientId"], CLIENT_ID);
    assert_eq!(
        about["groups"],
        json!([{ "group": GROUP, "access": "write" }])
    );
    let groups = app
        .call("GET", "listGroups", "DPoP", token(&session), &Value::Null)
        .await
        .json();
    assert_eq!(groups["groups"], about["groups"]);
    let sessions = app
        .call("GET", "listSessions", "DPoP", token(&session), &Value::Null)
        .await
        .json();
    assert_eq!(sessions["sessions"][0]["current"], true);

    let url = socket(&server, &app.ticket(&session).await);
    let mut client = Client::join(&url, "app").await;
    let mut note = Replica::new("app", "by ticket");
    client.push(&mut note).await;
    assert!(handshake(&url, &[]).await.is_err(), "a ticket is good once");

    let refresh = session["refreshToken"].as_str().unwrap();
    let next = app
        .call("POST", "refreshSession", "DPoP", refresh, &Value::Null)
        .await
        .json();
    assert_eq!(next["id"], session["id"]);
    let root = json!({ "group": GROUP });
    let none = app
        .call("GET", "getRootDocument", "DPoP", token(&next), &root)
        .await
        .json();
    assert_eq!(none["url"], Value::Null);
    let url = format!("automerge:{}", note.id);
    let put = json!({ "group": GROUP, "url": url });
    let put = app
        .call("POST", "putRootDocument", "DPoP", token(&next), &put)
        .await
        .json();
    assert_eq!(put["url"], url.as_str());

    let ended = app
        .call("POST", "revokeSession", "DPoP", token(&next), &json!({}))
        .await;
    assert_eq!(ended.status, 200, "{ended:?}");
    assert_eq!(
        within(AT_ONCE, "the end of the socket", client.close_code()).await,
        1008
    );
    let over = app
        .call("GET", "getSession", "DPoP", token(&next), &Value::Null)
        .await;
    assert_eq!(over.outcome(), (401, "InvalidSession".into()));
    assert_eq!(app.ticket(&next).await.status, 401);
}

#[tokio::test]
async fn service_auth_that_is_wrong_in_one_way_is_refused() {
    let world = World::new().await;
    let server = world.server().await;
    let app = App::new(&server, &world);
    let claims = |name: &str, value: Value| {
        let mut claims = service_claims(&app.audience(), "requestAccess");
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value;
        }
        claims
    };
    let header = |name: &str, value: Value| {
        let mut header = json!({ "typ": "JWT", "alg": world.signing.algorithm() });
        header[name] = value;
        header
    };
    let usual = || service_claims(&app.audience(), "requestAccess");
    let jwt = header("typ", "JWT".into());
    let other_key = Key::k256();
    let cases = [
        (
            "another account's",
            world.signing.jwt(&jwt, &claims("iss", STRANGER.into())),
        ),
        (
            "an issuer with a fragment",
            world
                .signing
                .jwt(&jwt, &claims("iss", format!("{OWNER}#x").into())),
        ),
        (
            "no audience",
            world.signing.jwt(&jwt, &claims("aud", Value::Null)),
        ),
        (
            "another server",
            world
                .signing
                .jwt(&jwt, &claims("aud", "did:web:sync.example.com".into())),
        ),
        (
            "another service here",
            world.signing.jwt(
                &jwt,
                &claims("aud", format!("{}#other", server.did()).into()),
            ),
        ),
        (
            "two audiences",
            world
                .signing
                .jwt(&jwt, &claims("aud", json!([app.audience()]))),
        ),
        (
            "no method",
            world.signing.jwt(&jwt, &claims("lxm", Value::Null)),
        ),
        (
            "another method",
            world
                .signing
                .jwt(&jwt, &claims("lxm", "com.atproto.repo.createRecord".into())),
        ),
        (
            "no end",
            world.signing.jwt(&jwt, &claims("exp", Value::Null)),
        ),
        (
            "an end long ago",
            world
                .signing
                .jwt(&jwt, &claims("exp", (now_s() - 10).into())),
        ),
        (
            "a life too long",
            world
                .signing
                .jwt(&jwt, &claims("exp", (now_s() + 3_600).into())),
        ),
        (
            "no id",
            world.signing.jwt(&jwt, &claims("jti", Value::Null)),
        ),
        (
            "alg none",
            world.signing.jwt(&header("alg", "none".into()), &usual()),
        ),
        (
            "HS256",
            world.signing.jwt(&header("alg", "HS256".into()), &usual()),
        ),
        (
            "ES256 with a secp256k1 key",
            world.signing.jwt(&header("alg", "ES256".into()), &usual()),
        ),
        (
            "an access token's type",
            world.signing.jwt(&header("typ", "at+jwt".into()), &usual()),
        ),
        (
            "another key named",
            world
                .signing
                .jwt(&header("kid", "did:web:evil.example#key".into()), &usual()),
        ),
        ("another key's signature", other_key.jwt(&jwt, &usual())),
        ("garbage", "garbage".into()),
    ];
    for (name, auth) in cases {
        let answer = app
            .call("POST", "requestAccess", "Bearer", &auth, &App::wish())
            .await;
        assert_eq!(
            answer.outcome(),
            (401, "InvalidServiceAuth".into()),
            "{name}: {answer:?}"
        );
        assert!(!answer.text.contains("invalid_token"));
    }
    let pending = server.cli(&["devices", "pending", "--json"]).await.json();
    assert_eq!(pending, json!([]), "none has left a request");
}

#[tokio::test]
async fn service_auth_is_good_once_also_after_a_restart() {
    let world = World::new().await;
    let server = world.server().await;
    let auth = {
        let app = App::new(&server, &world);
        // a restart takes another port here, and with it another name
        let mut claims = service_claims(&server.did(), "listGroups");
        claims["jti"] = "the one".into();
        let auth = world
            .signing
            .jwt(&json!({ "typ": "JWT", "alg": "ES256K" }), &claims);
        let first = app
            .call_with("GET", "listGroups", "Bearer", &auth, None, &Value::Null)
            .await;
        assert_eq!(first.status, 200, "{first:?}");
        let again = app
            .call_with("GET", "listGroups", "Bearer", &auth, None, &Value::Null)
            .await;
        assert_eq!(again.outcome(), (401, "InvalidServiceAuth".into()));
        auth
    };
    let port = server.address.port().to_string();
    let server = server.restart_at(&port).await;
    let app = App::new(&server, &world);
    let replayed = app
        .call_with("GET", "listGroups", "Bearer", &auth, None, &Value::Null)
        .await;
    assert_eq!(replayed.outcome(), (401, "InvalidServiceAuth".into()));
}

#[tokio::test]
async fn a_new_key_of_the_account_is_taken_without_a_restart_and_the_old_one_no_more() {
    let world = World::new().await;
    let server = world.server().await;
    let app = App::new(&server, &world);
    let list = async |key: &Key| {
        let claims = service_claims(&server.did(), "listGroups");
        let auth = key.jwt(&json!({ "typ": "JWT", "alg": key.algorithm() }), &claims);
        app.call_with("GET", "listGroups", "Bearer", &auth, None, &Value::Null)
            .await
            .status
    };
    assert_eq!(list(&world.signing).await, 200);
    let new = Key::p256();
    world.publish_keys(&[("#atproto", &new.multikey())]);
    assert_eq!(list(&new).await, 200, "another curve too");
    assert_eq!(list(&world.signing).await, 401);
}

#[tokio::test]
async fn of_two_keys_in_a_did_document_the_first_one_counts() {
    let world = World::new().await;
    let second = Key::k256();
    world.publish_keys(&[
        ("#atproto", &world.signing.multikey()),
        ("#atproto", &second.multikey()),
    ]);
    let server = world.server().await;
    let app = App::new(&server, &world);
    for (key, status) in [(&world.signing, 200), (&second, 401)] {
        let claims = service_claims(&server.did(), "listGroups");
        let auth = key.jwt(&json!({ "typ": "JWT", "alg": "ES256K" }), &claims);
        let answer = app
            .call_with("GET", "listGroups", "Bearer", &auth, None, &Value::Null)
            .await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
}

#[tokio::test]
async fn tokens_without_their_key_are_worth_nothing() {
    let world = World::new().await;
    let server = world.server().await;
    let app = App::new(&server, &world);
    let session = app.session().await;
    let thief = App::new(&server, &world);
    let stolen = thief
        .call("GET", "getSession", "DPoP", token(&session), &Value::Null)
        .await;
    assert_eq!(stolen.outcome(), (401, "InvalidDpopProof".into()));
    let refresh = session["refreshToken"].as_str().unwrap();
    let stolen = thief
        .call("POST", "refreshSession", "DPoP", refresh, &Value::Null)
        .await;
    assert_eq!(stolen.outcome(), (401, "InvalidDpopProof".into()));
    let plain = app
        .call_with(
            "GET",
            "getSession",
            "DPoP",
            token(&session),
            None,
            &Value::Null,
        )
        .await;
    assert_eq!(plain.outcome(), (401, "AuthMissing".into()));
    let bearer = app
        .call("GET", "getSession", "Bearer", token(&session), &Value::Null)
        .await;
    assert_eq!(bearer.outcome(), (401, "AuthMissing".into()));
    // one kind of token is not another
    for wrong in [refresh, server.token.as_str()] {
        let answer = app
            .call("GET", "getSession", "DPoP", wrong, &Value::Null)
            .await;
        assert_eq!(answer.outcome(), (401, "InvalidSession".into()));
    }
    let answer = app
        .call(
            "POST",
            "refreshSession",
            "DPoP",
            token(&session),
            &Value::Null,
        )
        .await;
    assert_eq!(answer.outcome(), (401, "InvalidSession".into()));
    assert_eq!(
        server
            .refusal(&format!("/?token={}", token(&session)), &[])
            .await
            .0,
        401
    );
    let proof = app.device.proof(
        "GET",
        &app.url("getSession"),
        token(&session),
        &server.nonce().await,
    );
    let first = app
        .call_with(
            "GET",
            "getSession",
            "DPoP",
            token(&session),
            Some(&proof),
            &Value::Null,
        )
        .await;
    assert_eq!(first.status, 200);
    let replayed = app
        .call_with(
            "GET",
            "getSession",
            "DPoP",
            token(&session),
            Some(&proof),
            &Value::Null,
        )
        .await;
    assert_eq!(replayed.outcome(), (401, "InvalidDpopProof".into()));
}

#[tokio::test]
async fn a_refresh_token_that_two_have_used_ends_the_session() {
    let world = World::new().await;
    let server = world.server().await;
    let app = App::new(&server, &world);
    let session = app.session().await;
    let refresh = |session: &Value| session["refreshToken"].as_str().unwrap().to_owned();
    let first = refresh(&session);
    let next = async |token: &str| {
        app.call("POST", "refreshSession", "DPoP", token, &Value::Null)
            .await
    };
    let second = refresh(&next(&first).await.json());
    // the answer was lost: the same step again
    assert_eq!(next(&first).await.status, 200);
    let third = next(&second).await;
    assert_eq!(third.status, 200);
    let reused = next(&first).await;
    assert_eq!(reused.outcome(), (401, "InvalidSession".into()));
    let over = next(&refresh(&third.json())).await;
    assert_eq!(over.outcome(), (401, "InvalidSession".into()));
}

#[tokio::test]
async fn a_ticket_is_for_one_group_and_one_socket() {
    let world = World::new().await;
    let server = world.server().await;
    let app = App::new(&server, &world);
    let session = app.session().await;
    let other = json!({ "group": server.group });
    let answer = app
        .call("POST", "createTicket", "DPoP", token(&session), &other)
        .await;
    assert_eq!(answer.outcome(), (403, "AccessDenied".into()));
    let ticket = app.ticket(&session).await.json()["ticket"]
        .as_str()
        .unwrap()
        .to_owned();
    for wrong in ["", "x", &unique(), &format!("{ticket}A")] {
        assert_eq!(
            server
                .refusal(&format!("/sync?ticket={wrong}"), &[])
                .await
                .0,
            401
        );
    }
    let evil = [("Origin", "https://evil.example.dev")];
    assert_eq!(
        server
            .refusal(&format!("/sync?ticket={ticket}"), &evil)
            .await
            .0,
        401
    );
    assert_eq!(
        server
            .refusal(&format!("/sync?ticket={ticket}"), &[])
            .await
            .0,
        401,
        "used up"
    );
    // a ticket whose session has ended meanwhile
    let ticket = app.ticket(&session).await;
    server
        .cli(&["sessions", "revoke", session["id"].as_str().unwrap()])
        .await;
    assert!(handshake(&socket(&server, &ticket), &[]).await.is_err());
}

/// Has the app be one with a back end, whose key this is.
fn confidential(world: &World) -> Key {
    let backend = Key::p256();
    let mut jwk = backend.jwk();
    jwk["kid"] = "k1".into();
    let mut confidential = metadata();
    confidential["token_endpoint_auth_method"] = "private_key_jwt".into();
    confidential["token_endpoint_auth_signing_alg"] = "ES256".into();
    confidential["jwks"] = json!({ "keys": [jwk] });
    world.serve("/client-metadata.json", &confidential);
    backend
}

fn attestation(key: &Key, claims: &Value) -> String {
    let header = json!({ "typ": "atproto-client-attestation+jwt", "alg": "ES256", "kid": "k1" });
    key.jwt(&header, claims)
}

#[tokio::test]
async fn an_app_that_proves_itself_and_has_a_grant_comes_in_at_once() {
    let world = World::new().await;
    let server = world.server().await;
    let backend = confidential(&world);

    let app = App::new(&server, &world);
    let attest = |key: &Key, client_id: &str, thumbprint: &str| {
        attestation(
            key,
            &json!({
                "iss": client_id, "sub": client_id, "aud": app.audience(), "jti": unique(),
                "iat": now_s(), "exp": now_s() + 60, "cnf": { "jkt": thumbprint },
            }),
        )
    };
    let request = async |attestation: String| {
        let mut wish = App::wish();
        wish["attestation"] = attestation.into();
        let auth = app.service_auth("requestAccess");
        app.call("POST", "requestAccess", "Bearer", &auth, &wish)
            .await
    };
    let mine = app.device.fingerprint();
    for (name, attestation) in [
        ("another key's", attest(&Key::p256(), CLIENT_ID, &mine)),
        (
            "another client's",
            attest(&backend, "https://evil.example.dev/c.json", &mine),
        ),
        (
            "another device's",
            attest(&backend, CLIENT_ID, &Key::p256().thumbprint()),
        ),
        ("garbage", "garbage".into()),
    ] {
        let answer = request(attestation).await;
        assert_eq!(answer.outcome(), (403, "UnverifiedApp".into()), "{name}");
    }
    let without_grant = request(attest(&backend, CLIENT_ID, &mine)).await.json();
    assert_eq!(without_grant["status"], "pending");

    server
        .cli(&["grants", "add", CLIENT_ID, "--group", GROUP, "--read-only"])
        .await;
    let attestation = attest(&backend, CLIENT_ID, &mine);
    let granted = request(attestation.clone()).await.json();
    assert_eq!(granted["status"], "granted", "{granted}");
    let groups = &granted["session"]["groups"];
    assert_eq!(
        *groups,
        json!([{ "group": GROUP, "access": "read" }]),
        "no more than the grant"
    );
}

#[tokio::test]
async fn a_pds_that_drops_the_proof_s_header_is_no_obstacle() {
    let world = World::new().await;
    let server = world.server().await;
    let app = App::new(&server, &world);
    let mut claims =
        app.device
            .claims("POST", &app.url("requestAccess"), "", &server.nonce().await);
    claims.as_object_mut().unwrap().remove("ath");
    let mut wish = App::wish();
    wish["proof"] = app.device.key.jwt(&app.device.header(), &claims).into();
    // as PDSs do today, for the server's DID alone
    let auth = world.service_auth(&server.did(), "requestAccess");
    let answer = app
        .call_with("POST", "requestAccess", "Bearer", &auth, None, &wish)
        .await;
    assert_eq!(answer.json()["status"], "pending", "{answer:?}");
    let neither = App::wish();
    let auth = world.service_auth(&server.did(), "requestAccess");
    let answer = app
        .call_with("POST", "requestAccess", "Bearer", &auth, None, &neither)
        .await;
    assert_eq!(answer.outcome(), (401, "AuthMissing".into()));
}

#[tokio::test]
async fn a_key_that_was_approved_for_one_app_is_not_taken_from_another() {
    let world = World::new().await;
    let server = world.server().await;
    let app = App::new(&server, &world);
    app.session().await;
    let mut wish = App::wish();
    wish["clientId"] = "https://app.example.dev/other.json".into();
    let auth = app.service_auth("requestAccess");
    let answer = app
        .call("POST", "requestAccess", "Bearer", &auth, &wish)
        .await;
    assert_eq!(answer.outcome(), (403, "AccessDenied".into()));
}

#[tokio::test]
async fn a_session_is_used_no_longer_once_the_owner_takes_any_of_it_back() {
    let world = World::new().await;
    let server = world.server().await;
    let (app, group) = (App::new(&server, &world), ["--group", GROUP]);
    let session = app.session().await;
    let url = socket(&server, &app.ticket(&session).await);
    let mut client = Client::join(&url, "app").await;
    server
        .cli(&["grants", "rm", CLIENT_ID, group[0], group[1]])
        .await;
    assert_eq!(
        within(AT_ONCE, "the end of the socket", client.close_code()).await,
        1008
    );
    assert_eq!(
        app.ticket(&session).await.outcome(),
        (403, "AccessDenied".into())
    );
    let about = app
        .call("GET", "getSession", "DPoP", token(&session), &Value::Null)
        .await
        .json();
    assert_eq!(about["groups"], json!([]));
    let id = server.cli(&["devices", "ls", "--json"]).await.json()[0]["id"].clone();
    server
        .cli(&["devices", "revoke", id.as_str().unwrap()])
        .await;
    let over = app
        .call("GET", "getSession", "DPoP", token(&session), &Value::Null)
        .await;
    assert_eq!(over.outcome(), (401, "InvalidSession".into()));
}

#[tokio::test]
async fn a_flood_of_proofs_by_keys_that_nobody_knows_is_stopped_before_they_are_looked_at() {
    let world = World::new().await;
    let server = world.server().await;
    let stranger = App::new(&server, &world);
    let mut last = None;
    for _ in 0..80 {
        let answer = stranger
            .call_with(
                "POST",
                "requestAccess",
                "Bearer",
                "x",
                Some("garbage"),
                &App::wish(),
            )
            .await;
        last = Some(answer.outcome());
    }
    assert_eq!(last, Some((429, "RateLimitExceeded".into())));
}

#[tokio::test]
async fn a_session_that_has_ended_costs_no_signature_and_no_memory_for_proofs() {
    let world = World::new().await;
    let server = world.server().await;
    let app = App::new(&server, &world);
    let session = app.session().await;
    let id = server.cli(&["devices", "ls", "--json"]).await.json()[0]["id"].clone();
    server
        .cli(&["devices", "revoke", id.as_str().unwrap()])
        .await;
    let (nonce, token) = (
        server.nonce().await,
        session["refreshToken"].as_str().unwrap(),
    );
    let url = app.url("refreshSession");
    let proof = app.device.proof("POST", &url, token, &nonce);
    let mut outcomes = vec![];
    for _ in 0..80 {
        let answer = app
            .call_with(
                "POST",
                "refreshSession",
                "DPoP",
                token,
                Some(&proof),
                &Value::Null,
            )
            .await;
        outcomes.push(answer.outcome());
    }
    // the proof was not even noted: it is never "used before"
    assert!(
        outcomes
            .iter()
            .all(|(_, error)| error != "InvalidDpopProof")
    );
    assert_eq!(outcomes[0], (401, "InvalidSession".into()));
    assert_eq!(outcomes[79], (429, "RateLimitExceeded".into()));
}

#[tokio::test]
async fn a_stolen_token_with_another_key_is_no_way_to_have_signatures_checked() {
    let world = World::new().await;
    let server = world.server().await;
    let app = App::new(&server, &world);
    let session = app.session().await;
    let thief = Device::in_browser();
    let nonce = server.nonce().await;
    let proof = thief.proof("GET", &app.url("getSession"), token(&session), &nonce);
    let mut last = None;
    for _ in 0..80 {
        let answer = app
            .call_with(
                "GET",
                "getSession",
                "DPoP",
                token(&session),
                Some(&proof),
                &Value::Null,
            )
            .await;
        last = Some(answer.outcome());
    }
    assert_eq!(last, Some((429, "RateLimitExceeded".into())));
    let mine = app
        .call("GET", "getSession", "DPoP", token(&session), &Value::Null)
        .await;
    assert_eq!(mine.status, 200, "{mine:?}");
}

#[tokio::test]
async fn what_anybody_may_know_is_little() {
    let world = World::new().await;
    let server = world.server().await;
    let about = server
        .request("GET", "/xrpc/xyz.groundmist.sync.getServer", &[], "")
        .await;
    let about = about.json();
    let fields: Vec<_> = about.as_object().unwrap().keys().cloned().collect();
    assert_eq!(fields, ["did", "legacyAuthenticate", "nonce", "version"]);
    assert_eq!(about["did"], server.did().as_str());
    let document = server
        .request("GET", "/.well-known/did.json", &[("Origin", APP)], "")
        .await;
    assert_eq!(document.headers["access-control-allow-origin"], "*");
    let document = document.json();
    assert_eq!(document["id"], server.did().as_str());
    assert_eq!(document["service"][0]["id"], "#groundmist_sync");
    assert_eq!(document["service"][0]["type"], "GroundmistSync");
    assert_eq!(
        document["service"][0]["serviceEndpoint"],
        server.origin().as_str()
    );
    let unknown = server
        .request("GET", "/xrpc/xyz.groundmist.sync.nothing", &[], "")
        .await;
    assert_eq!(unknown.outcome(), (501, "MethodNotImplemented".into()));
    let verb = server
        .request("POST", "/xrpc/xyz.groundmist.sync.getSession", &[], "{}")
        .await;
    assert_eq!(verb.outcome(), (405, "InvalidRequest".into()));
    // some more are allowed as time passes, so that it is not known which one is refused
    let paths = [
        "/xrpc/xyz.groundmist.sync.getServer",
        "/",
        "/.well-known/did.json",
    ];
    for path in paths {
        let mut asked = 0;
        while server.request("GET", path, &[], "").await.status != 429 {
            asked += 1;
            assert!(asked < 1_000, "questions are limited too: {path}");
        }
    }
}

/// Who hands a call on sees all that is in its body, and makes service auth as it likes: the owner's PDS.
#[tokio::test]
async fn an_attestation_that_names_no_key_lets_nobody_in_whom_the_owner_has_not_approved() {
    let world = World::new().await;
    let server = world.server().await;
    let backend = confidential(&world);
    server
        .cli(&["grants", "add", CLIENT_ID, "--group", GROUP])
        .await;
    // what an app of the owner's sent through the PDS, which kept it to itself
    let caught = attestation(
        &backend,
        &json!({
            "iss": CLIENT_ID, "sub": CLIENT_ID, "aud": server.did(), "jti": unique(),
            "iat": now_s(), "exp": now_s() + 60,
        }),
    );
    let curious = App::new(&server, &world);
    let nonce = server.nonce().await;
    let mut claims = curious
        .device
        .claims("POST", &curious.url("requestAccess"), "", &nonce);
    claims.as_object_mut().unwrap().remove("ath");
    let mut wish = App::wish();
    wish["proof"] = curious
        .device
        .key
        .jwt(&curious.device.header(), &claims)
        .into();
    wish["attestation"] = caught.into();
    let auth = world.service_auth(&server.did(), "requestAccess");
    let answer = curious
        .call_with("POST", "requestAccess", "Bearer", &auth, None, &wish)
        .await;
    assert_eq!(answer.outcome(), (403, "UnverifiedApp".into()));
}

#[tokio::test]
async fn a_flood_does_not_keep_a_device_that_is_approved_from_a_session_at_door_b() {
    let world = World::new().await;
    let server = world.server().await;
    let app = App::new(&server, &world);
    app.session().await;
    let wish = App::wish();
    for _ in 0..80 {
        app.call_with(
            "POST",
            "requestAccess",
            "Bearer",
            "x",
            Some("garbage"),
            &wish,
        )
        .await;
    }
    let granted = app.request().await;
    assert_eq!(granted.json()["status"], "granted", "{granted:?}");
}

#[tokio::test]
async fn a_device_that_ends_and_begins_its_session_again_and_again_leaves_few_rows() {
    let world = World::new().await;
    let server = world.server().await;
    let app = App::new(&server, &world);
    let session = app.session().await;
    let (nonce, url) = (server.nonce().await, server.authenticate_url());
    let (access, wish) = (token(&session), support::Server::wish());
    let mut refused = 0;
    for _ in 0..60 {
        let proof = app.device.proof("POST", &url, &app.device.token, &nonce);
        let answer = server.authenticate_with(&app.device, &proof, &wish).await;
        if answer.status == 429 {
            refused += 1;
            continue;
        }
        let listed = app
            .call("GET", "listSessions", "DPoP", access, &Value::Null)
            .await
            .json();
        let listed = listed["sessions"].as_array().unwrap();
        let other = listed.iter().find(|one| one["current"] == false);
        let body = json!({ "id": other.unwrap()["id"] });
        let ended = app
            .call("POST", "revokeSession", "DPoP", access, &body)
            .await;
        assert_eq!(ended.status, 200);
    }
    assert!(refused > 0, "each is lines in the audit log, which stay");
}

#[tokio::test]
async fn a_directory_that_is_away_is_not_counted_against_a_device_that_is_approved() {
    let world = World::new().await;
    let server = world.server().await;
    let app = App::new(&server, &world);
    app.session().await;
    let device = app.device.clone();
    let port = server.origin().rsplit(':').next().unwrap().to_owned();
    // then nothing is known of the owner's keys
    let server = server.restart_at(&port).await;
    world.serve_status(&format!("/{OWNER}"), 500, "{}");
    let app = App {
        server: &server,
        world: &world,
        device,
    };
    for _ in 0..80 {
        assert_eq!(app.request().await.status, 503);
    }
}
