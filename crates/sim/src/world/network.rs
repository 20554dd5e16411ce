//! What is on its way: frames to the engine, frames from it, and connections that end.

use engine::{Access, ConnectionId, DocumentId, Input};

use super::{World, short};
use crate::{
    chunks,
    frames::Received,
    link::{Link, Who},
    violation::Step,
};

impl World {
    pub(crate) fn deliver_up(&mut self) -> Step {
        let Some(id) = self.any_link(|link| link.is_served && !link.up.is_empty()) else {
            return Ok(());
        };
        let Some(link) = self.links.get_mut(&id) else {
            return Ok(());
        };
        let (group, access) = (link.group, link.access);
        let Some(packet) = link.up.pop_front() else {
            return Ok(());
        };
        self.counts.frames += 1;
        if let (Some(Access::Read), Some(document)) = (access, packet.document) {
            let brings = packet.brings.iter();
            link.unheard.extend(brings.map(|hash| (document, *hash)));
        }
        self.book.note_incoming(group, access, &packet);
        let (length, brings) = (packet.frame.len(), packet.brings.len());
        let document = packet.document.map_or("nothing".into(), |id| short(&id));
        self.note(format!(
            "{id} -> of {document}: {length} bytes, {brings} changes"
        ));
        let frame = packet.frame;
        self.input(
            group,
            Input::Frame {
                connection: id,
                frame,
            },
        )
    }

    /// The socket's task writes what it can.
    pub(crate) fn write_out(&mut self) -> Step {
        let Some(id) = self.any_link(|link| !link.outbox.is_empty()) else {
            return Ok(());
        };
        let frames = 1 + self.dice.below(4);
        let Some(link) = self.links.get_mut(&id) else {
            return Ok(());
        };
        let (group, drained) = (link.group, link.flush(frames) && link.is_served);
        if drained {
            self.note(format!("{id} has drained"));
            return self.input(group, Input::Drained { connection: id });
        }
        Ok(())
    }

    pub(crate) fn deliver_down(&mut self) -> Step {
        let Some(id) = self.any_link(|link| link.is_held && !link.down.is_empty()) else {
            return self.close_one();
        };
        let Some(link) = self.links.get_mut(&id) else {
            return Ok(());
        };
        let Some(frame) = link.take() else {
            return Ok(());
        };
        let says = match link.who {
            Who::Device(number) => match self.devices.get_mut(number) {
                Some(device) => match (device.receive(&frame), whole_document(&frame)) {
                    // what the worker died of goes to devices as it was pushed
                    (Err(_), Some(document))
                        if self.book.was_unloadable((link.group, document)) =>
                    {
                        device.lose(document);
                        vec![]
                    }
                    (outcome, _) => outcome?,
                },
                None => vec![],
            },
            Who::Stranger(number) => {
                let received = Received::parse(&frame);
                if let Some(stranger) = self.strangers.get_mut(number)
                    && received.kind == "sync"
                {
                    stranger.overhear(&received.data);
                }
                vec![]
            }
        };
        link.up.extend(says);
        self.note(format!("{id} takes a frame of {} bytes", frame.len()));
        Ok(())
    }

    /// Whoever was turned away finds out, once everything before that has been read.
    pub(super) fn close_one(&mut self) -> Step {
        let over = |link: &Link| {
            link.is_held && !link.is_served && link.outbox.is_empty() && link.down.is_empty()
        };
        if let Some(id) = self.any_link(over) {
            self.hang_up(id);
        }
        Ok(())
    }

    /// The other end closes its connection, or loses it.
    pub(crate) fn hang_up(&mut self, id: ConnectionId) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        link.cut();
        let (who, is_served) = (link.who, link.is_served);
        match who {
            Who::Device(number) => {
                if let Some(device) = self.devices.get_mut(number) {
                    device.disconnected();
                }
            }
            Who::Stranger(number) => {
                if let Some(stranger) = self.strangers.get_mut(number) {
                    stranger.link = None;
                }
            }
        }
        if !is_served {
            self.links.remove(&id);
        }
        self.note(format!("{id} is cut"));
    }

    /// The server finds out that a connection is dead.
    pub(crate) fn notice_the_dead(&mut self) -> Step {
        let Some(id) = self.any_link(|link| link.is_served && !link.is_held) else {
            return Ok(());
        };
        let Some(link) = self.links.remove(&id) else {
            return Ok(());
        };
        self.note(format!("{id} is found dead"));
        self.input(link.group, Input::Closed { connection: id })
    }
}

/// The document of a frame that brings it whole.
fn whole_document(frame: &[u8]) -> Option<DocumentId> {
    let received = Received::parse(frame);
    let is_document = |bytes: &[u8]| bytes.get(8) == Some(&chunks::DOCUMENT);
    let is_whole =
        received.kind == "sync" && received.sync_message().changes.iter().any(is_document);
    received.document.parse().ok().filter(|_| is_whole)
}
