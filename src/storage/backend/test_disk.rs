//! A disk for tests: in memory, fails from its n-th change on, and forgets at a crash whatever
//! was not synced.

use crate::storage::disk::{DirLock, Disk, DiskFile, OpenMode};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

type Content = Arc<Mutex<Vec<u8>>>;

/// A file: what is written, and what is durable of it.
#[derive(Clone, Default)]
struct Inode {
    current: Content,
    durable: Content,
}

#[derive(Default)]
struct State {
    names: BTreeMap<PathBuf, Inode>,
    durable_names: BTreeMap<PathBuf, Inode>,
    /// Changes until failure.
    left: Option<u32>,
    changes: u32,
}

/// The disk; clones share it.
#[derive(Clone, Default)]
pub(super) struct TestDisk(Arc<Mutex<State>>);

struct TestFile {
    disk: TestDisk,
    inode: Inode,
}

impl TestDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("not poisoned")
    }

    /// Lets `changes` more changes pass, then fails each.
    pub(super) fn fail_after(&self, changes: u32) {
        self.state().left = Some(changes);
    }

    /// How many changes were made or tried.
    pub(super) fn changes(&self) -> u32 {
        self.state().changes
    }

    /// Loses what was not synced, and works again.
    pub(super) fn crash(&self) {
        let mut state = self.state();
        state.left = None;
        state.names = state.durable_names.clone();
        for inode in state.names.values() {
            let durable = inode.durable.lock().expect("not poisoned").clone();
            *inode.current.lock().expect("not poisoned") = durable;
        }
    }

    fn change(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        state.changes += 1;
        match &mut state.left {
            Some(0) => return Err(io::Error::other("the test's failure")),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(state)
    }
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk for TestDisk {
    fn create_dir_all(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        let names = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(names.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let inode = match mode {
            OpenMode::Read | OpenMode::ReadWrite => self.state().names.get(path).cloned().ok_or_else(not_found)?,
            OpenMode::CreateNew => self.change()?.names.entry(path.into()).or_default().clone(),
            OpenMode::Truncate => {
                let inode = self.change()?.names.entry(path.into()).or_default().clone();
                inode.current.lock().expect("not poisoned").clear();
                inode
            }
        };
        Ok(Box::new(TestFile { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.change()?;
        let inode = state.names.remove(from).ok_or_else(not_found)?;
        state.names.insert(to.into(), inode);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change()?.names.remove(path).map(|_| ()).ok_or_else(not_found)
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        let mut state = self.change()?;
        state.durable_names = state.names.clone();
        Ok(())
    }

    fn lock(&self, _dir: &Path) -> io::Result<Box<dyn DirLock>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl DiskFile for TestFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = self.inode.current.lock().expect("not poisoned");
        let from = bytes.get(offset as usize..offset as usize + buffer.len());
        buffer.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let _state = self.disk.change()?;
        let mut current = self.inode.current.lock().expect("not poisoned");
        let end = offset as usize + bytes.len();
        if current.len() < end {
            current.resize(end, 0);
        }
        current[offset as usize..end].copy_from_slice(bytes);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let _state = self.disk.change()?;
        let current = self.inode.current.lock().expect("not poisoned").clone();
        *self.inode.durable.lock().expect("not poisoned") = current;
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.inode.current.lock().expect("not poisoned").len() as u64)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let _state = self.disk.change()?;
        self.inode.current.lock().expect("not poisoned").resize(length as usize, 0);
        Ok(())
    }
}
