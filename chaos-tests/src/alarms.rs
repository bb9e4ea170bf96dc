//! Lines of a peer's log that no peer may ever say: that a thread panicked, or that a state was met that
//! cannot be. In: a log, and how much of it has been looked at. Out: those lines. A death at a failpoint
//! is no panic, and says nothing of this.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// So many of them are told; more of the same say nothing new.
const TOLD: usize = 5;

/// What is in the log behind `from`, which is moved to its end. Nothing where there is no log yet.
pub fn text_behind(log: &Path, from: &mut u64) -> String {
    let read = |from: u64| -> std::io::Result<Vec<u8>> {
        let (mut file, mut bytes) = (File::open(log)?, Vec::new());
        file.seek(SeekFrom::Start(from))?;
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read(*from).unwrap_or_default();
    *from += bytes.len() as u64;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The lines of this part of a log that no peer may ever say.
pub fn alarms(text: &str) -> Vec<String> {
    let bad = |line: &&str| line.contains("panicked at") || line.contains("KS9001");
    text.lines().filter(bad).take(TOLD).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn panics_and_bugs_are_alarms_and_a_death_at_a_failpoint_is_none() {
        let said = "INFO all is well\nfailpoint roll-before-create: the process ends here\n";
        assert_eq!(alarms(said), Vec::<String>::new());
        let panic = "thread 'a' panicked at src/x.rs:1:2:";
        let bug = "WARN KS9001: a state that cannot be";
        assert_eq!(alarms(&format!("{said}{panic}\nindex out of bounds\n{bug}\n")), [panic, bug]);
    }

    #[test]
    fn each_part_of_a_log_is_looked_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let (log, mut from) = (dir.path().join("n1.log"), 0);
        assert_eq!(text_behind(&log, &mut from), "", "there is none yet");
        let mut file = File::create(&log).expect("a log");
        file.write_all(b"one\n").expect("written");
        assert_eq!(text_behind(&log, &mut from), "one\n");
        file.write_all(b"two\n").expect("written");
        assert_eq!((text_behind(&log, &mut from).as_str(), from), ("two\n", 8));
    }
}
