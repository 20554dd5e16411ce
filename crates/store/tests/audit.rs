//! The audit: every change stands in it, and nothing that stands in it changes. And panic, after which nothing holds.
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected ends")]

#[path = "support/accounts.rs"]
mod support;

use rusqlite::Connection;
use store::{
    AccountStore, AuditEntry, AuditOrder, Occasion, RevokedCounts,
    SessionAccess::{Read, Write},
    Use,
};
use support::{APP, Accounts, GROUP, LATE, NOW, approval, attested, now, pending, session};

#[test]
fn a_line_of_the_audit_cannot_be_changed_removed_or_replaced() {
    let accounts = Accounts::create();
    accounts.append(&[AuditEntry::new(NOW, "first")]).unwrap();
    let before = accounts.audit(0, 10, AuditOrder::OldestFirst).unwrap();
    let file = accounts.raw();
    for attempt in [
        "UPDATE audit SET event = 'second'",
        "UPDATE audit SET count = 2 WHERE number = 1",
        "DELETE FROM audit",
        "INSERT OR REPLACE INTO audit (number, at_ms, event) VALUES (1, 2, 'second')",
        "INSERT INTO audit (number, at_ms, event) VALUES (1, 2, 'second')
             ON CONFLICT DO UPDATE SET event = 'second'",
    ] {
        let refused = file.execute(attempt, []).unwrap_err().to_string();
        assert!(refused.contains("the audit is not changed"), "{refused}");
    }
    let after = accounts.audit(0, 10, AuditOrder::OldestFirst).unwrap();
    assert_eq!(after, before);
}

#[test]
fn the_audit_is_read_from_either_end_and_since_a_time() {
    let accounts = Accounts::create();
    let many = AuditEntry {
        until_ms: Some(NOW + 9),
        app: Some(APP.into()),
        device: Some("d".into()),
        group: Some(GROUP.into()),
        session: Some("s".into()),
        address: Some("192.0.2.1".into()),
        detail: Some("a lot".into()),
        count: 7,
        ..AuditEntry::new(NOW + 1, "request.refused")
    };
    let entries = [
        AuditEntry::new(NOW, "first"),
        many.clone(),
        AuditEntry::new(NOW + 1, "third"),
    ];
    accounts.append(&entries).unwrap();
    accounts.append(&[]).unwrap();
    let numbers = |since, limit, order| -> Vec<i64> {
        let rows = accounts.audit(since, limit, order).unwrap();
        rows.iter().map(|row| row.number).collect()
    };
    assert_eq!(numbers(0, 9, AuditOrder::OldestFirst), [1, 2, 3]);
    assert_eq!(numbers(0, 2, AuditOrder::NewestFirst), [3, 2]);
    assert_eq!(numbers(NOW + 1, 9, AuditOrder::OldestFirst), [2, 3]);
    let rows = accounts.audit(NOW + 1, 1, AuditOrder::OldestFirst).unwrap();
    assert_eq!(rows.first().map(|row| &row.entry), Some(&many));
}

