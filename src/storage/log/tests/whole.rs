//! What the handles promise while all goes well: group commit, order, restarts, clean-up.

use super::faults::FaultyDisk;
use super::memory::Inline;
use super::*;

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let dir = tempfile::tempdir().expect("directory");
    {
        let (log, recovery) = open(dir.path(), small());
        assert_eq!(recovery, Recovery { fresh: true, ..Recovery::default() });
        for number in 1..=3 {
            let one = group(&log, number).await;
            append(&one, entries(1..40, "first")).await.expect("durable");
            one.save_vote(bytes("vote")).await.expect("durable");
            one.truncate_after(Some(30)).await.expect("is taken");
            one.purge(10, bytes("ten")).await.expect("is taken");
            one.save_committed(bytes("mark"));
            append(&one, entries(31..50, "second")).await.expect("durable");
        }
        log.tombstone(GroupId(2), 1).await.expect("durable");
        log.shutdown().await;
    }
    let (log, recovery) = open(dir.path(), small());
    assert_eq!(recovery.replicas, vec![(GroupId(1), 1), (GroupId(3), 1)]);
    assert_eq!((recovery.tombstoned, recovery.damaged), (vec![(GroupId(2), 1)], vec![]));
    assert!(!recovery.fresh);
    assert_eq!((recovery.votes_lost, recovery.torn_tail_bytes, recovery.damaged_places), (false, 0, 0));
    let one = log.group(GroupId(3), 1).expect("is there");
    assert_eq!(all(&one).await, [entries(11..31, "first"), entries(31..50, "second")].concat());
    assert_eq!(one.extent().purged, Some((10, bytes("ten"))));
    assert_eq!((one.vote(), one.committed()), (Some(bytes("vote")), Some(bytes("mark"))));
    assert_eq!(log.group(GroupId(2), 1).err().map(|error| error.code), Some(crate::error::Code::InvalidRequest));
    let again = log.register(GroupId(2), 1).await.map(drop).map_err(|error| error.code);
    assert_eq!(again, Err(crate::error::Code::InvalidRequest));
}

#[tokio::test]
async fn entries_are_readable_before_they_are_durable_and_one_sync_serves_many() {
    let dir = tempfile::tempdir().expect("directory");
    let disk = FaultyDisk::new();
    let (log, _) = open_on(disk.clone(), dir.path(), LogConfig::default());
    let mut groups = Vec::new();
    for number in 0..50 {
        groups.push(group(&log, number).await);
    }
    let hold = disk.hold();
    let first = begin(&groups[0], entries(1..2, "a")).await;
    hold.reached().await;
    let syncs = disk.syncs();
    let mut waiting = Vec::new();
    for one in &groups[1..] {
        waiting.push(begin(one, entries(1..3, "b")).await);
        assert_eq!(all(one).await, entries(1..3, "b"));
    }
    assert!(waiting.iter_mut().all(|receiver| receiver.try_recv().is_err()));
    drop(hold);
    first.await.expect("answered").expect("durable");
    for receiver in waiting {
        receiver.await.expect("answered").expect("durable");
    }
    assert_eq!(disk.syncs() - syncs, 2, "the first append's sync and one for all the others");
}

#[tokio::test]
async fn votes_and_appends_keep_their_order_on_disk() {
    let dir = tempfile::tempdir().expect("directory");
    let disk = FaultyDisk::new();
    let (log, _) = open_on(disk.clone(), dir.path(), LogConfig::default());
    let one = group(&log, 1).await;
    let hold = disk.hold();
    let first = begin(&one, entries(1..2, "a")).await;
    hold.reached().await;
    let vote = {
        let one = one.clone();
        crate::clock::spawn(async move { one.save_vote(bytes("V1")).await })
    };
    tokio::task::yield_now().await;
    let second = begin(&one, entries(2..3, "b")).await;
    assert_eq!(one.vote(), None, "a vote is not answered before it is durable");
    drop(hold);
    for receiver in [first, second] {
        receiver.await.expect("answered").expect("durable");
    }
    vote.await.expect("runs").expect("durable");
    let written = std::fs::read(dir.path().join("0000000000000001.log")).expect("reads");
    let place = |what: &[u8]| written.windows(what.len()).position(|window| window == what).expect("is there");
    assert!(place(b"a-1-") < place(b"V1") && place(b"V1") < place(b"b-2-"));
}

