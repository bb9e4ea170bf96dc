"""Walks through everything that a grid serves over gRPC, and checks each answer.

    python walk.py HOST:PORT,HOST:PORT,HOST:PORT [--job rebuild] [--trouble]

Ends with status 0 if all was as it should be. With `--job` the peers must be those of
`examples/own_peer.rs`, which carry that job. With `--trouble` it keeps counting and watching until a
member cannot be reached and a new one leads partitions: kill one, start another.
"""

import argparse
import json
import struct
import sys
import threading
import time

import grid as client
import grpc
from keystead.v1 import cluster_pb2, common_pb2, kv_pb2, tasks_pb2, watch_pb2

PATIENCE_S = 120.0
MAPS = "orders counters scratch sessions rates totals articles words labels counts strict recent prices".split()
UTF8, I64, MSGPACK = common_pb2.VALUE_CODEC_UTF8, common_pb2.VALUE_CODEC_I64, common_pb2.VALUE_CODEC_MSGPACK


def text(value):
    return common_pb2.Value(codec=UTF8, data=value.encode())


def number(value):
    return common_pb2.Value(codec=I64, data=struct.pack("<q", value))


def payload(value):
    return common_pb2.Payload(codec=common_pb2.VALUE_CODEC_JSON, data=json.dumps(value).encode())


