//! The engine with a store in memory and a clock that stands still.

use anyhow::{Result, bail, ensure};
use engine::storage::{Read, Write};
use engine::{Access, Announce, Compaction, ConnectionId, Effect, Engine, Input, Settings, Ticket};

use crate::memory::Memory;
use crate::script::{Script, Step};

const NOW_MS: u64 = 1_700_000_000_000;

/// Carries a script out; returns how many frames came in while it was counted.
///
/// # Errors
/// If the engine refuses anything, or sends less than it must.
pub(crate) fn run(script: &Script) -> Result<u64> {
    let mut world = World {
        engine: engine(),
        store: Memory::default(),
        is_measured: false,
        asked: vec![],
        frames_in: 0,
        frames_out: 0,
    };
    for step in &script.steps {
        world.take(step)?;
    }
    ensure!(
        world.frames_out >= script.answers_min,
        "the engine sent {} frames, of {} at least",
        world.frames_out,
        script.answers_min
    );
    Ok(world.frames_in)
}

fn engine() -> Engine {
    Engine::new(Settings {
        peer_id: "server".into(),
        storage_id: "storage".into(),
        announce: Announce::None,
        compaction: Compaction::default(),
        graph_bytes_max: 256 << 20,
        graph_idle_ms: 60_000,
    })
}

struct World {
    engine: Engine,
    store: Memory,
    is_measured: bool,
    asked: Vec<Asked>,
    frames_in: u64,
    frames_out: u64,
}

enum Asked {
    Read(Ticket, Read),
    Write(Ticket, Write),
}

impl World {
    fn take(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Open(connection) => {
                let (connection, access) = (ConnectionId(*connection), Access::Write);
                self.input(Input::Opened { connection, access })?;
            }
            Step::Frame(connection, frame) => {
                self.frames_in += u64::from(self.is_measured);
                let connection = ConnectionId(*connection);
                let frame = frame.clone();
                self.input(Input::Frame { connection, frame })?;
            }
            Step::Restart => self.engine = engine(),
            Step::Measure => self.is_measured = true,
        }
        self.answer_all()
    }

    fn input(&mut self, input: Input) -> Result<()> {
        let mut effects = vec![];
        if self.is_measured {
            measured(&mut self.engine, input, &mut effects);
        } else {
            self.engine.handle(NOW_MS, input, &mut effects);
        }
        for effect in effects {
            match effect {
                Effect::Send { .. } => self.frames_out += u64::from(self.is_measured),
                Effect::Close { refusal, .. } => bail!("the engine refuses: {refusal}"),
                Effect::Read { ticket, read } => self.asked.push(Asked::Read(ticket, read)),
                Effect::Write { ticket, write } => self.asked.push(Asked::Write(ticket, write)),
                Effect::Work { .. } => bail!("no workload has work for the worker"),
            }
        }
        Ok(())
    }

    fn answer_all(&mut self) -> Result<()> {
        while !self.asked.is_empty() {
            let mut answers = vec![];
            for asked in std::mem::take(&mut self.asked) {
                answers.push(match asked {
                    Asked::Read(ticket, read) => (ticket, Ok(self.store.read(&read)?)),
                    Asked::Write(ticket, write) => (ticket, Ok(self.store.write(write)?)),
                });
            }
            self.input(Input::Answered(answers))?;
        }
        Ok(())
    }
}

/// What is counted, found by its name: callgrind counts from where it is entered to where it is left. What the engine
/// allocates is in it; what becomes of the effects afterwards is not.
#[inline(never)]
fn measured(engine: &mut Engine, input: Input, effects: &mut Vec<Effect>) {
    engine.handle(NOW_MS, std::hint::black_box(input), effects);
}
