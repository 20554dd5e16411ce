//! `groundmist-sync devices`, run as the owner runs it: the window, what a request shows, and what is approved.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

use std::fs;

use serde_json::{Value, json};
use store::{AppKind, NewPending, PendingDoor, SessionAccess, SessionKind};
use support::owner::{APP, BOOKS, JKT, NOTES, Owner, is_in_days, now_ms, request};

mod support;

#[tokio::test]
async fn the_window_opens_for_a_time_and_closes() {
    let owner = Owner::new();
    let open_ms = || {
        let until = owner.accounts.window_open_until(now_ms()).unwrap();
        until.map(|until| until - now_ms())
    };
    let said = owner.says(&["devices", "open"]).await;
    assert!(said.contains("UTC (10m from now)"), "{said}");
    assert!(
        said.contains("Approve only what you have just started yourself"),
        "{said}"
    );
    assert!((540_000..=600_000).contains(&open_ms().unwrap()));
    owner.says(&["devices", "open", "--for", "1h"]).await;
    assert!((3_540_000..=3_600_000).contains(&open_ms().unwrap()));
    assert!(
        owner
            .says(&["devices", "pending"])
            .await
            .contains("is open until")
    );
    assert_eq!(
        owner.says(&["devices", "close"]).await,
        "The pairing window is closed.\n"
    );
    assert_eq!(open_ms(), None);
    let again = owner.says(&["devices", "close"]).await;
    assert_eq!(again, "The pairing window was and is closed.\n");
    assert!(
        owner
            .says(&["devices", "pending"])
            .await
            .contains("devices open")
    );
}

#[tokio::test]
async fn a_request_shows_all_that_the_owner_decides_by() {
    let owner = Owner::new();
    owner.ask(&request("first-request-id"));
    let said = owner.says(&["devices", "pending"]).await;
    for line in [
        "request     first-request-id",
        &format!("app         {APP}"),
        "calls itself  \"Example\" (its own claim)",
        "comes from    https://app.example",
        "asks for      dev.example.notes  write  (new to this app)",
        "address       203.0.113.9",
        "tries         1",
        "key           0ZcO CORZ NYy- DWpq q30j ZyJG HTN0 d2Hg lBV3 uigu A4I",
        "groundmist-sync devices approve first-request-id --group dev.example.notes\n",
        "just now)",
        "Approve only what you have just started yourself",
    ] {
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(squeezed(&said).contains(&squeezed(line)), "{line}: {said}");
    }
    assert!(!said.contains("WARNING"), "{said}");
}

#[tokio::test]
async fn what_is_no_browser_or_cannot_be_verified_is_called_so() {
    let owner = Owner::new();
    let native = NewPending {
        origin: None,
        kind: AppKind::Native,
        ..request("a-native-request")
    };
    owner.ask(&native);
    let loopback = NewPending {
        app: "http://localhost/?scope=atproto".into(),
        jkt: "another-key".into(),
        origin: Some("http://127.0.0.1:5173".into()),
        kind: AppKind::Unverified,
        name: "Laptop".into(),
        door: PendingDoor::RequestAccess,
        groups: vec![(NOTES.into(), SessionAccess::Read)],
        ..request("loopback-request")
    };
    owner.ask(&loopback);
    let said = owner.says(&["devices", "pending"]).await;
    let (native, loopback) = said.split_once("\n\n").unwrap();
    assert!(
        native.contains("not a browser: what it says of itself cannot be checked"),
        "{said}"
    );
    assert!(native.contains("nothing but its key is proven"), "{said}");
    let unverified = "unverified app (runs on the device itself), at http://127.0.0.1:5173";
    assert!(loopback.contains(unverified), "{said}");
    assert!(loopback.contains("\"Laptop\" (its own claim)"), "{said}");
    assert!(
        loopback.contains("it acts for your account; which app it is, is not proven"),
        "{said}"
    );
    assert!(
        loopback.contains("loopback-request --group dev.example.notes=read\n"),
        "{said}"
    );
}

#[tokio::test]
async fn requests_are_one_array_for_programs() {
    let owner = Owner::new();
    owner.ask(&request("first-request-id"));
    owner.ask(&request("first-request-id"));
    let pending = owner.json(&["devices", "pending"]).await;
    let (first, last) = (&pending[0]["firstAt"], &pending[0]["lastAt"]);
    assert!(is_in_days(first, 0) && is_in_days(last, 0));
    let expected = json!([{
        "id": "first-request-id", "door": "authenticate", "app": APP, "appName": "Example", "deviceName": "",
        "kind": "web", "origin": "https://app.example", "address": "203.0.113.9", "fingerprint": JKT,
        "keyRevokedBefore": false, "knownDevice": null, "groups": [{ "group": NOTES, "access": "write" }],
        "state": "waiting", "firstAt": first, "lastAt": last, "tries": 2,
        "approveCommand": "groundmist-sync devices approve first-request-id --group dev.example.notes",
    }]);
    assert_eq!(pending, expected);
}

