//! What the disk says to a document: what was read, what was written, what could not be.

use std::{collections::BTreeSet, ops::Range, sync::Arc};

use bytes::Bytes;

use super::{AtHand, Document, Hot, Part, State};
use crate::{
    chunk::{self, ChangeChunk, Chunk},
    effect::Refusal,
    graph::{Graph, Heads, Linked, Node, Place},
    ids::{ChangeHash, ConnectionId, Ticket},
    intake::{Orphans, Taken},
    limits::RECENT_BYTES_MAX,
    outlet::{Outlet, Wish},
    planted::{Bug, is_planted},
    storage::{Answer, ChunkKind, DocumentMeta, Fault, Orphan, StoredChunk, WriteAction},
    subscription::Synced,
};

/// Changes on their way to the disk.
pub(super) struct Append {
    ticket: Ticket,
    /// Who sent them; nobody if they were stored before, as orphans.
    writer: Option<ConnectionId>,
    nodes: Range<Node>,
    /// Heads once they are there.
    heads: Vec<ChangeHash>,
    bytes: usize,
    orphans: Vec<ChangeHash>,
    adopted: Vec<ChangeChunk>,
    kind: AppendKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum AppendKind {
    Changes,
    Pushed,
}

impl Append {
    /// Whether it adds a chunk, and not orphans alone.
    fn has_chunk(&self) -> bool {
        self.bytes > 0
    }

    /// How much of it counts as unstored.
    #[cfg(feature = "simulator")]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether somebody has just sent it: what was stored before, as orphans, was measured then.
    #[cfg(feature = "simulator")]
    pub(super) fn is_sent(&self) -> bool {
        self.writer.is_some()
    }

    pub(super) fn is_pushed(&self) -> bool {
        self.kind == AppendKind::Pushed
    }
}

/// Whether the document has something new to tell.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    None,
    Durable,
}

impl Document {
    /// Takes the store's answer to one of the document's questions or writes.
    pub(crate) fn answered(
        &mut self,
        ticket: Ticket,
        answer: Result<Answer, Fault>,
        outlet: &mut Outlet<'_>,
    ) -> News {
        if matches!(self.state, State::Loading(loading) if loading == ticket) {
            self.loaded(answer, outlet);
            return News::None;
        }
        if self
            .whole
            .as_ref()
            .is_some_and(|(whole, _)| *whole == ticket)
        {
            self.whole_read(answer, outlet);
            return News::None;
        }
        if let Some(at) = self.parts.iter().position(|(part, _)| *part == ticket) {
            let (_, part) = self.parts.swap_remove(at);
            self.part_read(part, answer, outlet);
            return News::None;
        }
        if let Some(at) = self
            .appends
            .iter()
            .position(|append| append.ticket == ticket)
        {
            return match answer {
                Ok(_) => self.stored(outlet),
                Err(_) => self.not_stored(at, outlet),
            };
        }
        self.job_answered(ticket, answer, outlet)
    }

    fn loaded(&mut self, answer: Result<Answer, Fault>, outlet: &mut Outlet<'_>) {
        for connection in self
            .peers
            .keys()
            .copied()
            .filter(|peer| !self.reads_for(*peer))
        {
            outlet.has_read_for(connection, self.id);
        }
        match answer {
            Ok(Answer::Meta(meta)) => {
                self.adopt(meta);
                self.tell_watchers(outlet);
            }
            Ok(Answer::Graph {
                meta,
                index,
                tail,
                orphans,
            }) => {
                self.adopt(meta);
                self.build(index.as_ref(), &tail, &orphans);
                self.adopt_orphans(None, outlet);
            }
            Ok(Answer::Chunks { meta, chunks }) => {
                self.adopt(meta);
                self.tell_watchers(outlet);
                self.at_hand = Some(AtHand {
                    chunks,
                    served: BTreeSet::new(),
                });
            }
            Ok(Answer::Stored | Answer::Documents(_)) | Err(_) => {
                self.state = State::New;
                self.refuse_waiting(outlet);
                if !self.announced_to().is_empty() {
                    outlet.wishes.push(Wish::Retry);
                }
            }
        }
        self.work_off(outlet);
        self.at_hand = None;
        for connection in self.announced_to() {
            self.respond(connection, vec![], outlet);
        }
        for connection in std::mem::take(&mut self.untold) {
            self.respond(connection, vec![], outlet);
        }
        self.consider_job(outlet);
    }

