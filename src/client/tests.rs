//! The client over real loopback connections, against peers in memory with scripted trouble.

use super::*;
use crate::api::testing::{FakePeer, Trouble, World};
use crate::types::{AckLevel, Condition, KeyCodec, ReadLevel, TaskPayload, Value, ValueCodec};
use bytes::Bytes;
use futures::TryStreamExt;
use std::sync::atomic::Ordering;
use std::time::Duration;

fn quick() -> ClientConfig {
    ClientConfig {
        connect_deadline: Duration::from_millis(500),
        attempt_timeout: Duration::from_millis(500),
        keepalive: None,
        ..ClientConfig::default()
    }
}

async fn client(addresses: &[&String]) -> Client {
    Client::connect(addresses.iter().map(|address| (*address).clone()).collect(), quick()).await.expect("connects")
}

#[tokio::test]
async fn the_operations_do_what_they_say() {
    let (address, _stop) = FakePeer::new(&World::new()).serve().await;
    let client = client(&[&address]).await;
    let first = client.put("m", "k", Value::utf8("1")).await.expect("put");
    assert_eq!(first.served.ack, AckLevel::MajorityFsync);
    assert_eq!(client.get("m", "k").await.expect("get").map(|stored| stored.value), Some(Value::utf8("1")));
    assert!(!client.put_if_absent("m", "k", Value::utf8("2")).await.expect("put").is_written());
    let refused = client.compare_and_set("m", "k", Value::utf8("9"), Value::utf8("2")).await.expect("cas");
    assert!(
        matches!(refused, Conditional::Refused { present: Some(present), .. } if present.revision == first.revision)
    );
    let set = client.compare_and_set_revision("m", "k", first.revision, Value::utf8("5")).await.expect("cas");
    assert!(set.is_written());
    assert_eq!(client.increment("m", "k", 2).await.expect("incr").value, 7);
    assert!(client.delete("m", "k").await.expect("delete").existed);
    assert!(!client.delete("m", "k").await.expect("delete").existed);

    let entries: Vec<(String, Value)> = (0..500).map(|at| (format!("k{at}"), Value::utf8(at.to_string()))).collect();
    assert_eq!(client.put_many("m", entries).await.expect("put many").len(), 500);
    let keys: Vec<String> = (0..501).rev().map(|at| format!("k{at}")).collect();
    let found = client.get_many("m", &keys).await.expect("get many");
    assert_eq!(found.len(), 501);
    assert!(found[0].is_none());
    assert!(
        found[1..]
            .iter()
            .zip((0..500).rev())
            .all(|(stored, at)| { stored.as_ref().is_some_and(|stored| stored.value == Value::utf8(at.to_string())) })
    );

    let payload = TaskPayload { codec: ValueCodec::Json, data: Bytes::from_static(b"{}") };
    assert_eq!(client.task("echo", "k", payload.clone()).await.expect("task").payload, payload);
    let echoed: Vec<u32> = client.submit("echo", "k", &vec![1u32, 2]).await.expect("submit");
    assert_eq!(echoed, [1, 2]);
    assert_eq!(client.task("no", "k", payload).await.expect_err("no task").code, Code::NoSuchTask);
    assert_eq!(client.members().await.expect("members")[0].name, "n1");
    assert_eq!(client.partitions().await.expect("partitions").len(), 2);
    assert_eq!(client.explain("a{b}", None).await.expect("explain").affinity, "b");
    assert_eq!(client.placement().await.expect("placement").partitions.len(), 2);
    assert!(client.time().await.expect("time").ms() >= 1_000_000);
}

