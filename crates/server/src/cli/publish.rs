//! `groundmist-sync publish`: the record by which the owner's apps find the server.

mod pds;

use std::{
    io::{self, BufRead as _, Read as _},
    path::PathBuf,
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use atproto::{Did, DidDocument};
use serde_json::{Value, json};

use self::pds::{Pds, PdsError, Place};
use super::{
    UsageError, block_on,
    lookup::Lookup,
    output::{complain, print_json, say},
    outside,
};
use crate::{
    origin::Origin,
    settings::{AppPassword, PublishSettings, Settings, SettingsFlags},
};

/// The collection of the record, which is the type of the record too.
const COLLECTION: &str = "xyz.groundmist.sync";

#[derive(clap::Args)]
pub(super) struct Publish {
    /// The host to publish, such as sync.example.com [default: that of the public URL]
    #[arg(long, value_parser = parse_host)]
    host: Option<Origin>,
    #[command(flatten)]
    what: What,
    /// Read an app password from standard input; otherwise it is the setting publish.password
    #[arg(long)]
    app_password_stdin: bool,
    /// The settings file [default: config.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(clap::Args)]
#[group(multiple = false)]
struct What {
    /// Show what is published
    #[arg(long)]
    show: bool,
    /// Check that what is published is what would be
    #[arg(long)]
    verify: bool,
    /// Take it away
    #[arg(long)]
    remove: bool,
    /// Print the record, and where it belongs, for another program to put it there
    #[arg(long)]
    print: bool,
}

impl Publish {
    pub(super) fn run(self) -> Result<()> {
        let settings = Settings::of_process(&SettingsFlags {
            config: self.config.clone(),
            ..SettingsFlags::default()
        })?;
        let Some(owner) = settings.owner.clone() else {
            let problem = "no owner is set: run `groundmist-sync init`, or set ATPROTO_DID";
            return Err(UsageError(problem.into()).into());
        };
        let place = Place {
            repo: owner,
            collection: COLLECTION,
        };
        if self.what.print {
            return print(&place, &self.record(&settings)?);
        }
        block_on(self.talk(&settings, place))
    }

    async fn talk(&self, settings: &Settings, place: Place) -> Result<()> {
        let lookup = Lookup::new(settings)?;
        let document = lookup.dids.resolve(&place.repo).await?;
        let pds = find_pds(&lookup, &document, settings.publish.pds_url.as_ref())?;
        if self.what.show {
            return show(&pds, &place).await;
        }
        if self.what.verify {
            return verify(&pds, &place, &self.record(settings)?).await;
        }
        // all that can be wrong is found before a password is asked for or sent
        let record = if self.what.remove {
            None
        } else {
            Some(self.record(settings)?)
        };
        check_handle(&lookup, &place.repo, &document, &settings.publish).await?;
        let password = self.password(&settings.publish)?;
        change(&pds, &place, record.as_ref(), &password).await
    }

    /// The record that says where the server is.
    fn record(&self, settings: &Settings) -> Result<Value, UsageError> {
        let host = self.host.as_ref().or(settings.public_url.as_ref());
        let problem = "no host: give --host, or set public_url";
        let host = host.ok_or_else(|| UsageError(problem.into()))?;
        Ok(json!({ "$type": COLLECTION, "host": host.authority() }))
    }

    fn password(&self, settings: &PublishSettings) -> Result<AppPassword> {
        if self.app_password_stdin {
            let mut text = String::new();
            let bytes_max = AppPassword::BYTES_MAX as u64 + 2;
            io::stdin()
                .lock()
                .take(bytes_max)
                .read_line(&mut text)
                .context("cannot read the password from standard input")?;
            let password = text.parse().context("standard input has no password")?;
            return Ok(password);
        }
        settings.password.clone().ok_or_else(|| {
            let problem = "no password: make an app password in your app's settings (Bluesky: Settings, Privacy and \
                           security, App passwords), and give it to `publish --app-password-stdin`";
            UsageError(problem.into()).into()
        })
    }
}

/// The owner's PDS, which is the one that the owner's DID document names.
fn find_pds(lookup: &Lookup, document: &DidDocument, expected: Option<&Origin>) -> Result<Pds> {
    let found = document
        .pds(lookup.loopback.into())
        .and_then(Origin::of_url);
    let Some(origin) = found else {
        bail!(
            "the DID document of {} names no PDS that could be reached",
            document.did()
        );
    };
    if let Some(expected) = expected.filter(|expected| **expected != origin) {
        bail!(
            "the owner's PDS is {origin}, and not {expected} as PDS_URL (publish.pds_url) says; nothing was sent"
        );
    }
    Ok(Pds::new(
        Arc::clone(&lookup.outbound),
        origin,
        lookup.loopback,
    ))
}

/// Makes sure that the handle in the settings, if there is one, is that of the account that is about to sign in.
async fn check_handle(
    lookup: &Lookup,
    owner: &Did,
    document: &DidDocument,
    settings: &PublishSettings,
) -> Result<()> {
    let Some(handle) = &settings.handle else {
        return Ok(());
    };
    if document.handle() == Some(handle) {
        return Ok(());
    }
    match lookup.handles()?.did(handle).await {
        Ok(did) if did == *owner => Ok(()),
        Ok(did) => {
            bail!("HANDLE (publish.handle) is {handle}, which is {did} and not the owner, {owner}")
        }
        Err(error) => Err(error).context("HANDLE (publish.handle) leads nowhere"),
    }
}

fn print(place: &Place, record: &Value) -> Result<()> {
    say!("{record:#}")?;
    // beside the record, so that the record alone can be handed on
    complain!("belongs at {place} (com.atproto.repo.putRecord, rkey = the owner's DID)");
    Ok(())
}

async fn show(pds: &Pds, place: &Place) -> Result<()> {
    match pds.record(place).await? {
        Some(record) => print_json(&record),
        None => bail!("nothing is published at {place}; `groundmist-sync publish` does it"),
    }
}

async fn verify(pds: &Pds, place: &Place, ours: &Value) -> Result<()> {
    match pds.record(place).await? {
        Some(published) if published == *ours => {
            say!("published as it should be: {ours}")?;
            Ok(())
        }
        Some(published) => bail!(
            "what is published is not what should be; `groundmist-sync publish` changes it\n  published: {}\n  \
             should be: {ours}",
            outside::json(&published.to_string())
        ),
        None => bail!("nothing is published at {place}; `groundmist-sync publish` does it"),
    }
}

/// Puts the record, or takes it away if there is none to put.
async fn change(
    pds: &Pds,
    place: &Place,
    record: Option<&Value>,
    password: &AppPassword,
) -> Result<()> {
    match sign_in_and_change(pds, place, record, password).await {
        Ok(()) => {}
        Err(error @ PdsError::Unknown(_)) => return Err(error.into()),
        Err(error) => return Err(error).context("nothing was changed"),
    }
    match record {
        Some(record) => say!("published at {place}: {record}"),
        None => say!("nothing is published at {place} any more"),
    }
}

async fn sign_in_and_change(
    pds: &Pds,
    place: &Place,
    record: Option<&Value>,
    password: &AppPassword,
) -> Result<(), PdsError> {
    let session = pds.sign_in(&place.repo, password).await?;
    let changed = if session.did() != &place.repo {
        Err(PdsError::OtherAccount)
    } else {
        match record {
            Some(record) => pds.put(&session, place, record).await,
            None => pds.delete(&session, place).await,
        }
    };
    let is_pds_well = !matches!(changed, Err(PdsError::Fetch(_) | PdsError::Unknown(_)));
    // a session that is left behind ends by itself, and what was done is done
    if let Err(error) = pds.sign_out(session).await
        && is_pds_well
    {
        complain!(
            "groundmist-sync: the session on the PDS could not be ended ({error}); it ends by itself"
        );
    }
    changed
}

/// A host, or the origin that it is the host of.
fn parse_host(text: &str) -> Result<Origin, UsageError> {
    let origin = text.parse().or_else(|_| format!("https://{text}").parse());
    origin.map_err(|_| UsageError("a host such as sync.example.com, without a path".into()))
}
