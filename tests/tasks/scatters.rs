//! Scatters: right answers by an independent count, parts, partial answers, wrong payloads.

use crate::common::PATIENCE;
use crate::grid::{Latch, PARTITIONS, json, start_three};
use keystead::client::{Client, Progress, SubmitOptions};
use keystead::compute::{top_k, word_count};
use keystead::error::Code;
use keystead::types::{KeyCodec, Value, ValueCodec};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

/// Texts of a few words each, drawn by a small generator of their own.
pub fn texts(count: u64) -> Vec<String> {
    const WORDS: [&str; 12] =
        ["tea", "milk", "sugar", "water", "Tea", "bread", "salt", "oil", "rice", "beans", "corn", "fish"];
    let mut state = 12_345u64;
    let mut draw = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let text = |_| (0..=draw(9)).map(|_| WORDS[draw(12) as usize]).collect::<Vec<_>>().join(", ");
    (0..count).map(text).collect()
}

/// The counts, by other means.
pub fn counted(texts: &[String]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for word in texts.iter().flat_map(|text| text.split(", ")) {
        *counts.entry(word.to_lowercase()).or_default() += 1;
    }
    counts
}

pub async fn fill_texts(client: &Client, texts: &[String]) {
    client.create_map("texts", KeyCodec::Utf8, ValueCodec::Utf8, 0).await.expect("creates");
    for (n, text) in texts.iter().enumerate() {
        client.put("texts", format!("t{n}"), Value::utf8(text.clone())).await.expect("puts");
    }
}

pub fn check(output: &word_count::Output, expected: &BTreeMap<String, u64>) {
    assert_eq!((output.words, output.distinct), (expected.values().sum(), expected.len() as u64));
    let mut top: Vec<(String, u64)> = expected.clone().into_iter().collect();
    top.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    top.truncate(output.top.len());
    assert_eq!(output.top, top);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_are_counted_and_the_largest_found() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_, peers) = start_three(dir.path(), &Latch::default()).await;
    let client = peers[1].client().await.expect("connects");
    let texts = texts(300);
    fill_texts(&client, &texts).await;
    let expected = counted(&texts);
    let input = word_count::Input { map: "texts".into(), top: 5, into: Some("counts".into()) };
    let output: word_count::Output = client.scatter_typed(word_count::NAME, &input).await.expect("counts");
    check(&output, &expected);
    assert_eq!(output.top.len(), 5);
    for (word, count) in &expected {
        let entry = client.get("counts", word).await.expect("gets").expect("was written");
        assert_eq!(entry.value, Value::i64(*count as i64), "{word}");
    }

    let most = AtomicU32::new(0);
    let progress = |progress: Progress| {
        most.fetch_max(progress.done, Ordering::SeqCst);
    };
    let options = SubmitOptions { progress: Some(&progress), deadline: Some(PATIENCE), ..SubmitOptions::default() };
    let payload = json(r#"{"map": "counts", "k": 3}"#);
    let answer = client.scatter(top_k::NAME, payload, false, options).await.expect("finds").answer.expect("an answer");
    let found: serde_json::Value = serde_json::from_slice(&answer.data).expect("JSON");
    let found: Vec<(&str, u64)> = found["top"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|row| (row["key"].as_str().expect("a key"), row["value"].as_u64().expect("a number")))
        .collect();
    let expected_top: Vec<(&str, u64)> =
        output.top.iter().take(3).map(|(word, count)| (word.as_str(), *count)).collect();
    assert_eq!(found, expected_top);
    assert_eq!(most.load(Ordering::SeqCst), PARTITIONS);

    // Reduced here.
    let options = SubmitOptions { deadline: Some(PATIENCE), ..SubmitOptions::default() };
    let (parts, failed) = client
        .scatter_to_parts::<_, BTreeMap<String, u64>>(word_count::NAME, &input, false, options)
        .await
        .expect("parts");
    let mut all = BTreeMap::new();
    for (word, count) in parts.into_iter().flatten() {
        *all.entry(word).or_default() += count;
    }
    assert_eq!((all, failed), (expected, vec![]));

    // What is wrong is said in the caller's words, with an example.
    let wrong =
        |payload: &'static str| client.scatter(word_count::NAME, json(payload), false, SubmitOptions::default());
    let error = wrong(r#"{"map": "texts", "top": "five"}"#).await.expect_err("refused");
    assert_eq!((error.code, error.place.as_str()), (Code::TaskCodec, "task word-count"));
    assert!(error.what.contains("field \"top\" is wrong: it is text \"five\""), "{error}");
    assert!(error.remedy.contains(r#"{"map": "articles", "top": 20}"#), "{error}");
    let error = wrong(r#"{"map": "nowhere"}"#).await.expect_err("refused");
    assert_eq!(error.code, Code::NoSuchMap, "{error}");
    let error = client.scatter_typed::<_, ()>("rolling-total", &7).await.expect_err("refused");
    assert!(error.code == Code::InvalidRequest && error.remedy.contains("keystead task"), "{error}");
    for peer in peers {
        peer.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partial_answer_names_what_it_lacks() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_, mut peers) = start_three(dir.path(), &Latch::default()).await;
    let client = peers[0].client().await.expect("connects");
    fill_texts(&client, &texts(20)).await;
    // Two of three peers gone: no partition has a majority.
    peers.pop().expect("a peer").shutdown().await;
    peers.pop().expect("a peer").shutdown().await;
    let options = || SubmitOptions { deadline: Some(std::time::Duration::from_secs(3)), ..SubmitOptions::default() };
    let payload = || json(r#"{"map": "texts"}"#);
    let error = client.scatter(word_count::NAME, payload(), false, options()).await.expect_err("nothing can be had");
    assert!(matches!(error.code, Code::PartitionsFailed | Code::DeadlineExceeded), "{error}");
    // Whoever takes what there is has it in time, and the reason for each partition that is not in it.
    let answer = client.scatter(word_count::NAME, payload(), true, options()).await.expect("a partial answer");
    let lacking: Vec<u32> = answer.failed.iter().map(|(partition, _)| partition.0).collect();
    assert_eq!(lacking, (0..PARTITIONS).collect::<Vec<_>>(), "{answer:?}");
    assert!(answer.failed.iter().all(|(_, why)| why.code.retry() != keystead::error::Retry::Never), "{answer:?}");
    peers.pop().expect("a peer").shutdown().await;
}