class Walk:
    def __init__(self, grid):
        self.grid, self.checks = grid, 0

    def check(self, what, holds, found=None):
        self.checks += 1
        if not holds:
            sys.exit(f"WRONG: {what}: {found!r}")

    def refused(self, what, code, call):
        try:
            found = call()
        except client.GridError as error:
            self.check(what, error.code == code and str(error), error)
        else:
            self.check(what, False, found)

    def until(self, what, holds):
        end = time.monotonic() + PATIENCE_S
        while not holds():
            self.check(f"in time: {what}", time.monotonic() < end)
            time.sleep(0.05)

    def in_time(self, what, call):
        """What a call gives that would wait for ever by itself."""
        found, wrong = [], []

        def run():
            try:
                found.append(call())
            except Exception as error:  # noqa: BLE001: it is raised again where it belongs
                wrong.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(PATIENCE_S)
        if wrong:
            raise wrong[0]
        self.check(f"in time: {what}", found)
        return found[0]

    # Short forms of single calls.

    def kv(self, name, request, key=None, write=False):
        return self.grid.ask(lambda stubs: getattr(stubs["kv"], name), request, key, write)

    def cluster(self, name, request):
        return self.grid.ask(lambda stubs: getattr(stubs["cluster"], name), request)

    def tasks(self, name, request, key=None, write=False):
        return self.grid.ask(lambda stubs: getattr(stubs["tasks"], name), request, key, write)

    def put(self, map, key, value, **more):
        return self.kv("Put", kv_pb2.PutRequest(map=map, key=key, value=value, **more), key, write=True)

    def get(self, map, key):
        return self.kv("Get", kv_pb2.GetRequest(map=map, key=key), key)

    def delete(self, map, key, **more):
        return self.kv("Delete", kv_pb2.DeleteRequest(map=map, key=key, **more), key, write=True)

    def create(self, name, codec, **options):
        options = cluster_pb2.MapOptions(**options) if options else None
        request = cluster_pb2.CreateMapRequest(
            name=name, key_codec=common_pb2.KEY_CODEC_UTF8, value_codec=codec, options=options
        )
        return self.cluster("CreateMap", request).map

    def clear(self, map):
        deleted, token = 0, b""
        while True:
            reply = self.kv("Clear", kv_pb2.ClearRequest(map=map, token=token), write=True)
            deleted, token = deleted + reply.deleted, reply.next_token
            if not token:
                return deleted

    def size(self, map):
        return self.kv("Size", kv_pb2.SizeRequest(map=map)).entries

    # The walk.

    def begin_anew(self):
        """Without what an earlier walk has left."""
        for name in MAPS:
            try:
                self.cluster("DropMap", cluster_pb2.DropMapRequest(name=f"walk-{name}"))
            except client.GridError as error:
                self.check("there is none", error.code == "KS2001", error)

    def members(self):
        members = self.cluster("Members", cluster_pb2.MembersRequest()).members
        self.check("there are members", len(members) >= 1, members)
        partitions = self.cluster("Partitions", cluster_pb2.PartitionsRequest()).partitions
        self.check("slots without a gap", partitions[0].first_slot == 0 and partitions[-1].last_slot == 16383)
        explained = self.cluster("Explain", cluster_pb2.ExplainRequest(key=b"order:{c-7}:42"))
        self.check("a key's slot", explained.slot == client.slot_of(b"c-7"), explained)
        self.check("why it is there", len(explained.why) > 0)

    def entries(self):
        self.create("walk-orders", UTF8)
        revision = self.put("walk-orders", b"42", text("open")).revision
        reply = self.get("walk-orders", b"42")
        self.check("what was put", reply.entry.value == text("open") and reply.entry.revision == revision, reply)
        self.check("no entry", not self.get("walk-orders", b"43").HasField("entry"))
        # Put-if: absent, a revision, a value. Replace: put if something is there.
        absent = kv_pb2.Condition(absent=True)
        reply = self.put("walk-orders", b"42", text("x"), condition=absent)
        self.check("absent does not hold", reply.condition_failed and reply.entry.value == text("open"), reply)
        reply = self.put("walk-orders", b"42", text("paid"), condition=kv_pb2.Condition(revision=revision))
        self.check("the revision holds", reply.revision > revision, reply)
        replace = kv_pb2.Condition(present=True)
        self.check("nothing to replace", self.put("walk-orders", b"43", text("x"), condition=replace).condition_failed)
        was = kv_pb2.Condition(value=text("paid"))
        reply = self.put("walk-orders", b"42", text("sent"), condition=was, return_previous=True)
        self.check("get-and-put", reply.previous.value == text("paid"), reply)
        # Remove-if.
        reply = self.delete("walk-orders", b"42", condition=was)
        self.check("it is another value by now", reply.condition_failed and reply.entry.value == text("sent"), reply)
        reply = self.delete("walk-orders", b"42", condition=kv_pb2.Condition(value=text("sent")), return_previous=True)
        self.check("removed", reply.existed and reply.previous.value == text("sent"), reply)
        self.create("walk-counters", I64)
        increment = kv_pb2.IncrementRequest(map="walk-counters", key=b"n", delta=-5)
        self.check("a number", self.kv("Increment", increment, b"n", write=True).value == -5)
        self.refused("a text in a map of numbers", "KS1004", lambda: self.put("walk-counters", b"n", text("five")))
        self.refused("no such map", "KS2001", lambda: self.get("no-such-map", b"1"))
        self.refused("a key that is too long", "KS1003", lambda: self.put("walk-orders", b"k" * 70_000, text("x")))

    def several(self):
        many = [kv_pb2.KeyValue(key=b"{7}%d" % i, value=text(str(i))) for i in range(10)]
        self.kv("PutMany", kv_pb2.PutManyRequest(map="walk-orders", entries=many), b"{7}", write=True)
        keys = [b"{7}%d" % i for i in (3, 99, 5)]
        found = self.kv("GetMany", kv_pb2.GetManyRequest(map="walk-orders", keys=keys), b"{7}").entries
        self.check("in the keys' order", [e.entry.value.data for e in found] == [b"3", b"", b"5"], found)
        third = kv_pb2.Check(key=b"{7}3", revision=found[0].entry.revision)
        checks = [kv_pb2.Check(key=b"{7}total", absent=True), third]
        changes = [kv_pb2.Change(key=b"{7}total", put=text("45")), kv_pb2.Change(key=b"{7}0", delete=True)]
        transact = kv_pb2.TransactRequest(map="walk-orders", checks=checks, changes=changes)
        self.check("all checks hold", self.kv("Transact", transact, b"{7}", write=True).revision > 0)
        reply = self.kv("Transact", transact, b"{7}", write=True)
        self.check("it is there by now", reply.check_failed and reply.failed_key == b"{7}total", reply)
        self.check("deleted with it", not self.get("walk-orders", b"{7}0").HasField("entry"))
        apart = [kv_pb2.Change(key=key, put=text("x")) for key in (b"a", b"b")]
        request = kv_pb2.TransactRequest(map="walk-orders", changes=apart)
        self.refused("two slots", "KS1006", lambda: self.kv("Transact", request, b"a", write=True))

    def whole_maps(self):
        for i in range(50):
            self.put("walk-orders", b"p-%02d" % i, text(str(i)))
        found, token, pages = [], b"", 0
        while True:
            scan = kv_pb2.ScanRequest(map="walk-orders", prefix=b"p-", limit=7, token=token)
            reply = self.kv("Scan", scan)
            found += [entry.key for entry in reply.entries]
            pages, token = pages + 1, reply.next_token
            if not token:
                break
        self.check("each key once", sorted(found) == [b"p-%02d" % i for i in range(50)] and pages > 7, found)
        self.check("size", self.size("walk-orders") == 60, self.size("walk-orders"))
        maps = [map.name for map in self.cluster("Maps", cluster_pb2.MapsRequest()).maps]
        self.check("the maps", "walk-orders" in maps and "walk-counters" in maps, maps)
        self.create("walk-scratch", UTF8)
        for i in range(30):
            self.put("walk-scratch", b"%d" % i, text("x"))
        self.check("cleared", self.clear("walk-scratch") == 30 and self.size("walk-scratch") == 0)
        before = self.create("walk-scratch", UTF8).id
        self.cluster("DropMap", cluster_pb2.DropMapRequest(name="walk-scratch"))
        self.refused("a dropped map", "KS2001", lambda: self.get("walk-scratch", b"1"))
        self.check("another map", self.create("walk-scratch", UTF8).id > before)

    def times(self):
        """An expiry is told by a watch: nobody needs to ask for the entry."""
        watch = self.grid.watch(watch_pb2.WatchRequest(map="walk-orders", key=b"short"))
        self.in_time("a watch begins", lambda: next(watch))
        self.put("walk-orders", b"short", text("lived"), ttl_ms=300)
        self.check("it has an end", self.get("walk-orders", b"short").entry.expires_ms > 0)
        kinds, end = [], time.monotonic() + PATIENCE_S
        while len(kinds) < 2:
            self.check("an end in time", time.monotonic() < end)
            message = self.in_time("a watch goes on", lambda: next(watch))
            kinds += [(event.WhichOneof("kind"), event.removed) for event in message.events]
        self.check("put and expired", kinds == [("put", 0), ("removed", watch_pb2.REMOVAL_CAUSE_EXPIRED)], kinds)
        self.put("walk-orders", b"kept", text("x"), ttl_ms=60_000)
        touch = kv_pb2.TouchRequest(map="walk-orders", key=b"kept", ttl_ms=0)
        self.check("touched", self.kv("Touch", touch, b"kept", write=True).existed)
        self.check("for good", self.get("walk-orders", b"kept").entry.expires_ms == 0)
        self.create("walk-sessions", UTF8, ttl_ms=3_600_000)
        self.put("walk-sessions", b"1", text("x"))
        self.check("as its map says", self.get("walk-sessions", b"1").entry.expires_ms > 0)

    def limits(self):
        """A map that is full refuses, or lets go of what was used longest ago; each partition has its share."""
        self.create("walk-strict", UTF8, max_entries=1)
        self.put("walk-strict", b"{x}1", text("first"))
        self.refused("a full map", "KS2030", lambda: self.put("walk-strict", b"{x}2", text("second")))
        self.check("an entry that is there may change", self.put("walk-strict", b"{x}1", text("again")).revision > 0)
        self.create("walk-recent", UTF8, max_entries=1, eviction=cluster_pb2.EVICTION_LRU)
        for i in range(5):
            self.put("walk-recent", b"{x}%d" % i, text(str(i)))
        kept = [i for i in range(5) if self.get("walk-recent", b"{x}%d" % i).HasField("entry")]
        self.check("the newest stays", kept == [4], kept)

    def watches(self):
        """A watch of a prefix that begins with the entries that are there, and goes on behind a token."""
        self.create("walk-prices", I64)
        for key, value in ((b"eu-1", 10), (b"eu-2", 20), (b"us-1", 30)):
            self.put("walk-prices", key, number(value))
        watch = self.grid.watch(watch_pb2.WatchRequest(map="walk-prices", prefix=b"eu-", snapshot=True))
        seen, token, live = {}, b"", False
        # A replica that was a moment behind tells the newest as a change, behind the snapshot.
        while not live or len(seen) < 2:
            message = self.in_time("what is there", lambda: next(watch))
            for event in message.events:
                self.check("once each", event.key not in seen, event)
                seen[event.key] = event.entry.data or event.put.data
            token, live = message.token, message.live or live
        expected = {b"eu-1": struct.pack("<q", 10), b"eu-2": struct.pack("<q", 20)}
        self.check("what is there", seen == expected, seen)
        self.put("walk-prices", b"us-1", number(31))
        self.put("walk-prices", b"eu-2", number(21))
        self.delete("walk-prices", b"eu-1")
        behind = self.grid.watch(watch_pb2.WatchRequest(map="walk-prices", prefix=b"eu-", token=token))
        kinds = {}
        while len(kinds) < 2:
            message = self.in_time("the changes behind a token", lambda: next(behind))
            kinds.update({event.key: event.WhichOneof("kind") for event in message.events})
        self.check("what changed since", kinds == {b"eu-1": "removed", b"eu-2": "put"}, kinds)
        wrong = watch_pb2.WatchRequest(map="walk-prices", token=b"nonsense")
        self.refused("a token that is none", "KS7002", lambda: next(self.grid.watch(wrong)))

    def redirects(self):
        """A peer that does not lead passes on, and says so; the placement says who leads."""
        self.grid.refresh()
        hops = {}
        for peer in self.grid.peers():
            request = kv_pb2.GetRequest(map="walk-orders", key=b"{7}3")
            reply = self.grid.at(peer)["kv"].Get(request, timeout=5)
            self.check("any peer answers", reply.entry.value == text("3"), reply)
            hops[peer] = reply.served.hops
        leader = self.grid.leader(client.slot_of(b"7"))
        self.check("the leader answers itself", hops.get(leader) == 0, (leader, hops))
        self.check("others pass on", sorted(hops.values())[1:] == [1] * (len(hops) - 1), hops)

    def streams(self):
        """Many requests over one stream: the way for clients that send much."""
        puts = [kv_pb2.PutRequest(map="walk-orders", key=b"s-%d" % i, value=text(str(i))) for i in range(200)]
        left = {i + 1: put for i, put in enumerate(puts)}
        requests = [kv_pb2.KvRequest(id=id, put=put) for id, put in left.items()]
        batches = [kv_pb2.KvBatch(requests=requests[at : at + 50]) for at in range(0, 200, 50)]
        for batch in self.grid.at(self.grid.any())["kv"].Exchange(iter(batches)):
            for reply in batch.replies:
                self.check("a reply to each", left.pop(reply.id, None) and reply.put.revision > 0, reply)
        self.check("no reply is missing", not left, left)

    def replicated(self):
        self.create("walk-rates", UTF8, replicated=True)
        revision = self.put("walk-rates", b"EUR", text("1.08")).revision
        for peer in self.grid.peers():
            request = watch_pb2.GetLocalRequest(map="walk-rates", key=b"EUR", at_least=revision)
            reply = self.grid.at(peer)["watch"].GetLocal(request, timeout=10)
            self.check("each peer's own copy", reply.entry.value == text("1.08") and reply.revision >= revision, reply)

    def user_code(self):
        names = self.tasks("List", tasks_pb2.ListTasksRequest()).names
        self.check("what is built in", {"rolling-total", "count-entries"} <= set(names), names)
        self.create("walk-totals", MSGPACK)
        event = {"map": "walk-totals", "time_s": 1_700_000_000, "amount": 250, "bucket_s": 3600, "buckets": 168}
        submit = tasks_pb2.SubmitRequest(name="rolling-total", key=b"customer-7", payload=payload(event))
        for total in (250, 500):
            answer = self.tasks("Submit", submit, b"customer-7", write=True).answer
            self.check("the total", json.loads(answer.data) == {"total": total}, answer)
        wrong = tasks_pb2.SubmitRequest(name="rolling-total", key=b"c", payload=payload(7))
        self.refused("a wrong payload", "KS4005", lambda: self.tasks("Submit", wrong, b"c", write=True))
        unknown = tasks_pb2.SubmitRequest(name="no-such-task", key=b"c", payload=payload(7))
        self.refused("no such task", "KS2002", lambda: self.tasks("Submit", unknown, b"c", write=True))

        # At random: what was cancelled under an id stays cancelled.
        task_id = client.random.getrandbits(64) or 1
        input = payload({"map": "walk-orders"})
        broadcast = tasks_pb2.BroadcastRequest(name="count-entries", payload=input, task_id=task_id)
        answers = list(self.grid.at(self.grid.any())["tasks"].Broadcast(broadcast, timeout=30))
        self.check("no partition failed", all(a.WhichOneof("result") == "answer" for a in answers), answers)
        self.check("each partition once", len({a.partition for a in answers}) == answers[0].of == len(answers), answers)
        entries = sum(json.loads(a.answer.data)["entries"] for a in answers)
        self.check("the sum is the size", entries == self.size("walk-orders"), entries)
        told = self.tasks("Cancel", tasks_pb2.CancelRequest(task_id=task_id))
        self.check("every peer is told", told.told >= 1 and told.unreachable == 0, told)

        self.create("walk-articles", UTF8)
        for at, line in enumerate(("the rain falls on the roof", "the roof sends the rain to the street")):
            self.put("walk-articles", b"%d" % at, text(line))
        counted = self.scatter("word-count", {"map": "walk-articles", "top": 2, "into": "walk-words"})
        self.check("walk-words", (counted["words"], counted["top"][0]) == (14, ["the", 5]), counted)
        request = tasks_pb2.ScatterRequest(
            name="top-k", payload=payload({"map": "walk-words", "k": 1}), parts=True, deadline_ms=20_000
        )
        replies = list(self.grid.at(self.grid.any())["tasks"].Scatter(request))
        parts = [reply for reply in replies if reply.HasField("part")]
        self.check("parts to reduce here", parts and not replies[-1].answer.HasField("answer"), replies)
        largest = self.scatter("top-k", {"map": "walk-words", "k": 1})
        self.check("the largest", "the" in json.dumps(largest) and "5" in json.dumps(largest), largest)

    def scatter(self, name, input):
        request = tasks_pb2.ScatterRequest(name=name, payload=payload(input), deadline_ms=20_000)
        replies = list(self.grid.at(self.grid.any())["tasks"].Scatter(request))
        last = replies[-1]
        self.check(f"{name} ends with an answer", last.WhichOneof("end") == "answer", last)
        progress = [reply.done for reply in replies[:-1]]
        self.check("progress grows", progress == sorted(progress) and progress[-1] == replies[0].of, progress)
        return json.loads(last.answer.answer.data)

    def job(self, name):
        self.create("walk-labels", UTF8)
        job = self.start_job(name, b"{7}", {"from": "walk-orders", "to": "walk-labels", "pause_ms": 60})
        seen = []

        def ended():
            now = self.tasks("GetJob", tasks_pb2.JobRequest(id=job)).job
            seen.append(now)
            return now.state in (tasks_pb2.JOB_STATE_DONE, tasks_pb2.JOB_STATE_FAILED)

        self.until("the job ends", ended)
        last = seen[-1]
        self.check("done", last.state == tasks_pb2.JOB_STATE_DONE and last.permille == 1000, last)
        self.check("it said how far it was", any(0 < now.permille < 1000 and now.text for now in seen), len(seen))
        self.check("its answer", json.loads(last.answer.data)["entries"] >= 9, last)
        self.check("what it wrote", self.get("walk-labels", b"{7}3").entry.value == text("1 bytes"))
        # Another is cancelled on its way.
        job = self.start_job(name, b"{7}", {"from": "walk-orders", "to": "walk-labels", "pause_ms": 600_000})

        def state():
            return self.tasks("GetJob", tasks_pb2.JobRequest(id=job)).job.state

        self.until("the job runs", lambda: state() == tasks_pb2.JOB_STATE_RUNNING)
        self.tasks("CancelJob", tasks_pb2.JobRequest(id=job))
        self.until("the job is cancelled", lambda: state() == tasks_pb2.JOB_STATE_CANCELLED)
        listed = self.tasks("ListJobs", tasks_pb2.ListJobsRequest()).jobs
        self.check("it is in the list", job in [known.id for known in listed], listed)
        self.refused("no such job", "KS2020", lambda: self.tasks("GetJob", tasks_pb2.JobRequest(id=5)))

    def start_job(self, name, key, input):
        # The same random bits at every retry, so that one job is started.
        random_bits = client.random.getrandbits(64) or 1
        request = tasks_pb2.StartJobRequest(name=name, key=key, payload=payload(input), random=random_bits)
        return self.tasks("StartJob", request).job.id


