//! What a person who starts the cache wants to see first: where it listens, what it stores and for whom.

use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use super::Node;
use crate::config::Config;
use crate::telemetry::LogFormat;

/// What a person who starts the cache wants to see.
pub(super) struct Banner {
    drives: Vec<String>,
    state: String,
    rules: Vec<String>,
    sample: Option<String>,
}

impl Banner {
    pub(super) fn of(config: &Config) -> Self {
        let drives = config.store.drives.iter();
        Self {
            drives: drives.map(|d| format!("{} (quota {})", d.path.display(), decimal_size(d.quota))).collect(),
            state: config.store.state.display().to_string(),
            rules: config.rules.iter().map(|policy| policy.rule.to_string()).collect(),
            sample: config.rules.first().map(|policy| policy.rule.replace("*.", "example.")),
        }
    }

    /// Printed for people; where machines read, a line of the log like any other.
    pub(super) fn tell(&self, node: &Node, format: LogFormat) {
        if format == LogFormat::Human {
            return say(&self.text(node));
        }
        let (version, drives, origins) = (env!("CARGO_PKG_VERSION"), self.drives.join(", "), self.rules.join(", "));
        let (data, tls, http2) = (list(&node.data), list(&node.tls), list(&node.http2));
        let (admin, state) = (list(&node.admin), &self.state);
        tracing::info!(version, data, tls, http2, admin, drives, state, origins, "listening");
    }

    fn text(&self, node: &Node) -> String {
        let mut text = format!("Waystation {}\n", env!("CARGO_PKG_VERSION"));
        // Writing to a String cannot fail.
        let [data, tls, http2, admin] = [&node.data, &node.tls, &node.http2, &node.admin].map(|it| list(it));
        let _ = writeln!(text, "listening data={data} tls={tls} http2={http2} admin={admin}");
        let _ = writeln!(text, "  stores in  {}; index in {}", self.drives.join(", "), self.state);
        let _ = writeln!(text, "  origins    {}", self.rules.join(", "));
        if let (Some(address), Some(host)) = (node.data.first(), &self.sample) {
            let address = from_here(*address);
            let _ = writeln!(
                text,
                "  try        curl -sSo /dev/null -D - 'http://{address}/path/of/a/file?cacheHostOrigin={host}'"
            );
        }
        text
    }
}

/// Where this machine reaches a listener: loopback where it takes every address, else the one that it takes.
fn from_here(listener: SocketAddr) -> SocketAddr {
    // A listener on [::] takes IPv4, too.
    if listener.ip().is_unspecified() { (Ipv4Addr::LOCALHOST, listener.port()).into() } else { listener }
}

fn list(addresses: &[SocketAddr]) -> String {
    let texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    if texts.is_empty() { "off".to_owned() } else { texts.join(",") }
}

/// A quota in decimal units, as settings are written; megabytes below one gigabyte.
fn decimal_size(bytes: u64) -> String {
    let bytes = bytes as f64;
    if bytes < 1e9 { format!("{:.0} MB", bytes / 1e6) } else { format!("{:.1} GB", bytes / 1e9) }
}

#[allow(clippy::print_stdout, reason = "the banner is the command's output")]
fn say(text: &str) {
    print!("{text}");
    // Nobody may be reading.
    let _ = io::Write::flush(&mut io::stdout());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_to_try_names_an_address_that_is_listened_on() {
        for (listener, tried) in [
            ("0.0.0.0:8081", "127.0.0.1:8081"),
            ("[::]:80", "127.0.0.1:80"),
            ("127.0.0.1:8081", "127.0.0.1:8081"),
            ("[::1]:8081", "[::1]:8081"),
            ("10.1.2.3:8081", "10.1.2.3:8081"),
            ("[fd00::5]:8081", "[fd00::5]:8081"),
        ] {
            assert_eq!(from_here(listener.parse().unwrap()).to_string(), tried, "{listener}");
        }
    }
}
