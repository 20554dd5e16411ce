//! What sessions may do, how they last and end, and what becomes of those of format 1.
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected ends")]

#[path = "support/accounts.rs"]
mod support;

use rusqlite::Connection;
use store::{
    AccountStore, NewSession, Refreshed,
    SessionAccess::{self, Read, Write},
    SessionKind,
};
use support::{Accounts, GROUP, LATE, NOW, now, owned, session};

/// How one of the things that a session needs can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leg {
    Holds(SessionAccess),
    Missing,
    Expired(SessionAccess),
}

const LEGS: [Leg; 5] = [
    Leg::Holds(Read),
    Leg::Holds(Write),
    Leg::Missing,
    Leg::Expired(Read),
    Leg::Expired(Write),
];

impl Leg {
    fn access(self) -> Option<SessionAccess> {
        match self {
            Self::Holds(access) => Some(access),
            Self::Missing | Self::Expired(_) => None,
        }
    }

    /// Its access and end, if it is there at all.
    fn row(self) -> Option<(SessionAccess, i64)> {
        match self {
            Self::Holds(access) => Some((access, NOW + 1)),
            Self::Missing => None,
            // the end itself is past it
            Self::Expired(access) => Some((access, NOW)),
        }
    }
}

/// Puts a session, a device, an approval and a grant into the file, each as it should be, past the store.
fn put_legs(file: &Connection, id: &str, device: Option<Leg>, own: Leg, grant: Leg) {
    let kind = device.map_or("token", |_| "access");
    let (own_access, end) = own.row().unwrap_or((Write, LATE));
    if let Some(approval) = device {
        file.execute(
            "INSERT INTO devices (id, app, jkt, kind, proof, name, address, created_at_ms)
             VALUES (?1, ?1, ?1, 'web', 'owner', '', '', 0)",
            [id],
        )
        .unwrap();
        if let Some((access, end)) = approval.row() {
            let row = (id, GROUP, access, end);
            file.execute("INSERT INTO approvals VALUES (?1, ?2, ?3, 0, ?4, 0)", row)
                .unwrap();
        }
    }
    if let Some((access, end)) = grant.row() {
        let row = (id, GROUP, access, end);
        file.execute(
            "INSERT INTO grants VALUES (?1, ?2, ?3, NULL, 0, ?4, NULL)",
            row,
        )
        .unwrap();
    }
    file.execute(
        "INSERT INTO sessions (id, name, kind, device, created_at_ms, expires_at_ms, ends_at_ms)
         VALUES (?1, '', ?2, ?3, 0, ?4, ?4)",
        (id, kind, device.map(|_| id), end),
    )
    .unwrap();
    if own != Leg::Missing {
        let row = (id, GROUP, own_access);
        file.execute("INSERT INTO session_groups VALUES (?1, ?2, ?3)", row)
            .unwrap();
    }
}

/// All ways that session, approval and grant can be, with the id under which they stand in the file.
fn all_legs() -> Vec<(String, [Leg; 3])> {
    let mut all = vec![];
    for own in LEGS {
        for approval in LEGS {
            for grant in LEGS {
                all.push((format!("{}", all.len()), [own, approval, grant]));
            }
        }
    }
    all
}

#[test]
fn a_session_may_do_the_least_of_what_itself_its_device_and_its_app_may() {
    let accounts = Accounts::create();
    let mut file = accounts.raw();
    let transaction = file.transaction().unwrap();
    for (id, [own, approval, grant]) in all_legs() {
        put_legs(&transaction, &id, Some(approval), own, grant);
    }
    transaction.commit().unwrap();
    for (id, legs) in all_legs() {
        let least = legs.map(Leg::access).into_iter().min().unwrap();
        assert_eq!(accounts.access(&id, GROUP, NOW).unwrap(), least, "{legs:?}");
        let scopes = accounts.scopes(&id, NOW).unwrap();
        let expected: Vec<_> = least.iter().map(|least| (GROUP.into(), *least)).collect();
        assert_eq!(scopes, expected, "{legs:?}");
        let [_, approval, grant] = legs.map(Leg::access);
        let of_device = accounts.device_access(&id, GROUP, NOW).unwrap();
        assert_eq!(of_device, approval.min(grant), "{legs:?}");
        let other = accounts.access(&id, "com.example.other", NOW).unwrap();
        assert_eq!(other, None);
    }
}

