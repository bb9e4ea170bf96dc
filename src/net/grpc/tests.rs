//! The server's life: requests under way at shutdown, addresses where nobody is, limits.

use super::*;
use crate::error::Code;
use crate::net::memory::MemoryNetwork;
use crate::net::{Network, TcpNetwork};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, oneshot};
use tonic::service::Routes;

async fn get(channel: tonic::transport::Channel, path: &str) -> Option<u16> {
    let request = http::Request::get(format!("http://x{path}")).body(tonic::body::Body::empty()).expect("request");
    let answer = tower::ServiceExt::oneshot(channel, request).await.ok()?;
    Some(answer.status().as_u16())
}

struct Served {
    address: String,
    stop: oneshot::Sender<()>,
    server: clock::JoinHandle<()>,
    entered: Arc<Notify>,
    release: Arc<Notify>,
}

/// Serves `/now`, which answers at once, and `/held`, which waits to be released.
async fn served(network: &dyn Network, host: &str, config: GrpcConfig) -> Served {
    let (entered, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (inside, free) = (entered.clone(), release.clone());
    let held = move || {
        let (inside, free) = (inside.clone(), free.clone());
        async move {
            inside.notify_one();
            free.notified().await;
        }
    };
    let router =
        axum::Router::new().route("/now", axum::routing::get(|| async {})).route("/held", axum::routing::get(held));
    let listener = network.listen(host).await.expect("listen");
    let address = listener.local_addr();
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async move { drop(stopped.await) };
    let server = clock::spawn(serve(listener, Routes::from(router), config, shutdown));
    Served { address, stop, server, entered, release }
}

#[tokio::test]
async fn a_request_under_way_ends_before_the_server_does() {
    let network: Arc<dyn Network> = Arc::new(TcpNetwork);
    let served = served(&*network, "127.0.0.1:0", GrpcConfig::default()).await;
    let channel = channel(network.clone(), &served.address, &GrpcConfig::default()).await.expect("connects");
    assert_eq!(get(channel.clone(), "/now").await, Some(200));
    let held = clock::spawn(async move { get(channel, "/held").await });
    served.entered.notified().await;
    drop(served.stop);
    served.release.notify_one();
    assert_eq!(held.await.expect("task"), Some(200));
    served.server.await.expect("server");
    let refused = super::channel(network, &served.address, &GrpcConfig::default()).await;
    assert_eq!(refused.expect_err("nobody listens").code, Code::PeerUnreachable);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_does_not_end_is_cut_off_after_the_grace() {
    let network: Arc<dyn Network> = Arc::new(MemoryNetwork::default());
    let config = GrpcConfig { keepalive: None, ..Default::default() };
    let served = served(&*network, "m:0", config.clone()).await;
    let channel = channel(network, &served.address, &config).await.expect("connects");
    let held = clock::spawn(async move { get(channel, "/held").await });
    served.entered.notified().await;
    let start = clock::Instant::now();
    drop(served.stop);
    served.server.await.expect("server");
    assert!(start.elapsed() >= config.shutdown_grace);
    assert_eq!(held.await.expect("task"), None);
}

#[tokio::test(start_paused = true)]
async fn an_address_that_is_none_and_one_that_is_silent_are_told_apart() {
    let memory = MemoryNetwork::default();
    let network: Arc<dyn Network> = Arc::new(memory.clone());
    let config = GrpcConfig::default();
    let none = channel(network.clone(), "no address", &config).await.expect_err("no address");
    assert_eq!(none.code, Code::InvalidConfig);
    memory.swallow(true);
    let silent = channel(network, "m:1", &config).await.expect_err("silent");
    assert_eq!((silent.code, silent.place.as_str()), (Code::PeerUnreachable, "m:1"));
}

#[tokio::test]
async fn connections_over_the_limit_are_refused_but_for_reserved_calls() {
    let network: Arc<dyn Network> = Arc::new(TcpNetwork);
    let config = GrpcConfig { max_connections: 1, reserved: "/no", reserved_connections: 1, ..Default::default() };
    let served = served(&*network, "127.0.0.1:0", config.clone()).await;
    let connect = || channel(network.clone(), &served.address, &config);
    let first = connect().await.expect("connects");
    assert_eq!(get(first.clone(), "/now").await, Some(200));
    let kept = connect().await.expect("connects");
    assert_eq!(get(kept.clone(), "/now").await, Some(200), "its path is a reserved one");
    assert_eq!(get_closed(&network, &served.address, &config).await, None, "the reserve is taken too");
    drop((first, kept));
}

async fn get_closed(network: &Arc<dyn Network>, address: &str, config: &GrpcConfig) -> Option<u16> {
    let channel = channel(network.clone(), address, config).await.ok()?;
    get(channel, "/now").await
}

#[tokio::test]
async fn a_refused_call_has_a_code_and_its_connection_is_closed() {
    let network: Arc<dyn Network> = Arc::new(TcpNetwork);
    let config = GrpcConfig { max_connections: 1, reserved: "/held", ..Default::default() };
    let served = served(&*network, "127.0.0.1:0", config.clone()).await;
    let first = channel(network.clone(), &served.address, &config).await.expect("connects");
    assert_eq!(get(first.clone(), "/now").await, Some(200));
    let second = channel(network.clone(), &served.address, &config).await.expect("connects");
    let request = http::Request::get("http://x/now").body(tonic::body::Body::empty()).expect("request");
    let refused = tower::ServiceExt::oneshot(second, request).await.expect("is answered");
    assert_eq!(refused.headers().get("keystead-code").map(|code| code.as_bytes()), Some(&b"KS3006"[..]));
    assert_eq!(refused.headers().get("grpc-status").map(|code| code.as_bytes()), Some(&b"8"[..]));
    // The first goes: there is room again.
    drop(first);
    let until = clock::Instant::now() + Duration::from_secs(10);
    loop {
        let again = channel(network.clone(), &served.address, &config).await.expect("connects");
        let request = http::Request::get("http://x/now").body(tonic::body::Body::empty()).expect("request");
        let answer = tower::ServiceExt::oneshot(again, request).await;
        if answer.is_ok_and(|answer| answer.headers().get("keystead-code").is_none()) {
            break;
        }
        assert!(clock::Instant::now() < until, "the place was never given back");
        clock::sleep(Duration::from_millis(10)).await;
    }
}

/// Whether the other side closes the connection within a time far below the test's.
async fn is_closed(io: &mut crate::net::BoxIo) -> bool {
    let mut buffer = vec![0; 4096];
    let read = async { while io.read(&mut buffer).await.is_ok_and(|count| count > 0) {} };
    clock::timeout(Duration::from_secs(10), read).await.is_ok()
}

#[tokio::test]
async fn a_connection_that_asks_nothing_and_one_whose_client_is_dead_are_closed() {
    let network: Arc<dyn Network> = Arc::new(TcpNetwork);
    let short = Duration::from_millis(100);
    let silent = GrpcConfig { first_call: short, keepalive: None, shutdown_grace: short, ..Default::default() };
    let at = served(&*network, "127.0.0.1:0", silent).await;
    let mut io = network.connect(&at.address).await.expect("connects");
    assert!(is_closed(&mut io).await, "not a byte was sent");

    // This one says what HTTP/2 wants, asks, and then never answers a ping.
    let dead = GrpcConfig { keepalive: Some(short), ..Default::default() };
    let at = served(&*network, "127.0.0.1:0", dead).await;
    let mut io = network.connect(&at.address).await.expect("connects");
    io.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("greets");
    // HEADERS, END_STREAM and END_HEADERS: GET http /held; the path is a literal.
    io.write_all(b"\0\0\x09\x01\x05\0\0\0\x01\x82\x86\x04\x05/held").await.expect("asks");
    at.entered.notified().await;
    assert!(is_closed(&mut io).await, "nobody answers there any more");
}
