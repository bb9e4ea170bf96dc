//! Directories: which names exist now, and which would be left after a crash.

use super::files::FileId;
use crate::dice::Dice;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};

type DirId = u64;

const ROOT: DirId = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Dir(DirId),
    File(FileId),
}

/// A change of one directory that is not durable yet. A rename inside a directory is one change.
#[derive(Clone, Debug)]
enum Change {
    Set(String, Entry),
    Clear(String),
    Move { from: String, to: String, entry: Entry },
}

fn apply(entries: &mut BTreeMap<String, Entry>, change: &Change) {
    match change {
        Change::Set(name, entry) => drop(entries.insert(name.clone(), *entry)),
        Change::Clear(name) => drop(entries.remove(name)),
        Change::Move { from, to, entry } => {
            entries.remove(from);
            entries.insert(to.clone(), *entry);
        }
    }
}

#[derive(Debug, Default)]
struct Dir {
    now: BTreeMap<String, Entry>,
    durable: BTreeMap<String, Entry>,
    unsynced: Vec<Change>,
}

impl Dir {
    fn change(&mut self, change: Change) {
        apply(&mut self.now, &change);
        self.unsynced.push(change);
    }

    /// Makes the first changes durable.
    fn keep(&mut self, changes: usize) {
        for change in self.unsynced.drain(..changes) {
            apply(&mut self.durable, &change);
        }
    }

    fn forget(&mut self) {
        self.unsynced.clear();
        self.now = self.durable.clone();
    }
}

/// All names of a disk.
#[derive(Debug)]
pub(crate) struct Names {
    dirs: BTreeMap<DirId, Dir>,
    last: DirId,
}

impl Default for Names {
    fn default() -> Self {
        Names { dirs: BTreeMap::from([(ROOT, Dir::default())]), last: ROOT }
    }
}

fn parts(path: &Path) -> Vec<String> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
            _ => None,
        })
        .collect()
}

impl Names {
    fn dir_of(&self, names: &[String]) -> io::Result<DirId> {
        names.iter().try_fold(ROOT, |dir, name| match self.dirs[&dir].now.get(name) {
            Some(Entry::Dir(below)) => Ok(*below),
            Some(Entry::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        })
    }

    /// The directory that a path lies in, and its last name.
    fn place(&self, path: &Path) -> io::Result<(DirId, String)> {
        let mut names = parts(path);
        let name = names.pop().ok_or(io::ErrorKind::InvalidInput)?;
        Ok((self.dir_of(&names)?, name))
    }

    fn dir_mut(&mut self, dir: DirId) -> io::Result<&mut Dir> {
        self.dirs.get_mut(&dir).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Creates directories. Each is durable at once, as the port says.
    pub(crate) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let mut dir = ROOT;
        for name in parts(path) {
            dir = match self.dir_mut(dir)?.now.get(&name).copied() {
                Some(Entry::Dir(below)) => below,
                Some(Entry::File(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
                None => self.create_dir(dir, name)?,
            };
        }
        Ok(())
    }

    fn create_dir(&mut self, parent: DirId, name: String) -> io::Result<DirId> {
        self.last += 1;
        let new = self.last;
        self.dirs.insert(new, Dir::default());
        let parent = self.dir_mut(parent)?;
        parent.change(Change::Set(name, Entry::Dir(new)));
        parent.keep(parent.unsynced.len());
        Ok(new)
    }

    pub(crate) fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let dir = self.dir_of(&parts(path))?;
        Ok(self.dirs[&dir].now.keys().cloned().collect())
    }

    /// The file of that name.
    pub(crate) fn file(&self, path: &Path) -> io::Result<FileId> {
        let (dir, name) = self.place(path)?;
        match self.dirs[&dir].now.get(&name) {
            Some(Entry::File(file)) => Ok(*file),
            Some(Entry::Dir(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(crate) fn link(&mut self, path: &Path, file: FileId) -> io::Result<()> {
        let (dir, name) = self.place(path)?;
        self.dir_mut(dir)?.change(Change::Set(name, Entry::File(file)));
        Ok(())
    }

    pub(crate) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let entry = Entry::File(self.file(from)?);
        let (from_dir, from_name) = self.place(from)?;
        let (to_dir, to_name) = self.place(to)?;
        if let Some(Entry::Dir(_)) = self.dirs[&to_dir].now.get(&to_name) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if from_dir == to_dir {
            self.dir_mut(from_dir)?.change(Change::Move { from: from_name, to: to_name, entry });
            return Ok(());
        }
        self.dir_mut(from_dir)?.change(Change::Clear(from_name));
        self.dir_mut(to_dir)?.change(Change::Set(to_name, entry));
        Ok(())
    }

    pub(crate) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.file(path)?;
        let (dir, name) = self.place(path)?;
        self.dir_mut(dir)?.change(Change::Clear(name));
        Ok(())
    }

    pub(crate) fn sync(&mut self, path: &Path) -> io::Result<()> {
        let dir = self.dir_of(&parts(path))?;
        let dir = self.dir_mut(dir)?;
        dir.keep(dir.unsynced.len());
        Ok(())
    }

    /// Of each directory a prefix of the unsynced changes survives: none, some or all.
    pub(crate) fn crash(&mut self, dice: &mut Dice) {
        for dir in self.dirs.values_mut() {
            let kept = match dice.below(3) {
                0 => 0,
                _ => dice.index(dir.unsynced.len() + 1),
            };
            dir.keep(kept);
        }
        self.forget_unsynced();
    }

    pub(crate) fn forget_unsynced(&mut self) {
        self.dirs.values_mut().for_each(Dir::forget);
    }

    pub(crate) fn files(&self) -> BTreeSet<FileId> {
        let entries = self.dirs.values().flat_map(|dir| dir.now.values());
        entries.filter_map(|entry| if let Entry::File(file) = entry { Some(*file) } else { None }).collect()
    }

    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut open = vec![(ROOT, PathBuf::from("/"))];
        while let Some((dir, path)) = open.pop() {
            for (name, entry) in &self.dirs[&dir].now {
                match entry {
                    Entry::Dir(below) => open.push((*below, path.join(name))),
                    Entry::File(_) => found.push(path.join(name)),
                }
            }
        }
        found.sort();
        found
    }
}
