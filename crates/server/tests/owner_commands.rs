//! What the owner's commands have in common, and `grants`, `sessions`, `roots`, `audit` and `panic`, run as the owner
//! runs them.
//!
//! What devices leave is put into the account database here, as the server does when one of them knocks.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

use std::{fs, path::Path};

use serde_json::{Value, json};
use store::{AccountStore, AuditEntry, NewPending, SessionAccess, SessionKind};
use support::{
    Client, Replica, Server,
    owner::{APP, BOOKS, DAY_MS, HOSTILE, NOTES, Owner, is_in_days, now, now_ms, request},
    run,
};
use tempfile::TempDir;

mod support;

#[tokio::test]
async fn what_makes_no_sense_ends_with_64_and_makes_nothing() {
    let folder = TempDir::new().unwrap();
    let cases: [&[&str]; 21] = [
        &["devices"],
        &["devices", "open", "--for", "2h"],
        &["devices", "open", "--for", "soon"],
        &["devices", "approve"],
        &["devices", "approve", "abcd", "--expires", "59m"],
        &["devices", "approve", "abcd", "--expires", "11y"],
        &["devices", "approve", "abcd", "--group", "nodots"],
        &["devices", "approve", "abcd", "--name", "two\nlines"],
        &["devices", "deny"],
        &["devices", "revoke"],
        &["devices", "revoke", "abcd", "--all"],
        &["sessions", "revoke"],
        &["roots", "set", APP, NOTES],
        &["roots", "set", APP, NOTES, "automerge:undefined"],
        &[
            "roots",
            "set",
            "app",
            NOTES,
            "automerge:4NMNnkMhL8jXrdJ9jamS58PAVdXu",
        ],
        &["grants", "add", APP],
        &["grants", "add", "https://app.example", "--group", NOTES],
        &["grants", "preview"],
        &["audit", "--since", "yesterday"],
        &["panic"],
        &["panic", "--no"],
    ];
    for case in cases {
        let output = run(folder.path(), &[], case).await;
        assert_eq!(output.code, Some(64), "{case:?}: {output:?}");
        assert_eq!(output.stdout, "", "{case:?}");
        assert!(!output.stderr.is_empty(), "{case:?}");
    }
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert!(left.is_empty(), "nothing is made: {left:?}");
}

#[tokio::test]
async fn what_is_not_there_ends_with_1_and_says_where_to_look() {
    let owner = Owner::new();
    let cases: [(&[&str], &str); 9] = [
        (
            &["devices", "approve", "nobody"],
            "`devices pending` and `devices ls`",
        ),
        (&["devices", "approve", "abc"], "at least 4 characters"),
        (&["devices", "deny", "nobody"], "`devices pending`"),
        (&["devices", "revoke", "nobody"], "`devices ls`"),
        (&["sessions", "revoke", "nobody"], "`sessions ls`"),
        (&["roots", "rm", APP, NOTES], "`roots ls`"),
        (&["grants", "rm", APP], "`grants ls`"),
        (&["grants", "rm", APP, "--group", NOTES], NOTES),
        (&["devices", "revoke", "\u{1b}[2Jx"], "\\u{1b}[2Jx"),
    ];
    for (arguments, remedy) in cases {
        let said = owner.fails(arguments).await;
        assert!(said.starts_with("groundmist-sync: "), "{said}");
        assert!(said.contains(remedy), "{said}");
    }
    for list in ["devices", "sessions", "roots", "grants"] {
        assert_eq!(owner.json(&[list, "ls"]).await, json!([]));
        assert!(owner.says(&[list, "ls"]).await.starts_with("no "));
    }
    assert_eq!(owner.json(&["devices", "pending"]).await, json!([]));
    assert_eq!(owner.json(&["audit"]).await, json!([]));
}

