//! What one group's log may hold after a crash.

use crate::dice::Dice;
use bytes::Bytes;
use std::collections::BTreeMap;

/// What may be at an index.
#[derive(Debug, Default)]
struct Place {
    /// Contents that were written there and may be found.
    possible: Vec<Bytes>,
    /// Whether one of them must be found: the last.
    durable: bool,
}

/// What was done to a group's log, and what of it is durable.
#[derive(Debug)]
pub(super) struct Model {
    places: BTreeMap<u64, Place>,
    /// The index behind the last entry, as the writer sees it.
    next: u64,
    /// Highest purge that was asked for: entries up to there may be gone.
    purged: u64,
    votes: (u64, u64),
    attempts: u64,
    acknowledged: u64,
    /// Appends that are not known to be durable.
    pending: BTreeMap<u64, Vec<(u64, Bytes)>>,
}

impl Default for Model {
    fn default() -> Self {
        Model {
            places: BTreeMap::new(),
            next: 1,
            purged: 0,
            votes: (0, 0),
            attempts: 0,
            acknowledged: 0,
            pending: BTreeMap::new(),
        }
    }
}

impl Model {
    /// How many appends were acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Where the next append goes.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// An append begins.
    pub(super) fn appending(&mut self, entries: &[(u64, Bytes)]) -> u64 {
        for (index, bytes) in entries {
            self.places.entry(*index).or_default().possible.push(bytes.clone());
            self.next = index + 1;
        }
        self.attempts += 1;
        self.pending.insert(self.attempts, entries.to_vec());
        self.attempts
    }

    /// An append is durable, and with it every cut before it.
    pub(super) fn appended(&mut self, attempt: u64) {
        let Some(entries) = self.pending.remove(&attempt) else { return };
        self.acknowledged += 1;
        for (index, bytes) in &entries {
            let Some(place) = self.places.get_mut(index) else { continue };
            // Earlier contents cannot come back; later ones, after another cut, may.
            if let Some(at) = place.possible.iter().position(|possible| possible == bytes) {
                place.possible.drain(..at);
            }
            place.durable = place.possible.len() == 1 && *index < self.next;
        }
        if self.pending.is_empty() {
            // Nothing is under way: what was cut off behind this append is gone for good.
            self.places.retain(|index, _| *index < self.next);
        }
    }

    /// A vote is about to be saved.
    pub(super) fn voting(&mut self) -> u64 {
        self.votes.1 += 1;
        self.votes.1
    }

    /// A vote is saved.
    pub(super) fn voted(&mut self, vote: u64) {
        self.votes.0 = self.votes.0.max(vote);
    }

    /// Cuts off some of the last entries; answers the last index that stays.
    pub(super) fn truncating(&mut self, dice: &mut Dice) -> Option<u64> {
        let last = self.next - 1;
        let lowest = self.purged.max(last.saturating_sub(5)).max(1);
        if last <= lowest || !self.pending.is_empty() {
            return None;
        }
        let after = dice.between(lowest, last - 1);
        self.next = after + 1;
        // Until the next append is durable they may come back.
        for place in self.places.range_mut(after + 1..).map(|(_, place)| place) {
            place.durable = false;
        }
        Some(after)
    }

    /// Purges up to an index whose entry is durable.
    pub(super) fn purging(&mut self, dice: &mut Dice) -> Option<u64> {
        let durable = self.places.iter().filter(|(index, place)| place.durable && **index > self.purged);
        let last = durable.map(|(index, _)| *index).take_while(|index| *index < self.next).last()?;
        let index = dice.between(self.purged + 1, last);
        self.purged = index;
        Some(index)
    }

    /// Compares with what was found after a start, and begins anew from there.
    pub(super) fn adopt(
        &mut self,
        purged: Option<u64>,
        found: Vec<(u64, Bytes)>,
        vote: Option<Bytes>,
    ) -> Result<(), String> {
        let vote = vote.and_then(|vote| vote.as_ref().try_into().ok().map(u64::from_be_bytes)).unwrap_or(0);
        if !(self.votes.0..=self.votes.1).contains(&vote) {
            return Err(format!("vote {vote} found, {} saved, {} tried", self.votes.0, self.votes.1));
        }
        if purged.unwrap_or(0) > self.purged {
            return Err(format!("purged to {purged:?}, asked for {}", self.purged));
        }
        let floor = purged.unwrap_or(0);
        for (index, place) in self.places.range(floor + 1..) {
            let there = found.iter().find(|(at, _)| at == index).map(|(_, bytes)| bytes);
            match there {
                None if place.durable => return Err(format!("entry {index} was acknowledged and is gone")),
                Some(bytes) if !place.possible.contains(bytes) => {
                    return Err(format!("entry {index} holds something that was never written there, or was replaced"));
                }
                _ => {}
            }
        }
        if let Some((index, _)) = found.iter().find(|(index, _)| *index > floor && !self.places.contains_key(index)) {
            return Err(format!("entry {index} was never written, or had been cut off durably"));
        }
        self.begin_anew(floor, found, vote);
        Ok(())
    }

    fn begin_anew(&mut self, purged: u64, found: Vec<(u64, Bytes)>, vote: u64) {
        self.next = found.last().map_or(purged + 1, |(index, _)| index + 1);
        let place = |bytes| Place { possible: vec![bytes], durable: true };
        self.places = found.into_iter().map(|(index, bytes)| (index, place(bytes))).collect();
        self.purged = purged;
        self.votes = (vote, vote);
        self.pending.clear();
    }
}
