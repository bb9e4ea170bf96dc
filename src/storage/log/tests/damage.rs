//! One kind of damage a test: what it costs, and what it must not cost.

use super::memory::{Files, MemoryDisk, batches, open_memory, simulate};
use super::*;
use crate::error::Code;
use crate::storage::log::format::{self, Kind, RECORD_HEAD};

const FIRST: &str = "0000000000000001.log";

/// Three replicas, each with a vote and twenty entries, one batch each; in one segment, not sealed.
async fn three(config: LogConfig) -> Files {
    let disk = MemoryDisk::of(&Files::new());
    let (log, _) = open_memory(&disk, config);
    for number in 1..=3 {
        let one = group(&log, number).await;
        one.save_vote(bytes("vote")).await.expect("durable");
        append(&one, entries(1..20, "a")).await.expect("durable");
    }
    let files = disk.files();
    drop(log);
    files
}

fn one_segment() -> LogConfig {
    LogConfig { segment_bytes: 1 << 20, ..small() }
}

/// Where the record of this kind and group begins, the nth one.
fn record(file: &[u8], sequence: u64, kind: Kind, group: u32, nth: usize) -> usize {
    let records = batches(file, sequence).into_iter().flat_map(|batch| {
        let mut at = batch.records().start;
        let end = batch.records().end;
        std::iter::from_fn(move || {
            let record = format::record_at(file, at, end)?;
            at = record.body.end;
            Some(record)
        })
    });
    let mut wanted = records.filter(|record| record.kind == kind && record.key == (GroupId(group), 1));
    wanted.nth(nth).expect("is there").offset
}

async fn check_sound(log: &SharedLog, groups: &[u32]) {
    for number in groups {
        let one = log.group(GroupId(*number), 1).expect("is sound");
        assert_eq!(all(&one).await, entries(1..20, "a"));
        assert_eq!(one.vote(), Some(bytes("vote")));
    }
}

fn keys(groups: &[u32]) -> Vec<(GroupId, u64)> {
    groups.iter().map(|group| (GroupId(*group), 1)).collect()
}

/// Opens damaged files; the damaged replicas stay damaged until they are given up.
async fn check_damaged(files: &Files, damaged: &[u32], sound: &[u32]) {
    let disk = MemoryDisk::of(files);
    for _ in 0..2 {
        let (log, recovery) = open_memory(&disk, one_segment());
        assert_eq!((recovery.damaged, recovery.votes_lost), (keys(damaged), false));
        check_sound(&log, sound).await;
        for number in damaged {
            assert_eq!(log.group(GroupId(*number), 1).err().map(|error| error.code), Some(Code::CorruptLog));
            assert!(log.register(GroupId(*number), 1).await.is_err());
        }
        log.shutdown().await;
    }
    let (log, _) = open_memory(&disk, one_segment());
    for number in damaged {
        log.tombstone(GroupId(*number), 1).await.expect("durable");
    }
    log.shutdown().await;
    let (log, recovery) = open_memory(&disk, one_segment());
    assert_eq!((recovery.damaged, recovery.tombstoned), (vec![], keys(damaged)));
    check_sound(&log, sound).await;
}

#[test]
fn a_torn_tail_is_cut_wherever_it_tears_and_never_comes_back() {
    simulate(async {
        let files = three(one_segment()).await;
        let whole = &files[FIRST];
        let last = batches(whole, 1).pop().expect("batches").offset;
        for cut in last..whole.len() {
            let disk = MemoryDisk::of(&Files::from([(FIRST.to_owned(), whole[..cut].to_vec())]));
            let (log, recovery) = open_memory(&disk, one_segment());
            assert_eq!((recovery.damaged.len(), recovery.damaged_places), (0, 0));
            assert_eq!(recovery.torn_tail_bytes, (cut - last) as u64);
            check_sound(&log, &[1, 2]).await;
            let third = log.group(GroupId(3), 1).expect("is there");
            assert_eq!((all(&third).await, third.vote()), (vec![], Some(bytes("vote"))));
            append(&third, entries(1..2, "b")).await.expect("durable");
            drop((third, log));
            let (log, recovery) = open_memory(&MemoryDisk::of(&disk.files()), one_segment());
            assert_eq!((recovery.torn_tail_bytes, recovery.damaged_places), (0, 0));
            assert_eq!(all(&log.group(GroupId(3), 1).expect("is there")).await, entries(1..2, "b"));
        }
    });
}