#[tokio::test]
async fn nothing_that_comes_from_outside_is_obeyed_by_the_terminal() {
    let owner = Owner::new();
    let hostile = |text: &str| format!("{text}{HOSTILE}");
    let asking = NewPending {
        app: hostile("https://app.example/"),
        jkt: hostile("key"),
        origin: Some(hostile("https://app.example")),
        app_name: Some(hostile("Example")),
        name: hostile("Laptop"),
        address: hostile("203.0.113.9"),
        ..request("hostile-request")
    };
    owner.ask(&asking);
    let pending = owner.says(&["devices", "pending"]).await;
    assert!(pending.contains("\\u{1b}]0;owned"), "{pending}");
    assert!(
        pending.contains("\\u{22}x\" (its own claim)"),
        "the quotes hold: {pending}"
    );
    let approved = owner.says(&["devices", "approve", "hostile-request"]).await;
    assert!(approved.contains("\\u{202e}"), "{approved}");
    owner.begin_session(
        "hostile-session",
        Some("hostile-request"),
        SessionKind::Authenticate,
    );
    let device = Some("hostile-request");
    owner
        .accounts
        .put_root_first(&asking.app, NOTES, "automerge:\u{1b}[2J", device, &now())
        .unwrap();
    let line = AuditEntry {
        detail: Some(hostile("why")),
        address: Some(hostile("203.0.113.9")),
        ..AuditEntry::new(now_ms(), hostile("request.refused"))
    };
    owner.accounts.append(&[line]).unwrap();
    for arguments in [
        &["devices", "ls"][..],
        &["sessions", "ls"],
        &["roots", "ls"],
        &["grants", "ls"],
        &["grants", "preview", &asking.app.replace('\0', "")],
        &["audit"],
    ] {
        owner.says(arguments).await;
        let mut json = arguments.to_vec();
        json.push("--json");
        owner.says(&json).await;
    }
    let devices = owner.json(&["devices", "ls"]).await;
    assert_eq!(devices[0]["name"], *asking.name, "programs get what it is");
    owner.ask(&NewPending {
        jkt: "other".into(),
        ..asking.clone()
    });
    let denied = owner.says(&["devices", "revoke", "hostile-request"]).await;
    assert!(denied.contains("\\u{9b}31m"), "{denied}");
}

#[tokio::test]
async fn sessions_of_devices_and_of_tokens_are_listed_and_revoked() {
    let owner = Owner::new();
    owner.ask(&request("first-request-id"));
    owner
        .says(&["devices", "approve", "first-request-id"])
        .await;
    owner.begin_session(
        "device-session",
        Some("first-request-id"),
        SessionKind::Authenticate,
    );
    owner.begin_session("token-session", None, SessionKind::Token);
    owner.accounts.touch(["device-session"], now_ms()).unwrap();
    let sessions = owner.json(&["sessions", "ls"]).await;
    let own = &sessions[0];
    let expected = json!({
        "id": "device-session", "name": "a name", "kind": "authenticate", "device": "first-request-id", "app": APP,
        "groups": [{ "group": NOTES, "access": "write", "effective": "write" }], "state": "inForce",
        "createdAt": own["createdAt"], "expiresAt": own["expiresAt"], "endsAt": own["endsAt"],
        "lastUsedAt": own["lastUsedAt"], "revokedAt": null,
    });
    assert_eq!(*own, expected);
    assert!(is_in_days(&own["endsAt"], 1) && is_in_days(&own["lastUsedAt"], 0));
    assert_eq!(
        (&sessions[1]["device"], &sessions[1]["app"]),
        (&Value::Null, &Value::Null)
    );
    let words = owner.says(&["sessions", "ls"]).await;
    assert!(
        words.contains("device first-request-id of https://app.example"),
        "{words}"
    );
    assert!(
        words.contains("a token made by hand") && words.contains("never used"),
        "{words}"
    );

    owner
        .says(&["grants", "add", APP, "--group", NOTES, "--read-only"])
        .await;
    let narrowed = owner.json(&["sessions", "ls"]).await;
    assert_eq!(narrowed[0]["groups"][0]["effective"], "read");
    assert!(
        owner
            .says(&["sessions", "ls"])
            .await
            .contains("(now read: ")
    );
    assert!(
        owner
            .says(&["devices", "ls"])
            .await
            .contains("(now read: its app is granted no more)")
    );

    let said = owner.says(&["sessions", "revoke", "devi"]).await;
    assert!(
        said.starts_with("Revoked device-session. Its device may begin another"),
        "{said}"
    );
    owner.fails(&["sessions", "revoke", "device-session"]).await;
    let said = owner.says(&["sessions", "revoke", "--all"]).await;
    assert!(said.starts_with("Revoked 1 session."), "{said}");
    assert_eq!(owner.json(&["sessions", "ls"]).await, json!([]));
    let all = owner.json(&["sessions", "ls", "--all"]).await;
    assert_eq!(
        (&all[0]["state"], &all[1]["state"]),
        (&json!("revoked"), &json!("revoked"))
    );
    assert!(
        owner
            .says(&["sessions", "ls", "--all"])
            .await
            .contains("  revoked\n")
    );
}