class Counting:
    """Adds one by one and watches, whatever happens to peers: each exactly once."""

    KEYS = [b"c-%d" % i for i in range(8)]

    def __init__(self, walk):
        self.walk, self.stop = walk, threading.Event()
        self.added, self.seen, self.newest, self.wrong = 0, {key: 0 for key in self.KEYS}, {}, []
        walk.create("walk-counts", I64)
        self.watch = walk.grid.watch(watch_pb2.WatchRequest(map="walk-counts"))
        walk.in_time("a watch begins", lambda: next(self.watch))  # from here on nothing is missed
        both = (self.add, self.follow)
        self.threads = [threading.Thread(target=self.guarded, args=(it,), daemon=True) for it in both]
        for thread in self.threads:
            thread.start()

    def guarded(self, what):
        try:
            what()
        except Exception as error:  # noqa: BLE001: whatever it is, the walk is to end with it
            self.wrong.append(error)

    def add(self):
        while not self.stop.is_set():
            key = self.KEYS[self.added % len(self.KEYS)]
            request = kv_pb2.IncrementRequest(map="walk-counts", key=key, delta=1)
            reply = self.walk.kv("Increment", request, key, write=True)
            self.added += 1
            if reply.value != (self.added - 1) // len(self.KEYS) + 1:
                raise AssertionError(f"addition {self.added} gave {reply.value}")

    def follow(self):
        for message in self.watch:
            for event in message.events:
                value = struct.unpack("<q", event.put.data)[0]
                if value != self.seen[event.key] + 1 or event.revision <= self.newest.get(event.partition, 0):
                    raise AssertionError(f"{event} after {self.seen[event.key]}")
                self.seen[event.key], self.newest[event.partition] = value, event.revision

    def going(self):
        self.walk.check("counting and watching go on", not self.wrong, self.wrong)
        return self.added

    def end(self):
        self.stop.set()
        self.threads[0].join(PATIENCE_S)
        self.walk.until("the watch has shown all", lambda: sum(self.seen.values()) == self.going())
        for at, key in enumerate(self.KEYS):
            expected = (self.added - at + len(self.KEYS) - 1) // len(self.KEYS)
            entry = self.walk.get("walk-counts", key).entry
            found = struct.unpack("<q", entry.value.data)[0] if entry.value.data else 0
            self.walk.check("added once each", found == expected == self.seen[key], (key, found, expected))


