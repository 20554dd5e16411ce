//! The table of all settings: names, defaults, what is allowed, and what each is for.
//!
//! Everything that speaks of a setting takes it from here: reading, problems, `--help`, `config show`, the example file.

/// One setting.
#[derive(Debug)]
pub struct Field {
    /// Its path in the TOML file.
    pub key: &'static str,
    /// Its flag.
    pub flag: Option<&'static str>,
    /// Its variable, in the environment and in `.env`.
    pub variable: Option<&'static str>,
    /// What is allowed.
    pub kind: Kind,
    /// Its value when nobody sets it, as in the environment; `None` if it then has none.
    pub default: Option<&'static str>,
    /// What it is for; the first line can stand alone.
    pub doc: &'static str,
}

/// What is allowed as a value.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A text; says which.
    Text(&'static str),
    /// A text that is never shown; says which.
    Secret(&'static str),
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// A whole number in this range, ends included.
    Number {
        /// The least.
        min: u64,
        /// The greatest.
        max: u64,
    },
}

/// A table of the TOML file.
#[derive(Debug)]
pub struct Section {
    /// Its name; `None` is the top of the file.
    pub name: Option<&'static str>,
    /// What it is for.
    pub doc: &'static str,
    /// Its settings.
    pub fields: &'static [&'static Field],
}

/// The name under which the settings of groups stand in the TOML file.
pub(super) const GROUPS: &str = "groups";

/// All settings, in the order in which they are shown.
pub static SECTIONS: &[Section] = &[
    Section {
        name: None,
        doc: "",
        fields: &[
            &OWNER,
            &SECRET_KEY,
            &PORT,
            &DATA_DIR,
            &LISTEN,
            &PUBLIC_URL,
            &DOMAIN,
            &PLC_URL,
            &TRUSTED_PROXIES,
            &LOG,
        ],
    },
    Section {
        name: Some("auth"),
        doc: "Who is let in, and how they show who they are.",
        fields: &[&LEGACY_AUTHENTICATE, &BARE_AUDIENCE],
    },
    Section {
        name: Some("publish"),
        doc: "For `groundmist-sync publish`, which tells the owner's PDS where the server is.",
        fields: &[&PDS_URL, &HANDLE, &PASSWORD],
    },
    Section {
        name: Some("compaction"),
        doc: "When the changes of a document are made into one snapshot.",
        fields: &[&FLOOR_BYTES, &RATIO_PERCENT, &QUIET_MS],
    },
    Section {
        name: Some("memory"),
        doc: "What the documents in use may take.",
        fields: &[&GRAPH_BYTES_MAX, &GRAPH_IDLE_MS],
    },
    Section {
        name: Some("worker"),
        doc: "Limits of the process in which documents are opened, to compact or to show them.",
        fields: &[&ADDRESS_SPACE_BYTES, &JOB_SECONDS_MAX, &IDLE_MS],
    },
    Section {
        name: Some("test"),
        doc: "For tests of the server: they stand in for the rest of the world. Refused when the public URL is not of\n\
              this machine.",
        fields: &[&TEST_HOST_MAP, &TEST_DNS],
    },
    Section {
        name: Some(GROUPS),
        doc: "Settings of single groups, each under the group's name in quotes. A group is an NSID authority or an NSID.",
        fields: &[&ANNOUNCE],
    },
];

/// All settings.
pub(super) fn fields() -> impl Iterator<Item = &'static Field> {
    SECTIONS
        .iter()
        .flat_map(|section| section.fields.iter().copied())
}

pub(super) static OWNER: Field = Field {
    key: "owner",
    flag: Some("--owner"),
    variable: Some("ATPROTO_DID"),
    kind: Kind::Text("did:plc: and 24 of the characters a-z and 2-7, or did:web: and a host name"),
    default: None,
    doc: "The DID of the account that the server belongs to.",
};

