//! Three peers in one process, over the machine's network and disk.
#![allow(missing_docs)]

mod common;

use common::{PATIENCE, start_peer, start_three};
use keystead::node::GridService;
use keystead::types::{KeyCodec, Value, ValueCodec};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_peers_form_a_grid_and_keep_what_they_acknowledge() {
    let dir = tempfile::tempdir().expect("a directory");
    let (seeds, mut peers) = start_three(dir.path(), 8).await;
    let client = peers[0].client().await.expect("connects");
    client.create_map("m", KeyCodec::Utf8, ValueCodec::Utf8, 0).await.expect("creates");
    for i in 0..200 {
        client.put("m", format!("k{i}"), Value::utf8(format!("v{i}"))).await.expect("puts");
    }
    let found = client.get("m", "k7").await.expect("gets").expect("is there");
    assert_eq!(found.value, Value::utf8("v7"));
    assert_eq!(client.members().await.expect("members").len(), 3);

    // One goes; the others still have everything, and take more.
    peers.remove(1).shutdown().await;
    for i in 0..200 {
        let found = client.get("m", format!("k{i}")).await.expect("gets").expect("is there");
        assert_eq!(found.value, Value::utf8(format!("v{i}")));
    }
    client.put("m", "more", Value::utf8("x")).await.expect("puts");

    // It comes back with its disk.
    let back = start_peer(&seeds, 1, dir.path(), 8).await;
    back.wait_ready(PATIENCE).await.expect("serves again");
    let through = back.client().await.expect("connects");
    assert_eq!(through.get("m", "more").await.expect("gets").expect("is there").value, Value::utf8("x"));
    assert_eq!(back.node().partitions().await.expect("partitions").len(), 8);
    back.shutdown().await;
    for peer in peers {
        peer.shutdown().await;
    }
}