#[tokio::test]
async fn a_quiet_log_is_sealed_once() {
    let dir = tempfile::tempdir().expect("directory");
    let disk = FaultyDisk::new();
    let config = LogConfig { seal_after: Duration::from_millis(1), ..LogConfig::default() };
    let (log, _) = open_on(disk.clone(), dir.path(), config);
    let one = group(&log, 1).await;
    append(&one, entries(1..2, "a")).await.expect("durable");
    let sealed = disk.syncs() + 1;
    disk.synced(sealed).await;
    let length = std::fs::metadata(dir.path().join("0000000000000001.log")).expect("is there").len();
    tokio::task::yield_now().await;
    log.shutdown().await;
    assert_eq!(std::fs::metadata(dir.path().join("0000000000000001.log")).expect("is there").len(), length);
}

#[tokio::test]
async fn an_append_that_leaves_a_hole_is_refused() {
    let dir = tempfile::tempdir().expect("directory");
    let (log, _) = open(dir.path(), small());
    let one = group(&log, 1).await;
    append(&one, entries(5..7, "a")).await.expect("durable");
    assert!(one.append(entries(8..9, "a"), drop).await.is_err());
    assert!(one.append(entries(6..7, "a"), drop).await.is_err());
    one.purge(20, bytes("id")).await.expect("is taken");
    assert!(one.append(entries(7..8, "a"), drop).await.is_err());
    append(&one, entries(21..22, "a")).await.expect("durable");
    assert_eq!(one.extent().entries, 21..22);
    log.shutdown().await;
    let after = one.append(entries(22..23, "a"), drop).await.map_err(|error| error.code);
    assert_eq!(after, Err(crate::error::Code::ShuttingDown));
}

#[tokio::test]
async fn a_full_queue_makes_writers_wait() {
    let dir = tempfile::tempdir().expect("directory");
    let disk = FaultyDisk::new();
    let config = LogConfig { queue_bytes: 4096, queue_requests: 8, ..LogConfig::default() };
    let (log, _) = open_on(disk.clone(), dir.path(), config);
    let one = group(&log, 1).await;
    let hold = disk.hold();
    let mut receivers = vec![begin(&one, entries(1..2, "a")).await];
    hold.reached().await;
    for index in 2..9 {
        receivers.push(begin(&one, entries(index..index + 1, "a")).await);
    }
    let mut late = Box::pin(begin(&one, entries(9..10, "a")));
    assert!(futures::poll!(&mut late).is_pending(), "the queue took more than it may");
    drop(hold);
    receivers.push(late.await);
    for receiver in receivers {
        receiver.await.expect("answered").expect("durable");
    }
}

#[tokio::test]
async fn dead_segments_go_and_small_state_stays() {
    let dir = tempfile::tempdir().expect("directory");
    {
        let (log, _) = open(dir.path(), small());
        let (busy, quiet) = (group(&log, 1).await, group(&log, 2).await);
        quiet.save_vote(bytes("old vote")).await.expect("durable");
        log.tombstone(GroupId(9), 4).await.expect("durable");
        for start in (1..2000).step_by(20) {
            append(&busy, entries(start..start + 20, "a")).await.expect("durable");
            busy.purge(start + 10, bytes("id")).await.expect("is taken");
        }
        append(&busy, entries(2001..2002, "a")).await.expect("durable");
        assert!(log.stats().current_segment > 30);
        assert!(log.stats().segments <= 3, "{:?}", log.stats());
        log.shutdown().await;
    }
    let (log, recovery) = open(dir.path(), small());
    assert_eq!((recovery.replicas.len(), recovery.damaged_places), (2, 0));
    assert_eq!(recovery.tombstoned, vec![(GroupId(9), 4)]);
    assert_eq!(log.group(GroupId(2), 1).expect("is there").vote(), Some(bytes("old vote")));
    assert_eq!(all(&log.group(GroupId(1), 1).expect("is there")).await.len(), 10);
}

/// The bound: twice the live bytes and the slack, and a segment under way.
#[tokio::test]
async fn a_group_that_pins_the_oldest_segment_is_moved() {
    let dir = tempfile::tempdir().expect("directory");
    let config = LogConfig { slack_bytes: 16 << 10, move_bytes: 300, ..small() };
    let (log, _) = open(dir.path(), config.clone());
    let (pin, busy) = (group(&log, 1).await, group(&log, 2).await);
    append(&pin, entries(1..30, "pin")).await.expect("durable");
    let mut pinned = false;
    for start in (1..4000).step_by(20) {
        append(&busy, entries(start..start + 20, "a")).await.expect("durable");
        busy.purge(start + 19, bytes("id")).await.expect("is taken");
        pinned |= log.pinning() == vec![(GroupId(1), 1)];
    }
    append(&pin, entries(30..31, "pin")).await.expect("durable");
    let stats = log.stats();
    assert!(pinned, "nobody was told");
    assert!(stats.moved_bytes > 0);
    let bound = 2 * stats.live_bytes + config.slack_bytes + 2 * config.segment_bytes + 2048;
    assert!(stats.disk_bytes <= bound, "{stats:?} is over {bound}");
    assert_eq!(all(&pin).await, entries(1..31, "pin"));
    log.shutdown().await;
    let (log, recovery) = open(dir.path(), config);
    assert_eq!((recovery.damaged, recovery.damaged_places), (vec![], 0));
    assert_eq!(all(&log.group(GroupId(1), 1).expect("is there")).await, entries(1..31, "pin"));
}

