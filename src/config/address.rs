//! `host:port` texts: checked, never resolved.

use crate::error::{Code, Error, Result};
use std::net::IpAddr;

/// The host and port of `host:port`; an IPv6 host stands in brackets.
pub(super) fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match bare {
        Some(inside) => inside,
        // A colon in a host without brackets: an IPv6 address whose last group is no port.
        None if host.contains(':') => return None,
        None => host,
    };
    if host.is_empty() {
        return None;
    }
    port.parse().ok().map(|port| (host, port))
}

/// The port of `host:port`.
///
/// # Errors
/// `InvalidConfig` when the text is no such address.
pub fn port_of(option: &str, address: &str) -> Result<u16> {
    split(address).map(|(_, port)| port).ok_or_else(|| {
        Error::new(Code::InvalidConfig, format!("\"{address}\" is not HOST:PORT")).at(format!("option {option}"))
    })
}

/// Whether the host of `host:port` can only be reached from this machine.
pub fn is_loopback(address: &str) -> bool {
    let Some((host, _)) = split(address) else { return false };
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
