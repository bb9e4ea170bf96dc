//! Failpoints: steps at which a test lets the process die, or the disk be full. In: the name of a step
//! that a thread has come to. Out: nothing, an error of the disk, or the end of the process, as a test
//! has asked for. Without the feature `failpoints` each call is empty; with it, a step that nobody has
//! armed does nothing. Decides nothing by chance and nothing by the clock.

#[cfg(feature = "failpoints")]
mod armed;

#[cfg(not(feature = "failpoints"))]
mod unarmed;

#[cfg(feature = "failpoints")]
pub use armed::{arm, arm_from_environment, disarm, disk, is_armed, reach};
#[cfg(not(feature = "failpoints"))]
pub use unarmed::{disk, is_armed, reach};

/// The steps, in the order of a write's life; each stands once in the sources.
#[cfg(any(test, feature = "failpoints"))]
pub const POINTS: &[&str] = &[
    // A batch of the executor, with its session rows: before it is proposed, and between the verdict and
    // the answers.
    "batch-before-propose",
    "batch-before-answers",
    // The log: an append as it comes, the write, the sync, and what is told of it.
    "append-before-queue",
    "log-before-write",
    "log-half-written",
    "log-before-sync",
    "log-after-sync",
    "append-before-callback",
    "vote-before-save",
    "vote-after-save",
    "truncate-before-queue",
    "truncate-after-queue",
    "purge-before-queue",
    "purge-after-queue",
    "seal-before-write",
    "seal-after-write",
    // A segment ends, and others go.
    "roll-before-create",
    "roll-half-written",
    "roll-before-sync-dir",
    "roll-after-sync-dir",
    "segment-before-remove",
    "segment-after-remove",
    "move-before-write",
    "move-after-write",
    // Applying an entry.
    "apply-before",
    "apply-after",
    // A checkpoint, and what the backends do in it.
    "checkpoint-before-rows",
    "checkpoint-after-rows",
    "file-before-trailer",
    "file-before-rename",
    "file-before-sync-dir",
    "sled-between-chunks",
    "sled-before-meta",
    "sled-before-flush",
    "sled-before-publish",
    "sled-before-drop",
    // A snapshot, sent and received.
    "snapshot-before-piece",
    "snapshot-before-end",
    "receive-before-piece",
    "receive-after-spool",
    "install-before-rows",
    "install-before-swap",
    "install-after-swap",
    // The members of a group, asked for and applied; the end of a move; a replica that goes.
    "learner-before-ask",
    "learner-after-ask",
    "voters-before-ask",
    "voters-after-ask",
    "apply-joint",
    "apply-uniform",
    "moved-before-row",
    "moved-after-row",
    "replica-before-tombstone",
    "replica-before-remove",
    "replica-after-remove",
    // Small files that are replaced in one step: the identity.
    "identity-before-rename",
    "identity-before-sync-dir",
    // Room on the disk: armed with `return(full)`.
    "log-room",
    "state-room",
];

#[cfg(test)]
mod tests {
    use super::POINTS;
    use std::collections::BTreeMap;
    use std::path::Path;

    fn count(dir: &Path, found: &mut BTreeMap<String, usize>) {
        for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
            let path = entry.path();
            if path.is_dir() {
                count(&path, found);
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("a readable file");
            for call in ["failpoint::reach(\"", "failpoint::disk(\""] {
                for part in text.split(call).skip(1) {
                    let name = part.split('"').next().unwrap_or_default().to_owned();
                    *found.entry(name).or_default() += 1;
                }
            }
        }
    }

    #[test]
    fn each_point_stands_in_the_sources_and_no_other_does() {
        let mut found = BTreeMap::new();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        for dir in ["node", "partition", "raft", "storage"] {
            count(&root.join(dir), &mut found);
        }
        let missing: Vec<_> = POINTS.iter().filter(|point| !found.contains_key(**point)).collect();
        let unknown: Vec<_> = found.keys().filter(|name| !POINTS.contains(&name.as_str())).collect();
        assert!(missing.is_empty() && unknown.is_empty(), "not in the sources {missing:?}, unknown {unknown:?}");
        let crashes = |name: &str| !name.ends_with("-room");
        let doubled: Vec<_> = found.iter().filter(|(name, count)| **count > 1 && crashes(name)).collect();
        assert!(doubled.is_empty(), "a step stands in one place: {doubled:?}");
    }
}