#[tokio::test]
async fn grants_are_given_replaced_and_taken() {
    let owner = Owner::new();
    let said = owner.says(&["grants", "add", APP, "--group", NOTES]).await;
    assert!(
        said.starts_with(&format!("Granted {APP}: write {NOTES} until 20")),
        "{said}"
    );
    let again = [
        "grants",
        "add",
        APP,
        "--group",
        NOTES,
        "--read-only",
        "--expires",
        "2h",
    ];
    let said = owner.says(&again).await;
    assert!(said.contains("(before: write until 20"), "{said}");
    owner.says(&["grants", "add", APP, "--group", BOOKS]).await;
    let grants = owner.json(&["grants", "ls"]).await;
    let expected = json!({
        "app": APP, "group": NOTES, "access": "read", "state": "inForce",
        "createdAt": grants[1]["createdAt"], "expiresAt": grants[1]["expiresAt"],
        "vouchesFor": { "access": "read", "expiresAt": grants[1]["expiresAt"] },
    });
    assert_eq!(grants[1], expected);
    assert!(is_in_days(&grants[0]["expiresAt"], 365) && is_in_days(&grants[1]["expiresAt"], 0));
    let said = owner.says(&["grants", "ls"]).await;
    assert!(
        said.contains("dev.example.notes  read   until 20"),
        "{said}"
    );
    let vouched = "devices that it vouches for: read until 20";
    assert!(said.contains(vouched), "{said}");
    let said = owner.says(&["grants", "rm", APP, "--group", NOTES]).await;
    assert!(
        said.starts_with(&format!("Took 1 grant from {APP}")),
        "{said}"
    );
    owner.says(&["grants", "rm", APP]).await;
    assert_eq!(owner.json(&["grants", "ls"]).await, json!([]));

    owner
        .accounts
        .put_grant(APP, NOTES, SessionAccess::Read, now_ms() - 1, &now())
        .unwrap();
    assert_eq!(owner.json(&["grants", "ls"]).await[0]["state"], "expired");
    assert!(owner.says(&["grants", "ls"]).await.ends_with("  expired\n"));
}

#[tokio::test]
async fn preview_shows_the_documents_that_an_app_can_see_now() {
    let server = Server::start().await;
    let mut note = Replica::new("owner", "seen");
    Client::join(&server.url, "owner")
        .await
        .push(&mut note)
        .await;
    let preview = async |arguments: &[&str]| {
        server
            .cli(&[&["grants", "preview", APP], arguments].concat())
            .await
    };
    assert!(preview(&[]).await.line().contains("can see nothing"));
    assert_eq!(preview(&["--json"]).await.json(), json!([]));
    for group in [&*server.group, "dev.example.empty"] {
        server
            .cli(&["grants", "add", APP, "--group", group, "--read-only"])
            .await
            .line();
    }
    let seen = preview(&["--json"]).await.json();
    let document = server.document(note.id).await.unwrap();
    let own = seen
        .as_array()
        .unwrap()
        .iter()
        .find(|seen| seen["group"] == server.group)
        .unwrap();
    assert_eq!(own["documents"], json!([document]));
    assert_eq!(own["access"], "read");
    assert!(is_in_days(&own["expiresAt"], 365));
    let empty = seen
        .as_array()
        .unwrap()
        .iter()
        .find(|seen| seen["group"] == "dev.example.empty");
    assert_eq!(empty.unwrap()["documents"], json!([]));
    let words = preview(&[]).await;
    assert!(
        words
            .line()
            .contains(&format!("may read in {} until", server.group)),
        "{words:?}"
    );
    assert!(words.line().contains(&note.id.to_string()), "{words:?}");
    assert!(
        words.line().contains("which has no documents yet"),
        "{words:?}"
    );

    let accounts = AccountStore::open(&server.data_dir().join("account.db")).unwrap();
    accounts
        .put_grant(
            APP,
            &server.group,
            SessionAccess::Read,
            now_ms() - 1,
            &now(),
        )
        .unwrap();
    let seen = preview(&["--json"]).await.json();
    assert_eq!(
        seen.as_array().unwrap().len(),
        1,
        "a grant that has ended shows nothing"
    );
}

