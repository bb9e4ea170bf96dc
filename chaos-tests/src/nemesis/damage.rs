//! Which byte of a disk is damaged.

use crate::dice::Dice;
use crate::disk::SimDisk;
use std::path::{Path, PathBuf};

/// Where a disk is damaged; the number decides the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spot {
    /// In the last bytes of the log: the last record that was acknowledged, or the seal behind it.
    LogEnd(u64),
    /// Anywhere in the log.
    Log(u64),
    /// Anywhere in a file that is not the log: a snapshot, a checkpoint, the node's identity.
    Other(u64),
}

/// The last bytes of the log are so many.
const END_BYTES: u64 = 96;

impl Spot {
    /// Draws one.
    pub fn draw(dice: &mut Dice) -> Self {
        let number = dice.next_u64();
        match dice.below(3) {
            0 => Spot::LogEnd(number),
            1 => Spot::Log(number),
            _ => Spot::Other(number),
        }
    }

    /// Its kind, for people.
    pub fn name(&self) -> &'static str {
        match self {
            Spot::LogEnd(_) => "disk: flipped bit in the log's last record",
            Spot::Log(_) => "disk: flipped bit in the log",
            Spot::Other(_) => "disk: flipped bit in a snapshot or other file",
        }
    }

    /// Damages a byte there; says where. `None` when there is nothing of the kind.
    pub fn strike(self, disk: &SimDisk) -> Option<(PathBuf, u64)> {
        let written = |path: &PathBuf| disk.written_end(path).is_ok_and(|end| end > 0);
        let paths: Vec<PathBuf> = disk.paths().into_iter().filter(written).collect();
        let is_log = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "log");
        let end = |path: &Path| disk.written_end(path).unwrap_or(0);
        let (path, offset) = match self {
            Spot::LogEnd(number) => {
                let path = paths.iter().rfind(is_log)?;
                let end = end(path);
                (path, end - 1 - Dice::new(number, "spot").below(END_BYTES.min(end)))
            }
            Spot::Log(number) | Spot::Other(number) => {
                let wants_log = matches!(self, Spot::Log(_));
                let of_kind: Vec<&PathBuf> = paths.iter().filter(|path| is_log(path) == wants_log).collect();
                let mut dice = Dice::new(number, "spot");
                let path = *of_kind.get(dice.index(of_kind.len()))?;
                (path, dice.below(end(path)))
            }
        };
        disk.rot(path, offset).ok()?;
        Some((path.clone(), offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keystead::storage::disk::Disk;

    #[test]
    fn a_spot_is_where_its_name_says() {
        for number in 0..50 {
            let disk = SimDisk::new(Dice::new(1, "disk"));
            let mount = disk.mount();
            assert_eq!(Spot::Log(number).strike(&disk), None, "an empty disk");
            for (name, bytes) in [("/1.log", [7; 300]), ("/2.log", [8; 300]), ("/node", [9; 300])] {
                mount.write_atomically(Path::new(name), &bytes).expect("written");
            }
            let struck = |spot: Spot| spot.strike(&disk).expect("there");
            let (path, offset) = struck(Spot::LogEnd(number));
            assert!(path == Path::new("/2.log") && (300 - END_BYTES..300).contains(&offset), "{path:?} {offset}");
            assert!(struck(Spot::Log(number)).0.extension().is_some());
            assert_eq!(struck(Spot::Other(number)).0, Path::new("/node"));
            assert!(disk.is_damaged());
        }
    }
}