#[tokio::test]
async fn only_the_latest_bytes_stay_in_ram() {
    let dir = tempfile::tempdir().expect("directory");
    let config = LogConfig { cache_bytes: 1000, ..LogConfig::default() };
    let (log, _) = open(dir.path(), config);
    let one = group(&log, 1).await;
    let data: Vec<_> = (0..200).map(|index| (index, bytes([index as u8; 100]))).collect();
    append(&one, data.clone()).await.expect("durable");
    append(&one, vec![(200, bytes([1; 900]))]).await.expect("durable");
    assert_eq!(all(&one).await[..200], data[..]);
    // Damage on disk shows in what is no longer in RAM, and only there.
    let path = dir.path().join("0000000000000001.log");
    let mut file = std::fs::read(&path).expect("reads");
    let place = file.windows(100).position(|window| window == [77; 100]).expect("is there");
    file[place + 50] ^= 1;
    std::fs::write(&path, file).expect("writes");
    assert_eq!(one.read(0..77, usize::MAX).await.expect("reads").len(), 77);
    let error = one.read(70..80, usize::MAX).await.expect_err("a damaged entry was served");
    assert_eq!(error.code, crate::error::Code::CorruptLog);
    assert!(error.place.contains("0000000000000001.log, offset "), "{error}");
    assert_eq!(one.read(200..201, 0).await.expect("reads").len(), 1);
}

/// As the simulator runs it: one thread, a paused clock; the same each time.
#[test]
fn the_log_task_gathers_requests_and_is_deterministic() {
    let run = || {
        let dir = tempfile::tempdir().expect("directory");
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("runs");
        let stats = runtime.block_on(async {
            let (log, _) = SharedLog::open(Arc::new(StdDisk), Arc::new(Inline), dir.path(), small()).expect("opens");
            let tasks: Vec<_> = (0..20u32)
                .map(|number| {
                    let log = log.clone();
                    crate::clock::spawn(async move {
                        let one = group(&log, number).await;
                        for index in 1..20 {
                            append(&one, entries(index..index + 1, "a")).await.expect("durable");
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.expect("runs");
            }
            crate::clock::sleep(Duration::from_secs(7200)).await;
            log.shutdown().await;
            log.stats()
        });
        let mut files: Vec<_> =
            std::fs::read_dir(dir.path()).expect("lists").map(|file| file.expect("is").path()).collect();
        files.sort();
        let bytes: Vec<u8> = files.iter().flat_map(|path| std::fs::read(path).expect("reads")).collect();
        (stats, bytes)
    };
    let (stats, bytes) = run();
    assert_eq!(stats.entries, 380);
    assert_eq!(stats.batches, 20, "each round of all groups is one batch");
    assert_eq!((stats, bytes), run());
}

#[tokio::test(start_paused = true)]
async fn syncs_that_several_share_keep_apart_and_whoever_is_alone_waits_for_none() {
    let spacing = Duration::from_millis(10);
    let disk = super::memory::MemoryDisk::of(&Default::default());
    let config = LogConfig { sync_spacing: spacing, ..small() };
    let (log, _) = SharedLog::open(disk, Arc::new(super::memory::Inline), Path::new("log"), config).expect("opens");
    let (one, two) = (group(&log, 1).await, group(&log, 2).await);
    let start = crate::clock::Instant::now();
    for index in 1..4 {
        append(&one, entries(index..index + 1, "a")).await.expect("durable");
    }
    let (first, second) = (begin(&one, entries(4..5, "a")).await, begin(&two, entries(1..2, "b")).await);
    for receiver in [first, second] {
        receiver.await.expect("answered").expect("durable");
    }
    assert_eq!(start.elapsed(), Duration::ZERO, "nobody shared a sync before");
    append(&two, entries(2..3, "b")).await.expect("durable");
    assert_eq!(start.elapsed(), spacing, "the sync before was shared");
    append(&two, entries(3..4, "b")).await.expect("durable");
    assert_eq!(start.elapsed(), spacing, "alone again");
    log.shutdown().await;
}
