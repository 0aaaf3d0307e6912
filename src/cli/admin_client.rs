//! Asks the admin listener of a running cache, as a rule on this machine, with the token of its configuration.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use super::healthcheck::local;
use crate::admin::{self, read_token};

/// For a connection to this machine.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// For the answer: what it tells is written to all drives first.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// Longest answer in bytes.
const LONGEST: u64 = 64 * 1024 * 1024;

/// Sends one request to the cache that runs with these settings and returns the JSON of its answer.
///
/// # Errors
/// What to do about it, when there is no token, no cache, or it refuses.
pub(super) fn ask(settings: &admin::Settings, method: &str, target: &str, body: &str) -> Result<Value, String> {
    let Some(path) = &settings.token_file else {
        return Err("admin.token_file is not set; give the cache and this command a file with a token of 16 characters or more, \
                    for example by --set admin.token_file=PATH"
            .to_owned());
    };
    let token = read_token(path).map_err(|error| format!("admin.token_file: {}: {error}", path.display()))?;
    let (address, mut stream) = connect(settings)?;
    let is_here = address.ip().is_loopback() || stream.local_addr().is_ok_and(|local| local.ip() == address.ip());
    if !is_here && !settings.allow_plaintext {
        return Err(format!(
            "{address} is not on this machine, and the token would pass the network unencrypted; run the command there, or set \
             admin.allow_plaintext: true here and there"
        ));
    }
    let length = body.len();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    let broken = |error: std::io::Error| format!("the cache at {address} did not answer: {error}");
    stream
        .set_write_timeout(Some(ANSWER_LIMIT))
        .and_then(|()| stream.set_read_timeout(Some(ANSWER_LIMIT)))
        .map_err(broken)?;
    // One that refuses the head may not read the rest, and answers all the same.
    let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
    let mut answer = Vec::new();
    let read = stream.take(LONGEST).read_to_end(&mut answer);
    let Some((status, content)) = parse(&answer) else {
        let error = sent
            .err()
            .or(read.err())
            .map_or_else(|| "the answer is not complete".to_owned(), |error| error.to_string());
        return Err(format!("the cache at {address} did not answer: {error}"));
    };
    if content.is_empty() && status != 200 {
        return Err(format!("the cache at {address} answered with status {status}"));
    }
    let value: Value = serde_json::from_slice(content)
        .map_err(|_| format!("what listens at {address} is no Waystation of this release (status {status})"))?;
    match value.get("error").and_then(Value::as_str) {
        _ if status == 200 => Ok(value),
        Some(error) => Err(error.to_owned()),
        None => Err(format!("the cache at {address} answered with status {status}")),
    }
}

fn connect(settings: &admin::Settings) -> Result<(SocketAddr, TcpStream), String> {
    let mut addresses: Vec<SocketAddr> = settings.addresses.iter().copied().flat_map(local).collect();
    addresses.sort_by_key(|address| !address.ip().is_loopback());
    let mut failed = "listen.admin has no address".to_owned();
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT_LIMIT) {
            Ok(stream) => return Ok((address, stream)),
            Err(error) => failed = format!("no cache answers at {address}: {error}"),
        }
    }
    Err(format!("{failed}; start it, or say where it listens: --admin ADDRESS:PORT"))
}

/// Status and body of a complete answer.
fn parse(answer: &[u8]) -> Option<(u16, &[u8])> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(begin) = head.parse(answer).ok()? else { return None };
    let length = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"))?;
    let length: usize = std::str::from_utf8(length.value).ok()?.parse().ok()?;
    Some((head.code?, answer.get(begin..)?.get(..length)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_answer_counts() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(parse(whole), Some((200, &b"{}"[..])));
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]), None, "{length}");
        }
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\n\r\n{}"), None);
        assert_eq!(parse(b"SSH-2.0-server\r\n"), None);
    }
}
