//! What a device can make the engine keep. Alone in its process, whose memory is measured.
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected ends")]

mod world;

use std::fs;

use engine::{Access, ConnectionId, DocumentId, Effect, Engine, Input, storage::Answer};
use world::{join_frame, settings, sync_frame};

/// Memory of this process, in bytes.
fn resident_bytes() -> usize {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    let resident = pages.split(' ').nth(1).unwrap();
    resident.parse::<usize>().unwrap() * 4_096
}

/// Gives the engine an input, and says that there is nothing in the store.
fn handle(engine: &mut Engine, input: Input) {
    let mut inputs = vec![input];
    while let Some(input) = inputs.pop() {
        let mut effects = vec![];
        engine.handle(1_000_000, input, &mut effects);
        for effect in effects {
            match effect {
                Effect::Read { ticket, .. } => {
                    inputs.push(Input::Answered(vec![(ticket, Ok(Answer::Meta(None)))]));
                }
                Effect::Send { .. } => {}
                Effect::Close { .. } | Effect::Write { .. } | Effect::Work { .. } => {
                    panic!("{effect:?}")
                }
            }
        }
    }
}

#[test]
fn a_document_that_is_open_and_not_there_takes_little_memory() {
    const DOCUMENTS: u32 = 50_000;
    let connection = ConnectionId(1);
    let mut engine = Engine::new(settings());
    let access = Access::Write;
    handle(&mut engine, Input::Opened { connection, access });
    let frame = join_frame("hostile");
    handle(&mut engine, Input::Frame { connection, frame });
    // that it has nothing, and wants everything
    let wish = [0x42, 0, 0, 1, 0, 0, 0];
    let before = resident_bytes();
    for number in 0..DOCUMENTS {
        let id = DocumentId::from_bytes((u128::from(number) << 64).to_be_bytes());
        let frame = sync_frame("request", "hostile", id, &wish);
        handle(&mut engine, Input::Frame { connection, frame });
    }
    let each = (resident_bytes() - before) / DOCUMENTS as usize;
    assert!(each < 2_048, "{each} bytes");
}