#[tokio::test]
async fn root_documents_are_listed_set_and_forgotten() {
    let owner = Owner::new();
    let url = |id: engine::DocumentId| format!("automerge:{id}");
    let (first, second) = (url(support::random_id()), url(support::random_id()));
    owner
        .accounts
        .put_root_first(APP, NOTES, &first, None, &now())
        .unwrap();
    let roots = owner.json(&["roots", "ls"]).await;
    let expected = json!([{
        "app": APP, "group": NOTES, "url": first, "setAt": roots[0]["setAt"], "device": null,
    }]);
    assert_eq!(roots, expected);
    assert!(is_in_days(&roots[0]["setAt"], 0));
    let said = owner.says(&["roots", "set", APP, NOTES, &second]).await;
    assert!(said.contains(&format!("in place of {first}")), "{said}");
    let words = owner.says(&["roots", "ls"]).await;
    assert!(
        words.contains(&second) && words.contains("by you"),
        "{words}"
    );
    assert_eq!(owner.json(&["roots", "ls"]).await[0]["device"], Value::Null);
    owner.says(&["roots", "rm", APP, NOTES]).await;
    owner.fails(&["roots", "rm", APP, NOTES]).await;
}

#[tokio::test]
async fn the_audit_tells_what_has_happened_the_newest_last() {
    let owner = Owner::new();
    let old = AuditEntry::new(now_ms() - 2 * DAY_MS, "request.refused");
    let many = AuditEntry {
        until_ms: Some(now_ms()),
        address: Some("203.0.113.9".into()),
        detail: Some("the proof is wrong".into()),
        count: 17,
        ..AuditEntry::new(now_ms() - 1_000, "request.refused")
    };
    owner.accounts.append(&[old, many]).unwrap();
    owner.ask(&request("first-request-id"));
    owner
        .says(&["devices", "approve", "first-request-id"])
        .await;
    let audit = owner.json(&["audit"]).await;
    let events: Vec<_> = audit
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line["event"].as_str().unwrap())
        .collect();
    assert_eq!(
        events,
        [
            "request.refused",
            "request.recorded",
            "device.approved",
            "grant.given"
        ]
    );
    let expected = json!({
        "number": 2, "at": audit[0]["at"], "until": audit[0]["until"], "event": "request.refused", "app": null,
        "device": null, "group": null, "session": null, "address": "203.0.113.9", "detail": "the proof is wrong",
        "count": 17,
    });
    assert_eq!(audit[0], expected);
    let detail = audit[2]["detail"].as_str().unwrap();
    assert!(is_in_days(
        &json!(detail.strip_prefix("write, until ").unwrap()),
        365
    ));
    let words = owner.says(&["audit"]).await;
    assert_eq!(words.lines().count(), 4);
    assert!(
        words
            .lines()
            .next()
            .unwrap()
            .contains("request.refused  17 times until 20"),
        "{words}"
    );
    assert_eq!(words.matches("times").count(), 1, "{words}");
    assert!(
        words.contains("from 203.0.113.9  (the proof is wrong)"),
        "{words}"
    );
    let since = owner.json(&["audit", "--since", "3d"]).await;
    assert_eq!(since.as_array().unwrap().len(), 5);
}

#[tokio::test]
async fn without_the_database_of_a_server_nothing_is_pretended() {
    let folder = TempDir::new().unwrap();
    let cases: [&[&str]; 4] = [
        &["devices", "open"],
        &["devices", "pending"],
        &["grants", "preview", APP],
        &["panic", "--yes"],
    ];
    for case in cases {
        let output = run(folder.path(), &[], case).await;
        assert_eq!(
            (output.code, &*output.stdout),
            (Some(1), ""),
            "{case:?}: {output:?}"
        );
        assert!(output.stderr.contains("--data-dir"), "{output:?}");
    }
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert!(left.is_empty(), "nothing is made: {left:?}");
}

