//! Fuzz target: what a peer's HTTP endpoint answers.

use super::*;
use crate::fuzzing::Fuzz;

#[test]
fn http_answer() {
    let seeds = [
        "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nready",
        "HTTP/1.1 503 Service Unavailable\r\n\r\n# TYPE a counter\na{b=\"c d\"} 7\na 18446744073709551615\nab 3\n",
        "HTTP/1.1 99999 \r\n\r\n",
    ];
    Fuzz::new("http_answer", seeds).words(&["\r\n", "a{", "} ", "a ", "HTTP/1.", "NaN"]).run(|input| {
        let text = String::from_utf8_lossy(input);
        let answer = parse(&text);
        let count = counter(&text, "a");
        format!("{} {}", answer.is_some(), count.is_some())
    });
}
