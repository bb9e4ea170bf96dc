//! Options, addresses, ports, the configuration file.

use crate::common::{addresses, free_ports};
use crate::process::{Start, keystead};
use std::net::{TcpListener, UdpSocket};

#[test]
fn an_unknown_option_or_command_names_the_one_that_was_meant() {
    keystead(["start", "--lisen", "127.0.0.1:1"]).says(2, &["KS1007", "'--lisen'", "'--listen'"]);
    keystead(["strat"]).says(2, &["KS1007", "'strat'", "'start'"]);
    keystead(["put", "m", "k", "v", "--ack", "acepted"]).says(2, &["KS1007", "'acepted'", "'accepted'"]);
    keystead(["get", "m", "k", "--read", "stale"]).says(2, &["KS1007", "linearizable, local"]);
    keystead(["start", "--partitions", "many"]).says(2, &["KS1007", "--partitions"]);
    keystead(["demo", "--events", "0"]).says(2, &["KS1007", "--events"]);
    keystead(["demo", "--events", "99999999999999999999"]).says(2, &["KS1007", "--events"]);
}

#[test]
fn a_malformed_address_says_what_is_wrong_with_it() {
    let start = |option: &str, address: &str| keystead(["start", option, address, "--data", "/nowhere"]);
    start("--listen", "7401").says(2, &["KS1007", "\"7401\" is not HOST:PORT: it names no port", "option listen"]);
    start("--listen", "127.0.0.1:70000").says(2, &["KS1007", "0 to 65535", "write HOST:PORT"]);
    start("--advertise", "::1:7401").says(2, &["KS1007", "in brackets", "option advertise"]);
    start("--seeds", "127.0.0.1:1,x").says(2, &["KS1007", "\"x\"", "option seeds"]);
    start("--http", "http://127.0.0.1:80").says(2, &["KS1007", "a scheme", "option http"]);
    start("--listen", "0.0.0.0:7401").says(2, &["KS1008", "open to the network", "--insecure"]);
    for endpoint in ["localhost", "http://127.0.0.1:7401", "127.0.0.1:0", ":7401", "\u{7}:1"] {
        keystead(["members", "--endpoint", endpoint]).says(2, &["KS1007", "option endpoint"]);
    }
}

#[test]
fn a_bad_configuration_file_names_file_line_and_key() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("k.toml");
    let start = |text: &str| {
        std::fs::write(&path, text).expect("writes");
        keystead(["start", "--config", &path.to_string_lossy()])
    };
    start("partitons = 3").says(2, &["KS1007", "\"partitons\"", "k.toml", "\"partitions\"?"]);
    start("name = 'a'\nreplicas = 'two'").says(2, &["KS1007", "k.toml line 2"]);
    start("[limits]\nmax_key_byte = 3").says(2, &["KS1007", "limits.max_key_bytes"]);
    start("[limits]\nmax_connections = 0").says(2, &["KS1007", "limits.max_connections", "1 to"]);
    start("name = ").says(2, &["KS1007", "k.toml line 1"]);
    keystead(["start", "--config", "/no/such.toml"]).says(2, &["KS1007", "/no/such.toml", "cannot be read"]);
}

#[test]
fn a_port_in_use_is_named_with_its_protocol() {
    let dir = tempfile::tempdir().expect("a directory");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = tcp.local_addr().expect("an address").to_string();
    let start = Start::new(&address, &[], &dir.path().join("a")).ends();
    start.says(1, &["KS1009", "cannot listen on TCP", &address, "choose another address"]);

    // TCP is free there, UDP, which gossip needs on the same number, is not.
    let address = addresses(&free_ports(1)).remove(0);
    let _udp = UdpSocket::bind(&address).expect("was free");
    let start = Start::new(&address, &[], &dir.path().join("b")).ends();
    start.says(1, &["KS1009", "cannot listen on UDP", &address]);

    let free = addresses(&free_ports(1)).remove(0);
    let taken = tcp.local_addr().expect("an address").to_string();
    let data = dir.path().join("c");
    let data = data.to_string_lossy();
    keystead(["start", "--listen", &free, "--http", &taken, "--data", &data])
        .says(1, &["KS1009", "option http", &taken]);
    keystead(["start", "--listen", "203.0.113.7:7401", "--insecure", "--data", &data])
        .says(2, &["KS1007", "203.0.113.7"]);
}

#[test]
fn where_nobody_listens_the_address_is_named() {
    let address = addresses(&free_ports(1)).remove(0);
    let said = keystead(["get", "m", "k", "--endpoint", &address, "--timeout", "1"]);
    said.says(1, &["KS3003", "no peer answers", &address, "keystead start"]);
}