#[tokio::test]
async fn panic_takes_everything_back_and_says_what_to_do_next() {
    let owner = Owner::new();
    owner.ask(&request("first-request-id"));
    owner.says(&["devices", "open"]).await;
    owner.ask(&request("first-request-id"));
    owner
        .says(&["devices", "approve", "first-request-id"])
        .await;
    owner.begin_session(
        "device-session",
        Some("first-request-id"),
        SessionKind::Access,
    );
    owner.begin_session("token-session", None, SessionKind::Token);
    let epoch = owner.accounts.token_epoch().unwrap();

    let unasked = owner.cli(&["panic"]).await;
    assert_eq!(unasked.code, Some(64), "{unasked:?}");
    assert!(unasked.stderr.contains("add --yes"), "{unasked:?}");
    assert_eq!(owner.accounts.token_epoch().unwrap(), epoch);

    let said = owner.says(&["panic", "--yes"]).await;
    assert!(said.starts_with(
        "Taken back: 1 device, 2 sessions, 1 approval, 1 grant, 0 pending requests.\n"
    ));
    assert!(said.contains("groundmist-sync devices open"), "{said}");
    let new_epoch = owner.accounts.token_epoch().unwrap();
    assert!(new_epoch != epoch && new_epoch.len() == 32, "{new_epoch}");
    assert_eq!(owner.accounts.window_open_until(now_ms()).unwrap(), None);
    for list in ["devices", "sessions", "grants"] {
        assert_eq!(owner.json(&[list, "ls"]).await, json!([]));
    }
    let audit = owner.json(&["audit"]).await;
    assert_eq!(audit.as_array().unwrap().last().unwrap()["event"], "panic");
}

/// Runs `panic` at a terminal of its own, with this typed: its exit code and what the terminal showed.
async fn panic_at_a_terminal(folder: &Path, typed: &str) -> (Option<i32>, String) {
    use tokio::{io::AsyncWriteExt as _, process::Command};
    let mut child = Command::new("script")
        .args([
            "-qec",
            concat!(env!("CARGO_BIN_EXE_groundmist-sync"), " panic"),
            "/dev/null",
        ])
        .current_dir(folder)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(typed.as_bytes()).await.unwrap();
    let output = support::soon("the command to end", child.wait_with_output())
        .await
        .unwrap();
    drop(stdin);
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

#[tokio::test]
async fn panic_asks_at_a_terminal_and_goes_on_only_after_its_own_name() {
    let owner = Owner::new();
    let epoch = owner.accounts.token_epoch().unwrap();
    for typed in ["\n", "y\n", "no\n"] {
        let (code, shown) = panic_at_a_terminal(owner.folder.path(), typed).await;
        assert_eq!(code, Some(1), "{shown}");
        assert!(
            shown.contains("Type panic to go on") && shown.contains("nothing was changed"),
            "{shown}"
        );
    }
    assert_eq!(owner.accounts.token_epoch().unwrap(), epoch);
    let (code, shown) = panic_at_a_terminal(owner.folder.path(), "panic\n").await;
    assert_eq!(code, Some(0), "{shown}");
    assert_ne!(owner.accounts.token_epoch().unwrap(), epoch);
}

#[tokio::test]
async fn what_the_owner_takes_back_closes_sockets_of_a_running_server() {
    let server = Server::start().await;
    let (id, token) = {
        let token = server.token(&server.group, false).await;
        let rows = server.cli(&["sessions", "ls", "--json"]).await.json();
        (rows[1]["id"].as_str().unwrap().to_owned(), token)
    };
    let mut client = Client::join(&server.url_with(&token), "client").await;
    assert_eq!(server.cli(&["sessions", "revoke", &id]).await.code, Some(0));
    client.close_code().await;
    let mut other = Client::join(&server.url, "other").await;
    server.cli(&["sessions", "revoke", "--all"]).await.line();
    other.close_code().await;
}