#[test]
fn zeros_behind_the_last_batch_are_cut_and_are_nothing_that_tore() {
    simulate(async {
        let mut files = three(one_segment()).await;
        files.get_mut(FIRST).expect("is there").extend([0; 5000]);
        let disk = MemoryDisk::of(&files);
        let (log, recovery) = open_memory(&disk, one_segment());
        assert_eq!((recovery.torn_tail_bytes, recovery.damaged_places), (0, 0));
        check_sound(&log, &[1, 2, 3]).await;
        let (cut, last) = (disk.files(), *files[FIRST].last().expect("zeros"));
        assert!(cut[FIRST].len() < files[FIRST].len() - 4000 && last == 0, "the zeros are gone");
    });
}

#[test]
fn a_segment_whose_creation_was_torn_is_dropped() {
    simulate(async {
        let files = three(one_segment()).await;
        for torn in [&[][..], &format::segment_header(2)[..20], &format::segment_header(2), &[0; 300]] {
            let mut files = files.clone();
            files.insert("0000000000000002.log".to_owned(), torn.to_vec());
            let disk = MemoryDisk::of(&files);
            let (log, recovery) = open_memory(&disk, one_segment());
            assert_eq!((recovery.damaged_places, recovery.torn_tail_bytes), (0, torn.len() as u64));
            check_sound(&log, &[1, 2, 3]).await;
            assert!(!disk.files().contains_key("0000000000000002.log"));
        }
        // The very first one, too: nothing was ever acknowledged.
        for torn in [&[][..], &format::segment_header(1)[..20], &format::segment_header(1)] {
            let disk = MemoryDisk::of(&Files::from([(FIRST.to_owned(), torn.to_vec())]));
            let (log, recovery) = open_memory(&disk, one_segment());
            assert_eq!((recovery.votes_lost, recovery.damaged_places), (false, 0));
            group(&log, 1).await;
        }
    });
}

#[test]
fn a_damaged_entry_costs_its_replica() {
    simulate(async {
        let mut files = three(one_segment()).await;
        let file = files.get_mut(FIRST).expect("is there");
        let at = record(file, 1, Kind::Entry, 2, 7) + RECORD_HEAD + 1;
        file[at] ^= 4;
        check_damaged(&files, &[2], &[1, 3]).await;
    });
}

#[test]
fn a_damaged_record_head_costs_the_replicas_of_its_batch() {
    simulate(async {
        let mut files = three(one_segment()).await;
        let file = files.get_mut(FIRST).expect("is there");
        let at = record(file, 1, Kind::Entry, 2, 7) + 6;
        file[at] ^= 4;
        check_damaged(&files, &[2], &[1, 3]).await;
    });
}

#[test]
fn a_damaged_vote_costs_its_replica_unless_a_later_one_is_there() {
    simulate(async {
        let mut files = three(one_segment()).await;
        let at = record(&files[FIRST], 1, Kind::Vote, 1, 0) + RECORD_HEAD;
        files.get_mut(FIRST).expect("is there")[at] ^= 1;
        check_damaged(&files, &[1], &[2, 3]).await;

        let disk = MemoryDisk::of(&Files::new());
        let (log, _) = open_memory(&disk, one_segment());
        let one = group(&log, 1).await;
        one.save_vote(bytes("old")).await.expect("durable");
        one.save_vote(bytes("new")).await.expect("durable");
        let mut files = disk.files();
        let at = record(&files[FIRST], 1, Kind::Vote, 1, 0) + RECORD_HEAD;
        files.get_mut(FIRST).expect("is there")[at] ^= 1;
        let (log, recovery) = open_memory(&MemoryDisk::of(&files), one_segment());
        assert_eq!((recovery.damaged, recovery.damaged_places), (vec![], 1));
        assert_eq!(log.group(GroupId(1), 1).expect("is sound").vote(), Some(bytes("new")));
    });
}