pub(super) static SECRET_KEY: Field = Field {
    key: "secret_key",
    flag: None,
    variable: Some("GROUNDMIST_SYNC_SECRET_KEY"),
    kind: Kind::Secret("at least 32 bytes in hex or base64"),
    default: None,
    doc: "The key that sync tokens are signed with.\n\
          Without one, a key is made and kept in the file secret.key in the data directory. There is no flag for it,\n\
          because every user of a machine can read the flags of all processes. Let nobody but the server's user read\n\
          a file in which it stands.",
};

pub(super) static PORT: Field = Field {
    key: "port",
    flag: Some("--port"),
    variable: Some("PORT"),
    kind: Kind::Number {
        min: 0,
        max: 65_535,
    },
    default: Some("3031"),
    doc: "The TCP port to listen on; 0 takes any free one.",
};

pub(super) static DATA_DIR: Field = Field {
    key: "data_dir",
    flag: Some("--data-dir"),
    variable: Some("DATA_DIR"),
    kind: Kind::Text("the path of a directory"),
    default: Some(".data"),
    doc: "The directory that everything is kept in; created if it does not exist.\n\
          A relative path begins at the directory in which the server is started.",
};

pub(super) static LISTEN: Field = Field {
    key: "listen",
    flag: Some("--listen"),
    variable: Some("GROUNDMIST_SYNC_LISTEN"),
    kind: Kind::Text("an IP address, such as 127.0.0.1, 0.0.0.0 or ::1"),
    default: Some("127.0.0.1"),
    doc: "The IP address to listen on.\n\
          The default is reached from this machine alone. On any other, what is sent can be read on the way: better\n\
          leave it, and let a proxy that speaks TLS stand between the server and the network.",
};

pub(super) static PUBLIC_URL: Field = Field {
    key: "public_url",
    flag: Some("--public-url"),
    variable: Some("GROUNDMIST_SYNC_PUBLIC_URL"),
    kind: Kind::Text(ORIGIN),
    default: None,
    doc: "The URL at which apps reach the server, such as https://sync.example.com, without a path.\n\
          What devices sign is addressed to it. Without one nobody can sign in; tokens made here still work.",
};

pub(super) static DOMAIN: Field = Field {
    key: "domain",
    flag: None,
    variable: Some("GROUNDMIST_SYNC_DOMAIN"),
    kind: Kind::Text("a host name, such as sync.example.com"),
    default: None,
    doc: "A short way to say that the public URL is https:// and this host; public_url wins.",
};

pub(super) static PLC_URL: Field = Field {
    key: "plc_url",
    flag: Some("--plc-url"),
    variable: Some("GROUNDMIST_SYNC_PLC_URL"),
    kind: Kind::Text(ORIGIN),
    default: Some("https://plc.directory"),
    doc: "The directory in which accounts whose DID begins with did:plc: are looked up.",
};

pub(super) static TRUSTED_PROXIES: Field = Field {
    key: "trusted_proxies",
    flag: None,
    variable: Some("GROUNDMIST_SYNC_TRUSTED_PROXIES"),
    kind: Kind::Text(
        "IP addresses and networks with commas between, such as 127.0.0.1, 10.0.0.0/8, ::1",
    ),
    default: None,
    doc: "The proxies that are believed when they say on whose behalf they call.\n\
          Behind a proxy that is not named here all clients look like one, and share the limits of one.",
};

pub(super) static LOG: Field = Field {
    key: "log",
    flag: Some("--log"),
    variable: Some("GROUNDMIST_SYNC_LOG"),
    kind: Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
    default: Some("info"),
    doc: "How much is logged; each word includes those before it.",
};

pub(super) static LEGACY_AUTHENTICATE: Field = Field {
    key: "auth.legacy_authenticate",
    flag: None,
    variable: Some("GROUNDMIST_SYNC_LEGACY_AUTHENTICATE"),
    kind: Kind::Choice(&["approve", "off"]),
    default: Some("approve"),
    doc: "POST /authenticate, for apps that know no other way in.\n\
          approve lets in devices that you have approved, and no others. off closes it.",
};

