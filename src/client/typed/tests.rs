//! Typed maps against a grid in memory.

use super::*;
use crate::api::testing::{FakePeer, World};
use crate::client::ClientConfig;
use crate::client::{Json, Plain};
use bytes::Bytes;
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    item: String,
    pieces: u32,
}

/// A later version: one field more, one less.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct LaterOrder {
    pieces: u32,
    #[serde(default)]
    gift: bool,
}

fn order() -> Order {
    Order { item: "mug".to_owned(), pieces: 3 }
}

async fn client(address: String) -> Client {
    Client::connect(vec![address], ClientConfig::default()).await.expect("connects")
}

fn of_schema(schema: u32) -> TypedOptions {
    TypedOptions { schema, ..TypedOptions::default() }
}

#[tokio::test]
async fn entries_are_typed() {
    let (address, _stop) = FakePeer::new(&World::new()).serve().await;
    let client = client(address.to_string()).await;
    let orders: TypedMap<i64, Order> = TypedMap::open(client.clone(), "orders").await.expect("opens");
    assert_eq!(orders.get(&-7).await, Ok(None));
    assert_eq!(orders.replace(&-7, &order()).await, Ok(false));
    let revision = orders.put(&-7, &order()).await.expect("put");
    assert_eq!(orders.put_if_absent(&-7, &order()).await, Ok(false));
    assert_eq!(orders.entry(&-7).await, Ok(Some(Entry { value: order(), revision, schema: 0 })));
    assert_eq!(orders.compare_and_set(&-7, revision + 1, &order()).await, Ok(false));
    let two = Order { pieces: 2, ..order() };
    assert_eq!(orders.get_and_put(&-7, &two).await, Ok(Some(order())));
    orders.put(&5, &order()).await.expect("put");
    let all: Vec<(i64, Order)> = orders.scan().try_collect().await.expect("scans");
    assert_eq!(all, [(-7, two.clone()), (5, order())]);
    assert_eq!(orders.size().await.expect("sizes").entries, 2);
    assert_eq!(orders.get_and_delete(&-7).await, Ok(Some(two)));
    assert_eq!(orders.delete(&5).await, Ok(true));
    assert_eq!(orders.delete(&5).await, Ok(false));
}

#[tokio::test]
async fn programs_of_two_versions_share_a_map() {
    let (address, _stop) = FakePeer::new(&World::new()).serve().await;
    let client = client(address.to_string()).await;
    let old = TypedMap::<i64, Order>::open_with(client.clone(), "orders", of_schema(1)).await.expect("opens");
    let new = TypedMap::<i64, LaterOrder>::open_with(client.clone(), "orders", of_schema(2)).await.expect("opens");

    // An old writer beside a new reader, and the other way round.
    old.put(&1, &order()).await.expect("put");
    let read = new.entry(&1).await.expect("reads").expect("there");
    assert_eq!((read.value, read.schema), (LaterOrder { pieces: 3, gift: false }, 1));
    let given = new.update(&1, |present| present.map(|order| LaterOrder { gift: true, ..order })).await;
    assert_eq!(given, Ok(Some(LaterOrder { pieces: 3, gift: true })));
    // The removed field stayed for the old reader.
    assert_eq!(old.get(&1).await, Ok(Some(order())));

    // The old program's update leaves what the new one has written.
    old.update(&1, |present| present.map(|order| Order { pieces: 9, ..order })).await.expect("updates");
    let read = new.entry(&1).await.expect("reads").expect("there");
    assert_eq!((read.value, read.schema), (LaterOrder { pieces: 9, gift: true }, 2));

    // A new entry without the removed field is none to the old program: it says what, where and
    // of which versions.
    new.put(&2, &LaterOrder { pieces: 1, gift: false }).await.expect("put");
    let error = old.get(&2).await.expect_err("no item");
    assert_eq!(error.code, Code::ValueMismatch);
    for part in ["schema 2", "schema 1", "Order", "item"] {
        assert!(error.what.contains(part), "{part} in {error}");
    }
    assert_eq!(error.place, "map \"orders\", key \"2\"");

    let options = TypedOptions { schema: 1, accepts_up_to: Some(1), map: None };
    let strict = TypedMap::<i64, Order>::open_with(client, "orders", options).await.expect("opens");
    let error = strict.get(&1).await.expect_err("newer");
    assert_eq!(error.code, Code::NewerSchema);
    assert!(error.what.contains("schema 2") && error.what.contains("up to 1"), "{error}");
    assert!(error.place.contains("orders") && error.place.contains('1'), "{error}");
    let error = strict.update(&1, |present| present).await.expect_err("newer");
    assert_eq!(error.code, Code::NewerSchema, "what is not read is not rewritten");
}

