//! Who this node is: persisted in its data directory, because identity is the disk and not the
//! address. A wiped disk is a new node.

use crate::clock::Random;
use crate::error::{Code, Error, Result};
use crate::meta::FoundingRecord;
use crate::storage::disk::{Disk, is_full};
use crate::types::{Incarnation, NodeId, ReplicaId};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const FILE: &str = "node";
const VERSION: u8 = 1;

/// What is on disk: version (1) | crc32 of the rest (4, LE) | JSON of this.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// The node's identity.
    pub node: NodeId,
    /// Its present life.
    pub incarnation: Incarnation,
    /// The grid it belongs to, or has agreed to found.
    pub record: Option<FoundingRecord>,
    /// Whether all founders have acknowledged the record, as far as this node knows.
    pub founded: bool,
    /// The id of its replica of the meta group, for a node that joined.
    pub meta_replica: Option<ReplicaId>,
    /// Whether the log has been created: without it, the disk has been wiped in part.
    pub log_created: bool,
}

fn disk_error(error: &io::Error, path: &Path) -> Error {
    let what = format!("the node's identity cannot be read or written: {error}");
    let error = match error.kind() {
        _ if is_full(error) => Error::new(Code::DiskFull, what).remedy("make room, and start the peer again"),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            Error::new(Code::DataDirUnwritable, what)
        }
        _ => Error::new(Code::DiskFailed, what),
    };
    error.at(path.display().to_string())
}

/// The identity file of a data directory.
pub struct IdentityFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
}

impl IdentityFile {
    /// The file in a data directory.
    pub fn new(disk: Arc<dyn Disk>, dir: &Path) -> Self {
        IdentityFile { disk, path: dir.join(FILE) }
    }

    /// The identity for a new life: as on disk with the incarnation raised, or a new one. Durable
    /// when it returns. Blocks.
    ///
    /// # Errors
    /// `CorruptLog` or `UnknownFormat` for a damaged or foreign file, `DiskFailed`.
    pub fn begin_life(&self, random: &dyn Random) -> Result<Identity> {
        let mut identity = match self.disk.read(&self.path) {
            Ok(bytes) => decode(&bytes).map_err(|error| error.at(self.path.display().to_string()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => fresh(random),
            Err(error) => return Err(disk_error(&error, &self.path)),
        };
        identity.incarnation.0 += 1;
        self.save(&identity)?;
        Ok(identity)
    }

    /// Replaces the file, durably. Blocks.
    ///
    /// # Errors
    /// `DiskFull`, `DataDirUnwritable`, `DiskFailed`.
    pub fn save(&self, identity: &Identity) -> Result<()> {
        let json = serde_json::to_vec(identity)
            .map_err(|error| Error::internal(format!("the node's identity cannot be encoded: {error}")))?;
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&crc32fast::hash(&json).to_le_bytes());
        bytes.extend_from_slice(&json);
        self.disk.write_atomically(&self.path, &bytes).map_err(|error| disk_error(&error, &self.path))
    }
}

/// A node that has never lived.
pub fn fresh(random: &dyn Random) -> Identity {
    Identity {
        node: NodeId(random.next_u64()),
        incarnation: Incarnation(0),
        record: None,
        founded: false,
        meta_replica: None,
        log_created: false,
    }
}

pub(super) fn decode(bytes: &[u8]) -> Result<Identity> {
    let damaged = || {
        Error::new(Code::CorruptLog, "the node's identity file is damaged").remedy(
            "the replicas of this disk cannot be trusted: start with an empty data directory to join as a new node",
        )
    };
    match bytes {
        [VERSION, a, b, c, d, json @ ..] if crc32fast::hash(json) == u32::from_le_bytes([*a, *b, *c, *d]) => {
            serde_json::from_slice(json).map_err(|_| damaged())
        }
        [version, ..] if *version != VERSION => {
            Err(Error::new(Code::UnknownFormat, format!("the identity file has format version {version}")))
        }
        _ => Err(damaged()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemRandom;
    use crate::storage::disk::StdDisk;

    #[test]
    fn a_life_raises_the_incarnation_and_keeps_the_node() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = IdentityFile::new(Arc::new(StdDisk), dir.path());
        let first = file.begin_life(&SystemRandom).expect("begins");
        let second = file.begin_life(&SystemRandom).expect("begins again");
        assert_eq!((second.node, second.incarnation), (first.node, Incarnation(2)));
    }

    #[test]
    fn damage_is_an_error_and_never_a_new_node() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = IdentityFile::new(Arc::new(StdDisk), dir.path());
        file.begin_life(&SystemRandom).expect("begins");
        let path = dir.path().join(FILE);
        let mut bytes = std::fs::read(&path).expect("reads");
        bytes[12] ^= 1;
        std::fs::write(&path, &bytes).expect("writes");
        assert_eq!(file.begin_life(&SystemRandom).expect_err("damaged").code, Code::CorruptLog);
        bytes[0] = 9;
        std::fs::write(&path, &bytes).expect("writes");
        assert_eq!(file.begin_life(&SystemRandom).expect_err("foreign").code, Code::UnknownFormat);
    }

    #[test]
    fn the_file_has_golden_bytes() {
        let identity = Identity { node: NodeId(7), incarnation: Incarnation(2), ..fresh(&SystemRandom) };
        let dir = tempfile::tempdir().expect("a directory");
        let file = IdentityFile::new(Arc::new(StdDisk), dir.path());
        file.save(&identity).expect("saves");
        let bytes = std::fs::read(dir.path().join(FILE)).expect("reads");
        let json =
            r#"{"node":7,"incarnation":2,"record":null,"founded":false,"meta_replica":null,"log_created":false}"#;
        assert_eq!(std::str::from_utf8(&bytes[5..]).expect("text"), json);
    }
}
