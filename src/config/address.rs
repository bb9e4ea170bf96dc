//! `host:port` texts: checked, never resolved.

use crate::error::{Code, Error, Result};
use std::net::IpAddr;

/// How to mend an address.
const REMEDY: &str = "write HOST:PORT, as 127.0.0.1:7401 or [::1]:7401";

/// The host and port of `host:port`; an IPv6 host stands in brackets. Else what is wrong with it.
pub(super) fn split(address: &str) -> Result<(&str, u16), &'static str> {
    if address.contains("://") {
        return Err("it begins with a scheme");
    }
    let (host, port) = address.rsplit_once(':').ok_or("it names no port")?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match bare {
        Some(inside) => inside,
        // A colon in a host without brackets: an IPv6 address whose last group is no port.
        None if host.contains(':') => return Err("an IPv6 address stands in brackets"),
        None => host,
    };
    if host.is_empty() {
        return Err("it names no host");
    }
    let allowed = |c: char| c.is_alphanumeric() || "-_.:%".contains(c);
    if !host.chars().all(allowed) {
        return Err("its host has characters that no host name has");
    }
    // Rust would take "+1" for a number.
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("its port is not a number from 0 to 65535");
    }
    port.parse().map(|port| (host, port)).map_err(|_| "its port is not a number from 0 to 65535")
}

/// The port of `host:port`.
///
/// # Errors
/// `InvalidConfig` when the text is no such address.
pub fn port_of(option: &str, address: &str) -> Result<u16> {
    split(address).map(|(_, port)| port).map_err(|why| {
        let shown: String = address.chars().take(100).collect();
        Error::new(Code::InvalidConfig, format!("\"{}\" is not HOST:PORT: {why}", shown.escape_debug()))
            .at(format!("option {option}"))
            .remedy(REMEDY)
    })
}

/// Whether the host of `host:port` can only be reached from this machine.
pub fn is_loopback(address: &str) -> bool {
    let Ok((host, _)) = split(address) else { return false };
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