#[test]
fn a_session_that_is_revoked_or_whose_device_is_may_do_nothing_whatever_else_holds() {
    let accounts = Accounts::create();
    let mut file = accounts.raw();
    let transaction = file.transaction().unwrap();
    for (id, [own, approval, grant]) in all_legs() {
        put_legs(&transaction, &id, Some(approval), own, grant);
    }
    transaction.commit().unwrap();
    for restore in [
        "UPDATE devices SET revoked_at_ms = NULL",
        "UPDATE sessions SET revoked_at_ms = NULL",
    ] {
        file.execute_batch(&restore.replace("NULL", "1")).unwrap();
        for (id, legs) in all_legs() {
            let access = accounts.access(&id, GROUP, NOW).unwrap();
            assert_eq!(access, None, "{legs:?}");
            assert_eq!(accounts.scopes(&id, NOW).unwrap(), [], "{legs:?}");
        }
        file.execute_batch(restore).unwrap();
    }
    file.execute_batch("UPDATE devices SET revoked_at_ms = 1")
        .unwrap();
    for (id, legs) in all_legs() {
        let access = accounts.device_access(&id, GROUP, NOW).unwrap();
        assert_eq!(access, None, "{legs:?}");
    }
}

#[test]
fn a_session_without_a_device_has_its_own_access_alone() {
    let accounts = Accounts::create();
    let file = accounts.raw();
    for (number, own) in LEGS.into_iter().enumerate() {
        let id = number.to_string();
        put_legs(&file, &id, None, own, Leg::Missing);
        let access = accounts.access(&id, GROUP, NOW).unwrap();
        assert_eq!(access, own.access(), "{own:?}");
    }
    assert_eq!(accounts.access("unknown", GROUP, NOW).unwrap(), None);
}

#[test]
fn a_session_has_a_device_that_exists_unless_it_was_made_by_hand() {
    let accounts = Accounts::create();
    let by_hand_with_device = NewSession {
        kind: SessionKind::Token,
        ..session("a", Some("d"), &[(GROUP, Write)])
    };
    let without_device = NewSession {
        kind: SessionKind::Access,
        ..session("b", None, &[(GROUP, Write)])
    };
    let of_nobody = session("c", Some("nobody"), &[(GROUP, Write)]);
    accounts.add_device("d", &[(GROUP, Write)]);
    for new in [by_hand_with_device, without_device, of_nobody] {
        assert!(accounts.add(&new, &now()).is_err(), "{new:?}");
    }
    assert_eq!(accounts.sessions().unwrap(), []);
}

#[test]
fn sessions_are_found_by_id_by_device_and_by_group() {
    let accounts = Accounts::create();
    let other = "com.example.other";
    accounts.add_device("d", &[(GROUP, Write), (other, Read)]);
    let both = session("both", Some("d"), &[(other, Read), (GROUP, Write)]);
    let long = NewSession {
        ends_at_ms: LATE + 1,
        expires_at_ms: i64::MAX,
        ..session("long", Some("d"), &[(GROUP, Read)])
    };
    for new in [&both, &long, &session("token", None, &[(GROUP, Read)])] {
        accounts.add(new, &now()).unwrap();
    }
    let found = accounts.session("both").unwrap().unwrap();
    assert_eq!(found.groups, owned(&[(GROUP, Write), (other, Read)]));
    let ids = |sessions: Vec<store::Session>| -> Vec<String> {
        sessions.into_iter().map(|session| session.id).collect()
    };
    let all = ids(accounts.sessions().unwrap());
    assert_eq!(all, ["both", "long", "token"]);
    let of_device = ids(accounts.sessions_of_device("d").unwrap());
    assert_eq!(of_device, ["both", "long"]);

    let of = |kind, group, now_ms| {
        let session = accounts.session_of("d", kind, group, now_ms).unwrap();
        session.map(|session| (session.id, session.expires_at_ms))
    };
    let authenticate = SessionKind::Authenticate;
    let lasts_longest = Some(("long".into(), LATE + 1));
    assert_eq!(of(authenticate, GROUP, NOW), lasts_longest);
    assert_eq!(of(authenticate, other, NOW), Some(("both".into(), LATE)));
    assert_eq!(of(authenticate, other, LATE), None, "it has ended");
    assert_eq!(of(SessionKind::Access, GROUP, NOW), None);
    accounts.revoke("long", &now()).unwrap();
    assert_eq!(of(authenticate, GROUP, NOW), Some(("both".into(), LATE)));
}

#[test]
fn a_session_slides_with_each_use_and_never_past_its_end() {
    let accounts = Accounts::create();
    let sliding = NewSession {
        expires_at_ms: NOW + 100,
        slide_ms: 100,
        ends_at_ms: NOW + 250,
        ..session("sliding", None, &[(GROUP, Read)])
    };
    let fixed = NewSession {
        slide_ms: 0,
        id: "fixed".into(),
        ..sliding.clone()
    };
    accounts.add(&sliding, &now()).unwrap();
    accounts.add(&fixed, &now()).unwrap();
    let end = |id: &str| accounts.session(id).unwrap().unwrap().expires_at_ms - NOW;
    for (used_at, sliding) in [(50, 150), (149, 249), (248, 250), (249, 250), (250, 250)] {
        accounts.touch(["sliding", "fixed"], NOW + used_at).unwrap();
        assert_eq!((end("sliding"), end("fixed")), (sliding, 100), "{used_at}");
    }
    let access = |at| accounts.access("sliding", GROUP, NOW + at).unwrap();
    assert_eq!((access(249), access(250)), (Some(Read), None));
}

