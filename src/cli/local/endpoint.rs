//! Asks a peer's HTTP endpoint. In: an address and a path. Out: status and body. One request per
//! connection, in HTTP/1.0, so that the answer ends where the connection does.

use crate::clock;
use crate::error::{Code, Error, Result};
use crate::net::{Network, TcpNetwork};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The longest answer that is read.
const ANSWER_MAX: u64 = 16 << 20;

/// Gets a path; status and body.
///
/// # Errors
/// `PeerUnreachable` when nothing sensible comes within the time.
pub(in crate::cli) async fn get(address: &str, path: &str, at_most: Duration) -> Result<(u16, String)> {
    let asked = async {
        let mut connection = TcpNetwork.connect(address).await?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        connection.take(ANSWER_MAX).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let failed = |what: String| Error::new(Code::PeerUnreachable, what).at(format!("http://{address}{path}"));
    let answer = clock::timeout(at_most, asked)
        .await
        .map_err(|_| failed(format!("no answer within {} ms", at_most.as_millis())))?
        .map_err(|error| failed(error.to_string()))?;
    parse(&String::from_utf8_lossy(&answer)).ok_or_else(|| failed("the answer is not HTTP".to_owned()))
}

fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// The sum of a counter over its labels, in Prometheus' text format; `None` if it is not there.
pub(in crate::cli) fn counter(metrics: &str, name: &str) -> Option<u64> {
    let mut sum = None;
    for line in metrics.lines() {
        let Some(rest) = line.strip_prefix(name) else { continue };
        // What follows the name must be labels or the value, not more of a longer name.
        if !rest.starts_with(['{', ' ']) {
            continue;
        }
        let value: u64 = rest.rsplit(['}', ' ']).find(|part| !part.is_empty())?.trim().parse().ok()?;
        sum = Some(sum.unwrap_or(0_u64).saturating_add(value));
    }
    sum
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_status_and_body() {
        let answer = "HTTP/1.0 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nwait";
        assert_eq!(parse(answer), Some((503, "wait".to_owned())));
        assert_eq!(parse("nonsense"), None);
    }

    #[test]
    fn a_counter_is_summed_over_its_labels() {
        let text = "# HELP a_total x\na_total{p=\"1 2\"} 3\na_total{p=\"3\"} 4\na_total_more 9\nb_total 5\n";
        assert_eq!(counter(text, "a_total"), Some(7));
        assert_eq!(counter(text, "b_total"), Some(5));
        assert_eq!(counter(text, "c_total"), None);
        assert_eq!(counter("z_total 0\n", "z_total"), Some(0));
    }
}