#[test]
fn damage_that_nobody_can_be_charged_with_stops_the_node_and_changes_nothing() {
    simulate(async {
        let mut files = three(one_segment()).await;
        let file = files.get_mut(FIRST).expect("is there");
        let batch = batches(file, 1)[4].offset;
        file[batch + 20] ^= 1;
        let disk = MemoryDisk::of(&files);
        let (log, recovery) = open_memory(&disk, one_segment());
        assert!(recovery.votes_lost);
        assert_eq!(log.register(GroupId(5), 1).await.map(drop).map_err(|error| error.code), Err(Code::CorruptLog));
        log.shutdown().await;
        assert_eq!(disk.files(), files);
    });
}

#[test]
fn the_last_batch_is_torn_before_the_seal_and_damaged_after_it() {
    simulate(async {
        let files = three(one_segment()).await;
        let disk = MemoryDisk::of(&files);
        drop(open_memory(&disk, one_segment()));
        let mut sealed = disk.files();
        assert_eq!(batches(&sealed[FIRST], 1).pop().expect("batches").flags, format::SEAL);
        let mut unsealed = files;
        let at = record(&unsealed[FIRST], 1, Kind::Entry, 3, 4) + RECORD_HEAD;
        for files in [&mut sealed, &mut unsealed] {
            files.get_mut(FIRST).expect("is there")[at] ^= 1;
        }
        check_damaged(&sealed, &[3], &[1, 2]).await;
        let (log, recovery) = open_memory(&MemoryDisk::of(&unsealed), one_segment());
        assert_eq!((recovery.damaged, recovery.damaged_places), (vec![], 0));
        assert!(recovery.torn_tail_bytes > 0);
        assert_eq!(all(&log.group(GroupId(3), 1).expect("is there")).await, vec![]);
    });
}

/// Damage in an older segment is charged by the checkpoint behind it, to those who need it.
#[test]
fn damage_in_an_older_segment_costs_those_who_have_entries_there() {
    simulate(async {
        let config = LogConfig { segment_bytes: 1500, ..small() };
        let disk = MemoryDisk::of(&Files::new());
        let (log, _) = open_memory(&disk, config.clone());
        let (early, late) = (group(&log, 1).await, group(&log, 2).await);
        early.save_vote(bytes("vote")).await.expect("durable");
        append(&early, entries(1..30, "a")).await.expect("durable");
        append(&late, entries(1..60, "b")).await.expect("durable");
        append(&late, entries(60..70, "b")).await.expect("durable");
        log.shutdown().await;
        let files = disk.files();
        assert!(files.len() >= 3);
        // The batch headers of the first segment, its whole end, and the whole of it.
        for (number, batch) in batches(&files[FIRST], 1).iter().enumerate() {
            let mut files = files.clone();
            files.get_mut(FIRST).expect("is there")[batch.offset + 5] ^= 1;
            let (log, recovery) = open_memory(&MemoryDisk::of(&files), config.clone());
            assert!(!recovery.votes_lost);
            assert_eq!(recovery.damaged, keys(&[1]), "batch {number}");
            assert_eq!(all(&log.group(GroupId(2), 1).expect("is sound")).await, entries(1..70, "b"));
        }
        for left in [batches(&files[FIRST], 1)[3].offset + 7, 100, 0] {
            let mut files = files.clone();
            files.get_mut(FIRST).expect("is there").truncate(left);
            let (_, recovery) = open_memory(&MemoryDisk::of(&files), config.clone());
            assert_eq!((recovery.damaged, recovery.votes_lost), (keys(&[1]), false));
        }
        let mut without = files.clone();
        without.remove("0000000000000002.log");
        let (log, recovery) = open_memory(&MemoryDisk::of(&without), config.clone());
        assert_eq!((recovery.damaged, recovery.votes_lost), (keys(&[2]), false));
        assert_eq!(all(&log.group(GroupId(1), 1).expect("is sound")).await, entries(1..30, "a"));
    });
}

