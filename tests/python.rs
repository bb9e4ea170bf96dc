//! The walk of docs/GRPC.md: a Python client, made of what a peer says of itself by reflection, checks
//! everything that a grid serves while a peer is killed and another joins. Left out, with a word, where
//! Python or its packages are missing.
#![allow(missing_docs)]

mod common;

use common::{PATIENCE, addresses, free_ports};
use keystead::client::{Client, ClientConfig};
use keystead::clock;
use keystead::types::{KeyCodec, ValueCodec};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

/// It bounds each of its waits; this is for one that it has forgotten.
const WALK_AT_MOST: Duration = Duration::from_secs(600);

const SERVICES: [&str; 5] = ["common", "kv", "watch", "tasks", "cluster"];

/// A process; killed with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may be dead already: that is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A Python that has the packages.
fn python() -> Option<String> {
    let python = std::env::var("KEYSTEAD_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let asked = Command::new(&python).args(["-c", "import grpc, grpc_tools, grpc_reflection"]).output();
    asked.is_ok_and(|asked| asked.status.success()).then_some(python)
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/python").join(name)
}

/// Peer `at`, as `examples/own_peer.rs` starts it.
fn start(addresses: &[String], at: usize, dir: &Path) -> Process {
    let mut path = PathBuf::from(env!("CARGO_BIN_EXE_keystead"));
    path.pop();
    let path = path.join("examples").join(format!("own_peer{}", std::env::consts::EXE_SUFFIX));
    assert!(path.exists(), "{} is missing: `cargo build --examples` makes it", path.display());
    let name = format!("n{}", at + 1);
    let mut command = Command::new(path);
    command.args([&name, &addresses[at], &addresses[..3].join(",")]).arg(dir.join(&name)).arg("8");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Process(command.spawn().expect("a peer starts"))
}

/// Waits until the grid has formed.
async fn formed(addresses: &[String]) {
    let until = clock::Instant::now() + PATIENCE;
    loop {
        let attempt = async {
            let client = Client::connect(addresses.to_vec(), ClientConfig::default()).await?;
            client.create_map("ready", KeyCodec::Utf8, ValueCodec::Utf8, 0).await
        };
        match attempt.await {
            Ok(_) => return,
            Err(error) => assert!(clock::Instant::now() < until, "{error}"),
        }
        clock::sleep(Duration::from_millis(50)).await;
    }
}

/// Runs to the end; what was printed.
fn run(command: &mut Command) -> String {
    let run = command.output().expect("starts");
    let (out, errors) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{command:?}: {}\n{out}{errors}", run.status);
    out.into_owned()
}

/// Asks a peer for its contract and makes Python code of it.
fn generate(python: &str, peer: &str, dir: &Path) -> PathBuf {
    let (contract, code) = (dir.join("keystead.binpb"), dir.join("python"));
    std::fs::create_dir(&code).expect("a directory");
    let told = run(Command::new(python).arg(script("reflect.py")).arg(peer).arg(&contract));
    let files = SERVICES.map(|name| format!("keystead/v1/{name}.proto"));
    for file in &files {
        assert!(told.contains(file), "{file} in {told}");
    }
    let option = |name: &str, path: &Path| format!("--{name}={}", path.display());
    let mut protoc = Command::new(python);
    protoc.args(["-m", "grpc_tools.protoc"]).arg(option("descriptor_set_in", &contract));
    protoc.arg(option("python_out", &code)).arg(option("grpc_python_out", &code)).args(&files);
    run(&mut protoc);
    code
}

#[allow(clippy::disallowed_methods)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generated_client_does_everything_while_a_peer_is_killed_and_another_joins() {
    let Some(python) = python() else {
        eprintln!("left out: there is no python3 with grpcio, grpcio-tools and grpcio-reflection");
        return;
    };
    let dir = tempfile::tempdir().expect("a directory");
    let addresses = addresses(&free_ports(4));
    let mut peers: Vec<Process> = (0..3).map(|at| start(&addresses, at, dir.path())).collect();
    formed(&addresses[..3]).await;
    let code = generate(&python, &addresses[0], dir.path());

    let mut walk = Command::new(&python);
    walk.arg("-u").arg(script("walk.py")).arg(addresses[..3].join(",")).args(["--job", "rebuild", "--trouble"]);
    walk.env("PYTHONPATH", &code).env("PYTHONDONTWRITEBYTECODE", "1");
    walk.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut walk = Process(walk.spawn().expect("starts"));
    let out = BufReader::new(walk.0.stdout.take().expect("is piped"));
    let (sender, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || out.lines().try_for_each(|line| sender.send(line.expect("text"))));
    let mut printed = Vec::new();
    let end = clock::Instant::now() + WALK_AT_MOST;
    loop {
        let line = match lines.recv_timeout(end.saturating_duration_since(clock::Instant::now())) {
            Ok(line) => line,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => panic!("the walk has not ended in time: {printed:#?}"),
        };
        if line.contains("kill a member") {
            peers[1].0.kill().expect("SIGKILL");
            peers.push(start(&addresses, 3, dir.path()));
        }
        printed.push(line);
    }
    let status = walk.0.wait().expect("ends");
    let errors = std::io::read_to_string(walk.0.stderr.take().expect("is piped")).expect("text");
    assert!(status.success(), "{status}: {printed:#?}\n{errors}");
    let joined = printed.iter().any(|line| line.contains("n4 leads "));
    let end = printed.last().is_some_and(|line| line.contains("checks hold") && line.contains("each seen once"));
    assert!(joined && end && peers.len() == 4, "{printed:#?}");
}
