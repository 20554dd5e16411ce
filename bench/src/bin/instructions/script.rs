//! What happens to the engine in a workload, in its order, and as a file.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use minicbor::{Decoder, Encoder};

/// One thing that happens.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// A socket is opened that may write.
    Open(u64),
    /// A frame comes in.
    Frame(u64, Bytes),
    /// The server starts again, with what is stored.
    Restart,
    /// From here on it is counted.
    Measure,
}

/// A workload.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Script {
    pub(crate) steps: Vec<Step>,
    /// Frames that the engine must send at least while it is counted: what does nothing is fast.
    pub(crate) answers_min: u64,
}

const OPEN: u8 = 0;
const FRAME: u8 = 1;
const RESTART: u8 = 2;
const MEASURE: u8 = 3;

pub(crate) fn write(path: &Path, script: &Script) -> Result<()> {
    std::fs::write(path, encode(script)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

pub(crate) fn read(path: &Path) -> Result<Script> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    decode(&Bytes::from(bytes)).with_context(|| format!("{} is no script", path.display()))
}

fn encode(script: &Script) -> Result<Vec<u8>> {
    let mut cbor = Encoder::new(Vec::new());
    cbor.u64(script.answers_min)?;
    for step in &script.steps {
        match step {
            Step::Open(connection) => cbor.u8(OPEN)?.u64(*connection)?,
            Step::Frame(connection, frame) => cbor.u8(FRAME)?.u64(*connection)?.bytes(frame)?,
            Step::Restart => cbor.u8(RESTART)?,
            Step::Measure => cbor.u8(MEASURE)?,
        };
    }
    Ok(cbor.into_writer())
}

fn decode(bytes: &Bytes) -> Result<Script> {
    let mut cbor = Decoder::new(bytes);
    let answers_min = cbor.u64()?;
    let mut steps = Vec::new();
    while cbor.position() < bytes.len() {
        steps.push(match cbor.u8()? {
            OPEN => Step::Open(cbor.u64()?),
            FRAME => Step::Frame(cbor.u64()?, bytes.slice_ref(cbor.bytes()?)),
            RESTART => Step::Restart,
            MEASURE => Step::Measure,
            other => bail!("unknown step {other}"),
        });
    }
    ensure!(steps.contains(&Step::Measure), "it measures nothing");
    Ok(Script { steps, answers_min })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_read_as_it_was_written() {
        let script = Script {
            steps: vec![
                Step::Open(7),
                Step::Restart,
                Step::Measure,
                Step::Frame(7, Bytes::from_static(&[1, 2, 3])),
            ],
            answers_min: 50,
        };
        let bytes = Bytes::from(encode(&script).unwrap());
        assert_eq!(decode(&bytes).unwrap(), script);
        assert!(decode(&bytes.slice(..bytes.len() - 1)).is_err());
    }
}
