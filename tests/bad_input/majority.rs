//! Without a majority: the true cause within a sensible time, and reads of level `local`.

use crate::process::{at, three, wait_until};
use std::time::{Duration, Instant};

#[test]
#[allow(clippy::disallowed_methods)]
fn without_a_majority_the_command_line_names_who_is_missing() {
    let dir = tempfile::tempdir().expect("a directory");
    let (seeds, mut peers) = three(dir.path(), &[]);
    at(&seeds[0], &["put", "m", "k", "v", "--timeout", "30"]).says(0, &[]);
    let accepted = at(&seeds[0], &["put", "m", "k", "v", "--ack", "accepted", "--timeout", "30", "--json"]);
    assert!(accepted.out.contains("\"ack\":\"accepted\""), "{accepted:?}");
    wait_until("the value at the peer", || at(&seeds[0], &["get", "m", "k", "--read", "local"]).out == "v\n");
    peers[1].kill();
    peers[2].kill();

    // Gossip needs a moment to miss them; the time of one command is what counts.
    let words = ["2 of 3 peers of partition ", " cannot be reached: ", &seeds[1], &seeds[2]];
    let missing = || {
        let begun = Instant::now();
        let said = at(&seeds[0], &["get", "m", "k"]);
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}: {said:?}", begun.elapsed());
        said.status == Some(1) && said.err.contains("KS3013") && words.iter().all(|word| said.err.contains(word))
    };
    wait_until("the true cause of a read", missing);
    let begun = Instant::now();
    let put = at(&seeds[0], &["put", "m", "k", "w"]);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}: {put:?}", begun.elapsed());
    put.says(1, &words);
    assert!(put.err.contains("KS3013") || put.err.contains("KS3008"), "{put:?}");
    let created = at(&seeds[0], &["put", "another", "k", "w"]);
    created.says(1, &["KS3013", "2 of 3 peers of the meta group cannot be reached"]);

    // What it has itself, it still gives, and it says how the others are.
    assert_eq!(at(&seeds[0], &["get", "m", "k", "--read", "local"]).out, "v\n");
    let members = at(&seeds[0], &["members"]).out;
    assert_eq!(members.matches("unreachable").count(), 2, "{members}");
}