#[test]
fn a_use_by_a_clock_that_was_set_back_does_not_bring_the_end_of_a_session_nearer() {
    let accounts = Accounts::create();
    let sliding = NewSession {
        expires_at_ms: NOW + 100,
        slide_ms: 100,
        ends_at_ms: NOW + 250,
        ..session("s", None, &[(GROUP, Read)])
    };
    accounts.add(&sliding, &now()).unwrap();
    accounts.touch(["s"], NOW + 50).unwrap();
    let uses: [&dyn Fn(i64); 2] = [
        &|now_ms| accounts.touch(["s"], now_ms).unwrap(),
        &|now_ms| {
            let refreshed = accounts.refresh("s", 0, now_ms, 10).unwrap();
            assert_eq!(refreshed, Refreshed::Next(1));
        },
    ];
    for used in uses {
        used(NOW - 1_000);
        // and the clock is right again
        assert_eq!(accounts.access("s", GROUP, NOW + 60).unwrap(), Some(Read));
    }
}

#[test]
fn a_use_that_is_noted_late_does_not_bring_a_session_back() {
    let accounts = Accounts::create();
    for id in ["revoked", "expired"] {
        let sliding = NewSession {
            expires_at_ms: NOW + 100,
            slide_ms: i64::MAX,
            ..session(id, None, &[(GROUP, Read)])
        };
        accounts.add(&sliding, &now()).unwrap();
    }
    accounts.revoke("revoked", &now()).unwrap();
    accounts.touch(["revoked"], NOW + 50).unwrap();
    accounts.touch(["expired", "unknown"], NOW + 100).unwrap();
    for id in ["revoked", "expired"] {
        let session = accounts.session(id).unwrap().unwrap();
        assert_eq!(session.expires_at_ms, NOW + 100, "{id}");
        assert!(session.last_used_at_ms.is_some(), "{id}");
        assert!(!session.is_in_force(NOW + 100), "{id}");
    }
}

#[test]
fn a_use_of_a_session_is_a_sight_of_its_device() {
    let accounts = Accounts::create();
    accounts.add_device("d", &[(GROUP, Write)]);
    accounts.add_device("e", &[(GROUP, Write)]);
    let new = session("s", Some("d"), &[(GROUP, Write)]);
    accounts.add(&new, &now()).unwrap();
    accounts.touch(["s"], NOW + 5).unwrap();
    let seen = |id: &str| {
        accounts
            .device(id)
            .unwrap()
            .map(|device| device.last_seen_at_ms)
    };
    assert_eq!((seen("d"), seen("e")), (Some(Some(NOW + 5)), Some(None)));
    accounts.note_seen(["e", "unknown"], NOW + 6).unwrap();
    assert_eq!(seen("e"), Some(Some(NOW + 6)));
}

#[test]
fn a_refresh_token_is_good_once_and_forgiven_once_more_for_a_while() {
    let accounts = Accounts::create();
    let new = session("s", None, &[(GROUP, Read)]);
    accounts.add(&new, &now()).unwrap();
    let refresh = |generation, at| accounts.refresh("s", generation, NOW + at, 10).unwrap();
    assert_eq!(refresh(0, 0), Refreshed::Next(1));
    assert_eq!(refresh(0, 10), Refreshed::Repeated(1), "within the grace");
    assert_eq!(refresh(0, 11), Refreshed::Reused, "after the grace");
    assert_eq!(refresh(1, 20), Refreshed::Next(2));
    assert_eq!(refresh(0, 20), Refreshed::Reused, "not the one before");
    assert_eq!(refresh(1, 19), Refreshed::Repeated(2), "clocks differ");
    assert_eq!(refresh(3, 20), Refreshed::Reused, "never given out");
    assert_eq!(refresh(u32::MAX, 20), Refreshed::Reused);
    let session = accounts.session("s").unwrap().unwrap();
    let refreshed = (session.refresh_generation, session.refreshed_at_ms);
    assert_eq!(refreshed, (2, Some(NOW + 20)));
}

