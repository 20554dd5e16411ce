//! `groundmist-sync init`.

use std::{
    ffi::OsString,
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};
use atproto::{Did, Handle, InvalidHandle};

use super::{
    UsageError, block_on,
    lookup::Lookup,
    output::{cannot_write, say},
};
use crate::{
    origin::Origin,
    outbound::Account,
    settings::{Settings, SettingsFlags},
};

const CONFIG_FILE: &str = "config.toml";

#[derive(clap::Args)]
pub(super) struct Init {
    #[command(flatten)]
    who: Who,
    /// Where apps will reach the server, such as https://sync.example.com
    #[arg(long, value_name = "URL")]
    public_url: Option<Origin>,
    /// Another directory of accounts than https://plc.directory
    #[arg(long, value_name = "URL")]
    plc_url: Option<Origin>,
    /// The file to write [default: config.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Who {
    /// Your handle, such as alice.example.com
    #[arg(long, value_parser = parse_handle)]
    handle: Option<Handle>,
    /// Your DID
    #[arg(long)]
    did: Option<Did>,
}

/// What was found out about the owner.
struct Owner {
    account: Account,
    /// What to say about the account's handle.
    name: String,
}

impl Init {
    pub(super) fn run(self) -> Result<()> {
        let path = self.config.clone().unwrap_or_else(|| CONFIG_FILE.into());
        let settings = self.settings(&path)?;
        let owner = block_on(self.find(&Lookup::new(&settings)?, &settings))?;
        let lines = self.lines(&owner);
        match write_new(&path, &lines) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => bail!(
                "{} exists already, and is left as it is; put this there:\n\n{}",
                path.display(),
                lines.trim_end()
            ),
            Err(error) => return Err(cannot_write(&path, error)),
        }
        self.print(&owner, &path, settings.public_url.as_ref())
    }

    /// The settings as they are without the file that is to be written.
    fn settings(&self, path: &Path) -> Result<Settings> {
        let exists = path.exists();
        let config = match &self.config {
            Some(_) if exists => Some(path.to_owned()),
            // nor is another file in the directory to be taken for it
            Some(_) => Some("/dev/null".into()),
            None => None,
        };
        Ok(Settings::of_process(&SettingsFlags {
            public_url: self.public_url.as_ref().map(ToString::to_string),
            plc_url: self.plc_url.as_ref().map(ToString::to_string),
            config,
            ..SettingsFlags::default()
        })?)
    }

    async fn find(&self, lookup: &Lookup, settings: &Settings) -> Result<Owner> {
        let owner = match (&self.who.handle, &self.who.did) {
            (Some(handle), _) => {
                let account = lookup.handles()?.account(handle, &lookup.dids).await?;
                Owner {
                    account,
                    name: handle.to_string(),
                }
            }
            (None, Some(did)) => find_by_did(lookup, did).await?,
            (None, None) => return Err(UsageError("--handle or --did".into()).into()),
        };
        let pds = owner.account.document.pds(lookup.loopback.into());
        if pds.is_none() {
            bail!(
                "{} has no PDS that could be reached: its DID document, which {} has, names none",
                owner.account.did,
                settings.plc_url
            );
        }
        Ok(owner)
    }

    /// What is written.
    fn lines(&self, owner: &Owner) -> String {
        let mut lines = format!(
            "# Written by `groundmist-sync init`; `groundmist-sync config example` explains every setting.\n\
             \n# {}\nowner = \"{}\"\n",
            owner.name, owner.account.did
        );
        let urls = [("public_url", &self.public_url), ("plc_url", &self.plc_url)];
        for (key, url) in urls {
            lines.extend(url.iter().map(|url| format!("{key} = \"{url}\"\n")));
        }
        lines
    }

    fn print(&self, owner: &Owner, path: &Path, public_url: Option<&Origin>) -> Result<()> {
        say!("{}: {}", owner.name, owner.account.did)?;
        say!("wrote {}\n", path.display())?;
        say!("What comes next:")?;
        if public_url.is_none() {
            say!("  put public_url = \"https://...\" there: where apps will reach the server")?;
        }
        say!("  groundmist-sync serve")?;
        say!(
            "  groundmist-sync publish --app-password-stdin    tells your apps where the server is"
        )?;
        say!(
            "  groundmist-sync devices open                    then sign in with an app, and approve it"
        )
    }
}

/// The account of a DID, with what can be said of its handle: an account without one can own a server too.
async fn find_by_did(lookup: &Lookup, did: &Did) -> Result<Owner> {
    let document = lookup.dids.resolve(did).await?;
    let name = match document.handle() {
        None => "an account without a handle".to_owned(),
        Some(handle) => match lookup.handles()?.did(handle).await {
            Ok(named) if named == *did => handle.to_string(),
            Ok(_) => format!("calls itself {handle}, which is another account's handle"),
            Err(error) => format!("calls itself {handle}, which does not lead back ({error})"),
        },
    };
    let account = Account {
        did: did.clone(),
        document,
    };
    Ok(Owner { account, name })
}

/// Handles are often written with the @ that stands before them in apps.
fn parse_handle(text: &str) -> Result<Handle, InvalidHandle> {
    text.strip_prefix('@').unwrap_or(text).parse()
}

/// Writes a file whole or not at all, and never over another one.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or(CONFIG_FILE.as_ref()));
    name.push(format!(".{}", std::process::id()));
    let draft = path.with_file_name(name);
    let written = fs::File::create(&draft).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    // a link, because a rename would replace what is there
    let linked = written.and_then(|()| fs::hard_link(&draft, path));
    let tidied = match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => linked.and(Err(error)),
        _ => linked,
    };
    tidied.and_then(|()| store::sync_folder_of(path))
}
