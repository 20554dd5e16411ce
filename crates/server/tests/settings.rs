//! The settings, from what is written to what counts.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

use std::{
    ffi::OsString,
    fs,
    os::unix::{ffi::OsStringExt as _, fs::PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Barrier,
    thread,
};

use clap::Parser as _;
use engine::{Announce, Compaction};
use groundmist_sync::{
    secret::{self, KEY_FILE, KeyFileError, SecretKey},
    settings::{
        AuthSettings, BareAudience, Environment, Fault, LegacyAuthenticate, LogLevel, RowValue,
        SECTIONS, Settings, SettingsFlags, SettingsProblem, SettingsProblems, Source, TestSettings,
        example,
    },
};
use tempfile::TempDir;

const HEX_KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const DID: &str = "did:plc:ewvi7nxzyoun6zhxrhs64oiz";

/// A working directory, flags and an environment.
struct World {
    directory: TempDir,
    flags: SettingsFlags,
    environment: Vec<(String, OsString)>,
}

#[derive(clap::Parser)]
struct Command {
    #[command(flatten)]
    settings: SettingsFlags,
}

impl World {
    fn new() -> Self {
        Self {
            directory: TempDir::new().unwrap(),
            flags: SettingsFlags::default(),
            environment: Vec::new(),
        }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn flags(mut self, words: &[&str]) -> Self {
        self.flags = Command::try_parse_from([&["groundmist-sync"], words].concat())
            .unwrap()
            .settings;
        self
    }

    fn variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    fn file(self, name: &str, text: &str) -> Self {
        fs::write(self.path().join(name), text).unwrap();
        self
    }

    fn load(&self) -> Result<Settings, SettingsProblems> {
        let environment: Environment = self.environment.iter().cloned().collect();
        Settings::load(&self.flags, &environment, self.path())
    }

    fn settings(&self) -> Settings {
        self.load().unwrap_or_else(|problems| panic!("{problems}"))
    }

    fn problems(&self) -> Vec<SettingsProblem> {
        self.load().expect_err("there are problems").0
    }

    /// The problems, each as `key|source|line|value`.
    fn summary(&self) -> Vec<String> {
        self.problems().iter().map(summary).collect()
    }
}

fn summary(problem: &SettingsProblem) -> String {
    let line = problem
        .line
        .map(|line| line.to_string())
        .unwrap_or_default();
    let what = match &problem.fault {
        Fault::Value { value, allowed } => {
            assert!(!allowed.is_empty());
            value.clone().unwrap_or_else(|| "hidden".to_owned())
        }
        Fault::Unknown { nearest } => format!("unknown, {}", nearest.as_deref().unwrap_or("?")),
        Fault::Malformed { .. } => "malformed".to_owned(),
        Fault::Unreadable { .. } => "unreadable".to_owned(),
    };
    format!("{}|{}|{line}|{what}", problem.key, problem.source)
}

fn row(settings: &Settings, key: &str) -> (String, Source) {
    let row = settings
        .describe()
        .iter()
        .find(|row| row.key == key)
        .unwrap();
    (row.value.to_string(), row.source)
}

#[test]
fn without_anything_every_setting_has_its_default() {
    let world = World::new();
    let settings = world.settings();
    assert_eq!(settings.owner, None);
    assert!(settings.secret_key.is_none());
    assert_eq!(settings.port, 3031);
    assert_eq!(settings.data_dir, world.path().join(".data"));
    assert_eq!(settings.listen.to_string(), "127.0.0.1");
    assert_eq!(settings.public_url, None);
    assert_eq!(settings.plc_url.as_str(), "https://plc.directory");
    assert!(settings.trusted_proxies.is_empty());
    assert_eq!(settings.log, LogLevel::Info);
    let auth = AuthSettings {
        legacy_authenticate: LegacyAuthenticate::Approve,
        bare_audience: BareAudience::Allow,
    };
    assert_eq!(settings.auth, auth);
    assert_eq!(settings.publish.pds_url, None);
    assert_eq!(settings.publish.handle, None);
    assert!(settings.publish.password.is_none());
    assert_eq!(settings.test, TestSettings::default());
    assert_eq!(settings.compaction, Compaction::default());
    assert_eq!(settings.memory.graph_bytes_max, 268_435_456);
    assert_eq!(settings.memory.graph_idle_ms, 60_000);
    assert_eq!(settings.worker.address_space_bytes, 2_147_483_648);
    assert_eq!(settings.worker.job_seconds_max, 120);
    assert_eq!(settings.worker.idle_ms, 3_000);
    assert!(settings.announce.is_empty());
    assert_eq!(settings.config_file, None);
    assert!(
        settings
            .describe()
            .iter()
            .all(|row| row.source == Source::Default)
    );
}

/// Takes the strongest source away, one after another, and looks at what is left.
fn assert_precedence(
    key: &str,
    flag: Option<&str>,
    variable: &str,
    values: [&str; 4],
    default: &str,
) {
    let toml_value = if key == "port" {
        values[3].to_owned()
    } else {
        format!("{:?}", values[3])
    };
    let in_file = || World::new().file("config.toml", &format!("{key} = {toml_value}\n"));
    let in_dotenv = || in_file().file(".env", &format!("{variable}={}\n", values[2]));
    let in_environment = || in_dotenv().variable(variable, values[1]);
    if let Some(flag) = flag {
        let settings = in_environment().flags(&[flag, values[0]]).settings();
        assert_eq!(row(&settings, key), (values[0].to_owned(), Source::Flag));
    }
    let of = |world: World| row(&world.settings(), key);
    assert_eq!(
        of(in_environment()),
        (values[1].to_owned(), Source::Environment)
    );
    assert_eq!(of(in_dotenv()), (values[2].to_owned(), Source::Dotenv));
    assert_eq!(of(in_file()), (values[3].to_owned(), Source::ConfigFile));
    assert_eq!(of(World::new()), (default.to_owned(), Source::Default));
}

#[test]
fn a_flag_beats_the_environment_that_dotenv_that_the_file_that_the_default() {
    let dids = [
        "did:web:a.example",
        "did:web:b.example",
        "did:web:c.example",
        DID,
    ];
    assert_precedence("owner", Some("--owner"), "ATPROTO_DID", dids, "not set");
    assert_precedence("port", Some("--port"), "PORT", ["1", "2", "3", "4"], "3031");
    assert_precedence(
        "data_dir",
        Some("--data-dir"),
        "DATA_DIR",
        ["a", "b", "c", "d"],
        ".data",
    );
    let addresses = ["::1", "0.0.0.0", "127.0.0.2", "10.0.0.1"];
    assert_precedence(
        "listen",
        Some("--listen"),
        "GROUNDMIST_SYNC_LISTEN",
        addresses,
        "127.0.0.1",
    );
    let urls = [
        "https://a.example",
        "https://b.example",
        "https://c.example",
        "http://localhost:1",
    ];
    assert_precedence(
        "public_url",
        Some("--public-url"),
        "GROUNDMIST_SYNC_PUBLIC_URL",
        urls,
        "not set",
    );
    assert_precedence(
        "plc_url",
        Some("--plc-url"),
        "GROUNDMIST_SYNC_PLC_URL",
        urls,
        "https://plc.directory",
    );
    let hosts = ["unused", "b.example", "c.example", "d.example"];
    assert_precedence("domain", None, "GROUNDMIST_SYNC_DOMAIN", hosts, "not set");
    let levels = ["error", "warn", "debug", "trace"];
    assert_precedence("log", Some("--log"), "GROUNDMIST_SYNC_LOG", levels, "info");
}

#[test]
fn the_values_that_count_are_the_ones_that_are_described() {
    let settings = World::new()
        .flags(&[
            "--owner",
            DID,
            "--port",
            "0",
            "--listen",
            "::1",
            "--data-dir",
            "/srv/data",
        ])
        .variable("GROUNDMIST_SYNC_LOG", "trace")
        .settings();
    assert_eq!(
        settings.owner.map(|owner| owner.to_string()).as_deref(),
        Some(DID)
    );
    assert_eq!(settings.port, 0);
    assert_eq!(settings.listen.to_string(), "::1");
    assert_eq!(settings.data_dir, PathBuf::from("/srv/data"));
    assert_eq!(settings.log, LogLevel::Trace);
}

#[test]
fn the_secret_key_comes_from_the_environment_then_dotenv_then_the_file() {
    let name = "GROUNDMIST_SYNC_SECRET_KEY";
    let key = |digit: &str| digit.repeat(64);
    let in_file = || World::new().file("config.toml", &format!("secret_key = \"{}\"\n", key("3")));
    let in_dotenv = || in_file().file(".env", &format!("{name}={}\n", key("2")));
    let in_environment = || in_dotenv().variable(name, key("1"));
    for (world, byte, source) in [
        (in_environment(), 0x11, Source::Environment),
        (in_dotenv(), 0x22, Source::Dotenv),
        (in_file(), 0x33, Source::ConfigFile),
    ] {
        let settings = world.settings();
        assert_eq!(settings.secret_key.as_ref().unwrap().as_bytes(), [byte; 32]);
        assert_eq!(row(&settings, "secret_key"), ("set".to_owned(), source));
        assert_eq!(settings.signing_key().unwrap().as_bytes(), [byte; 32]);
        assert!(
            !settings.data_dir.exists(),
            "a key that is set makes no file"
        );
    }
    let generated = ("generated".to_owned(), Source::Default);
    assert_eq!(row(&World::new().settings(), "secret_key"), generated);
}

#[test]
fn an_empty_value_counts_as_not_set_except_as_a_flag() {
    let world = World::new()
        .variable("PORT", "")
        .file(".env", "PORT=\n")
        .file("config.toml", "port = 7\n");
    assert_eq!(
        row(&world.settings(), "port"),
        ("7".to_owned(), Source::ConfigFile)
    );
    let world = World::new().file(
        "config.toml",
        "listen = \"\"\nsecret_key = \"\"\nowner = \"\"\n",
    );
    assert_eq!(row(&world.settings(), "listen").1, Source::Default);
    let world = World::new().flags(&["--listen", "", "--data-dir", ""]);
    assert_eq!(
        world.summary(),
        ["--data-dir|flag||\"\"", "--listen|flag||\"\""]
    );
}

#[test]
fn a_value_that_is_overridden_is_not_looked_at() {
    let world = World::new()
        .variable("PORT", "tcp://10.0.0.1:3031")
        .flags(&["--port", "9"]);
    assert_eq!(world.settings().port, 9);
}

#[test]
fn other_variables_mean_nothing() {
    let world = World::new()
        .file(".env", "OTHER=1\nport=9\n")
        .variable("owner", "x");
    assert_eq!(world.settings().port, 3031);
}

#[test]
fn the_sections_of_the_file_are_read() {
    let settings = World::new()
        .file(
            "config.toml",
            "port = 1_000\n\
             [compaction]\nfloor_bytes = 0x10\nratio_percent = 50\nquiet_ms = 1\n\
             [memory]\ngraph_bytes_max = 1048576\ngraph_idle_ms = 2\n\
             [worker]\naddress_space_bytes = 268435456\njob_seconds_max = 3\nidle_ms = 4\n\
             [groups.\"xyz.groundmist.library\"]\nannounce = \"all\"\n\
             [groups.\"dev.example.Notes\"]\nannounce = \"none\"\n\
             [groups.\"dev.example.empty\"]\n",
        )
        .settings();
    let Compaction {
        floor_bytes,
        ratio_percent,
        quiet_ms,
    } = settings.compaction;
    assert_eq!((floor_bytes, ratio_percent, quiet_ms), (16, 50, 1));
    assert_eq!(
        (
            settings.memory.graph_bytes_max,
            settings.memory.graph_idle_ms
        ),
        (1_048_576, 2)
    );
    let worker = settings.worker;
    assert_eq!(
        (
            worker.address_space_bytes,
            worker.job_seconds_max,
            worker.idle_ms
        ),
        (268_435_456, 3, 4)
    );
    assert_eq!(settings.port, 1_000);
    let announce: Vec<_> = settings
        .announce
        .iter()
        .map(|(group, announce)| (group.as_str(), *announce))
        .collect();
    let expected = [
        ("dev.example.Notes", Announce::None),
        ("dev.example.empty", Announce::None),
        ("xyz.groundmist.library", Announce::All),
    ];
    assert_eq!(announce, expected);
    let key = "groups.\"xyz.groundmist.library\".announce";
    assert_eq!(row(&settings, key), ("all".to_owned(), Source::ConfigFile));
    assert_eq!(
        row(&settings, "compaction.floor_bytes"),
        ("16".to_owned(), Source::ConfigFile)
    );
}

#[test]
fn the_public_url_is_the_one_that_is_set_or_else_that_of_the_domain() {
    let of = |world: World| world.settings().public_url.unwrap().to_string();
    let world = World::new().variable("GROUNDMIST_SYNC_DOMAIN", "sync.example.com");
    assert_eq!(of(world), "https://sync.example.com");
    let world = World::new()
        .variable("GROUNDMIST_SYNC_DOMAIN", "sync.example.com")
        .file("config.toml", "public_url = 'https://Other.example:443/'\n");
    assert_eq!(of(world), "https://other.example");
    let world = World::new()
        .variable("GROUNDMIST_SYNC_DOMAIN", "https://sync.example.com")
        .variable("GROUNDMIST_SYNC_PUBLIC_URL", "http://sync.example.com");
    assert_eq!(
        world.summary(),
        [
            "GROUNDMIST_SYNC_PUBLIC_URL|environment||\"http://sync.example.com\"",
            "GROUNDMIST_SYNC_DOMAIN|environment||\"https://sync.example.com\"",
        ]
    );
}

#[test]
fn the_settings_of_identity_are_read() {
    let settings = World::new()
        .file(
            "config.toml",
            "plc_url = 'http://127.0.0.1:2582'\ntrusted_proxies = '127.0.0.1'\n\
             [auth]\nlegacy_authenticate = 'off'\nbare_audience = 'refuse'\n\
             [publish]\npds_url = 'https://pds.example'\nhandle = 'Alice.Test'\npassword = 'abcd-efgh'\n",
        )
        .settings();
    assert_eq!(settings.plc_url.as_str(), "http://127.0.0.1:2582");
    let auth = AuthSettings {
        legacy_authenticate: LegacyAuthenticate::Off,
        bare_audience: BareAudience::Refuse,
    };
    assert_eq!(settings.auth, auth);
    let publish = &settings.publish;
    assert_eq!(
        publish.pds_url.as_ref().unwrap().as_str(),
        "https://pds.example"
    );
    assert_eq!(publish.handle.as_ref().unwrap().as_str(), "alice.test");
    assert_eq!(publish.password.as_ref().unwrap().expose(), "abcd-efgh");
    assert_eq!(
        row(&settings, "publish.password"),
        ("set".to_owned(), Source::ConfigFile)
    );
}

#[test]
fn values_of_identity_that_are_not_allowed_are_problems() {
    for (name, value) in [
        ("GROUNDMIST_SYNC_PLC_URL", "http://plc.example"),
        ("GROUNDMIST_SYNC_PLC_URL", "https://plc.example/path"),
        ("GROUNDMIST_SYNC_TRUSTED_PROXIES", "proxy.example"),
        ("GROUNDMIST_SYNC_TRUSTED_PROXIES", "10.0.0.0/33"),
        ("GROUNDMIST_SYNC_TRUSTED_PROXIES", "10.0.0.1,"),
        ("GROUNDMIST_SYNC_LEGACY_AUTHENTICATE", "allow"),
        ("GROUNDMIST_SYNC_BARE_AUDIENCE", "yes"),
        ("PDS_URL", "pds.example"),
        ("HANDLE", "alice"),
        ("HANDLE", "@alice.test"),
        ("HANDLE", "alice.localhost"),
        ("HANDLE", "alice.0com"),
        (
            "GROUNDMIST_SYNC_TEST_HOST_MAP",
            "https://a.example=https://b.example",
        ),
        ("GROUNDMIST_SYNC_TEST_DNS", "9.9.9.9:53"),
        ("GROUNDMIST_SYNC_TEST_DNS", "localhost:53"),
    ] {
        let world = World::new().variable(name, value);
        assert_eq!(world.summary(), [format!("{name}|environment||{value:?}")]);
    }
}

#[test]
fn a_proxy_is_trusted_by_its_address_or_its_network() {
    let settings = World::new()
        .variable(
            "GROUNDMIST_SYNC_TRUSTED_PROXIES",
            "127.0.0.1, 10.1.0.0/16,fd00::/8",
        )
        .settings();
    let trusted = |address: &str| settings.trusted_proxies.contains(address.parse().unwrap());
    for address in ["127.0.0.1", "::ffff:127.0.0.1", "10.1.255.255", "fd12::1"] {
        assert!(trusted(address), "{address}");
    }
    for address in ["127.0.0.2", "10.2.0.0", "::1", "fe80::1", "::ffff:10.2.0.0"] {
        assert!(!trusted(address), "{address}");
    }
}

#[test]
fn test_settings_are_refused_when_the_public_url_is_not_of_this_machine() {
    let world = || {
        World::new()
            .variable(
                "GROUNDMIST_SYNC_TEST_HOST_MAP",
                "https://a.example=http://127.0.0.1:1",
            )
            .variable("GROUNDMIST_SYNC_TEST_DNS", "127.0.0.1:53")
    };
    let refused = [
        "GROUNDMIST_SYNC_TEST_HOST_MAP|environment||\"https://a.example=http://127.0.0.1:1\"",
        "GROUNDMIST_SYNC_TEST_DNS|environment||\"127.0.0.1:53\"",
    ];
    for words in [
        ["--public-url", "https://sync.example.com"],
        ["--public-url", "https://192.168.1.2"],
        ["--listen", "0.0.0.0"],
    ] {
        assert_eq!(world().flags(&words).summary(), refused, "{words:?}");
    }
    let of_domain = world().variable("GROUNDMIST_SYNC_DOMAIN", "sync.example.com");
    assert_eq!(of_domain.summary(), refused);
    for words in [&["--public-url", "http://localhost:3031"][..], &[]] {
        let test = world().flags(words).settings().test;
        assert!(!test.host_map.is_empty());
        assert_eq!(test.dns, Some("127.0.0.1:53".parse().unwrap()));
    }
}

#[test]
fn the_app_password_is_never_printed() {
    let good = World::new().variable("PASSWORD", "abcd-efgh-ijkl");
    let settings = good.settings();
    let environment: Environment = good.environment.iter().cloned().collect();
    let rows = serde_json::to_string(settings.describe()).unwrap();
    let mut outputs = vec![format!("{settings:?} {environment:?} {rows}")];
    for world in [
        World::new().variable("PASSWORD", "abcd-efgh\nijkl"),
        World::new().variable("PASSWORD", format!("abcd-efgh{}", " ".repeat(600))),
        World::new().file("config.toml", "publish.pasword = 'abcd-efgh-ijkl'\n"),
        World::new().file("config.toml", "publish.password = ['abcd-efgh-ijkl']\n"),
    ] {
        let problems = world.load().unwrap_err();
        outputs.push(format!("{problems} {problems:?}"));
    }
    for output in outputs {
        assert!(!output.contains("abcd-efgh"), "{output}");
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let world = World::new()
        .flags(&["--owner", "alice", "--port", "-1"])
        .variable("GROUNDMIST_SYNC_SECRET_KEY", "short")
        .variable("GROUNDMIST_SYNC_LISTEN", "localhost")
        .file(".env", "# a comment\nGROUNDMIST_SYNC_LOG=loud\nnonsense\n")
        .file(
            "config.toml",
            "data_dir = 5\ncolour = \"blue\"\n[compaction]\nratio_percent = 0\n[worker]\nidle_ms = -1\n\
             [groups.\"no group\"]\n[groups.\"a.b\"]\nannounce = \"some\"\n",
        );
    assert_eq!(
        world.summary(),
        [
            ".env|.env|3|malformed",
            "colour|config.toml|2|unknown, ?",
            "--owner|flag||\"alice\"",
            "GROUNDMIST_SYNC_SECRET_KEY|environment||hidden",
            "--port|flag||\"-1\"",
            "data_dir|config.toml|1|5",
            "GROUNDMIST_SYNC_LISTEN|environment||\"localhost\"",
            "GROUNDMIST_SYNC_LOG|.env|2|\"loud\"",
            "compaction.ratio_percent|config.toml|4|0",
            "worker.idle_ms|config.toml|6|-1",
            "groups.\"a.b\".announce|config.toml|9|\"some\"",
            "groups.\"no group\"|config.toml|7|\"no group\"",
        ]
    );
    let text = world.load().unwrap_err().to_string();
    assert_eq!(text.lines().count(), 12, "{text}");
    let port = "--port (flag): \"-1\" is not allowed; allowed: a whole number from 0 to 65535";
    assert!(text.lines().any(|line| line == port), "{text}");
    let log = "GROUNDMIST_SYNC_LOG (.env, line 2): \"loud\" is not allowed; allowed: error, warn, info, debug, trace";
    assert!(text.lines().any(|line| line == log), "{text}");
}

#[test]
fn a_value_of_the_wrong_type_is_a_problem() {
    for (line, expected) in [
        ("port = \"3031\"", "port|config.toml|1|\"3031\""),
        ("port = true", "port|config.toml|1|true"),
        (
            "port = 3031.0",
            "port|config.toml|1|a number with a fraction",
        ),
        ("port = 65536", "port|config.toml|1|65536"),
        (
            "port = 99999999999999999999",
            "port|config.toml|1|99999999999999999999",
        ),
        ("port = [3031]", "port|config.toml|1|an array"),
        ("log = 1", "log|config.toml|1|1"),
        ("owner = {}", "owner|config.toml|1|a table"),
        ("listen = 2026-01-01", "listen|config.toml|1|a date or time"),
        ("secret_key = 12345678", "secret_key|config.toml|1|hidden"),
        (
            "data_dir = \"a\\u0000b\"",
            "data_dir|config.toml|1|\"a\\0b\"",
        ),
        ("compaction = 5", "compaction|config.toml|1|5"),
        ("groups = \"all\"", "groups|config.toml|1|a text"),
        (
            "groups.\"a.b\" = \"all\"",
            "groups.\"a.b\"|config.toml|1|a text",
        ),
        (
            "groups.\"a.b\".announce = true",
            "groups.\"a.b\".announce|config.toml|1|true",
        ),
    ] {
        let world = World::new().file("config.toml", line);
        assert_eq!(world.summary(), [expected], "{line}");
    }
}

#[test]
fn numbers_outside_their_range_are_problems_in_every_section() {
    let numbers = SECTIONS
        .iter()
        .flat_map(|section| section.fields)
        .filter_map(|field| {
            let range = field.allowed();
            let (min, max) = range
                .strip_prefix("a whole number from ")?
                .split_once(" to ")?;
            Some((
                field.key,
                min.parse::<i64>().unwrap(),
                max.parse::<i64>().unwrap(),
            ))
        });
    let mut count = 0;
    for (key, min, max) in numbers {
        count += 1;
        let with = |number: i64| World::new().file("config.toml", &format!("{key} = {number}\n"));
        assert_eq!(row(&with(min).settings(), key).0, min.to_string());
        assert_eq!(row(&with(max).settings(), key).0, max.to_string());
        for outside in [min - 1, max + 1] {
            assert_eq!(
                with(outside).summary(),
                [format!("{key}|config.toml|1|{outside}")]
            );
        }
    }
    assert_eq!(count, 9);
}

#[test]
fn an_unknown_key_is_a_problem_and_the_nearest_one_is_named() {
    for (line, key, nearest) in [
        ("prot = 1", "prot", "port"),
        ("data-dir = 'x'", "data-dir", "data_dir"),
        ("ATPROTO_DID = 'x'", "ATPROTO_DID", "owner"),
        ("floor_bytes = 1", "floor_bytes", "compaction.floor_bytes"),
        (
            "worker.graph_idle_ms = 1",
            "worker.graph_idle_ms",
            "memory.graph_idle_ms",
        ),
        (
            "compaction.floor_byte = 1",
            "compaction.floor_byte",
            "compaction.floor_bytes",
        ),
        ("compactoin.floor_bytes = 1", "compactoin", "compaction"),
        ("secret_kye = 'x'", "secret_kye", "secret_key"),
        (
            "groups.'a.b'.anounce = 'all'",
            "groups.\"a.b\".anounce",
            "announce",
        ),
        ("'a b' = 1", "\"a b\"", "?"),
        ("banana = 1", "banana", "?"),
    ] {
        let expected = format!("{key}|config.toml|1|unknown, {nearest}");
        assert_eq!(
            World::new().file("config.toml", line).summary(),
            [expected],
            "{line}"
        );
    }
}

#[test]
fn a_group_is_named_once_and_in_quotes() {
    let world = World::new().file(
        "config.toml",
        "[groups.xyz.groundmist.library]\nannounce = 'all'\n",
    );
    let text = world.load().unwrap_err().to_string();
    assert_eq!(text.lines().count(), 1);
    assert!(
        text.contains("[groups.\"xyz.groundmist.library\"]"),
        "{text}"
    );
    let world = World::new().file("config.toml", "[groups.'A.b.c']\n[groups.'a.b.c']\n");
    assert_eq!(
        world.summary(),
        ["groups.\"a.b.c\"|config.toml|2|\"a.b.c\""]
    );
}

#[test]
fn a_file_that_is_not_toml_is_a_problem_with_its_lines() {
    let world = World::new()
        .file("config.toml", "port = 1\nlog = \nowner\n")
        .variable("PORT", "x");
    let summary = world.summary();
    let malformed = summary
        .iter()
        .filter(|problem| problem.ends_with("malformed"));
    assert!(malformed.clone().count() >= 2, "{summary:?}");
    assert!(
        malformed
            .clone()
            .any(|problem| problem.starts_with("config.toml|config.toml|2|")),
        "{summary:?}"
    );
    assert_eq!(summary.last().unwrap(), "PORT|environment||\"x\"");
}

#[test]
fn the_file_that_config_names_is_read_instead_of_the_one_in_the_directory() {
    let world = World::new()
        .file("config.toml", "port = 1\n")
        .file("other.toml", "port = 2\n");
    let world = world.flags(&["--config", "other.toml"]);
    let settings = world.settings();
    assert_eq!(settings.port, 2);
    assert_eq!(settings.config_file, Some(world.path().join("other.toml")));
    let world = World::new()
        .file("config.toml", "port = 1\n")
        .flags(&["--config", "none.toml"]);
    assert_eq!(world.summary(), ["--config|flag||unreadable"]);
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem() {
    let world = World::new();
    fs::create_dir(world.path().join("config.toml")).unwrap();
    fs::write(world.path().join(".env"), b"PORT=\xff\n").unwrap();
    assert_eq!(
        world.summary(),
        [
            ".env|.env||unreadable",
            "config.toml|config.toml||unreadable"
        ]
    );
}

#[test]
fn only_a_path_need_not_be_unicode() {
    let bytes = OsString::from_vec(b"da\xffta".to_vec());
    let world = World::new().variable("DATA_DIR", bytes.clone());
    assert_eq!(world.settings().data_dir, world.path().join(&bytes));
    let world = World::new()
        .variable("ATPROTO_DID", bytes.clone())
        .variable("PORT", bytes);
    assert_eq!(
        world.summary(),
        [
            "ATPROTO_DID|environment||\"da\u{fffd}ta\"",
            "PORT|environment||\"da\u{fffd}ta\"",
        ]
    );
}

#[test]
fn a_long_or_wild_value_is_shown_short_and_on_one_line() {
    let world = World::new().variable("PORT", format!("\n\u{1b}[31m{}", "x".repeat(10_000)));
    let text = world.load().unwrap_err().to_string();
    assert_eq!(text.lines().count(), 1);
    assert!(text.len() < 300 && !text.contains('\u{1b}'), "{text}");
}

#[test]
fn keys_are_read_as_hex_or_any_base64() {
    let bytes: Vec<u8> = (0..32).map(|index| 0xf8 | index).collect();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    for text in [
        hex.as_str(),
        "+Pn6+/z9/v/4+fr7/P3+//j5+vv8/f7/+Pn6+/z9/v8=",
        "+Pn6+/z9/v/4+fr7/P3+//j5+vv8/f7/+Pn6+/z9/v8",
        "-Pn6-_z9_v_4-fr7_P3-__j5-vv8_f7_-Pn6-_z9_v8=",
        "-Pn6-_z9_v_4-fr7_P3-__j5-vv8_f7_-Pn6-_z9_v8\n",
    ] {
        assert_eq!(SecretKey::parse(text).unwrap().as_bytes(), bytes, "{text}");
    }
    // 64 hex digits are 48 bytes of base64 too.
    assert_eq!(SecretKey::parse(HEX_KEY).unwrap().as_bytes().len(), 32);
}

#[test]
fn keys_of_fewer_than_32_bytes_are_refused_and_told_by_their_length() {
    for (text, what) in [
        (&HEX_KEY[2..], "it has 31 bytes"),
        (
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==",
            "it has 31 bytes",
        ),
        (
            "not a key at all, whatever its length may be!!",
            "it is neither hex nor base64",
        ),
        ("é".repeat(32).as_str(), "it is neither hex nor base64"),
    ] {
        let world = World::new().variable("GROUNDMIST_SYNC_SECRET_KEY", text);
        let problems = world.load().unwrap_err().to_string();
        assert!(problems.contains(what), "{problems}");
        assert!(
            problems.contains("at least 32 bytes in hex or base64"),
            "{problems}"
        );
    }
}

#[test]
fn the_key_is_never_printed() {
    let name = "GROUNDMIST_SYNC_SECRET_KEY";
    let good = World::new().variable(name, HEX_KEY);
    let settings = good.settings();
    let environment: Environment = good.environment.iter().cloned().collect();
    let rows = serde_json::to_string(settings.describe()).unwrap();
    let mut outputs = vec![format!("{settings:?} {settings:#?} {environment:?} {rows}")];
    outputs.push(format!("{:?}", SecretKey::parse(HEX_KEY)));

    let short = &HEX_KEY[..62];
    let quoted = format!("{short:?}");
    for world in [
        World::new().variable(name, short),
        World::new().variable(
            name,
            OsString::from_vec([short.as_bytes(), b"\xff"].concat()),
        ),
        World::new().file(".env", &format!("{name}={short}\n")),
        World::new().file(".env", &format!("{name} {short}\n")),
        World::new().file(".env", &format!("{name}=\"{short}\n")),
        World::new().file("config.toml", &format!("secret_key = {quoted}\n")),
        World::new().file("config.toml", &format!("secret_key = {short}\n")),
        World::new().file("config.toml", &format!("secret_key {quoted}\n")),
        World::new().file("config.toml", &format!("secret_key = \"{short}\n")),
        World::new().file("config.toml", &format!("secret_key = [{quoted}]\n")),
        World::new().file(
            "config.toml",
            &format!("secret_key = \"x\"\nsecret_key = {quoted}\n"),
        ),
        World::new().file("config.toml", &format!("secret_kye = {quoted}\n")),
        World::new().file("config.toml", &format!("worker.secret_key = {quoted}\n")),
    ] {
        let problems = world.load().unwrap_err();
        outputs.push(format!("{problems} {problems:?} {problems:#?}"));
    }
    for output in outputs {
        assert!(!output.is_empty());
        // No part of it either: any 8 digits in a row would be found by this.
        let parts = (0..short.len() - 8).map(|start| &short[start..start + 8]);
        for part in parts {
            assert!(!output.contains(part), "{part} in {output}");
        }
    }
}

#[test]
fn rows_have_values_of_their_type_in_json_and_name_every_setting() {
    let settings = World::new().variable("PORT", "9").settings();
    let json = serde_json::to_value(settings.describe()).unwrap();
    assert_eq!(
        json[0],
        serde_json::json!({"key": "owner", "value": null, "source": "default"})
    );
    assert_eq!(
        json[2],
        serde_json::json!({"key": "port", "value": 9, "source": "environment"})
    );
    assert_eq!(
        json[3],
        serde_json::json!({"key": "data_dir", "value": ".data", "source": "default"})
    );
    let described: Vec<_> = settings
        .describe()
        .iter()
        .map(|row| row.key.as_str())
        .collect();
    let known: Vec<_> = SECTIONS
        .iter()
        .flat_map(|section| section.fields)
        .map(|field| field.key)
        .collect();
    // Groups are described when they are named.
    assert_eq!(described, known[..known.len() - 1]);
}

#[test]
fn the_example_in_the_repository_is_the_one_of_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/config.example.toml");
    let text = fs::read_to_string(&path).unwrap();
    assert!(
        text == example(),
        "{} is not what settings::example() says:\n{}",
        path.display(),
        example()
    );
}

#[test]
fn the_example_with_every_line_in_force_is_the_defaults() {
    let mut count = 0;
    let in_force: String = example()
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.is_empty() && !setting.starts_with(' ') => {
                count += 1;
                format!("{setting}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect();
    let fields = SECTIONS.iter().flat_map(|section| section.fields).count();
    assert_eq!(count, fields + 1, "each setting and the table of a group");

    let defaults = World::new().settings();
    let world = World::new().file("config.toml", &in_force);
    let settings = world.settings();
    let values = |settings: &Settings| -> Vec<(String, RowValue)> {
        settings
            .describe()
            .iter()
            .map(|row| (row.key.clone(), row.value.clone()))
            .collect()
    };
    let mut expected = values(&defaults);
    let announce = (
        "groups.\"xyz.groundmist.library\".announce".to_owned(),
        RowValue::Text("none".to_owned()),
    );
    expected.push(announce);
    assert_eq!(values(&settings), expected);
    assert!(
        settings
            .announce
            .values()
            .all(|announce| *announce == Announce::None)
    );
    assert!(settings.owner.is_none() && settings.secret_key.is_none());

    let as_it_is = World::new().file("config.toml", &example()).settings();
    assert_eq!(as_it_is.describe(), defaults.describe());
}

#[test]
fn help_names_variables_and_defaults() {
    use clap::CommandFactory as _;
    let help = Command::command().render_help().to_string();
    assert!(help.contains("environment: PORT, default: 3031"), "{help}");
    assert!(!help.contains("secret"), "{help}");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn names(directory: &Path) -> Vec<OsString> {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect()
}

#[test]
fn a_missing_key_is_made_once_for_its_owner_alone() {
    let world = World::new();
    let settings = world.settings();
    let key = settings.signing_key().unwrap();
    assert_eq!(key.as_bytes().len(), 32);
    assert_eq!(mode(&settings.data_dir), 0o700);
    assert_eq!(mode(&settings.data_dir.join(KEY_FILE)), 0o600);
    assert_eq!(names(&settings.data_dir), [KEY_FILE]);
    assert_eq!(settings.signing_key().unwrap().as_bytes(), key.as_bytes());
    let other = World::new().settings().signing_key().unwrap();
    assert_ne!(other.as_bytes(), key.as_bytes());
}

#[test]
fn a_key_file_that_others_can_use_is_refused_until_it_is_closed() {
    let world = World::new();
    let key = secret::load_or_create(world.path()).unwrap();
    let path = world.path().join(KEY_FILE);
    for exposed in [0o640, 0o604, 0o620, 0o601, 0o644, 0o666] {
        fs::set_permissions(&path, fs::Permissions::from_mode(exposed)).unwrap();
        let error = secret::load_or_create(world.path()).unwrap_err();
        assert!(matches!(&error, KeyFileError::Exposed { mode, .. } if *mode == exposed));
        assert!(
            error
                .to_string()
                .contains(&format!("chmod 600 {}", path.display())),
            "{error}"
        );
    }
    for closed in [0o600, 0o400] {
        fs::set_permissions(&path, fs::Permissions::from_mode(closed)).unwrap();
        assert_eq!(
            secret::load_or_create(world.path()).unwrap().as_bytes(),
            key.as_bytes()
        );
    }
}

#[test]
fn a_spoilt_key_file_is_told_and_left_as_it_is() {
    for spoilt in ["", "\n", &HEX_KEY[2..], "no key"] {
        let world = World::new().file(KEY_FILE, spoilt);
        let path = world.path().join(KEY_FILE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let error = secret::load_or_create(world.path()).unwrap_err();
        assert!(matches!(error, KeyFileError::Malformed { .. }), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), spoilt);
        assert!(!format!("{error:?}{error}").contains("2233445566"));
    }
}

#[test]
fn a_data_directory_that_cannot_be_made_is_told() {
    let world = World::new()
        .file("taken", "")
        .flags(&["--data-dir", "taken"]);
    let error = world.settings().signing_key().unwrap_err();
    assert!(error.to_string().contains("taken"), "{error}");
}

#[test]
fn those_who_make_a_key_at_once_get_the_same_key() {
    const MAKERS: usize = 16;
    for _ in 0..40 {
        let world = World::new();
        let data_dir = world.path().join("data");
        let barrier = Barrier::new(MAKERS);
        let keys: Vec<SecretKey> = thread::scope(|scope| {
            let make = || {
                barrier.wait();
                secret::load_or_create(&data_dir).unwrap()
            };
            let makers: Vec<_> = (0..MAKERS).map(|_| scope.spawn(make)).collect();
            makers
                .into_iter()
                .map(|maker| maker.join().unwrap())
                .collect()
        });
        let lasting = secret::load_or_create(&data_dir).unwrap();
        assert!(keys.iter().all(|key| key.as_bytes() == lasting.as_bytes()));
        assert_eq!(names(&data_dir), [KEY_FILE]);
    }
}

#[test]
fn a_text_where_a_table_belongs_is_not_repeated() {
    for name in ["publish", "groups", "groups.\"xyz.groundmist.library\""] {
        let text = format!("{name} = \"not for others to see\"\n");
        let problems = World::new().file("config.toml", &text).problems();
        assert_eq!(problems.len(), 1, "{problems:?}");
        let said = problems[0].to_string();
        let expected =
            format!("{name} (config.toml, line 1): a text is not allowed; allowed: a table");
        assert_eq!(said, expected);
    }
}