#[tokio::test]
async fn conditions_previous_entries_and_transactions() {
    let (address, _stop) = FakePeer::new(&World::new()).serve().await;
    let client = client(&[&address]).await;
    assert!(!client.replace("m", "k", Value::utf8("0")).await.expect("replace").is_written(), "there is none");
    let first = client.get_and_put("m", "k", Value::utf8("1")).await.expect("put");
    assert_eq!(first.previous, None);
    assert!(client.replace("m", "k", Value::utf8("2")).await.expect("replace").is_written());
    let second = client.get_and_put("m", "k", Value::utf8("3")).await.expect("put");
    assert_eq!(second.previous.map(|entry| entry.value), Some(Value::utf8("2")));
    let at = second.written.revision;
    let refused = client.remove_if("m", "k", Condition::Revision(at + 1)).await.expect("remove");
    assert!(matches!(refused, Removed::Refused { present: Some(entry), .. } if entry.revision == at));
    let deleted = client.remove_if("m", "k", Condition::Value(Value::utf8("3"))).await.expect("remove");
    assert!(matches!(deleted, Removed::Deleted(deleted) if deleted.existed));
    client.put("m", "k", Value::utf8("4")).await.expect("put");
    assert_eq!(client.get_and_delete("m", "k").await.expect("gets").map(|entry| entry.value), Some(Value::utf8("4")));
    assert_eq!(client.get_and_delete("m", "k").await.expect("gets"), None);

    let begun =
        client.transaction("m").check_absent("{t}a").put("{t}a", Value::utf8("1")).put("{t}b", Value::utf8("2"));
    let Transacted::Written(written) = begun.commit().await.expect("commits") else { panic!("nothing was there") };
    let again = client.transaction("m").check("{t}a", written.revision).check_absent("{t}b").delete("{t}a");
    let Transacted::Refused { key, present, .. } = again.commit().await.expect("answers") else { panic!("b is there") };
    assert_eq!((&key[..], present.map(|entry| entry.revision)), (&b"{t}b"[..], Some(written.revision)));
    let other = client.transaction("m").check_present("{t}a").check_value("{t}b", Value::utf8("1")).delete("{t}b");
    assert!(matches!(other.commit().await.expect("answers"), Transacted::Refused { key, .. } if key == "{t}b"));
    let same = client.transaction("m").check_value("{t}b", Value::utf8("2")).put("{t}b", Value::utf8("2"));
    assert!(matches!(same.commit().await.expect("commits"), Transacted::Written(_)));
    let gone = client.transaction("m").check("{t}a", written.revision).delete("{t}a").commit().await.expect("commits");
    assert!(matches!(gone, Transacted::Written(_)));
    assert_eq!(client.get("m", "{t}a").await.expect("gets"), None);
    let error = client.transaction("m").put("a", Value::utf8("1")).delete("b").commit().await.expect_err("two slots");
    assert_eq!(error.code, Code::CrossSlot);
    assert!(error.what.contains("\"a\"") && error.remedy.contains("{tag}"), "{error}");
}

#[tokio::test]
async fn a_scan_reads_every_page() {
    let (address, _stop) = FakePeer::new(&World::new()).serve().await;
    let client = client(&[&address]).await;
    let entries: Vec<(String, Value)> =
        (0..2500).map(|at| (format!("k{at:04}"), Value::utf8(at.to_string()))).collect();
    client.put_many("m", entries).await.expect("put many");
    client.put("m", "other", Value::utf8("x")).await.expect("put");
    let found: Vec<_> = client.scan("m", "k").try_collect().await.expect("scans");
    assert_eq!(found.len(), 2500);
    assert!(found.iter().enumerate().all(|(at, (key, _))| key[..] == *format!("k{at:04}").as_bytes()));
    let page = client.scan_page("m", "", None, 7, ReadLevel::Local).await.expect("a page");
    assert!(page.entries.len() == 7 && page.next.is_some());
    assert_eq!(client.size("m").await.expect("sizes").entries, 2501);
    assert_eq!(client.clear("m").await.expect("clears"), 2501);
    assert_eq!(client.size("m").await.expect("sizes"), Size::default());
    client.drop_map("m").await.expect("drops");
    assert_eq!(client.size("m").await.expect_err("dropped").code, Code::NoSuchMap);
}

#[tokio::test]
async fn a_missing_map_is_created_only_when_asked_for() {
    let (address, _stop) = FakePeer::new(&World::new()).serve().await;
    let plain = client(&[&address]).await;
    assert_eq!(plain.put("new", "k", Value::utf8("v")).await.expect_err("no map").code, Code::NoSuchMap);
    let config = ClientConfig { create_maps: true, ..quick() };
    let creating = Client::connect(vec![address], config).await.expect("connects");
    creating.put("new", "k", Value::utf8("v")).await.expect("put");
    let maps = creating.maps().await.expect("maps");
    let map = maps.iter().find(|map| map.name == "new").expect("created");
    assert_eq!((map.key_codec, map.value_codec), (KeyCodec::Utf8, ValueCodec::Utf8));
    assert_eq!(creating.get("newer", "k").await.expect_err("reads create nothing").code, Code::NoSuchMap);
}