#[tokio::test]
async fn the_command_that_is_shown_approves_what_was_shown_and_nothing_more() {
    let owner = Owner::new();
    fs::rename(
        owner.folder.path().join(".data"),
        owner.folder.path().join("my data"),
    )
    .unwrap();
    let asking = NewPending {
        groups: vec![
            (BOOKS.into(), SessionAccess::Read),
            (NOTES.into(), SessionAccess::Write),
        ],
        ..request("-first-request")
    };
    owner.ask(&asking);
    let pending = owner
        .json(&["devices", "pending", "--data-dir", "my data"])
        .await;
    let command = pending[0]["approveCommand"].as_str().unwrap();
    assert!(command.ends_with("--data-dir 'my data'"), "{command}");
    // it asks for more before the owner is done typing
    let more = NewPending {
        groups: vec![
            (BOOKS.into(), SessionAccess::Write),
            ("dev.example.diary".into(), SessionAccess::Write),
        ],
        ..request("unused")
    };
    owner.ask(&more);
    let words = command.strip_prefix("groundmist-sync ").unwrap();
    let (words, _) = words.split_once(" --data-dir").unwrap();
    let mut arguments: Vec<_> = words.split(' ').collect();
    arguments.extend(["--data-dir", "my data"]);
    owner.says(&arguments).await;
    let approvals = owner.accounts.approvals("-first-request").unwrap();
    let approved: Vec<_> = approvals
        .iter()
        .map(|approval| (&*approval.group, approval.access))
        .collect();
    assert_eq!(
        approved,
        [(BOOKS, SessionAccess::Read), (NOTES, SessionAccess::Write)]
    );
}

#[tokio::test]
async fn an_approved_request_is_a_device_and_its_app_is_granted_what_that_needs() {
    let owner = Owner::new();
    let asking = NewPending {
        groups: vec![
            (BOOKS.into(), SessionAccess::Read),
            (NOTES.into(), SessionAccess::Write),
        ],
        ..request("first-request-id")
    };
    owner.ask(&asking);
    let said = owner
        .says(&["devices", "approve", "firs", "--name", "Zoë's laptop"])
        .await;
    assert!(
        said.contains("Approved device first-request-id \"Zoë's laptop\" of https://app.example/")
    );
    assert!(
        said.contains("dev.example.books  read   until 20"),
        "{said}"
    );
    assert_eq!(said.matches("(it had none)").count(), 2, "{said}");
    let devices = owner.json(&["devices", "ls"]).await;
    let created = &devices[0]["createdAt"];
    let approval = |at: usize| &devices[0]["approvals"][at];
    assert!(is_in_days(created, 0) && is_in_days(&approval(0)["expiresAt"], 365));
    let expected = json!([{
        "id": "first-request-id", "name": "Zoë's laptop", "app": APP, "kind": "web", "origin": "https://app.example",
        "proof": "owner", "fingerprint": JKT, "address": "203.0.113.9", "state": "inForce",
        "approvals": [
            { "group": BOOKS, "access": "read", "effective": "read", "createdAt": created,
              "expiresAt": approval(0)["expiresAt"] },
            { "group": NOTES, "access": "write", "effective": "write", "createdAt": created,
              "expiresAt": approval(1)["expiresAt"] },
        ],
        "createdAt": created, "lastSeenAt": null, "revokedAt": null,
    }]);
    assert_eq!(devices, expected);
    let words = owner.says(&["devices", "ls"]).await;
    assert!(
        words.contains("first-request-id \"Zoë's laptop\"") && words.contains("approved by you")
    );
    let grants = owner.json(&["grants", "ls"]).await;
    assert_eq!(
        (&grants[0]["access"], &grants[1]["access"]),
        (&json!("read"), &json!("write"))
    );
    assert_eq!(owner.json(&["devices", "pending"]).await, json!([]));
}

#[tokio::test]
async fn less_than_what_is_asked_can_be_approved_and_not_more() {
    let owner = Owner::new();
    let asking = NewPending {
        groups: vec![
            (BOOKS.into(), SessionAccess::Read),
            (NOTES.into(), SessionAccess::Write),
        ],
        ..request("first-request-id")
    };
    owner.ask(&asking);
    let other = [
        "devices",
        "approve",
        "first-request-id",
        "--group",
        "dev.example.diary",
    ];
    let refused = owner.fails(&other).await;
    assert!(
        refused.contains(
            "dev.example.diary is not asked for, but dev.example.books, dev.example.notes"
        )
    );
    assert!(owner.accounts.devices().unwrap().is_empty());
    let less = [
        "devices",
        "approve",
        "first-request-id",
        "--group",
        NOTES,
        "--read-only",
        "--expires",
        "90d",
    ];
    let said = owner.says(&less).await;
    assert!(said.contains("Not approved: dev.example.books\n"), "{said}");
    let devices = owner.json(&["devices", "ls"]).await;
    let approvals = devices[0]["approvals"].as_array().unwrap();
    assert_eq!(approvals.len(), 1);
    assert_eq!(
        (&approvals[0]["group"], &approvals[0]["access"]),
        (&json!(NOTES), &json!("read"))
    );
    assert!(is_in_days(&approvals[0]["expiresAt"], 90));
}