def trouble(walk, counting):
    """Until a member is gone and a new one leads something, told by the members."""
    begun = {member.name for member in walk.cluster("Members", cluster_pb2.MembersRequest()).members}

    def members():
        counting.going()
        return walk.cluster("Members", cluster_pb2.MembersRequest()).members

    print("trouble: kill a member, and start another", flush=True)
    gone = cluster_pb2.MEMBER_STATE_UNREACHABLE
    walk.until("a member is gone", lambda: any(member.state == gone for member in members()))
    print("trouble: a member is gone", flush=True)
    fresh = []

    def joined():
        fresh[:] = [member for member in members() if member.name not in begun and member.leaders > 0]
        return fresh

    walk.until("a new member leads partitions", joined)
    print(f"trouble: {fresh[0].name} leads {fresh[0].leaders} partitions", flush=True)
    more = counting.going() + 50
    walk.until("additions go on", lambda: counting.going() >= more)
    # The new one serves everything, too.
    reply = walk.grid.at(fresh[0].address)["kv"].Get(kv_pb2.GetRequest(map="walk-orders", key=b"{7}3"), timeout=10)
    walk.check("the new member answers", reply.entry.value == text("3"), reply)
    walk.check("the client was sent elsewhere", walk.grid.redirected > 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peers", help="HOST:PORT,.. of peers")
    parser.add_argument("--job", help="a job that the peers carry")
    parser.add_argument("--trouble", action="store_true", help="wait for a kill and a newcomer")
    arguments = parser.parse_args()
    try:
        walk = Walk(client.Grid(arguments.peers.split(",")))
        walk.begin_anew()
        counting = Counting(walk)
        walk.members()
        walk.entries()
        walk.several()
        walk.whole_maps()
        walk.times()
        walk.limits()
        walk.watches()
        walk.redirects()
        walk.streams()
        walk.replicated()
        walk.user_code()
        if arguments.job:
            walk.job(arguments.job)
        if arguments.trouble:
            trouble(walk, counting)
        counting.end()
    except (client.GridError, grpc.RpcError, TimeoutError) as error:
        sys.exit(f"WRONG: {error}")
    print(f"{walk.checks} checks hold; {counting.added} additions, each once, and each seen once")


if __name__ == "__main__":
    main()
