//! The owner at a command line: a data directory without a server, and what devices have left there.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use store::{
    AccountStore, AppKind, NewPending, NewSession, Occasion, PendingDoor, Recorded, SessionAccess,
    SessionKind,
};
use tempfile::TempDir;

use super::{Output, run};

pub const APP: &str = "https://app.example/client-metadata.json";
pub const JKT: &str = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
pub const NOTES: &str = "dev.example.notes";
pub const BOOKS: &str = "dev.example.books";
pub const DAY_MS: i64 = 24 * 3_600 * 1_000;
/// What a terminal obeys, or what changes how the text around it looks.
pub const HOSTILE: &str =
    "\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\r\n\u{8}\u{202e}elpmaxe\u{2066}\u{200b}\"x";

/// A data directory without a server, and its account database.
pub struct Owner {
    pub folder: TempDir,
    pub accounts: AccountStore,
}

impl Owner {
    pub fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let data_dir = folder.path().join(".data");
        store::create_private_dir(&data_dir).unwrap();
        let accounts = AccountStore::open(&data_dir.join("account.db")).unwrap();
        Self { folder, accounts }
    }

    pub async fn cli(&self, arguments: &[&str]) -> Output {
        run(self.folder.path(), &[], arguments).await
    }

    pub async fn json(&self, arguments: &[&str]) -> Value {
        let mut all = arguments.to_vec();
        all.push("--json");
        let output = self.cli(&all).await;
        assert_eq!(output.stderr, "", "{arguments:?}");
        output.json()
    }

    /// What a command that must succeed prints.
    pub async fn says(&self, arguments: &[&str]) -> String {
        let output = self.cli(arguments).await;
        assert_eq!((output.code, &*output.stderr), (Some(0), ""), "{output:?}");
        assert_plain(&output);
        output.stdout
    }

    /// What a command that must fail says.
    pub async fn fails(&self, arguments: &[&str]) -> String {
        let output = self.cli(arguments).await;
        assert_eq!(output.code, Some(1), "{arguments:?}: {output:?}");
        assert_eq!(output.stdout, "", "{arguments:?}");
        assert_plain(&output);
        output.stderr
    }

    pub fn ask(&self, request: &NewPending) {
        let recorded = self.accounts.record_pending(request, 10, &now()).unwrap();
        assert!(
            matches!(recorded, Recorded::New | Recorded::Again { .. }),
            "{recorded:?}"
        );
    }

    pub fn begin_session(&self, id: &str, device: Option<&str>, kind: SessionKind) {
        let session = NewSession {
            id: id.into(),
            name: "a name".into(),
            kind,
            device: device.map(Into::into),
            groups: vec![(NOTES.into(), SessionAccess::Write)],
            expires_at_ms: now_ms() + DAY_MS,
            slide_ms: 0,
            ends_at_ms: now_ms() + DAY_MS,
        };
        self.accounts.add(&session, &now()).unwrap();
    }
}

/// Nothing in it is obeyed by a terminal, nor turns the direction of writing.
pub fn assert_plain(output: &Output) {
    for text in [&output.stdout, &output.stderr] {
        let bad = text.chars().find(|char| {
            let turns =
                matches!(u32::from(*char), 0x200B..=0x200F | 0x202A..=0x202E | 0x2066..=0x2069);
            (char.is_control() && *char != '\n') || turns
        });
        assert_eq!(bad, None, "{output:?}");
    }
}

pub fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

pub fn now() -> Occasion<'static> {
    Occasion::at(now_ms())
}

/// A browser that asks for one group.
pub fn request(id: &str) -> NewPending {
    NewPending {
        id: id.into(),
        door: PendingDoor::Authenticate,
        app: APP.into(),
        jkt: JKT.into(),
        origin: Some("https://app.example".into()),
        kind: AppKind::Web,
        app_name: Some("Example".into()),
        name: String::new(),
        address: "203.0.113.9".into(),
        groups: vec![(NOTES.into(), SessionAccess::Write)],
    }
}

/// Whether a time in JSON is RFC 3339, and this many days from now.
pub fn is_in_days(time: &Value, days: i64) -> bool {
    let time = humantime::parse_rfc3339(time.as_str().unwrap()).unwrap();
    let ms = time.duration_since(UNIX_EPOCH).unwrap().as_millis();
    (i64::try_from(ms).unwrap() - now_ms() - days * DAY_MS).abs() < DAY_MS / 2
}