type Change = fn(&AccountStore, &Occasion<'_>) -> bool;

/// Everything that changes who may do what, and the event that says so. Each finds something to change.
const CHANGES: [(&str, Change); 17] = [
    ("session.added", |store, occasion| {
        let new = session("t", Some("d"), &[(GROUP, Read)]);
        store.add(&new, occasion).is_ok()
    }),
    ("session.revoked", |store, occasion| {
        store.revoke("s", occasion).is_ok()
    }),
    ("sessions.revoked", |store, occasion| {
        store.revoke_all(occasion).is_ok()
    }),
    ("device.approved", |store, occasion| {
        let approval = approval("p", &[(GROUP, Write)], LATE);
        store.approve(&approval, occasion).is_ok()
    }),
    ("device.attested", |store, occasion| {
        let new = attested("e", "e", &[(GROUP, Read)]);
        store.add_attested_device(&new, occasion).is_ok()
    }),
    ("device.revoked", |store, occasion| {
        store.revoke_device("d", occasion).is_ok()
    }),
    ("devices.revoked", |store, occasion| {
        store.revoke_all_devices(occasion).is_ok()
    }),
    ("grant.given", |store, occasion| {
        store.put_grant("app", GROUP, Read, LATE, occasion).is_ok()
    }),
    ("grant.removed", |store, occasion| {
        store.remove_grant(APP, None, occasion).is_ok()
    }),
    ("pairing.opened", |store, occasion| {
        store.open_window(LATE + 1, occasion).is_ok()
    }),
    ("pairing.closed", |store, occasion| {
        store.close_window(occasion).is_ok()
    }),
    ("request.recorded", |store, occasion| {
        let new = pending("q", "q", &[(GROUP, Read)]);
        store.record_pending(&new, 9, occasion).is_ok()
    }),
    ("request.denied", |store, occasion| {
        store.deny("p", occasion).is_ok()
    }),
    ("root.set", |store, occasion| {
        let stored = store.put_root_first("app", GROUP, "automerge:1", None, occasion);
        stored.is_ok()
    }),
    ("root.set", |store, occasion| {
        store.set_root(APP, GROUP, "automerge:1", occasion).is_ok()
    }),
    ("root.removed", |store, occasion| {
        store.remove_root(APP, GROUP, occasion).is_ok()
    }),
    ("panic", |store, occasion| {
        store.revoke_everything("e", occasion).is_ok()
    }),
];

/// A bit of everything.
fn furnished() -> Accounts {
    let accounts = Accounts::create();
    accounts.open_window(LATE, &now()).unwrap();
    accounts.add_device("d", &[(GROUP, Write)]);
    accounts.put_grant(APP, GROUP, Write, LATE, &now()).unwrap();
    let new = session("s", Some("d"), &[(GROUP, Write)]);
    accounts.add(&new, &now()).unwrap();
    let request = pending("p", "p", &[(GROUP, Write)]);
    accounts.record_pending(&request, 9, &now()).unwrap();
    accounts
        .set_root(APP, GROUP, "automerge:0", &now())
        .unwrap();
    accounts
}

#[test]
fn whatever_changes_who_may_do_what_stands_in_the_audit_with_its_occasion() {
    let occasion = Occasion {
        now_ms: NOW + 1,
        address: Some("192.0.2.9"),
        reason: Some("because"),
    };
    for (event, change) in CHANGES {
        let accounts = furnished();
        assert!(change(&accounts, &occasion), "{event}");
        let rows = accounts.audit(NOW + 1, 9, AuditOrder::OldestFirst).unwrap();
        let entry = &rows.first().unwrap().entry;
        assert_eq!((entry.event.as_ref(), entry.at_ms), (event, NOW + 1));
        assert_eq!(entry.address.as_deref(), Some("192.0.2.9"), "{event}");
        let detail = entry.detail.as_deref().unwrap();
        assert!(detail.ends_with("because"), "{event}: {detail}");
    }
}

/// All rows of all tables, as text.
fn dump(file: &Connection) -> Vec<String> {
    let mut dump = vec![];
    for table in [
        "properties",
        "devices",
        "approvals",
        "grants",
        "pending",
        "pending_groups",
        "sessions",
        "session_groups",
        "roots",
        "used",
        "audit",
    ] {
        let mut statement = file.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let cells = (0..columns).map(|column| row.get_ref(column).unwrap());
            dump.push(format!("{table} {:?}", cells.collect::<Vec<_>>()));
        }
    }
    dump
}

#[test]
fn without_its_line_in_the_audit_nothing_is_changed() {
    let accounts = furnished();
    let file = accounts.raw();
    file.execute_batch(
        "CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'full'); END;",
    )
    .unwrap();
    let before = dump(&file);
    for (event, change) in CHANGES {
        assert!(!change(&accounts, &now()), "{event}");
        assert_eq!(dump(&file), before, "{event}");
    }
}

#[test]
fn panic_takes_everything_back_and_changes_the_epoch() {
    let accounts = furnished();
    let token = session("t", None, &[(GROUP, Write)]);
    accounts.add(&token, &now()).unwrap();
    accounts.revoke("s", &now()).unwrap();
    accounts.use_once("kind", &[1; 32], LATE, 9, NOW).unwrap();
    let epoch = accounts.token_epoch().unwrap();
    let other = accounts.another();
    assert_eq!(other.token_epoch().unwrap(), epoch);
    let counter = other.change_counter().unwrap();

    let new_epoch = "0123456789abcdef0123456789abcdef";
    let counts = accounts.revoke_everything(new_epoch, &now()).unwrap();
    let expected = RevokedCounts {
        sessions: 1,
        devices: 1,
        approvals: 1,
        grants: 1,
        pending: 1,
    };
    assert_eq!(counts, expected);
    assert_ne!(other.change_counter().unwrap(), counter);
    assert_eq!(other.token_epoch().unwrap(), new_epoch);
    for id in ["s", "t"] {
        assert_eq!(other.access(id, GROUP, NOW).unwrap(), None);
        assert!(!other.session(id).unwrap().unwrap().is_in_force(NOW));
    }
    assert_eq!(other.device_by_jkt("d").unwrap(), None);
    assert!(other.was_revoked("d").unwrap());
    assert_eq!(other.approvals("d").unwrap(), []);
    assert_eq!(other.grants().unwrap(), []);
    assert_eq!(other.pending().unwrap(), []);
    assert_eq!(other.window_open_until(NOW).unwrap(), None);
    let used = other.use_once("kind", &[1; 32], LATE, 9, NOW).unwrap();
    assert_eq!(used, Use::Again);
    let root = other.root(APP, GROUP).unwrap();
    assert_eq!(root.as_deref(), Some("automerge:0"));
    assert_eq!(accounts.events().last().unwrap(), "panic");
}

