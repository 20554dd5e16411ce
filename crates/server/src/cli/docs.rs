//! `groundmist-sync docs`.

mod retry;

use std::{
    fs,
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::Subcommand;
use engine::DocumentId;
use serde::Serialize;
use store::{DocumentSummary, FileError, GroupFile};

use super::{
    DataFlags,
    output::{cannot_write, print_bytes, say},
    runtime,
    time::timestamp,
    told,
};
use crate::{
    group::Group,
    run::worker_settings,
    settings::Settings,
    worker::{ExportFormat, Worker},
};

#[derive(Subcommand)]
pub(super) enum Command {
    /// List the documents
    Ls {
        /// Those of one group alone
        #[arg(long)]
        group: Option<Group>,
        /// For programs
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        data: DataFlags,
    },
    /// Say what there is to say of a document
    Show {
        /// Its id, with or without `automerge:` before it
        #[arg(value_parser = parse_id)]
        id: DocumentId,
        /// Its group, if it is in several
        #[arg(long)]
        group: Option<Group>,
        /// For programs
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        data: DataFlags,
    },
    /// Write a document to standard output, or to a file
    Export {
        /// Its id, with or without `automerge:` before it
        #[arg(value_parser = parse_id)]
        id: DocumentId,
        /// Its group, if it is in several
        #[arg(long)]
        group: Option<Group>,
        /// What is written
        #[arg(long, value_enum, default_value = "automerge")]
        format: Format,
        /// The file, or - for standard output; one that exists is not overwritten
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
        #[command(flatten)]
        data: DataFlags,
    },
    /// Take a document out of quarantine, while no server runs, so that its worker tries once more
    Retry {
        /// Its id, with or without `automerge:` before it
        #[arg(value_parser = parse_id)]
        id: DocumentId,
        /// Its group, if it is in several
        #[arg(long)]
        group: Option<Group>,
        #[command(flatten)]
        data: DataFlags,
    },
}

impl Command {
    pub(super) fn run(self) -> Result<()> {
        match self {
            Self::Ls { group, json, data } => ls(&data.settings()?, group, json),
            Self::Show {
                id,
                group,
                json,
                data,
            } => {
                let found = find(&data.settings()?, id, group)?;
                show(&Row::new(&found.group, &found.summary), json)
            }
            Self::Export {
                id,
                group,
                format,
                output,
                data,
            } => {
                let settings = data.settings()?;
                let found = find(&settings, id, group)?;
                let bytes = export(&settings, &found, format)?;
                write_out(&bytes, output.as_deref())
            }
            Self::Retry { id, group, data } => retry::retry(&data.settings()?, id, group),
        }
    }
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub(super) enum Format {
    /// A file that every Automerge library loads
    Automerge,
    /// Its values as JSON, without their history
    Json,
    /// The stored chunks as they are, one after the other, also those of a document that the worker cannot digest:
    /// `Automerge.loadIncremental` reads as many of them as it can
    Raw,
}

/// A document, as `docs ls` shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    id: String,
    group: String,
    heads: Vec<String>,
    changes: u64,
    snapshot_bytes: u64,
    tail_bytes: u64,
    waiting_changes: u64,
    indexed: bool,
    created_at: String,
    changed_at: String,
    quarantine: Option<String>,
}

impl Row {
    fn new(group: &Group, summary: &DocumentSummary) -> Self {
        Self {
            id: summary.id.to_string(),
            group: group.to_string(),
            heads: summary.heads.iter().map(ToString::to_string).collect(),
            changes: summary.changes,
            snapshot_bytes: summary.snapshot_bytes,
            tail_bytes: summary.tail_bytes,
            waiting_changes: summary.orphans,
            indexed: !summary.has_pushed,
            created_at: timestamp(summary.created_at_ms),
            changed_at: timestamp(summary.changed_at_ms),
            quarantine: summary.quarantine.clone(),
        }
    }

    /// In one line, for the owner.
    pub(super) fn line(&self) -> String {
        let bytes = self.snapshot_bytes + self.tail_bytes;
        let quarantined = match self.quarantine {
            Some(_) => "  quarantined",
            None => "",
        };
        format!(
            "{}  {}  {} changes  {bytes} bytes  {}{quarantined}",
            self.id, self.group, self.changes, self.changed_at
        )
    }
}

struct Found {
    group: Group,
    file: GroupFile,
    summary: DocumentSummary,
}

/// Not `exists`, by which nothing is there that one may not see.
fn is_there(path: &Path) -> Result<bool> {
    path.try_exists().with_context(|| cannot_read(path))
}

fn cannot_read(path: &Path) -> String {
    format!("cannot read {}", path.display())
}

/// The folder of the groups' files.
fn folder(settings: &Settings) -> PathBuf {
    settings.data_dir.join("groups")
}

fn path_of(settings: &Settings, group: &Group) -> PathBuf {
    folder(settings).join(format!("{group}.db"))
}

/// The groups that have a file, or the one that is asked for.
fn groups(settings: &Settings, group: Option<Group>) -> Result<Vec<(Group, PathBuf)>> {
    let folder = folder(settings);
    if let Some(group) = group {
        let path = path_of(settings, &group);
        if !is_there(&path)? {
            bail!(
                "there is no group {group} in {}",
                settings.data_dir.display()
            );
        }
        return Ok(vec![(group, path)]);
    }
    if !is_there(&folder)? {
        bail!(
            "there is no {}: start the server once, or say with --data-dir where its data are",
            folder.display()
        );
    }
    let entries = fs::read_dir(&folder).with_context(|| cannot_read(&folder))?;
    let mut groups = vec![];
    for entry in entries {
        let name = entry?.file_name();
        let name = name.to_str().and_then(|name| name.strip_suffix(".db"));
        if let Some(group) = name.and_then(|name| name.parse::<Group>().ok()) {
            groups.push((group.clone(), path_of(settings, &group)));
        }
    }
    groups.sort();
    Ok(groups)
}

/// What `look` finds in each group that is asked for, and what is wrong with those that cannot be looked into: one bad
/// file is no reason to show nothing of the others.
fn look_into<T, I: IntoIterator<Item = T>>(
    settings: &Settings,
    group: Option<Group>,
    look: impl Fn(Group, GroupFile) -> Result<I, FileError>,
) -> Result<(Vec<T>, Vec<String>)> {
    let (mut found, mut problems) = (vec![], vec![]);
    for (group, path) in groups(settings, group)? {
        let looked = GroupFile::open(&path).map_err(anyhow::Error::from);
        let looked =
            looked.and_then(|file| look(group, file).with_context(|| path.display().to_string()));
        match looked {
            Ok(more) => found.extend(more),
            Err(problem) => problems.push(told(&problem)),
        }
    }
    Ok((found, problems))
}

fn find(settings: &Settings, id: DocumentId, group: Option<Group>) -> Result<Found> {
    let (mut found, problems) = look_into(settings, group, |group, file| {
        let summary = file.document(id)?;
        Ok(summary.map(|summary| Found {
            group,
            file,
            summary,
        }))
    })?;
    if found.len() > 1 {
        let groups: Vec<_> = found.iter().map(|found| found.group.to_string()).collect();
        bail!(
            "{id} is in several groups; choose one with --group: {}",
            groups.join(", ")
        );
    }
    match found.pop() {
        Some(found) => Ok(found),
        None if problems.is_empty() => {
            bail!("there is no document {id}; `docs ls` shows those that there are")
        }
        None => bail!("{}", problems.join("; ")),
    }
}

fn ls(settings: &Settings, group: Option<Group>, json: bool) -> Result<()> {
    let (rows, problems) = look_into(settings, group, |group, file| {
        let documents = file.documents()?;
        let rows = documents.iter().map(|summary| Row::new(&group, summary));
        Ok(rows.collect::<Vec<_>>())
    })?;
    if json {
        say!("{}", serde_json::to_string_pretty(&rows)?)?;
    } else {
        for row in &rows {
            say!("{}", row.line())?;
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    bail!("{}", problems.join("; "))
}

/// The documents of a group; none if it has no file yet.
pub(super) fn documents(settings: &Settings, group: &Group) -> Result<Vec<Row>> {
    let path = path_of(settings, group);
    if !is_there(&path)? {
        return Ok(vec![]);
    }
    let documents = GroupFile::open(&path)?.documents()?;
    Ok(documents
        .iter()
        .map(|summary| Row::new(group, summary))
        .collect())
}

fn show(row: &Row, json: bool) -> Result<()> {
    if json {
        say!("{}", serde_json::to_string_pretty(row)?)?;
        return Ok(());
    }
    say!("document     {}", row.id)?;
    say!("group        {}", row.group)?;
    say!("changes      {}", row.changes)?;
    say!("snapshot     {} bytes", row.snapshot_bytes)?;
    say!("tail         {} bytes", row.tail_bytes)?;
    say!("created      {}", row.created_at)?;
    say!("last change  {}", row.changed_at)?;
    for head in &row.heads {
        say!("head         {head}")?;
    }
    if row.waiting_changes > 0 {
        say!(
            "waiting      {} changes whose dependencies have not come",
            row.waiting_changes
        )?;
    }
    if !row.indexed {
        say!("pushed       a whole document that has not been looked at yet")?;
    }
    if let Some(reason) = &row.quarantine {
        say!("quarantined  {reason}; it still syncs, but is not compacted until `docs retry`")?;
    }
    Ok(())
}

fn export(settings: &Settings, found: &Found, format: Format) -> Result<Bytes> {
    let chunks = found.file.chunks(found.summary.id)?;
    let chunks: Vec<_> = chunks.iter().map(|chunk| &*chunk.bytes).collect();
    let chunks = chunks.concat().into();
    let format = match format {
        Format::Raw => return Ok(chunks),
        Format::Automerge => ExportFormat::Automerge,
        Format::Json => ExportFormat::Json,
    };
    let limits = worker_settings(settings)?;
    let exported = runtime()?.block_on(async {
        let worker = Worker::start(limits);
        let exported = worker.export(chunks, format).await;
        worker.stop().await;
        exported
    });
    exported.context("the document cannot be exported but as it is stored, with `--format raw`")
}

fn write_out(bytes: &[u8], output: Option<&Path>) -> Result<()> {
    match output {
        // a file of that name would be ./-
        Some(path) if path != Path::new("-") => write_new(path, bytes),
        Some(_) | None => print_bytes(bytes),
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = match fs::File::create_new(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => bail!(
            "{} exists already, and is left as it is; choose another file, or remove it first",
            path.display()
        ),
        Err(error) => return Err(cannot_write(path, error)),
    };
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if written.is_err() {
        // half a document could be taken for the whole
        fs::remove_file(path)
            .with_context(|| format!("remove what is left of {}", path.display()))?;
    }
    written.map_err(|error| cannot_write(path, error))
}

fn parse_id(text: &str) -> Result<DocumentId, engine::ids::InvalidDocumentId> {
    text.strip_prefix("automerge:").unwrap_or(text).parse()
}