    /// Whether chunks of it are being read for a connection.
    pub(super) fn reads_for(&self, connection: ConnectionId) -> bool {
        let whole = self.whole.as_ref();
        self.parts
            .iter()
            .any(|(_, part)| part.connection == connection)
            || whole.is_some_and(|(_, readers)| readers.contains(&connection))
    }

    /// Those who watched our storage before it was known what lies there.
    fn tell_watchers(&self, outlet: &mut Outlet<'_>) {
        if is_planted(Bug::ForgetsWhoWatches) {
            return;
        }
        for connection in self.peers.keys() {
            self.tell_stored_heads(*connection, outlet);
        }
    }

    /// The document as the disk has it.
    fn adopt(&mut self, meta: Option<DocumentMeta>) {
        self.state = match &meta {
            None => State::Hot(Box::default()),
            Some(meta) if meta.has_pushed => State::Pushed,
            // only orphans: there are no changes to be in step with
            Some(meta) if meta.heads.is_empty() && !meta.has_orphans => State::Hot(Box::default()),
            Some(_) => State::Cold,
        };
        let owed = self.meta.quarantine.take();
        self.meta = meta.unwrap_or_default();
        if self.owes_quarantine {
            self.meta.quarantine = owed;
        }
        self.heads = self.meta.heads.as_slice().into();
        self.next_chunk = self.meta.next_chunk;
    }

    /// Builds the graph. What was stored was checked when it came; should a chunk be damaged all the same, the
    /// document is served as far as it can be read, and left out of compaction.
    fn build(&mut self, index: Option<&Bytes>, tail: &[StoredChunk], orphans: &[Orphan]) {
        let mut hot = Hot {
            orphans: if is_planted(Bug::DropsOrphansAtRestart) {
                Orphans::default()
            } else {
                Orphans::from_stored(orphans)
            },
            ..Hot::default()
        };
        let mut sound = true;
        if let Some(index) = index {
            match Graph::from_index(index) {
                Ok(graph) => hot.graph = graph,
                Err(_) => sound = false,
            }
        }
        for chunk in tail {
            sound &= hot.link_stored(chunk);
        }
        hot.graph.set_durable(hot.graph.len());
        hot.tail.trim(RECENT_BYTES_MAX);
        sound &= **hot.graph.durable_heads() == *self.meta.heads;
        if !sound && self.meta.quarantine.is_none() {
            self.meta.quarantine = Some("its stored changes do not fit together".into());
        }
        self.heads = Arc::clone(hot.graph.durable_heads());
        let durable = hot.graph.durable();
        for peer in self.peers.values_mut() {
            if peer.synced == Synced::Everything {
                peer.set_synced(durable);
            }
        }
        self.state = State::Hot(Box::new(hot));
    }

    fn whole_read(&mut self, answer: Result<Answer, Fault>, outlet: &mut Outlet<'_>) {
        let Some((_, readers)) = self.whole.take() else {
            return;
        };
        for reader in &readers {
            outlet.has_read_for(*reader, self.id);
        }
        let Ok(Answer::Chunks {
            meta: Some(meta),
            chunks,
        }) = answer
        else {
            readers
                .into_iter()
                .for_each(|reader| refuse(reader, outlet));
            return;
        };
        let heads = Heads::from(meta.heads);
        for reader in readers {
            self.serve_everything(reader, &heads, &chunks, outlet);
        }
    }

    fn part_read(&mut self, part: Part, answer: Result<Answer, Fault>, outlet: &mut Outlet<'_>) {
        outlet.has_read_for(part.connection, self.id);
        match answer {
            Ok(Answer::Chunks { chunks, .. }) => self.serve_parts(part, &chunks, outlet),
            _ => refuse(part.connection, outlet),
        }
    }

