//! The manifest of a checkpoint, a JSON object that people can read, and the name of its folder.

use std::collections::BTreeMap;

use keytide_dataflow::model::Tick;
use serde::{Deserialize, Serialize};

use super::seal::checksum;

/// The tick and the life of the job that an object is of. Its name has 16 digits, a dash, and 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CheckpointId {
    pub tick: Tick,
    /// The random number of the life that made it.
    pub nonce: u64,
}

impl CheckpointId {
    /// Returns the name, by which objects are in the order of their ticks.
    #[must_use]
    pub fn name(self) -> String {
        format!("{:016}-{:016x}", self.tick, self.nonce)
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        let (tick, nonce) = name.split_once('-')?;
        let folder = Self { tick: tick.parse().ok()?, nonce: u64::from_str_radix(nonce, 16).ok()? };
        (folder.name() == name).then_some(folder)
    }
}

/// The content of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The format of the manifest and of the parts.
    pub format: u32,
    #[serde(flatten)]
    pub info: CheckpointInfo,
    /// The parts by their names.
    pub parts: BTreeMap<String, PartInfo>,
    /// The XXH3 (128 bits) of the name of the folder and of all other fields, in hexadecimal digits.
    pub checksum: String,
}

impl Manifest {
    /// Returns the checksum that the manifest of a folder must have.
    pub(super) fn sum(&self, folder: &str) -> String {
        let unsealed = Self { checksum: String::new(), ..self.clone() };
        let json = serde_json::to_vec(&unsealed).expect("plain data can be written to memory");
        format!("{:032x}", checksum(folder, &[json]))
    }
}

impl Manifest {
    /// Returns the bytes of all parts.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.parts.values().map(|part| part.bytes).sum()
    }

    /// Returns the bytes of the parts that were written for this checkpoint, which is in the folder `id`.
    #[must_use]
    pub fn bytes_of(&self, id: CheckpointId) -> u64 {
        let folder = format!("{}/", id.name());
        let own = self.parts.values().filter(|part| part.object.starts_with(&folder));
        own.map(|part| part.bytes).sum()
    }
}

/// The facts about a checkpoint that a start needs before it reads the parts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointInfo {
    /// The last tick whose results are in it, in ms since the epoch.
    pub tick: Tick,
    /// The number of that tick in the job's ledger.
    pub number: u64,
    /// The time of the tick, for people.
    pub at: String,
    /// The name of the job.
    pub job: String,
    /// The fingerprint of the configuration.
    pub config: String,
    /// The version of the rows of states.
    pub state_version: u32,
    /// The version of the program, and that of its time zones.
    pub program: String,
    /// How many workers the job had.
    pub workers: usize,
    /// The name of the decoders of later ticks, which are those of geo databases.
    pub decoders: String,
}

/// The facts about a part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartInfo {
    /// The object that has it, maybe one of an earlier checkpoint: its name below `checkpoints/`.
    pub object: String,
    /// Where it begins in the object.
    pub offset: u64,
    /// The bytes in the object, which are one frame of Zstandard.
    pub bytes: u64,
    /// The bytes of the rows in it.
    pub unpacked_bytes: u64,
    pub rows: u64,
    /// The XXH3 (128 bits) of the bytes in the object, in hexadecimal digits.
    pub checksum: String,
}