#[test]
fn a_refresh_is_a_use_and_ends_with_the_session() {
    let accounts = Accounts::create();
    let sliding = NewSession {
        expires_at_ms: NOW + 100,
        slide_ms: 100,
        ..session("s", None, &[(GROUP, Read)])
    };
    accounts.add(&sliding, &now()).unwrap();
    let refresh = |generation, at| accounts.refresh("s", generation, at, 0).unwrap();
    assert_eq!(refresh(0, NOW + 50), Refreshed::Next(1));
    assert_eq!(refresh(1, NOW + 149), Refreshed::Next(2));
    assert_eq!(refresh(2, NOW + 249), Refreshed::Ended);
    accounts.revoke("s", &now()).unwrap();
    assert_eq!(refresh(2, NOW + 150), Refreshed::Ended);
    let unknown = accounts.refresh("unknown", 0, NOW, 0).unwrap();
    assert_eq!(unknown, Refreshed::Ended);
}

/// The tables of format 1, as they were released.
const FORMAT_1: &str = "PRAGMA application_id = 0x676d7341;
    PRAGMA user_version = 1;
    CREATE TABLE sessions (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        access_group TEXT NOT NULL,
        access TEXT NOT NULL CHECK (access IN ('read', 'write')),
        created_at_ms INTEGER NOT NULL,
        expires_at_ms INTEGER NOT NULL,
        revoked_at_ms INTEGER,
        last_used_at_ms INTEGER
    ) STRICT, WITHOUT ROWID;";

#[test]
fn a_file_of_format_1_keeps_its_sessions_and_they_are_still_good() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("account.db");
    let file = Connection::open(&path).unwrap();
    file.execute_batch(FORMAT_1).unwrap();
    for (id, access, created, end, revoked, used) in [
        ("reader", Read, 1, LATE, None, Some(7)),
        ("writer", Write, 2, LATE, None, None),
        ("revoked", Write, 3, LATE, Some(5), None),
        ("expired", Write, 4, NOW, None, Some(8)),
    ] {
        let row = (id, id, GROUP, access, created, end, revoked, used);
        file.execute(
            "INSERT INTO sessions VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            row,
        )
        .unwrap();
    }
    drop(file);

    let accounts = AccountStore::open(&path).unwrap();
    let access = |id| accounts.access(id, GROUP, NOW).unwrap();
    let expected = [Some(Read), Some(Write), None, None];
    assert_eq!(
        ["reader", "writer", "revoked", "expired"].map(access),
        expected
    );
    let sessions = accounts.sessions().unwrap();
    let facts = |session: &store::Session| {
        assert_eq!((session.kind, &session.device), (SessionKind::Token, &None));
        assert_eq!((session.slide_ms, session.refresh_generation), (0, 0));
        assert_eq!(session.ends_at_ms, session.expires_at_ms);
        assert_eq!(session.name, session.id);
        let times = (session.created_at_ms, session.expires_at_ms);
        let past = (session.revoked_at_ms, session.last_used_at_ms);
        (session.id.clone(), session.groups.clone(), times, past)
    };
    let row = |id: &str, access, times, past| (id.into(), owned(&[(GROUP, access)]), times, past);
    let expected = [
        row("reader", Read, (1, LATE), (None, Some(7))),
        row("writer", Write, (2, LATE), (None, None)),
        row("revoked", Write, (3, LATE), (Some(5), None)),
        row("expired", Write, (4, NOW), (None, Some(8))),
    ];
    assert_eq!(sessions.iter().map(facts).collect::<Vec<_>>(), expected);
    accounts.touch(["reader"], NOW).unwrap();
    assert!(accounts.revoke("writer", &now()).unwrap());

    let epoch = accounts.token_epoch().unwrap();
    let hex = |digit: char| digit.is_ascii_hexdigit() && !digit.is_ascii_uppercase();
    assert!(epoch.len() == 32 && epoch.chars().all(hex), "{epoch}");
    drop(accounts);
    let accounts = AccountStore::open(&path).unwrap();
    assert_eq!(accounts.token_epoch().unwrap(), epoch, "it is made once");
    assert_ne!(Accounts::create().token_epoch().unwrap(), epoch);
    assert_eq!(accounts.sessions().unwrap().len(), 4);
}

#[test]
fn a_clock_that_was_set_back_forgives_no_old_refresh_token() {
    let accounts = Accounts::create();
    accounts.add_device("d", &[(GROUP, Write)]);
    let new = session("s", Some("d"), &[(GROUP, Write)]);
    accounts.add(&new, &now()).unwrap();
    let refresh = |generation, at_ms| accounts.refresh("s", generation, at_ms, 10).unwrap();
    let ahead = NOW + 1_000;
    assert_eq!(refresh(0, ahead), Refreshed::Next(1));
    assert_eq!(refresh(0, ahead - 10), Refreshed::Repeated(1));
    assert_eq!(refresh(0, NOW), Refreshed::Reused);
}
