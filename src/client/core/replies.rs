//! What follows from replies, broken streams and new placements.

use super::{ATTEMPT_BITS, Core, Effect, LaneKey, Peer, State};
use crate::clock::Instant;
use crate::error::{Code, Error, Result, Retry};
use crate::node::PlacementTable;
use crate::types::{Reply, Slot};
use std::time::Duration;

/// Redirections that are followed without a pause.
const FREE_REDIRECTIONS: u32 = 3;

impl Core {
    /// A reply came on a stream.
    pub(in crate::client) fn on_reply(&mut self, lane: &LaneKey, wire_id: u64, outcome: Result<Reply>, now: Instant) {
        self.routes.mark_up(&lane.0);
        let id = wire_id >> ATTEMPT_BITS;
        let Some(pending) = self.pending.get(&id) else { return };
        let attempt = pending.attempts & ((1 << ATTEMPT_BITS) - 1);
        let is_current = attempt == wire_id & ((1 << ATTEMPT_BITS) - 1);
        // An earlier attempt's reply proves nothing that the current attempt's will not.
        if !is_current || !matches!(pending.state, State::Sent { .. }) {
            return;
        }
        match outcome {
            Ok(reply) => {
                self.time.observe(reply.served.time, now);
                let alone = pending.others.is_empty() && pending.request.op.routing_key().is_some();
                if alone && pending.failures > 0 {
                    self.routes.answered(pending.slot, &lane.0, reply.served.term, now);
                }
                if reply.served.hops > 0 {
                    // Somebody else leads: worth a look, at most a few times a second.
                    self.routes.want_refresh();
                    self.refresh_if_due(now);
                } else if reply.served.term > 0 && self.routes.leader(pending.slot).is_none() {
                    self.routes.set_leader(pending.slot, lane.0.clone());
                }
                self.finish(id, Ok(reply), now);
            }
            Err(error) => self.failed(id, lane, error, now),
        }
    }

    /// An attempt failed: answers the call, or arranges the next attempt by the code's advice.
    fn failed(&mut self, id: u64, lane: &LaneKey, error: Error, now: Instant) {
        if error.code == Code::SessionEnded
            && let Some(write) = self.pending.get(&id).and_then(|pending| pending.write.as_ref())
        {
            self.sessions.replace(write.session, &*self.random);
        }
        if error.code.retry() == Retry::Never {
            let unsure = self.pending.get(&id).is_some_and(|pending| pending.unsure && pending.write.is_some());
            let error = if unsure { error.of_unsure_write() } else { error };
            self.finish(id, Err(error), now);
            return;
        }
        if error.code == Code::ResendFrom {
            self.recall_earlier(id, lane, now);
        }
        let other_peer = error.code.retry() == Retry::OtherPeer;
        let Some(pending) = self.pending.get_mut(&id) else { return };
        // Whoever could take over has had the time to. To try until the end would only make it unsure.
        if error.code == Code::DiskFull && !pending.unsure && now >= pending.half_time {
            self.finish(id, Err(error), now);
            return;
        }
        pending.failures += 1;
        // Who answers that an earlier write is missing may have sent this one on before.
        pending.unsure |= matches!(
            error.code,
            Code::OutcomeUnknown | Code::DeadlineExceeded | Code::PeerUnreachable | Code::ResendFrom
        );
        pending.refused += u64::from(error.code == Code::TaskNotCarried);
        let failures = pending.failures;
        let mut pause = Some(failures);
        if other_peer {
            match error.leader.as_deref().filter(|_| error.code == Code::NotLeader) {
                Some(leader) => {
                    let leader = Peer::from(leader);
                    pending.target = Some(leader.clone());
                    self.routes.set_leader(pending.slot, leader);
                    pause = (failures > FREE_REDIRECTIONS).then_some(failures);
                }
                None => pending.avoid = Some(lane.0.clone()),
            }
            self.routes.want_refresh();
        } else if matches!(error.code, Code::OutcomeUnknown | Code::DeadlineExceeded) {
            // A leader that is cut off from the others may be reached from here all the time: the next attempt
            // goes to another peer, which knows who leads since. The number keeps it from happening twice.
            pending.avoid = Some(lane.0.clone());
            self.routes.want_refresh();
        }
        // What a peer answered says more than that another is not there.
        let says_less = error.code == Code::PeerUnreachable;
        if !(says_less && pending.last_error.as_ref().is_some_and(|last| last.code != Code::PeerUnreachable)) {
            pending.last_error = Some(error);
        }
        let until = now + pause.map_or(Duration::ZERO, |failures| self.backoff(failures));
        self.set_state(id, State::Waiting { until });
        self.pump(id, now);
        self.refresh_if_due(now);
    }

