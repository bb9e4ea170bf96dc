"""A client of a grid in a few pages: the generated code, and what the protocol asks of a client.

What it does is in docs/GRPC.md: it goes to the leader of a key's partition, follows errors as they
advise, stamps writes so that a retry never runs twice, and goes on with a watch through another peer.
"""

import random
import threading
import time

import grpc
from keystead.v1 import cluster_pb2, cluster_pb2_grpc, common_pb2, kv_pb2_grpc
from keystead.v1 import tasks_pb2_grpc, watch_pb2, watch_pb2_grpc

SLOTS = 16384
ATTEMPT_S = 1.0


class GridError(Exception):
    """An error with Keystead's code."""

    def __init__(self, error):
        super().__init__(f"{error.code}: {error.what}" + (f"; {error.remedy}" if error.remedy else ""))
        self.code, self.retry, self.leader = error.code, error.retry, error.leader


def error_of(status):
    """The error of a failed call: the one in its details, else the nearest to its gRPC status."""
    for key, value in status.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            return common_pb2.Error.FromString(value)
    code = dict(status.trailing_metadata() or ()).get("keystead-code", "")
    error = common_pb2.Error(code=code, what=status.details() or str(status.code()), retry=common_pb2.RETRY_NEVER)
    # What gRPC itself says when a connection breaks, or a peer does not answer.
    broken = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN)
    if not code and status.code() in (*broken, grpc.StatusCode.INTERNAL, grpc.StatusCode.DEADLINE_EXCEEDED):
        error.code, error.retry = "KS3003", common_pb2.RETRY_OTHER_PEER
    return error


def slot_of(key):
    """CRC16 (XMODEM) of what decides where the key lives, modulo 16384: Redis Cluster's rule."""
    opened = key.find(b"{")
    closed = key.find(b"}", opened + 1)
    affinity = key[opened + 1 : closed] if opened >= 0 and closed > opened + 1 else key
    crc = 0
    for byte in affinity:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1) ^ 0x1021 if crc & 0x8000 else crc << 1
            crc &= 0xFFFF
    return crc % SLOTS


class Session:
    """Numbers for writes: the same number at every retry, so that a write runs once."""

    def __init__(self):
        self.id, self.last, self.unanswered = random.getrandbits(64) or 1, 0, set()

    def begin(self):
        self.last += 1
        self.unanswered.add(self.last)
        return self.last


