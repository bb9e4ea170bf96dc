//! Sending in order.

use super::{ATTEMPT_BITS, Core, Effect, LaneKind, State};
use crate::clock::Instant;
use crate::error::{Code, Error};
use crate::types::{MAX_GIVEN_UP, NumberRange, Op, ReadLevel, SessionStamp, Slot};

impl Core {
    /// Sends a waiting call if order allows.
    pub(super) fn pump(&mut self, id: u64, now: Instant) {
        let Some(pending) = self.pending.get(&id) else { return };
        if pending.write.is_some() {
            self.pump_slot(pending.slot, now);
        } else if matches!(pending.state, State::Waiting { until } if until <= now) {
            self.send(id, now);
        }
    }

    /// Sends the waiting writes of a slot, in order, up to the first that has to wait.
    pub(super) fn pump_slot(&mut self, slot: Slot, now: Instant) {
        let Some(queue) = self.slots.get(&slot) else { return };
        if queue.waiting == 0 {
            return;
        }
        // The usual case, one new write behind others on their way, looks only at the last.
        let waits = |id: &u64| self.pending.get(id).is_some_and(|call| matches!(call.state, State::Waiting { .. }));
        let only = queue.ids.last().filter(|last| queue.waiting == 1 && waits(last));
        let all: Vec<u64> = if only.is_some() { Vec::new() } else { queue.ids.before(u64::MAX).collect() };
        for id in only.into_iter().chain(all) {
            let Some(pending) = self.pending.get(&id) else { continue };
            let waits_until = match pending.state {
                State::Sent { .. } => None,
                State::Waiting { until } => Some(until),
            };
            if waits_until.is_some_and(|until| until > now) {
                return;
            }
            // A write whose first slot is another one holds back what is later here. It is sent
            // from there; ids order both slots alike, so this ends.
            if pending.slot != slot {
                if waits_until.is_some() {
                    let home = pending.slot;
                    self.pump_slot(home, now);
                }
                return;
            }
            if waits_until.is_some() {
                if self.is_held_back(id) {
                    return;
                }
                self.send(id, now);
                if self.pending.get(&id).is_some_and(|call| matches!(call.state, State::Waiting { .. })) {
                    return;
                }
            }
        }
    }

    /// Whether an earlier unanswered write stands in the way that cannot be named as predecessor.
    fn is_held_back(&self, id: u64) -> bool {
        let Some(pending) = self.pending.get(&id) else { return true };
        let earlier = |slot: &Slot| self.slots.get(slot).and_then(|queue| queue.ids.before(id).next_back());
        if pending.others.iter().any(|slot| earlier(slot).is_some()) {
            return true;
        }
        let Some(before) = earlier(&pending.slot).and_then(|before| self.pending.get(&before)) else { return false };
        let session = |write: &Option<super::Write>| write.as_ref().map(|write| write.session);
        before.slot != pending.slot || session(&before.write) != session(&pending.write)
    }

    fn predecessor(&self, id: u64, slot: Slot) -> Option<u64> {
        let before = self.slots.get(&slot)?.ids.before(id).next_back()?;
        self.pending.get(&before)?.write.as_ref().map(|write| write.number)
    }

    fn stamp(&mut self, id: u64, now: Instant) -> Option<SessionStamp> {
        let pending = self.pending.get(&id)?;
        let previous = self.predecessor(id, pending.slot);
        let time = self.time.now(now);
        let given_up = self.given_up_before(id);
        let write = self.pending.get_mut(&id)?.write.as_mut()?;
        let first_sent = *write.first_sent.get_or_insert(time);
        Some(SessionStamp {
            session: write.session,
            number: write.number,
            lowest_unanswered: self.sessions.lowest(write.session, write.number),
            previous,
            first_sent,
            given_up,
        })
    }

    /// What a write's stamp says of those before it in its slots that were given up. Every older write there
    /// has been executed before it, is named by this, or is answered: the chain of predecessors sees to that,
    /// so that nothing is named which its predecessor names.
    fn given_up_before(&self, id: u64) -> Vec<NumberRange> {
        let Some(pending) = self.pending.get(&id) else { return Vec::new() };
        let Some(write) = pending.write.as_ref().filter(|write| self.sessions.any_given_up(write.session)) else {
            return Vec::new();
        };
        let reach = pending.reach();
        let after = if reach.len() == 1 { self.predecessor(id, pending.slot) } else { None };
        self.sessions.given_up_before(write.session, write.number, &reach, after.unwrap_or(0))
    }

    /// Whether more was given up than a stamp can say, so that this write has to wait.
    fn is_crowded(&self, id: u64, stamp: Option<&SessionStamp>) -> bool {
        let Some(stamp) = stamp else { return false };
        let first = self.pending.get(&id).is_some_and(|pending| pending.attempts == 0);
        stamp.given_up.len() > MAX_GIVEN_UP || (first && self.sessions.is_full(stamp.session))
    }

    fn send(&mut self, id: u64, now: Instant) {
        let stamp = self.stamp(id, now);
        if self.is_crowded(id, stamp.as_ref()) {
            let Some(pending) = self.pending.get_mut(&id) else { return };
            pending.last_error = Some(too_many_given_up());
            self.set_state(id, State::Waiting { until: now + self.timing.backoff_max });
            return;
        }
        let Some(pending) = self.pending.get_mut(&id) else { return };
        let peer = match pending.target.take() {
            Some(target) => Some(target),
            // A local read is for the peer that the caller named.
            None if pending.request.op.is_read() && pending.request.read == ReadLevel::Local => {
                self.routes.endpoint(pending.avoid.take().as_ref(), now)
            }
            None => self.routes.choose(pending.slot, pending.avoid.take().as_ref(), now),
        };
        // There is always an endpoint; without one the call waits for its deadline.
        let Some(peer) = peer else { return };
        let kind = if matches!(pending.request.op, Op::Task { .. }) { LaneKind::Tasks } else { LaneKind::Kv };
        let lane = (peer, kind);
        let epoch = self.epochs.get(&lane).copied().unwrap_or(0);
        pending.attempts += 1;
        let wire_id = (id << ATTEMPT_BITS) | (pending.attempts & ((1 << ATTEMPT_BITS) - 1));
        let left = pending.deadline.saturating_duration_since(now).min(self.timing.attempt);
        let mut request = pending.request.clone();
        request.stamp = stamp;
        request.deadline_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1);
        self.effects.push(Effect::Send { lane: lane.clone(), epoch, wire_id, request });
        self.set_state(id, State::Sent { lane, epoch, at: now });
    }
}

fn too_many_given_up() -> Error {
    Error::new(Code::SessionFull, "too many writes to these slots were given up while older ones are waited for")
}
