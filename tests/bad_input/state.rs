//! sled on a full disk: a checkpoint that finds no room is an error, nothing that was durable is
//! lost, and the next one succeeds when there is room. The files are real, the limit is the system's.

use bytes::Bytes;
use keystead::error::{Code, Result};
use keystead::storage::backend::{ReopeningBackend, ReplicaKey, Rows, SledBackend, SledConfig, StateBackend};
use keystead::types::GroupId;
use std::path::Path;
use std::process::Command;

/// Names the directory to a second process of this test.
const CHILD: &str = "KEYSTEAD_TEST_STATE_DIR";
const NAME: &str = "state::a_checkpoint_without_room_fails_and_the_next_succeeds";
const KEY: ReplicaKey = ReplicaKey { group: GroupId(3), replica: 1 };

fn rows(version: u8, count: u32) -> impl Iterator<Item = Result<(Bytes, Bytes)>> {
    (0..count).map(move |number| Ok((number.to_be_bytes().to_vec().into(), vec![version; 1000].into())))
}

fn checkpoint(backend: &dyn StateBackend, version: u8, count: u32) -> Result<()> {
    let mut all = rows(version, count);
    backend.checkpoint(KEY, Rows::All(&mut all), &mut || vec![version].into())
}

/// Which version the backend has, and how many rows of it.
fn loaded(backend: &dyn StateBackend) -> (u8, usize) {
    let mut count = 0;
    let meta = backend.load(KEY, &mut |_, _| count += 1).expect("loads").expect("a checkpoint");
    (meta[0], count)
}

/// What the second process does; it may write files of 3 MiB at first.
fn without_room(dir: &Path) {
    let at = dir.to_owned();
    let open =
        move || -> Result<Box<dyn StateBackend>> { Ok(Box::new(SledBackend::open(&at, SledConfig::default())?)) };
    let backend = ReopeningBackend::open(open).expect("opens");
    checkpoint(&backend, 1, 100).expect("there is room for a little");
    let mut refused = None;
    for _ in 0..3 {
        refused = checkpoint(&backend, 2, 20_000).err();
        let error = refused.as_ref().expect("there is no room for 20 MB in 3 MiB");
        assert!(matches!(error.code, Code::DiskFull | Code::DiskFailed), "{error}");
    }
    println!("refused: {}", refused.expect("refused"));
    let id = std::process::id().to_string();
    let room = Command::new("prlimit").args(["--pid", &id, "--fsize=unlimited:unlimited"]).status();
    assert!(room.expect("prlimit runs").success());
    checkpoint(&backend, 3, 20_000).expect("there is room");
    assert_eq!(loaded(&backend), (3, 20_000));
    drop(backend);
    let again = SledBackend::open(dir, SledConfig::default()).expect("opens");
    assert_eq!(loaded(&again), (3, 20_000));
}

#[test]
fn a_checkpoint_without_room_fails_and_the_next_succeeds() {
    if let Ok(dir) = std::env::var(CHILD) {
        return without_room(Path::new(&dir));
    }
    let dir = tempfile::tempdir().expect("a directory");
    let test = std::env::current_exe().expect("this test");
    let child = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -S -f 6144; exec \"$0\" \"$@\""])
        .arg(test)
        .args(["--exact", NAME, "--nocapture"])
        .env(CHILD, dir.path())
        .output()
        .expect("a shell runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(child.status.success(), "{} {}", text(&child.stdout), text(&child.stderr));
    println!("{}", text(&child.stdout));
}
