//! The contents of files: what a process reads now, and what would be left after a crash.

use crate::dice::Dice;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// Which file; names point to it.
pub(crate) type FileId = u64;

/// A change that is not durable yet.
#[derive(Clone, Debug)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Length(u64),
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Length(length) => bytes.resize(*length as usize, 0),
        Change::Write { offset, bytes: written } => {
            let start = *offset as usize;
            let end = start + written.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[start..end].copy_from_slice(written);
        }
    }
}

#[derive(Debug, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

impl Content {
    fn change(&mut self, change: Change) {
        apply(&mut self.now, &change);
        self.unsynced.push(change);
    }

    fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            apply(&mut self.durable, &change);
        }
    }

    fn crash(&mut self, dice: &mut Dice) {
        let unsynced = std::mem::take(&mut self.unsynced);
        match dice.below(5) {
            // Nothing unsynced survives.
            0 => {}
            // A prefix survives, perhaps all.
            1 => drop(self.keep_prefix(&unsynced, dice)),
            // A prefix, and a part of the next write.
            2 => self.keep_torn(&unsynced, dice),
            // Any of them: the system writes pages back in any order.
            3 => unsynced.iter().filter(|_| dice.per_mille(500)).for_each(|change| apply(&mut self.durable, change)),
            // The length, but not the bytes.
            _ => {
                let longest = self.now.len().max(self.durable.len());
                self.durable.resize(longest, 0);
            }
        }
        self.now = self.durable.clone();
    }

    fn keep_prefix(&mut self, unsynced: &[Change], dice: &mut Dice) -> usize {
        let kept = dice.between(0, unsynced.len() as u64) as usize;
        unsynced[..kept].iter().for_each(|change| apply(&mut self.durable, change));
        kept
    }

    fn keep_torn(&mut self, unsynced: &[Change], dice: &mut Dice) {
        let kept = self.keep_prefix(unsynced, dice);
        let Some(Change::Write { offset, bytes }) = unsynced.get(kept) else { return };
        let part = bytes[..dice.index(bytes.len() + 1)].to_vec();
        apply(&mut self.durable, &Change::Write { offset: *offset, bytes: part });
    }
}

/// All files of a disk.
#[derive(Debug, Default)]
pub(crate) struct Files {
    contents: BTreeMap<FileId, Content>,
    last: FileId,
}

impl Files {
    pub(crate) fn create(&mut self) -> FileId {
        self.last += 1;
        self.contents.insert(self.last, Content::default());
        self.last
    }

    fn content(&self, file: FileId) -> io::Result<&Content> {
        self.contents.get(&file).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn content_mut(&mut self, file: FileId) -> io::Result<&mut Content> {
        self.contents.get_mut(&file).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(crate) fn read(&self, file: FileId, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = &self.content(file)?.now;
        let start = offset as usize;
        let end = start.checked_add(buffer.len()).ok_or(io::ErrorKind::InvalidInput)?;
        let from = bytes.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(from);
        Ok(())
    }

    pub(crate) fn write(&mut self, file: FileId, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.content_mut(file)?.change(Change::Write { offset, bytes: bytes.to_vec() });
        Ok(())
    }

    pub(crate) fn set_len(&mut self, file: FileId, length: u64) -> io::Result<()> {
        self.content_mut(file)?.change(Change::Length(length));
        Ok(())
    }

    pub(crate) fn len(&self, file: FileId) -> io::Result<u64> {
        Ok(self.content(file)?.now.len() as u64)
    }

    pub(crate) fn sync(&mut self, file: FileId) -> io::Result<()> {
        self.content_mut(file)?.sync();
        Ok(())
    }

    /// A sync that fails: the system drops its dirty pages, so that later syncs miss them too.
    pub(crate) fn drop_unsynced(&mut self, file: FileId) -> io::Result<()> {
        self.content_mut(file)?.unsynced.clear();
        Ok(())
    }

    pub(crate) fn rot(&mut self, file: FileId, offset: u64) -> io::Result<()> {
        let content = self.content_mut(file)?;
        let at = offset as usize;
        let byte = content.durable.get_mut(at).ok_or(io::ErrorKind::NotFound)?;
        *byte ^= 0x10;
        if let Some(byte) = content.now.get_mut(at) {
            *byte ^= 0x10;
        }
        Ok(())
    }

    /// Where the durable bytes end, zeros behind them left out.
    pub(crate) fn written_end(&self, file: FileId) -> io::Result<u64> {
        let durable = &self.content(file)?.durable;
        Ok(durable.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1))
    }

    pub(crate) fn used(&self) -> u64 {
        self.contents.values().map(|content| content.now.len() as u64).sum()
    }

    pub(crate) fn crash(&mut self, dice: &mut Dice) {
        self.contents.values_mut().for_each(|content| content.crash(dice));
    }

    pub(crate) fn forget_unsynced(&mut self) {
        for content in self.contents.values_mut() {
            content.unsynced.clear();
            content.now = content.durable.clone();
        }
    }

    pub(crate) fn retain(&mut self, named: &BTreeSet<FileId>) {
        self.contents.retain(|file, _| named.contains(file));
    }
}
