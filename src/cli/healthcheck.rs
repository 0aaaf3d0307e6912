//! `waystation healthcheck`: asks the admin listener of this machine whether the process lives. For `HEALTHCHECK`
//! lines of containers, which have no `curl` in them; so it is a few lines over a plain socket.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::config::{Config, Sources};

use super::exit_codes::Exit;
use super::output::{self, Output};

/// Time for the whole question and answer.
const LIMIT: Duration = Duration::from_secs(2);

/// The admin listener where nothing else is configured.
const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5001);

/// Where to ask.
#[derive(Debug, Clone, clap::Args)]
pub struct HealthcheckArgs {
    /// Address of the admin listener; by default the one of the configuration in the environment
    #[arg(long, value_name = "ADDRESS:PORT")]
    address: Option<SocketAddr>,
}

/// Asks; [`Exit::Success`] when the answer is 200.
pub(super) fn run(args: &HealthcheckArgs, output: Output) -> Exit {
    let addresses = args.address.map_or_else(configured_addresses, |address| vec![address]);
    let (address, answer) = ask_any(&addresses);
    let text = match (output, &answer) {
        (Output::Text, Ok(())) => format!("healthy: {address}"),
        (Output::Text, Err(reason)) => format!("not healthy: {address}: {reason}"),
        (Output::Json, Ok(())) => json!({ "healthy": true, "address": address }).to_string(),
        (Output::Json, Err(reason)) => json!({ "healthy": false, "address": address, "reason": reason }).to_string(),
    };
    match (output, &answer) {
        (Output::Text, Err(_)) => output::fault(&text),
        _ => output::result(&text),
    }
    if answer.is_ok() { Exit::Success } else { Exit::Failure }
}

/// A container's health check has the environment of the node, so it finds the node's address.
fn configured_addresses() -> Vec<SocketAddr> {
    let loaded = Sources::of_process(None).and_then(|sources| Config::load(&sources));
    let address = loaded.ok().and_then(|loaded| loaded.config.admin.addresses.first().copied());
    local(address.unwrap_or(DEFAULT_ADDRESS))
}

/// The addresses at which a listener is reached from here. One on `[::]` is asked by IPv4 first: where IPv6 is
/// off there may be no `::1`.
pub(super) fn local(address: SocketAddr) -> Vec<SocketAddr> {
    let (v4, v6) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
    let ips: Vec<IpAddr> = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => vec![v4],
        IpAddr::V6(ip) if ip.is_unspecified() => vec![v4, v6],
        ip => vec![ip],
    };
    ips.into_iter().map(|ip| SocketAddr::new(ip, address.port())).collect()
}

/// Asks one address after the other within [`LIMIT`]; the last answer counts when none is good.
fn ask_any(addresses: &[SocketAddr]) -> (SocketAddr, Result<(), String>) {
    let start = Instant::now();
    let mut last = (DEFAULT_ADDRESS, Err("there is no address".to_owned()));
    for address in addresses {
        last = (*address, ask(*address, LIMIT.saturating_sub(start.elapsed())));
        if last.1.is_ok() {
            break;
        }
    }
    last
}

/// One GET of `/healthz` within `limit`.
fn ask(address: SocketAddr, limit: Duration) -> Result<(), String> {
    let start = Instant::now();
    let left = || {
        let left = limit.saturating_sub(start.elapsed());
        if left.is_zero() { Err("no answer in time".to_owned()) } else { Ok(left) }
    };
    let failed = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect_timeout(&address, left()?).map_err(failed)?;
    stream.set_write_timeout(Some(left()?)).map_err(failed)?;
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = Vec::new();
    while !answer.contains(&b'\n') {
        stream.set_read_timeout(Some(left()?)).map_err(failed)?;
        let mut buffer = [0; 256];
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(_) => {
                left()?;
                return Err("the connection broke".to_owned());
            }
        }
        if answer.len() > 1024 {
            break;
        }
    }
    let line = answer.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    if line.starts_with("HTTP/1.1 200") || line.starts_with("HTTP/1.0 200") {
        Ok(())
    } else {
        Err(format!("the answer was {:?}", line.trim()))
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// The verdict about a listener that answers one connection with `answer`.
    fn verdict(answer: &'static [u8]) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            stream.write_all(answer).unwrap();
            request
        });
        let verdict = ask(address, Duration::from_secs(60));
        assert!(server.join().unwrap().starts_with(b"GET /healthz HTTP/1.1\r\n"));
        verdict
    }

    #[test]
    fn only_200_is_healthy() {
        assert_eq!(verdict(b"HTTP/1.1 200 OK\r\n\r\n"), Ok(()));
        assert!(verdict(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").is_err());
        assert!(verdict(b"").is_err());
        assert!(verdict(b"\xff\xfe\n").is_err());
    }

    #[test]
    fn silence_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(ask(address, Duration::from_millis(50)), Err("no answer in time".to_owned()));
        drop(listener);
        assert!(ask(address, Duration::from_secs(60)).is_err());
    }

    #[test]
    fn a_listener_on_all_addresses_is_asked_on_loopback() {
        for (configured, asked) in [
            ("0.0.0.0:5001", &["127.0.0.1:5001"][..]),
            ("[::]:5001", &["127.0.0.1:5001", "[::1]:5001"]),
            ("10.1.2.3:5001", &["10.1.2.3:5001"]),
        ] {
            let asked: Vec<SocketAddr> = asked.iter().map(|address| address.parse().unwrap()).collect();
            assert_eq!(local(configured.parse().unwrap()), asked);
        }
    }
}
