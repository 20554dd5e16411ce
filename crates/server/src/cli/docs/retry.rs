//! `groundmist-sync docs retry`: a way out of quarantine, once there is more memory or time.

use anyhow::{Result, bail};
use engine::DocumentId;

use super::{Found, find, path_of};
use crate::{
    cli::{output::print, outside::words, runtime},
    group::Group,
    run::lock,
    settings::Settings,
};

/// Takes a document out of quarantine.
pub(super) fn retry(settings: &Settings, id: DocumentId, group: Option<Group>) -> Result<()> {
    let found = find(settings, id, group)?;
    let not_there = format!("{id} is not in quarantine; `docs ls` marks those that are");
    if found.summary.quarantine.is_none() {
        bail!(not_there);
    }
    let Found { group, file, .. } = found;
    // the last one that has a file open must be one that may write, so that its log is put into it
    drop(file);
    let data_dir = &settings.data_dir;
    let Some(_lock) = runtime()?.block_on(lock(data_dir))? else {
        bail!(
            "a server is using {}, and has in memory what is to be changed: stop the server first",
            data_dir.display()
        );
    };
    let Some(reason) = store::end_quarantine(&path_of(settings, &group), id)? else {
        bail!(not_there);
    };
    print(&format!(
        "{id} is not in quarantine any more. It was because of this: {}\n\
         Start the server: its worker tries once more when a device next has the document open. Within the limits at\n\
         which it failed, worker.address_space_bytes and worker.job_seconds_max, it may well fail again.\n",
        words(&reason)
    ))
}