#[tokio::test]
async fn entries_are_removed_on_conditions_and_walked_by_prefix() {
    let (address, _stop) = FakePeer::new(&World::new()).serve().await;
    let orders: TypedMap<str, Order> = TypedMap::open(client(address.to_string()).await, "o").await.expect("opens");
    let first = orders.put("a1", &order()).await.expect("put");
    orders.put("a2", &order()).await.expect("put");
    orders.put("b1", &order()).await.expect("put");
    let found: Vec<(String, Order)> = orders.scan_prefix("a").try_collect().await.expect("scans");
    assert_eq!(found.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["a1", "a2"]);
    assert_eq!(orders.remove_if("a1", Condition::Revision(first + 9)).await, Ok(false));
    assert_eq!(orders.remove_if("a1", Condition::Revision(first)).await, Ok(true));
    assert_eq!(orders.remove_if("a1", Condition::Always).await, Ok(false), "it is gone");
    assert_eq!(orders.remove_if_is("a2", &Order { pieces: 9, ..order() }).await, Ok(false));
    assert_eq!(orders.remove_if_is("a2", &order()).await, Ok(true));
    orders.put("b2", &order()).await.expect("put");
    assert_eq!(orders.clear().await, Ok(2));
    assert_eq!(orders.size().await.expect("sizes").entries, 0);
}

#[tokio::test]
async fn updates_race_without_loss_and_may_delete() {
    let (address, _stop) = FakePeer::new(&World::new()).serve().await;
    let client = client(address.to_string()).await;
    let open = || TypedMap::<str, i64, Plain>::open_with(client.clone(), "n", TypedOptions::default());
    let counts = open().await.expect("opens");
    let add = |map: TypedMap<str, i64, Plain>| async move {
        for _ in 0..20 {
            map.update("k", |present| Some(present.unwrap_or(0) + 1)).await.expect("updates");
        }
    };
    futures::future::join_all((0..4).map(|_| add(counts.clone()))).await;
    assert_eq!(counts.get("k").await, Ok(Some(80)));
    assert_eq!(counts.update("k", |_| None).await, Ok(None));
    assert_eq!(counts.get("k").await, Ok(None));
    assert_eq!(counts.update("k", |_| None).await, Ok(None));
}

#[tokio::test]
async fn each_codec_holds_its_values() {
    let (address, _stop) = FakePeer::new(&World::new()).serve().await;
    let client = client(address.to_string()).await;
    let defaults = TypedOptions::default;
    let json = TypedMap::<str, Order, Json>::open_with(client.clone(), "j", defaults()).await.expect("opens");
    json.put("k", &order()).await.expect("put");
    assert_eq!(json.get("k").await, Ok(Some(order())));
    let text = TypedMap::<u64, String, Plain>::open_with(client.clone(), "t", defaults()).await.expect("opens");
    text.put(&7, &"x".to_owned()).await.expect("put");
    let all: Vec<(u64, String)> = text.scan().try_collect().await.expect("scans");
    assert_eq!(all, [(7, "x".to_owned())]);
    let raw = TypedMap::<[u8], Bytes, Plain>::open_with(client.clone(), "b", defaults()).await.expect("opens");
    raw.put(b"k", &Bytes::from_static(b"\0")).await.expect("put");
    assert_eq!(raw.get(b"k").await, Ok(Some(Bytes::from_static(b"\0"))));

    let wrong: TypedMap<str, Vec<String>, Json> =
        TypedMap::open_with(client.clone(), "j", defaults()).await.expect("opens");
    let error = wrong.get("k").await.expect_err("an order is no list");
    assert!(error.code == Code::ValueMismatch && error.what.contains("Vec<"), "{error}");
    let opened = TypedMap::<str, Order>::open(client.clone(), "j").await;
    assert_eq!(opened.err().expect("values are JSON").code, Code::MapExists);
    // "m" holds utf8 under utf8.
    let opened = TypedMap::<i64, String, Plain>::open_with(client, "m", defaults()).await;
    assert_eq!(opened.err().expect("keys are utf8").code, Code::MapExists);
}
