//! Putting a batch together: each request becomes records, and its replica's image becomes what it
//! will be once they are durable. The images of before are kept until the batch is written.

use super::ReplicaKey;
use super::core::LogCore;
use super::format::{Kind, RECORD_HEAD};
use super::group::place;
use super::image::Image;
use super::queue::Op;
use crate::error::{Code, Error};
use bytes::Bytes;

/// What became of a request while its batch was put together.
pub(super) enum Verdict {
    /// Its first record begins here in the batch.
    Put(usize),
    Refused(Error),
}

impl LogCore {
    /// The replica's image, which may now be changed; kept as it was for the case of a full disk.
    fn image(&mut self, key: ReplicaKey) -> Option<&mut Image> {
        if !self.before.contains_key(&key) {
            self.before.insert(key, self.images.get(&key).cloned());
        }
        self.images.get_mut(&key)
    }

    /// Puts a request into the batch and into the images.
    pub(super) fn put(&mut self, op: &Op) -> Verdict {
        match op {
            Op::Append { cell, entries, .. } => self.put_entries(cell.key, entries),
            Op::Vote { cell, vote, .. } => match self.image(cell.key) {
                None => gone(cell.key),
                Some(image) => {
                    image.vote = Some(vote.clone());
                    Verdict::Put(self.writer.record(Kind::Vote, cell.key, 0, vote))
                }
            },
            Op::Truncate { key, after } => self.put_truncate(*key, *after),
            Op::Purge { key, index, id } => self.put_purge(*key, *index, id.clone()),
            Op::Register { key, .. } => self.put_register(*key),
            Op::Tombstone { key, .. } => {
                self.image(*key);
                self.images.remove(key);
                self.clean_up = true;
                if !self.tombstones.insert(*key) {
                    return Verdict::Put(0);
                }
                self.buried.push(*key);
                Verdict::Put(self.writer.record(Kind::Tombstone, *key, 0, &[]))
            }
        }
    }

    fn put_entries(&mut self, key: ReplicaKey, entries: &[(u64, Bytes)]) -> Verdict {
        let segment = self.segments.current();
        let start = self.writer.len();
        let Some(image) = self.image(key) else { return gone(key) };
        // The handle saw no hole; if there is one now, the entries in between met a full disk.
        let first = entries.first().map(|(index, _)| *index);
        if image.last().is_some_and(|last| first != Some(last + 1)) {
            return Verdict::Refused(Error::new(Code::DiskFull, "an earlier entry met a full disk").at(place(key)));
        }
        for (index, bytes) in entries {
            image.append(segment, *index, (bytes.len() + RECORD_HEAD) as u64);
        }
        for (index, bytes) in entries {
            self.writer.record(Kind::Entry, key, *index, bytes);
        }
        Verdict::Put(start)
    }

    fn put_truncate(&mut self, key: ReplicaKey, after: Option<u64>) -> Verdict {
        let Some(image) = self.image(key) else { return gone(key) };
        image.truncate_after(after);
        self.clean_up = true;
        Verdict::Put(match after {
            Some(after) => self.writer.record(Kind::TruncateAfter, key, after, &[]),
            None => self.writer.record(Kind::TruncateAll, key, 0, &[]),
        })
    }

    fn put_purge(&mut self, key: ReplicaKey, index: u64, id: Bytes) -> Verdict {
        let Some(image) = self.image(key) else { return gone(key) };
        image.purge(index, id.clone());
        self.clean_up = true;
        Verdict::Put(self.writer.record(Kind::Purge, key, index, &id))
    }

    fn put_register(&mut self, key: ReplicaKey) -> Verdict {
        if self.tombstones.contains(&key) {
            let error = Error::new(Code::InvalidRequest, "the replica's id was given up").at(place(key));
            return Verdict::Refused(error.remedy("register the replica under a new id"));
        }
        if self.image(key).is_some() {
            return Verdict::Put(0);
        }
        self.images.insert(key, Image::default());
        Verdict::Put(self.writer.record(Kind::Register, key, 0, &[]))
    }

    pub(super) fn put_committed(&mut self, key: ReplicaKey, mark: Bytes) {
        if let Some(image) = self.image(key) {
            image.committed = Some(mark.clone());
            self.writer.record(Kind::Committed, key, 0, &mark);
        }
    }

    pub(super) fn put_owed(&mut self) {
        for (key, owed) in std::mem::take(&mut self.owed) {
            if let Some(after) = owed.truncate {
                self.put_truncate(key, after);
            }
            if let Some((index, id)) = owed.purge.clone() {
                self.put_purge(key, index, id);
            }
            self.owed.insert(key, owed);
        }
        for (key, mark) in self.owed_committed.clone() {
            self.put_committed(key, mark);
        }
    }
}

fn gone(key: ReplicaKey) -> Verdict {
    Verdict::Refused(Error::new(Code::InvalidRequest, "the replica was given up").at(place(key)))
}