    /// Whoever waits for what cannot be read is sent away, to come back later.
    fn refuse_waiting(&mut self, outlet: &mut Outlet<'_>) {
        while let Some(message) = self.queue.pop() {
            refuse(message.connection, outlet);
        }
    }

    /// Sends new changes to the disk.
    pub(super) fn append(
        &mut self,
        writer: Option<ConnectionId>,
        taken: Taken,
        outlet: &mut Outlet<'_>,
    ) {
        let State::Hot(hot) = &mut self.state else {
            return;
        };
        let Taken {
            nodes,
            chunk,
            orphans,
            adopted,
        } = taken;
        let bytes = chunk.len();
        let mut stored = None;
        if !nodes.is_empty() {
            let number = self.next_chunk;
            self.next_chunk += 1;
            hot.tail.push(number, nodes.clone(), chunk.clone());
            stored = Some(StoredChunk {
                number,
                kind: ChunkKind::Tail,
                bytes: chunk,
            });
            // an adopted orphan may be another peer's
            let own = writer.filter(|_| adopted.is_empty());
            if let Some(peer) = own.and_then(|writer| self.peers.get_mut(&writer)) {
                peer.from_peer.push(nodes.clone());
            }
        }
        let heads = hot.graph.heads();
        let orphan_hashes = orphans.iter().map(|orphan| orphan.hash).collect();
        let action = WriteAction::Append {
            chunk: stored,
            heads: heads.clone(),
            changes: nodes.len() as u64,
            orphans,
            adopted: adopted.iter().map(|change| change.hash).collect(),
        };
        if is_planted(Bug::AcknowledgesBeforeTheCommit) {
            hot.graph.set_durable(nodes.end.max(hot.graph.durable()));
            self.heads = Arc::clone(hot.graph.durable_heads());
        }
        if is_planted(Bug::TellsWatchersBeforeTheCommit) {
            for connection in self.peers.keys() {
                outlet.send_stored_heads(*connection, &self.name, &heads);
            }
        }
        let ticket = outlet.write(self.id, action);
        let (orphans, kind) = (orphan_hashes, AppendKind::Changes);
        self.unstored_bytes += bytes;
        self.appends.push_back(Append {
            ticket,
            writer,
            nodes,
            heads,
            bytes,
            orphans,
            adopted,
            kind,
        });
    }

    /// Sends a whole-document chunk to the disk as it came; the worker will find out what is in it.
    pub(super) fn store_pushed(
        &mut self,
        writer: ConnectionId,
        heads: Vec<ChangeHash>,
        bytes: Bytes,
        outlet: &mut Outlet<'_>,
    ) {
        if heads.is_empty() {
            return;
        }
        let number = self.next_chunk;
        self.next_chunk += 1;
        let length = bytes.len();
        let action = WriteAction::Append {
            chunk: Some(StoredChunk {
                number,
                kind: ChunkKind::Pushed,
                bytes,
            }),
            heads: heads.clone(),
            changes: 0,
            orphans: vec![],
            adopted: vec![],
        };
        let ticket = outlet.write(self.id, action);
        self.unstored_bytes += length;
        self.appends.push_back(Append {
            ticket,
            writer: Some(writer),
            nodes: 0..0,
            heads,
            bytes: length,
            orphans: vec![],
            adopted: vec![],
            kind: AppendKind::Pushed,
        });
    }

    /// The oldest append is on disk.
    fn stored(&mut self, outlet: &mut Outlet<'_>) -> News {
        let Some(append) = self.appends.pop_front() else {
            return News::None;
        };
        self.unstored_bytes -= append.bytes;
        let created = self.heads.is_empty() && !append.heads.is_empty();
        let (has_chunk, meta) = (append.has_chunk(), &mut self.meta);
        if has_chunk {
            meta.next_chunk += 1;
            meta.heads = append.heads;
        }
        match (append.kind, &mut self.state) {
            (AppendKind::Pushed, _) => {
                meta.has_pushed = true;
                self.heads = meta.heads.as_slice().into();
                self.state = State::Pushed;
                let writer = append.writer;
                if let Some(peer) = writer.and_then(|writer| self.peers.get_mut(&writer)) {
                    peer.synced = Synced::Everything;
                }
            }
            (AppendKind::Changes, State::Hot(hot)) => {
                meta.changes += append.nodes.len() as u64;
                meta.tail_bytes += append.bytes as u64;
                meta.has_orphans = !hot.orphans.is_empty();
                // orphans alone bring no nodes, and the place where theirs would have been may be others' by now
                if has_chunk && append.nodes.end > hot.graph.durable() {
                    hot.graph.set_durable(append.nodes.end);
                }
                self.heads = Arc::clone(hot.graph.durable_heads());
            }
            (AppendKind::Changes, _) => {}
        }
        if created {
            outlet.wishes.push(Wish::Created);
        }
        News::Durable
    }