pub(super) static BARE_AUDIENCE: Field = Field {
    key: "auth.bare_audience",
    flag: None,
    variable: Some("GROUNDMIST_SYNC_BARE_AUDIENCE"),
    kind: Kind::Choice(&["allow", "refuse"]),
    default: Some("allow"),
    doc: "Whether service auth may be addressed to the server's DID alone, without the name of the service.\n\
          Calls that come by way of a PDS are, today.",
};

pub(super) static PDS_URL: Field = Field {
    key: "publish.pds_url",
    flag: None,
    variable: Some("PDS_URL"),
    kind: Kind::Text(ORIGIN),
    default: None,
    doc: "The owner's PDS, if you want to be sure that the password goes nowhere else.\n\
          The PDS is found through the owner's DID; if it is another one, nothing is published.",
};

pub(super) static HANDLE: Field = Field {
    key: "publish.handle",
    flag: None,
    variable: Some("HANDLE"),
    kind: Kind::Text("a handle, such as alice.example.com"),
    default: None,
    doc: "The owner's handle, if you want to be sure that you publish for the right account.",
};

pub(super) static PASSWORD: Field = Field {
    key: "publish.password",
    flag: None,
    variable: Some("PASSWORD"),
    kind: Kind::Secret("1 to 512 bytes on one line"),
    default: None,
    doc: "An app password of the owner's account; better, give it to `publish --app-password-stdin`.\n\
          Let nobody but the server's user read a file in which it stands.",
};

pub(super) static FLOOR_BYTES: Field = Field {
    key: "compaction.floor_bytes",
    flag: None,
    variable: None,
    kind: Kind::Number {
        min: 0,
        max: 1 << 40,
    },
    default: Some("65536"),
    doc: "Changes of fewer bytes than this are left as they are.",
};

pub(super) static RATIO_PERCENT: Field = Field {
    key: "compaction.ratio_percent",
    flag: None,
    variable: None,
    kind: Kind::Number {
        min: 1,
        max: 10_000,
    },
    default: Some("100"),
    doc: "Changes are made into a snapshot when they have more than this percentage of the last snapshot's bytes.",
};

pub(super) static QUIET_MS: Field = Field {
    key: "compaction.quiet_ms",
    flag: None,
    variable: None,
    kind: Kind::Number {
        min: 0,
        max: DAY_MS,
    },
    default: Some("5000"),
    doc: "How long a document must have been left alone before, in milliseconds.",
};

pub(super) static GRAPH_BYTES_MAX: Field = Field {
    key: "memory.graph_bytes_max",
    flag: None,
    variable: None,
    kind: Kind::Number {
        min: 1 << 20,
        max: 1 << 40,
    },
    default: Some("268435456"),
    doc: "Most bytes of memory for the change graphs of one group; the least recently used ones go first.",
};

pub(super) static GRAPH_IDLE_MS: Field = Field {
    key: "memory.graph_idle_ms",
    flag: None,
    variable: None,
    kind: Kind::Number {
        min: 0,
        max: DAY_MS,
    },
    default: Some("60000"),
    doc: "How long a change graph stays in memory unused, in milliseconds.",
};

pub(super) static ADDRESS_SPACE_BYTES: Field = Field {
    key: "worker.address_space_bytes",
    flag: None,
    variable: None,
    kind: Kind::Number {
        min: 128 << 20,
        max: 1 << 40,
    },
    default: Some("2147483648"),
    doc: "Most bytes of address space; a document that needs more is not compacted, and still syncs.",
};

pub(super) static JOB_SECONDS_MAX: Field = Field {
    key: "worker.job_seconds_max",
    flag: None,
    variable: None,
    kind: Kind::Number { min: 1, max: 3_600 },
    default: Some("120"),
    doc: "How long one job may take, in seconds.",
};

pub(super) static IDLE_MS: Field = Field {
    key: "worker.idle_ms",
    flag: None,
    variable: None,
    kind: Kind::Number {
        min: 0,
        max: DAY_MS,
    },
    default: Some("3000"),
    doc: "How long the process waits for the next job before it ends, in milliseconds.",
};