class Grid:
    """Threads may share it."""

    def __init__(self, endpoints):
        self.endpoints = list(endpoints)
        self.lock = threading.Lock()
        self.channels, self.stubs = {}, {}
        self.ranges = []  # (first slot, leader's address, term), ascending
        self.turn = 0
        self.session = Session()
        self.time, self.seen_at = 0, time.monotonic()
        self.redirected = 0  # errors after which another peer was asked
        self.refresh()
        self.observe(self.ask(lambda stubs: stubs["cluster"].Time, cluster_pb2.TimeRequest()).time)

    # Peers.

    def at(self, address):
        """The four services of a peer."""
        with self.lock:
            if address not in self.channels:
                channel = grpc.insecure_channel(address)
                self.channels[address] = channel
                self.stubs[address] = {
                    "kv": kv_pb2_grpc.KvStub(channel),
                    "tasks": tasks_pb2_grpc.TasksStub(channel),
                    "cluster": cluster_pb2_grpc.ClusterStub(channel),
                    "watch": watch_pb2_grpc.WatchStub(channel),
                }
            return self.stubs[address]

    def peers(self):
        """The endpoints and every known leader."""
        return list(dict.fromkeys(self.endpoints + [leader for _, leader, _ in self.ranges if leader]))

    def any(self, avoid=None):
        """Some peer, by turns, but not that one."""
        peers = [peer for peer in self.peers() if peer != avoid] or self.peers()
        self.turn += 1
        return peers[self.turn % len(peers)]

    def leader(self, slot):
        """Who leads a slot's partition, as far as the last placement says; it may be out of date."""
        leader = None
        for first_slot, address, _ in self.ranges:
            if first_slot <= slot:
                leader = address
        return leader or None

    def refresh(self):
        """Fetches the placement from the first peer that gives it."""
        for peer in self.peers():
            try:
                reply = self.at(peer)["cluster"].Placement(cluster_pb2.PlacementRequest(), timeout=ATTEMPT_S)
            except grpc.RpcError:
                continue
            self.merge(reply)
            return

    def merge(self, reply):
        """Takes over what is newer: per partition the higher term wins, since a peer may lag behind."""
        known = {first_slot: (leader, term) for first_slot, leader, term in self.ranges}
        ranges = []
        for part in reply.partitions:
            leader, term = known.get(part.first_slot, ("", 0))
            if part.term > term or (part.term == term and part.leader):
                leader, term = part.leader, part.term
            ranges.append((part.first_slot, leader, term))
        self.ranges = ranges

    # Time: the newest that the grid has named, carried on by the own monotonic clock.

    def observe(self, at):
        with self.lock:
            if at > self.time:
                self.time, self.seen_at = at, time.monotonic()

    def now(self):
        with self.lock:
            return self.time + (int((time.monotonic() - self.seen_at) * 1000) << 16)

    # Calls.

    def ask(self, method, request, key=None, write=False, within_s=20.0):
        """One call, sent again as errors advise until it is answered or its time is over.

        `method` picks the method from a peer's services, `key` says where it belongs, and `write` that
        it must not run twice.
        """
        until = time.monotonic() + within_s
        slot = None if key is None else slot_of(key)
        keyed = isinstance(getattr(request, "options", None), common_pb2.RequestOptions)
        session, number, first_sent = self.session, None, None
        if write:
            with self.lock:
                number = session.begin()
            first_sent = self.now()
        target, avoid, pause, last = None, None, 0.005, None
        try:
            while True:
                left = until - time.monotonic()
                if left <= 0:
                    raise last or TimeoutError("no answer in time")
                if slot is not None and not self.ranges:
                    self.refresh()
                leader = self.leader(slot) if slot is not None else None
                peer = target or (leader if leader != avoid else None) or self.any(avoid)
                target = avoid = None
                if write:
                    self.stamp(request.options.stamp, session, number, first_sent)
                if keyed:
                    request.options.deadline_ms = max(1, int(min(left, ATTEMPT_S) * 1000))
                try:
                    reply = method(self.at(peer))(request, timeout=min(left, ATTEMPT_S + 0.5))
                except grpc.RpcError as status:
                    last = GridError(error_of(status))
                    if last.retry == common_pb2.RETRY_OTHER_PEER:
                        self.redirected += 1
                        target, avoid = last.leader or None, peer
                        if slot is not None:
                            self.refresh()
                    elif last.retry != common_pb2.RETRY_SAME_PEER:
                        if last.code == "KS3009":  # the grid has forgotten the session
                            self.session = Session()
                        raise last from status
                    time.sleep(min(pause, left))
                    pause = min(pause * 2, 0.5)
                    continue
                if hasattr(reply, "served"):
                    self.observe(reply.served.time)
                    if slot is not None and reply.served.hops > 0:
                        self.refresh()  # it was passed on: somebody else leads by now
                return reply
        finally:
            if write:
                with self.lock:
                    session.unanswered.discard(number)

    def stamp(self, stamp, session, number, first_sent):
        with self.lock:
            stamp.session, stamp.number = session.id, number
            stamp.lowest_unanswered = min(session.unanswered, default=number)
            stamp.previous, stamp.first_sent = 0, first_sent

    # Watches.

    def watch(self, request):
        """Messages of a watch for ever, through whichever peer is there; each change comes once."""
        request = watch_pb2.WatchRequest.FromString(request.SerializeToString())
        peer = self.any()
        while True:
            try:
                for message in self.at(peer)["watch"].Watch(request):
                    # Behind this message the watch goes on, through any peer.
                    request.token = message.token
                    yield message
            except grpc.RpcError as status:
                error = GridError(error_of(status))
                if error.retry == common_pb2.RETRY_NEVER:
                    raise error from status
                self.redirected += 1
            peer = self.any(avoid=peer)
            time.sleep(0.05)