#[tokio::test]
async fn requests_go_to_the_leader_that_not_leader_names_and_stay_there() {
    let world = World::new();
    let (a, b) = (FakePeer::new(&world), FakePeer::new(&world));
    let ((a_at, _stop_a), (b_at, _stop_b)) = (a.serve().await, b.serve().await);
    world.lead(&a_at);
    let client = client(&[&a_at]).await;
    world.lead(&b_at);
    for at in 0..10 {
        client.put("m", "k", Value::utf8(at.to_string())).await.expect("put");
    }
    assert_eq!(a.asked.load(Ordering::SeqCst), 1);
    assert_eq!(b.asked.load(Ordering::SeqCst), 10);
}

#[tokio::test]
async fn a_peer_that_forwards_teaches_the_client_the_leader() {
    let world = World::new();
    let (a, b) = (Arc::new(FakePeer::with(&world, true)), FakePeer::new(&world));
    let ((a_at, _stop_a), (b_at, _stop_b)) = (a.serve().await, b.serve().await);
    world.lead(&a_at);
    let client = client(&[&a_at]).await;
    world.lead(&b_at);
    let give_up = Instant::now() + Duration::from_secs(5);
    while b.asked.load(Ordering::SeqCst) == 0 {
        client.put("m", "k", Value::utf8("v")).await.expect("put");
        assert!(Instant::now() < give_up, "the client never went to the leader");
    }
}