pub(super) static TEST_HOST_MAP: Field = Field {
    key: "test.host_map",
    flag: None,
    variable: Some("GROUNDMIST_SYNC_TEST_HOST_MAP"),
    kind: Kind::Text(
        "pairs such as https://app.example.dev=http://127.0.0.1:4001 with commas between, each to this machine",
    ),
    default: None,
    doc: "Origins that are to be found on this machine.",
};

pub(super) static TEST_DNS: Field = Field {
    key: "test.dns",
    flag: None,
    variable: Some("GROUNDMIST_SYNC_TEST_DNS"),
    kind: Kind::Text("a loopback address and a port, such as 127.0.0.1:5353"),
    default: None,
    doc: "The name server that handles are looked up with, instead of the system's.",
};

pub(super) static ANNOUNCE: Field = Field {
    key: "groups.\"xyz.groundmist.library\".announce",
    flag: None,
    variable: None,
    kind: Kind::Choice(&["none", "all"]),
    default: Some("none"),
    doc: "Which documents an app is told of without having asked: none, or all of the group.",
};

const ORIGIN: &str = "https:// and a host, or http:// and localhost or a loopback address; a port may follow, a path may not";
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

impl Field {
    /// What is allowed, in words.
    pub fn allowed(&self) -> String {
        match self.kind {
            Kind::Text(text) | Kind::Secret(text) => text.to_owned(),
            Kind::Choice(choices) => choices.join(", "),
            Kind::Number { min, max } => format!("a whole number from {min} to {max}"),
        }
    }

    /// The text for `--help`.
    pub(super) fn help(&self) -> String {
        let variable = self.variable.map(|name| format!("environment: {name}"));
        let default = self.default.map(|value| format!("default: {value}"));
        let notes: Vec<_> = variable.into_iter().chain(default).collect();
        format!(
            "{} [{}]",
            self.doc.lines().next().unwrap_or_default(),
            notes.join(", ")
        )
    }

    /// The last part of its path: its name within its section.
    fn name(&self) -> &'static str {
        self.key.rsplit('.').next().unwrap_or(self.key)
    }
}

/// The text of `config.example.toml`: every setting with its default, commented out.
///
/// A line that begins with `#` and no space holds a setting, and is TOML without the `#`.
pub fn example() -> String {
    let mut text = EXAMPLE_HEAD.to_owned();
    for section in SECTIONS {
        if section.name.is_some() {
            text.push('\n');
            push_comment(&mut text, section.doc);
        }
        match section.name {
            None => {}
            // A group is named here as an example only, so its table is commented out too.
            Some(GROUPS) => {
                let header = section
                    .fields
                    .iter()
                    .find_map(|field| field.key.rsplit_once('.'));
                text.extend(header.map(|(path, _)| format!("#[{path}]\n")));
            }
            Some(name) => text.push_str(&format!("[{name}]\n")),
        }
        for field in section.fields {
            text.push('\n');
            push_field(&mut text, field);
        }
    }
    text
}

const EXAMPLE_HEAD: &str = "\
# Settings of groundmist-sync. Each is commented out here, and shows its default.
#
# The server reads config.toml in the directory in which it is started, or the file that --config names. A flag wins
# over a variable in the environment, that over one in the file .env in the same directory, and that over this file.
# An empty text counts as not set. `groundmist-sync config show` tells each value, and where it comes from.
";

fn push_field(text: &mut String, field: &Field) {
    push_comment(text, field.doc);
    push_comment(text, &format!("Allowed: {}.", field.allowed()));
    let others: Vec<_> = field.flag.into_iter().chain(field.variable).collect();
    if !others.is_empty() {
        push_comment(text, &format!("Also: {}.", others.join(", ")));
    }
    let value = field.default.unwrap_or_default();
    match field.kind {
        Kind::Number { .. } => text.push_str(&format!("#{} = {value}\n", field.name())),
        Kind::Text(_) | Kind::Secret(_) | Kind::Choice(_) => {
            text.push_str(&format!("#{} = {value:?}\n", field.name()))
        }
    }
}

fn push_comment(text: &mut String, comment: &str) {
    text.extend(comment.lines().map(|line| format!("# {line}\n")));
}