#[test]
fn damage_among_the_dead_costs_nobody() {
    simulate(async {
        let disk = MemoryDisk::of(&Files::new());
        let (log, _) = open_memory(&disk, one_segment());
        let (one, two) = (group(&log, 1).await, group(&log, 2).await);
        append(&one, entries(1..20, "dead")).await.expect("durable");
        append(&two, entries(1..20, "cut")).await.expect("durable");
        one.purge(19, bytes("id")).await.expect("is taken");
        two.truncate_after(Some(3)).await.expect("is taken");
        append(&two, entries(4..6, "new")).await.expect("durable");
        log.shutdown().await;
        let mut files = disk.files();
        let file = files.get_mut(FIRST).expect("is there");
        for at in [record(file, 1, Kind::Entry, 1, 5), record(file, 1, Kind::Entry, 2, 9)] {
            file[at + RECORD_HEAD] ^= 1;
        }
        let (log, recovery) = open_memory(&MemoryDisk::of(&files), one_segment());
        assert_eq!((recovery.damaged, recovery.damaged_places, recovery.votes_lost), (vec![], 2, false));
        let expected = [entries(1..4, "cut"), entries(4..6, "new")].concat();
        assert_eq!(all(&log.group(GroupId(2), 1).expect("is sound")).await, expected);
    });
}

#[test]
fn a_damaged_segment_header_is_written_again_and_another_version_refused() {
    simulate(async {
        let mut files = three(one_segment()).await;
        files.get_mut(FIRST).expect("is there")[3] ^= 1;
        let disk = MemoryDisk::of(&files);
        let (log, recovery) = open_memory(&disk, one_segment());
        assert_eq!((recovery.damaged_places, recovery.damaged), (1, vec![]));
        check_sound(&log, &[1, 2, 3]).await;
        assert_eq!(format::read_segment_header(&disk.files()[FIRST], 1), format::HeaderVerdict::Sound);

        let mut header = format::segment_header(1);
        header[8] = 9;
        let crc = crc32fast::hash(&header[..28]);
        header[28..].copy_from_slice(&crc.to_le_bytes());
        files.get_mut(FIRST).expect("is there")[..32].copy_from_slice(&header);
        let disk = MemoryDisk::of(&files);
        let opened = SharedLog::open(disk.clone(), Arc::new(super::memory::Inline), Path::new("log"), one_segment());
        assert_eq!(opened.map(drop).map_err(|error| error.code), Err(Code::UnknownFormat));
        assert_eq!(disk.files(), files);
    });
}

/// Where a replica's later entries are lost, the earlier ones at the same indexes do not pass for them.
#[test]
fn entries_that_were_replaced_do_not_come_back_when_the_new_ones_are_lost() {
    simulate(async {
        let config = LogConfig { segment_bytes: 1500, ..small() };
        let disk = MemoryDisk::of(&Files::new());
        let (log, _) = open_memory(&disk, config.clone());
        let (one, filler) = (group(&log, 1).await, group(&log, 2).await);
        append(&one, entries(1..10, "old")).await.expect("durable");
        append(&filler, entries(1..40, "x")).await.expect("durable");
        append(&filler, entries(40..80, "x")).await.expect("durable");
        one.truncate_after(Some(4)).await.expect("is taken");
        append(&one, entries(5..10, "new")).await.expect("durable");
        append(&filler, entries(80..120, "x")).await.expect("durable");
        append(&filler, entries(120..125, "x")).await.expect("durable");
        log.shutdown().await;
        let mut files = disk.files();
        assert_eq!(files.len(), 4);
        for (lost, tag) in [("0000000000000002.log", &b"x-40-"[..]), ("0000000000000003.log", b"new-5-")] {
            let bytes = files.remove(lost).expect("is there");
            assert!(bytes.windows(tag.len()).any(|window| window == tag), "the test has lost its sense");
        }
        let (_, recovery) = open_memory(&MemoryDisk::of(&files), config);
        assert_eq!((recovery.damaged, recovery.votes_lost), (keys(&[1, 2]), false));
    });
}