    /// The partition misses an earlier write of the slot. Those that went out on another stream
    /// may be stuck there: they are sent again, in order.
    fn recall_earlier(&mut self, id: u64, lane: &LaneKey, now: Instant) {
        let Some(slot) = self.pending.get(&id).map(|pending| pending.slot) else { return };
        let Some(queue) = self.slots.get(&slot) else { return };
        let earlier: Vec<u64> = queue.ids.before(id).collect();
        for id in earlier {
            let Some(pending) = self.pending.get_mut(&id) else { continue };
            if pending.slot == slot && matches!(&pending.state, State::Sent { lane: other, .. } if other != lane) {
                // What was sent there may have arrived: its answer is not waited for any more.
                pending.unsure = true;
                self.set_state(id, State::Waiting { until: now });
            }
        }
    }

    fn backoff(&self, failures: u32) -> Duration {
        let whole = (self.timing.backoff_min * (1 << failures.saturating_sub(1).min(8))).min(self.timing.backoff_max);
        // Between half and the whole, so that clients do not come back in step.
        let half = whole / 2;
        let jitter = self.random.next_u64() % (half.as_micros() as u64 + 1);
        half + Duration::from_micros(jitter)
    }

    /// A stream broke or could not be opened. Without a connection nothing was sent on it.
    pub(in crate::client) fn lane_down(
        &mut self,
        lane: &LaneKey,
        epoch: u64,
        error: &Error,
        connected: bool,
        now: Instant,
    ) {
        let current = self.epochs.entry(lane.clone()).or_insert(0);
        if *current != epoch {
            return;
        }
        *current += 1;
        self.effects.push(Effect::Close { lane: lane.clone() });
        self.routes.mark_down(&lane.0, now);
        let affected: Vec<u64> = self
            .pending
            .iter()
            .filter(|(_, pending)| {
                matches!(&pending.state, State::Sent { lane: of, epoch: in_epoch, .. } if of == lane && *in_epoch == epoch)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in affected {
            // A retry of an earlier one may have answered or sent it meanwhile.
            let still = self.pending.get(&id).is_some_and(
                |pending| matches!(&pending.state, State::Sent { lane: of, epoch: then, .. } if of == lane && *then == epoch),
            );
            if still {
                let error = Error { code: Code::PeerUnreachable, ..error.clone() };
                let unsure = self.pending.get(&id).is_some_and(|pending| pending.unsure);
                self.failed(id, lane, error, now);
                if let Some(pending) = self.pending.get_mut(&id).filter(|_| !connected) {
                    pending.unsure = unsure;
                    pending.unsent += 1;
                }
            }
        }
        self.routes.want_refresh();
        self.refresh_if_due(now);
    }

    fn refresh_if_due(&mut self, now: Instant) {
        if let Some(peer) = self.routes.due_refresh(now) {
            self.effects.push(Effect::Refresh { peer });
        }
    }

    /// The placement came, or did not; what waits for a partition whose leader changed goes at once.
    pub(in crate::client) fn on_placement(&mut self, table: Option<PlacementTable>, now: Instant) {
        let changed = self.routes.refreshed(table, now);
        if changed.is_empty() {
            return;
        }
        let moved = |slot: Slot| changed.iter().any(|(first, last)| (*first..=*last).contains(&slot.0));
        let waiting: Vec<u64> = self
            .pending
            .iter()
            .filter(|(_, pending)| matches!(pending.state, State::Waiting { until } if until > now))
            .filter(|(_, pending)| moved(pending.slot) && self.routes.leader(pending.slot).is_some())
            .map(|(id, _)| *id)
            .collect();
        for id in &waiting {
            self.set_state(*id, State::Waiting { until: now });
        }
        for id in waiting {
            self.pump(id, now);
        }
    }

    /// First slots of the partitions, ascending.
    pub(in crate::client) fn boundaries(&self) -> Vec<u16> {
        self.routes.boundaries()
    }
}