#[tokio::test]
async fn a_known_device_is_given_another_group_only_by_its_name() {
    let owner = Owner::new();
    owner.ask(&request("first-request-id"));
    owner
        .says(&["devices", "approve", "first-request-id"])
        .await;
    let unnamed = owner
        .fails(&["devices", "approve", "first-request-id"])
        .await;
    assert!(
        unnamed.contains("is a device already; say with --group"),
        "{unnamed}"
    );
    let said = owner
        .says(&["devices", "approve", "first-request-id", "--group", BOOKS])
        .await;
    assert!(said.contains("dev.example.books  write"), "{said}");
    let narrower = [
        "devices",
        "approve",
        "first-request-id",
        "--group",
        NOTES,
        "--read-only",
        "--expires",
        "1h",
    ];
    let said = owner.says(&narrower).await;
    assert!(!said.contains("widens"), "the grant stays as it is: {said}");
    let devices = owner.json(&["devices", "ls"]).await;
    let access: Vec<_> = devices[0]["approvals"]
        .as_array()
        .unwrap()
        .iter()
        .map(|approval| approval["access"].as_str().unwrap())
        .collect();
    assert_eq!(access, ["write", "read"]);

    // the same key asks for more: it is known, and stays one device
    let more = NewPending {
        groups: vec![("dev.example.diary".into(), SessionAccess::Write)],
        ..request("second-request")
    };
    owner.ask(&more);
    assert!(
        owner
            .says(&["devices", "pending"])
            .await
            .contains("as your device first-request-id")
    );
    let said = owner.says(&["devices", "approve", "second-request"]).await;
    assert!(said.contains("Approved device first-request-id"), "{said}");
    assert_eq!(owner.accounts.devices().unwrap().len(), 1);
}

#[tokio::test]
async fn a_denied_request_is_shown_as_denied() {
    let owner = Owner::new();
    owner.ask(&request("first-request-id"));
    let said = owner.says(&["devices", "deny", "first"]).await;
    assert_eq!(said, format!("Denied first-request-id of {APP}.\n"));
    owner.fails(&["devices", "deny", "first"]).await;
    assert_eq!(
        owner.json(&["devices", "pending"]).await[0]["state"],
        "denied"
    );
    let words = owner.says(&["devices", "pending"]).await;
    assert!(
        words.starts_with("No request waits.\nDenied: first-request-id"),
        "{words}"
    );
}

#[tokio::test]
async fn an_id_that_may_be_two_is_refused_and_both_are_named() {
    let owner = Owner::new();
    for (id, jkt) in [("abcd-one", "key-one"), ("abcd-two", "key-two")] {
        owner.ask(&NewPending {
            jkt: jkt.into(),
            ..request(id)
        });
    }
    let refused = owner.fails(&["devices", "approve", "abcd"]).await;
    assert!(refused.contains("abcd-one, abcd-two"), "{refused}");
    assert!(owner.accounts.devices().unwrap().is_empty());
    owner.says(&["devices", "approve", "abcd-o"]).await;
}

#[tokio::test]
async fn a_revoked_device_is_listed_with_all_and_its_key_is_remembered() {
    let owner = Owner::new();
    owner.ask(&request("first-request-id"));
    owner
        .says(&["devices", "approve", "first-request-id"])
        .await;
    owner.begin_session(
        "device-session",
        Some("first-request-id"),
        SessionKind::Access,
    );
    let said = owner.says(&["devices", "revoke", "firs"]).await;
    assert!(
        said.contains("with 1 session. Open sockets are closed"),
        "{said}"
    );
    assert_eq!(owner.json(&["devices", "ls"]).await, json!([]));
    let all = owner.json(&["devices", "ls", "--all"]).await;
    assert_eq!(all[0]["state"], "revoked");
    assert_eq!(all[0]["approvals"][0]["effective"], Value::Null);
    assert!(
        owner
            .says(&["devices", "ls", "--all"])
            .await
            .contains("REVOKED 20")
    );
    owner
        .fails(&["devices", "revoke", "first-request-id"])
        .await;
    owner
        .fails(&["devices", "approve", "first-request-id", "--group", NOTES])
        .await;

    owner.ask(&request("again-with-the-key"));
    assert_eq!(
        owner.json(&["devices", "pending"]).await[0]["keyRevokedBefore"],
        true
    );
    let words = owner.says(&["devices", "pending"]).await;
    assert!(
        words.contains("WARNING") && words.contains("revoked before"),
        "{words}"
    );
    owner
        .says(&["devices", "approve", "again-with-the-key"])
        .await;
    let said = owner.says(&["devices", "revoke", "--all"]).await;
    assert!(
        said.starts_with("Revoked 1 device with all sessions"),
        "{said}"
    );
}
