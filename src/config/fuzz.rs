//! Fuzz targets: addresses, durations, sizes, the configuration's file and variables.

use super::*;
use crate::error::Code;
use crate::fuzzing::Fuzz;
use std::time::Duration;

#[test]
fn address() {
    let seeds = ["127.0.0.1:7401", "[::1]:7401", "[fe80::1%eth0]:0", "localhost:65535", "host", "h:+1", "http://h:1"];
    Fuzz::new("address", seeds).words(&["[", "]", ":", "::", "%", "://", "localhost"]).run(|input| {
        let text = String::from_utf8_lossy(input);
        let local = is_loopback(&text);
        match port_of("--listen", &text) {
            Ok(port) => {
                let (host, again) = address::split(&text).expect("an address");
                assert!(again == port && !host.is_empty() && text.ends_with(&port.to_string()) | text.contains(":0"));
                format!("an address, {local}")
            }
            Err(error) => {
                assert_eq!((error.code, local), (Code::InvalidConfig, false));
                error.what.rsplit(": ").next().unwrap_or_default().to_owned()
            }
        }
    });
}

#[test]
fn duration_and_size() {
    let seeds = ["500ms", "10m", "2 h", "7d", "64MiB", "2 GB", "4096", "18446744073709551615", "1.5h", "ms"];
    let words: &[&str] = &["ms", "s", "d", "KiB", "TB", " ", "-", "+", "\u{a0}", "\u{ff11}"];
    Fuzz::new("duration_and_size", seeds).words(words).run(|input| {
        let text = String::from_utf8_lossy(input);
        let (duration, size) = (parse_duration(&text), parse_size(&text));
        assert!(
            duration.as_ref().is_ok_and(|duration| *duration <= Duration::from_millis(u64::MAX)) || duration.is_err()
        );
        assert!(duration.is_err() || size.is_err(), "no text is both");
        format!("{} {}", duration.is_ok(), size.is_ok())
    });
}

#[test]
fn config_file() {
    let seeds = [
        "name = \"n1\"\nlisten = \"127.0.0.1:0\"\nseeds = [\"a:1\", \"b:2\"]\npartitions = 64\nbackend = \"memory\"\n",
        "seeds = \"a:1, b:2,,\"\nmemory_limit = \"256MiB\"\nweight = 3\ninsecure = true\nzone = \"z\"\n",
        "[limits]\nmax_value_bytes = 1000\n",
        "lissten = 1\n",
    ];
    let words: &[&str] = &["limits", "=", "\"\"\"", "[[", "nan", "0x", "1979-05-27", "\\u", "max_key_bytes", "-1", "é"];
    Fuzz::new("config_file", seeds).words(words).bytes_per_byte(512).run(|input| {
        let text = String::from_utf8_lossy(input);
        match Options::from_toml(&text, "a file") {
            Ok(options) => {
                let checked = NodeConfig::from_options(options.or(Options::default()));
                checked.map_or_else(|error| error.what, |_| "a configuration".to_owned())
            }
            Err(error) => {
                assert_eq!(error.code, Code::InvalidConfig);
                error.what
            }
        }
    });
}

#[test]
fn config_variables() {
    let seeds = [
        "NAME=n1;LISTEN=127.0.0.1:7401;SEEDS=a:1,b:2;PARTITIONS=64;BACKEND=sled;INSECURE=yes",
        "WEIGHT=4294967295;REPLICAS=3;MEMORY_LIMIT=1GB;ADVERTISE=h:1;HTTP=:1;ZONE=z;DATA=/d",
        "PARTITIONS=0;LISTEN=0.0.0.0:0",
    ];
    Fuzz::new("config_variables", seeds).words(&["=", ";", "true", "-1", "16384", "::"]).run(|input| {
        let text = String::from_utf8_lossy(input);
        let variable = |name: &str| {
            let name = name.strip_prefix("KEYSTEAD_")?;
            let value = |one: &str| one.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
            text.split(';').find_map(value)
        };
        let options = Options::from_variables(&variable);
        let checked = options.and_then(NodeConfig::from_options);
        checked.map_or_else(
            |error| {
                assert!(matches!(error.code, Code::InvalidConfig | Code::PublicAddress), "{error}");
                error.place
            },
            |config| format!("a configuration, {}", config.seeds.len().min(2)),
        )
    });
}
