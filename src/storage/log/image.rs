//! One replica as the log's files have it: small state, and in which segments its entries lie.
//! The log thread keeps one of these per replica, and each segment begins with all of them.
//! Pure data: nothing here reads or writes.

use bytes::Bytes;

/// Consecutive entries in one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) segment: u64,
    pub(super) first: u64,
    pub(super) last: u64,
    /// Their records' bytes; after a cut, an estimate by number.
    pub(super) bytes: u64,
}

impl Run {
    fn count(&self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }

    /// Keeps the entries between these two.
    fn narrow(&mut self, first: u64, last: u64) {
        let before = self.count();
        self.first = self.first.max(first);
        self.last = self.last.min(last);
        let kept = u128::from(self.bytes) * u128::from(self.count()) / u128::from(before);
        self.bytes = kept as u64;
    }
}

/// A replica's durable state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Image {
    /// Damaged: it may only be given up.
    pub(super) damaged: bool,
    pub(super) vote: Option<Bytes>,
    pub(super) committed: Option<Bytes>,
    /// Last purged index, with its owner's name for it.
    pub(super) purged: Option<(u64, Bytes)>,
    /// In the order of indexes, without gaps.
    pub(super) runs: Vec<Run>,
}

impl Image {
    /// The last index, purged or present.
    pub(super) fn last(&self) -> Option<u64> {
        self.runs.last().map(|run| run.last).or(self.purged.as_ref().map(|(index, _)| *index))
    }

    /// Bytes of the entries' records.
    pub(super) fn live_bytes(&self) -> u64 {
        self.runs.iter().fold(0, |sum, run| run.bytes.saturating_add(sum))
    }

    /// Takes in an entry behind the last one.
    pub(super) fn append(&mut self, segment: u64, index: u64, bytes: u64) {
        match self.runs.last_mut() {
            Some(run) if run.segment == segment && run.last.checked_add(1) == Some(index) => {
                run.last = index;
                run.bytes = run.bytes.saturating_add(bytes);
            }
            _ => self.runs.push(Run { segment, first: index, last: index, bytes }),
        }
    }

    /// Drops the entries behind an index, or all.
    pub(super) fn truncate_after(&mut self, after: Option<u64>) {
        let Some(after) = after else { return self.runs.clear() };
        while self.runs.last().is_some_and(|run| run.first > after) {
            self.runs.pop();
        }
        if let Some(run) = self.runs.last_mut()
            && run.last > after
        {
            run.narrow(run.first, after);
        }
    }

    /// Drops the entries up to an index.
    pub(super) fn purge(&mut self, index: u64, id: Bytes) {
        if self.purged.as_ref().is_some_and(|(purged, _)| *purged >= index) {
            return;
        }
        self.purged = Some((index, id));
        self.runs.retain(|run| run.last > index);
        if let Some(run) = self.runs.first_mut()
            && run.first <= index
        {
            run.narrow(index + 1, run.last);
        }
    }

    /// The entries `first..=last`, the beginning of one run, now lie in `segment`.
    pub(super) fn moved(&mut self, first: u64, last: u64, segment: u64, bytes: u64) {
        let Some(at) = self.runs.iter().position(|run| run.first == first && run.last >= last) else { return };
        let moved = Run { segment, first, last, bytes };
        if self.runs[at].last == last {
            self.runs[at] = moved;
        } else {
            let end = self.runs[at].last;
            self.runs[at].narrow(last + 1, end);
            self.runs.insert(at, moved);
        }
        self.join(at);
    }

    /// Joins the run at `at` to the one before, if they are one.
    fn join(&mut self, at: usize) {
        let Some(before) = at.checked_sub(1) else { return };
        if self.runs[before].segment == self.runs[at].segment
            && self.runs[before].last.checked_add(1) == Some(self.runs[at].first)
        {
            let run = self.runs.remove(at);
            self.runs[before].last = run.last;
            self.runs[before].bytes = self.runs[before].bytes.saturating_add(run.bytes);
        }
    }

    /// The body of its record in a checkpoint.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![u8::from(self.damaged)];
        put_bytes(&mut out, self.vote.as_ref());
        put_bytes(&mut out, self.committed.as_ref());
        put_bytes(&mut out, self.purged.as_ref().map(|(_, id)| id));
        out.extend_from_slice(&self.purged.as_ref().map_or(0, |(index, _)| *index).to_le_bytes());
        out.extend_from_slice(&(self.runs.len() as u32).to_le_bytes());
        for run in &self.runs {
            for number in [run.segment, run.first, run.last, run.bytes] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
        out
    }

    /// Reads such a body; `None` for anything else.
    pub(super) fn decode(body: &[u8]) -> Option<Image> {
        let mut rest = body;
        let damaged = match take(&mut rest, 1)? {
            [0] => false,
            [1] => true,
            _ => return None,
        };
        let vote = take_bytes(&mut rest)?;
        let committed = take_bytes(&mut rest)?;
        let purged_id = take_bytes(&mut rest)?;
        let purged_index = take_u64(&mut rest)?;
        if purged_id.is_none() && purged_index != 0 {
            return None;
        }
        let count = take_u32(&mut rest)?;
        let mut runs = Vec::new();
        for _ in 0..count {
            let run = Run {
                segment: take_u64(&mut rest)?,
                first: take_u64(&mut rest)?,
                last: take_u64(&mut rest)?,
                bytes: take_u64(&mut rest)?,
            };
            if run.first > run.last {
                return None;
            }
            runs.push(run);
        }
        let purged = purged_id.map(|id| (purged_index, id));
        rest.is_empty().then_some(Image { damaged, vote, committed, purged, runs })
    }
}

/// Length plus one, then the bytes; zero for none.
fn put_bytes(out: &mut Vec<u8>, bytes: Option<&Bytes>) {
    match bytes {
        None => out.extend_from_slice(&0u32.to_le_bytes()),
        Some(bytes) => {
            out.extend_from_slice(&(bytes.len() as u32 + 1).to_le_bytes());
            out.extend_from_slice(bytes);
        }
    }
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(take(rest, 4)?.try_into().ok()?))
}

fn take_u64(rest: &mut &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(take(rest, 8)?.try_into().ok()?))
}

fn take_bytes(rest: &mut &[u8]) -> Option<Option<Bytes>> {
    match take_u32(rest)?.checked_sub(1) {
        None => Some(None),
        Some(length) => Some(Some(Bytes::copy_from_slice(take(rest, length as usize)?))),
    }
}