#[test]
fn each_line_of_the_audit_says_whose_app_device_and_group_it_was() {
    let accounts = Accounts::create();
    accounts.put_grant(APP, GROUP, Write, LATE, &now()).unwrap();
    let phone = attested("phone", "phone's", &[(GROUP, Read)]);
    accounts.add_attested_device(&phone, &now()).unwrap();
    accounts.add_device("laptop", &[(GROUP, Write)]);
    accounts
        .record_pending(&pending("denied", "denied's", &[(GROUP, Read)]), 9, &now())
        .unwrap();
    accounts.deny("denied", &now()).unwrap();
    accounts
        .put_root_first(APP, GROUP, "automerge:one", Some("laptop"), &now())
        .unwrap();
    accounts.remove_root(APP, GROUP, &now()).unwrap();
    accounts.remove_root(APP, GROUP, &now()).unwrap();
    accounts.revoke_device("laptop", &now()).unwrap();
    accounts.remove_grant(APP, None, &now()).unwrap();
    let rows = accounts.audit(0, 100, AuditOrder::OldestFirst).unwrap();
    let said: Vec<_> = rows
        .iter()
        .map(|row| {
            assert_eq!(row.entry.app.as_deref(), Some(APP), "{row:?}");
            let (device, group) = (row.entry.device.as_deref(), row.entry.group.as_deref());
            assert!(group.is_none_or(|group| group == GROUP), "{row:?}");
            (&*row.entry.event, device, group.is_some())
        })
        .collect();
    assert_eq!(
        said,
        [
            ("grant.given", None, true),
            ("device.attested", Some("phone"), true),
            ("request.recorded", Some("laptop"), false),
            ("device.approved", Some("laptop"), true),
            ("request.recorded", Some("denied"), false),
            ("request.denied", Some("denied"), false),
            ("root.set", Some("laptop"), true),
            ("root.removed", None, true),
            ("device.revoked", Some("laptop"), false),
            ("grant.removed", None, true),
        ]
    );
}

#[test]
fn what_is_revoked_at_once_is_counted_in_one_line() {
    let accounts = Accounts::create();
    for id in ["one", "two", "three"] {
        accounts.add_device(id, &[(GROUP, Read)]);
    }
    assert_eq!(accounts.revoke_all_devices(&now()).unwrap(), 3);
    let rows = accounts.audit(0, 1, AuditOrder::NewestFirst).unwrap();
    let entry = &rows.first().unwrap().entry;
    assert_eq!((&*entry.event, entry.count), ("devices.revoked", 3));
}

#[test]
fn the_lines_of_a_session_say_which_it_was_and_whose() {
    let accounts = Accounts::create();
    accounts.add_device("laptop", &[(GROUP, Read)]);
    let before = accounts.events().len();
    for id in ["one", "two", "three"] {
        let new = session(id, Some("laptop"), &[(GROUP, Read)]);
        accounts.add(&new, &now()).unwrap();
    }
    accounts.revoke("one", &now()).unwrap();
    assert_eq!(accounts.revoke_all(&now()).unwrap(), 2);
    let rows = accounts.audit(0, 100, AuditOrder::OldestFirst).unwrap();
    let said: Vec<_> = rows
        .iter()
        .skip(before)
        .map(|row| {
            let entry = &row.entry;
            let whose = (entry.session.as_deref(), entry.device.as_deref());
            (&*entry.event, whose, entry.group.as_deref(), entry.count)
        })
        .collect();
    let added = |id| ("session.added", (Some(id), Some("laptop")), Some(GROUP), 1);
    assert_eq!(
        said,
        [
            added("one"),
            added("two"),
            added("three"),
            ("session.revoked", (Some("one"), Some("laptop")), None, 1),
            ("sessions.revoked", (None, None), None, 2),
        ]
    );
}

#[test]
fn a_grant_that_an_approval_leaves_as_it_is_has_no_line() {
    let accounts = Accounts::create();
    accounts.add_device("laptop", &[(GROUP, Write)]);
    let lines_of = |access, until| {
        let before = accounts.events().len();
        accounts.approved("laptop", &[(GROUP, access)], until);
        accounts.events().split_off(before)
    };
    for (access, until) in [(Write, LATE), (Read, LATE), (Write, NOW + 1)] {
        assert_eq!(lines_of(access, until), ["device.approved"]);
    }
    // and one that is widened has its line
    assert_eq!(
        lines_of(Write, LATE + 1),
        ["device.approved", "grant.given"]
    );
}