    /// The next chunk has the number behind those that are stored and those that are on their way.
    pub(super) fn count_on(&mut self) {
        self.next_chunk = self.meta.next_chunk;
        for append in &self.appends {
            self.next_chunk += u64::from(append.has_chunk());
        }
    }

    /// An append could not be stored, and with it those behind it that build on it: the document is again what is
    /// on disk. Their writers will be asked to send them once more.
    fn not_stored(&mut self, at: usize, outlet: &mut Outlet<'_>) -> News {
        let mut behind = self.appends.split_off(at).into_iter();
        let failed: Vec<_> = behind.next().into_iter().collect();
        // orphans alone build on nothing, and the store takes them whatever became of those before
        let is_built_on = failed.iter().any(Append::has_chunk);
        let (void, stay): (Vec<_>, Vec<_>) =
            behind.partition(|append| is_built_on && append.has_chunk());
        self.appends.extend(stay);
        let void: Vec<_> = failed.into_iter().chain(void).collect();
        self.count_on();
        self.next_chunk += u64::from(is_planted(Bug::SkipsANumberAfterAFault));
        for append in void.into_iter().rev() {
            self.unstored_bytes -= append.bytes;
            let writer = append.writer;
            if let Some(writer) = writer.and_then(|writer| self.peers.get_mut(&writer)) {
                writer.must_resend = true;
            }
            if let State::Hot(hot) = &mut self.state {
                if !append.nodes.is_empty() && !is_planted(Bug::KeepsWhatCouldNotBeStored) {
                    hot.graph.truncate(append.nodes.start);
                    hot.tail.truncate(append.nodes.start);
                }
                hot.orphans
                    .undo(&append.orphans, append.adopted, &hot.graph);
                let length = hot.graph.len();
                self.peers
                    .values_mut()
                    .for_each(|peer| peer.truncate(length));
            }
        }
        self.mark_who_must_resend();
        outlet.wishes.push(Wish::Retry);
        self.advance_job(outlet);
        self.work_off(outlet);
        self.settle_requests(outlet);
        News::None
    }

    /// Besides those who sent what could not be stored, whoever sent it once more meanwhile: they have heads that are
    /// not there any more.
    fn mark_who_must_resend(&mut self) {
        let State::Hot(hot) = &self.state else { return };
        for peer in self.peers.values_mut() {
            let mut heads = peer.their_heads.iter().flat_map(|heads| heads.iter());
            peer.must_resend |= heads.any(|head| hot.graph.find(head).is_none());
        }
    }
}

impl Hot {
    /// Takes a stored tail chunk into the graph; whether all of it could be.
    fn link_stored(&mut self, chunk: &StoredChunk) -> bool {
        let first = self.graph.len();
        let Ok(changes) = chunk::parse_all(&chunk.bytes) else {
            return false;
        };
        let mut start = 0u32;
        let mut sound = true;
        for change in changes {
            let Chunk::Change(change) = change else {
                return false;
            };
            let length = u32::try_from(change.bytes.len()).unwrap_or(u32::MAX);
            let linked = self.graph.link(&change, Place::Tail { start, length });
            sound &= matches!(linked, Ok(Linked::New(_)));
            start = start.saturating_add(length);
        }
        self.tail
            .push(chunk.number, first..self.graph.len(), chunk.bytes.clone());
        sound
    }
}

fn refuse(connection: ConnectionId, outlet: &mut Outlet<'_>) {
    outlet
        .wishes
        .push(Wish::Refuse(connection, Refusal::StorageUnavailable));
}