#[tokio::test]
async fn when_the_leader_dies_writes_go_on_elsewhere_once_each_and_in_order() {
    let world = World::new();
    let (a, b) = (FakePeer::new(&world), FakePeer::new(&world));
    let ((a_at, stop_a), (b_at, _stop_b)) = (a.serve().await, b.serve().await);
    world.lead(&a_at);
    let client = client(&[&a_at, &b_at]).await;
    let writes = (1..=400i64).map(|at| {
        let client = client.clone();
        let (world, stop_a, b_at) = (world.clone(), stop_a.clone(), b_at.clone());
        async move {
            let number = client.increment("m", "k", 1).await.expect("increment").value;
            if number == 100 {
                world.lead(&b_at);
                stop_a.cancel();
            }
            (at, number)
        }
    });
    let results = futures::future::join_all(writes).await;
    assert!(results.iter().all(|(at, number)| at == number), "in the order of the calls: {results:?}");
    assert!(b.asked.load(Ordering::SeqCst) > 0);
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_with_the_same_number() {
    let world = World::new();
    let peer = FakePeer::new(&world);
    let (address, _stop) = peer.serve().await;
    let client = client(&[&address]).await;
    let lost = || Some(Trouble::LoseAnswer(Error::new(Code::OutcomeUnknown, "lost")));
    peer.trouble([lost(), lost(), Some(Trouble::Silence), None]);
    assert_eq!(client.increment("m", "k", 1).await.expect("increment").value, 1);
    let seen = peer.seen.lock().expect("lock").clone();
    let stamps: Vec<_> = seen.iter().filter_map(|request| request.stamp.clone()).collect();
    assert_eq!(stamps.len(), 4);
    assert!(
        stamps.iter().all(
            |stamp| (stamp.session, stamp.number, stamp.first_sent) == (stamps[0].session, 1, stamps[0].first_sent)
        )
    );
    assert_eq!(world.executed().len(), 1);
}

#[tokio::test]
async fn order_per_slot_survives_refusals_in_the_middle() {
    let world = World::new();
    let peer = FakePeer::new(&world);
    let (address, _stop) = peer.serve().await;
    let client = client(&[&address]).await;
    let refuse = || Some(Trouble::Refuse(Error::new(Code::NoLeader, "not now")));
    peer.trouble((0..300).map(|at| if at % 3 == 0 { refuse() } else { None }));
    let writes = (1..=100i64).map(|at| {
        let client = client.clone();
        async move { (at, client.increment("m", "k", 1).await.expect("increment").value) }
    });
    let results = futures::future::join_all(writes).await;
    assert!(results.iter().all(|(at, number)| at == number), "{results:?}");
}

#[tokio::test]
async fn an_ended_session_reaches_the_caller_and_the_next_write_has_another() {
    let world = World::new();
    let (address, _stop) = FakePeer::new(&world).serve().await;
    let client = client(&[&address]).await;
    client.put("m", "k", Value::utf8("1")).await.expect("put");
    world.forget_sessions();
    assert_eq!(client.put("m", "k", Value::utf8("2")).await.expect_err("ended").code, Code::SessionEnded);
    client.put("m", "k", Value::utf8("3")).await.expect("a new session");
}

#[tokio::test]
async fn outstanding_requests_are_bounded_and_the_deadline_holds() {
    let peer = FakePeer::new(&World::new());
    let (address, _stop) = peer.serve().await;
    peer.door.forget_permits(1 << 20);
    let config = ClientConfig { max_outstanding: 3, deadline: Duration::from_millis(700), ..quick() };
    let client = Client::connect(vec![address], config).await.expect("connects");
    let reads = futures::future::join_all((0..9).map(|_| client.get("m", "k")));
    // Looked at while the first ones wait: a peer may hear late that a request was given up, and by then the
    // next ones have come.
    let most = async {
        while peer.inside.load(Ordering::SeqCst) < 3 {
            clock::sleep(Duration::from_millis(2)).await;
        }
        clock::sleep(Duration::from_millis(30)).await;
        peer.inside_max.load(Ordering::SeqCst)
    };
    let (reads, most) = tokio::join!(reads, most);
    let codes: Vec<Code> = reads.into_iter().map(|read| read.expect_err("too late").code).collect();
    assert_eq!((codes, most), (vec![Code::DeadlineExceeded; 9], 3));
    let late = client.put("m", "k", Value::utf8("v")).await.expect_err("too late");
    assert_eq!(late.code, Code::OutcomeUnknown);
}

#[tokio::test]
async fn requests_that_wait_together_travel_together() {
    let peer = FakePeer::new(&World::new());
    let (address, _stop) = peer.serve().await;
    let config = ClientConfig { linger: Duration::from_millis(50), max_batch_requests: 1000, ..quick() };
    let client = Client::connect(vec![address], config).await.expect("connects");
    let start = Instant::now();
    let writes = (0..100).map(|at| client.put("m", format!("k{at}"), Value::utf8("v")));
    assert!(futures::future::join_all(writes).await.into_iter().all(|written| written.is_ok()));
    assert!(start.elapsed() >= Duration::from_millis(50), "it waited for more");
}

#[tokio::test]
async fn no_peer_is_an_error_that_says_so() {
    let listener = TcpNetwork.listen("127.0.0.1:0").await.expect("listens");
    let address = listener.local_addr();
    drop(listener);
    let error = Client::connect(vec![address.clone()], quick()).await.err().expect("nobody there");
    assert_eq!(error.code, Code::PeerUnreachable);
    assert!(error.to_string().contains(&address) && error.to_string().contains("keystead start"), "{error}");
}

#[tokio::test]
async fn empty_batches_are_answered_without_asking() {
    let (address, _stop) = FakePeer::new(&World::new()).serve().await;
    let client = client(&[&address]).await;
    assert_eq!(client.get_many::<&str>("m", &[]).await.expect("nothing"), []);
    assert_eq!(client.put_many::<&str>("m", []).await.expect("nothing"), []);
}

#[tokio::test]
async fn a_request_over_the_limit_is_refused_before_it_is_sent() {
    let peer = FakePeer::new(&World::new());
    let (address, _stop) = peer.serve().await;
    let client = client(&[&address]).await;
    let large = Value::bytes(vec![0; 5 << 20]);
    assert_eq!(client.put("m", "k", large).await.expect_err("too large").code, Code::TooLarge);
    assert_eq!(peer.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_local_read_goes_on_to_a_peer_that_can_answer() {
    let world = World::new();
    let (joining, there) = (FakePeer::new(&world), FakePeer::new(&world));
    let (first, _stop_first) = joining.serve().await;
    let (second, _stop_second) = there.serve().await;
    let client = client(&[&first, &second]).await;
    *joining.not_ready.lock().expect("lock") = Some("no grid yet".into());
    let error = client.get_local("m", "k", 0).await.expect_err("the second has no copy of it");
    assert_eq!(error.code, Code::NoLocalCopy, "{error}");
    *there.not_ready.lock().expect("lock") = Some("no grid yet".into());
    let again = clock::spawn({
        let client = client.clone();
        async move { client.get_local("m", "k", 7).await }
    });
    clock::sleep(Duration::from_millis(50)).await;
    *there.not_ready.lock().expect("lock") = None;
    assert_eq!(again.await.expect("ends").expect_err("no copy").code, Code::NoLocalCopy, "it asks again and again");
}
