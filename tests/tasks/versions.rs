//! Tasks and jobs of an older program beside typed maps of a newer one.

use crate::common::PATIENCE;
use keystead::Grid;
use keystead::client::{Client, Json, Msgpack, Schema, TypedMap, TypedOptions};
use keystead::compute::{JobContext, TaskContext, TaskError};
use keystead::error::Code;
use keystead::types::MapOptions;
use serde::{Deserialize, Serialize};

/// As the tasks know it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    pieces: u32,
}

/// As the newer program knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct LaterOrder {
    pieces: u32,
    #[serde(default)]
    gift: bool,
}

const OLD: Schema = Schema { writes: 1, accepts_up_to: None };
const STRICT: Schema = Schema { writes: 1, accepts_up_to: Some(1) };

fn one_more(present: Option<Order>) -> Option<Order> {
    Some(Order { pieces: present.map_or(0, |order| order.pieces) + 1 })
}

fn add(context: &mut TaskContext<'_>, (map, strict): (String, bool)) -> Result<Order, TaskError> {
    let key = context.key().to_vec();
    let schema = if strict { STRICT } else { OLD };
    Ok(context.update_as(schema, &map, &key, one_more)?.expect("an order"))
}

fn cancel(context: &mut TaskContext<'_>, map: String) -> Result<(), TaskError> {
    let key = context.key().to_vec();
    context.update::<Order>(&map, &key, |_| None)?;
    Ok(())
}

async fn add_in_job(job: JobContext, map: String) -> Result<Order, TaskError> {
    Ok(job.update(OLD, &map, job.key(), one_more).await?.expect("an order"))
}

async fn peer() -> Grid {
    let peer = Grid::builder().name("n1").listen("127.0.0.1:0").partitions(2).memory();
    let peer = peer.task("add", add).task("cancel", cancel).job("add-in-job", add_in_job);
    let peer = peer.task("put", |context: &mut TaskContext<'_>, map: String| {
        let key = context.key().to_vec();
        Ok(context.put(&map, &key, &Order { pieces: 1 })?)
    });
    let peer = peer.start().await.expect("starts");
    peer.wait_ready(PATIENCE).await.expect("serves");
    peer
}

fn gift(pieces: u32) -> LaterOrder {
    LaterOrder { pieces, gift: true }
}

async fn of_two<C: keystead::client::Codec<LaterOrder>>(client: &Client, map: &str) -> TypedMap<str, LaterOrder, C> {
    let options = TypedOptions { schema: 2, ..TypedOptions::default() };
    TypedMap::open_with(client.clone(), map, options).await.expect("opens")
}

async fn check<C: keystead::client::Codec<LaterOrder>>(client: &Client, map: &str) {
    let orders = of_two::<C>(client, map).await;
    orders.put("k", &gift(3)).await.expect("puts");

    // What the older programs do not know stays, and with it the newer version.
    let added: Order = client.submit("add", "k", &(map, false)).await.expect("runs");
    assert_eq!(added, Order { pieces: 4 });
    let added: Order = client.run_job("add-in-job", "k", &map, PATIENCE).await.expect("runs");
    assert_eq!(added, Order { pieces: 5 });
    let entry = orders.entry("k").await.expect("reads").expect("is there");
    assert_eq!((entry.value, entry.schema), (gift(5), 2));

    // What an older program is not to read, it does not rewrite: the same error as a typed map's.
    let typed = TypedOptions { schema: 1, accepts_up_to: Some(1), map: None };
    let typed = TypedMap::<str, Order, Json>::open_with(client.clone(), map, typed.clone()).await.ok();
    let error = client.submit::<_, Order>("add", "k", &(map, true)).await.expect_err("newer");
    assert_eq!(error.code, Code::NewerSchema, "{error}");
    if let Some(typed) = typed {
        let same = typed.get("k").await.expect_err("newer");
        assert_eq!((same.code, &same.what), (error.code, &error.what));
    }
    assert_eq!(orders.get("k").await, Ok(Some(gift(5))));

    // A put has the map's codec and version, and none of the fields.
    client.submit::<_, ()>("put", "k", &map).await.expect("runs");
    let entry = orders.entry("k").await.expect("reads").expect("is there");
    assert_eq!((entry.value, entry.schema), (LaterOrder { pieces: 1, gift: false }, 2));

    // A new entry is of the older version; an update may delete.
    client.submit::<_, Order>("add", "k2", &(map, false)).await.expect("runs");
    let entry = orders.entry("k2").await.expect("reads").expect("is there");
    assert_eq!((entry.value.pieces, entry.schema), (1, 1));
    client.submit::<_, ()>("cancel", "k2", &map).await.expect("runs");
    assert_eq!(orders.get("k2").await, Ok(None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_tasks_update_keeps_what_a_newer_writer_has_added() {
    let peer = peer().await;
    let client = peer.client().await.expect("connects");
    check::<Msgpack>(&client, "packed").await;
    check::<Json>(&client, "text").await;

    // A replicated map's copy gives typed values too.
    let options = TypedOptions { map: Some(MapOptions::default().replicated()), ..TypedOptions::default() };
    let rates = TypedMap::<str, Order>::open_with(client.clone(), "rates", options).await.expect("opens");
    let revision = rates.put("eur", &Order { pieces: 7 }).await.expect("puts");
    let (rate, at) = rates.get_local("eur", revision).await.expect("a copy");
    assert!(rate == Some(Order { pieces: 7 }) && at >= revision, "{rate:?} at {at}");
    assert_eq!(rates.get_local("usd", revision).await.expect("a copy").0, None);

    // A value of another kind is the same error too.
    let names = TypedMap::<str, String, Msgpack>::open(client.clone(), "names").await.expect("opens");
    names.put("k", &"Ann".to_owned()).await.expect("puts");
    let error = client.submit::<_, Order>("add", "k", &("names", false)).await.expect_err("no order");
    assert_eq!(error.code, Code::ValueMismatch, "{error}");
    assert!(error.what.contains("Order") && error.place.contains("names"), "{error}");
    peer.shutdown().await;
}
