//! Asks the admin listener of a running cache, as a rule on this machine, with the token of its configuration. What is asked
//! is the business of the commands; the health check has a smaller client of its own, which needs no token.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::healthcheck::local;
use crate::admin::{self, read_token};

/// For a connection to this machine.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// For the answer: what it tells is written to all drives first.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// Longest answer in bytes.
const LONGEST: usize = 64 * 1024 * 1024;

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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| format!("threads: {error}"))?.block_on(async {
        let (address, stream) = connect(settings).await?;
        let is_own = |local: SocketAddr| local.ip() == address.ip();
        let is_here = address.ip().is_loopback() || stream.local_addr().is_ok_and(is_own);
        if !is_here && !settings.allow_plaintext {
            return Err(format!(
                "{address} is not on this machine, and the token would pass the network unencrypted; run the command there, \
                 or set admin.allow_plaintext: true here and there"
            ));
        }
        let request = Request::builder().method(method).uri(target).header(HOST, address.to_string());
        let request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        let request = request.header(CONTENT_TYPE, "application/json").body(Full::from(body.to_owned()));
        let request = request.map_err(|error| format!("the request cannot be sent: {error}"))?;
        let silent = |_| format!("the cache at {address} did not answer within {} s", ANSWER_LIMIT.as_secs());
        let answered = timeout(ANSWER_LIMIT, exchange(stream, request)).await.map_err(silent)?;
        let (status, content) = answered.map_err(|error| format!("the cache at {address} did not answer: {error}"))?;
        verdict(address, status, &content)
    })
}

async fn connect(settings: &admin::Settings) -> Result<(SocketAddr, TcpStream), String> {
    let mut addresses: Vec<SocketAddr> = settings.addresses.iter().copied().flat_map(local).collect();
    addresses.sort_by_key(|address| !address.ip().is_loopback());
    let mut failed = "listen.admin has no address".to_owned();
    for address in addresses {
        match timeout(CONNECT_LIMIT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok((address, stream)),
            Ok(Err(error)) => failed = format!("no cache answers at {address}: {error}"),
            Err(_) => failed = format!("no cache answers at {address} within {} s", CONNECT_LIMIT.as_secs()),
        }
    }
    Err(format!("{failed}; start it, or say where it listens: --admin ADDRESS:PORT"))
}

/// One request and its answer, whole.
async fn exchange(
    stream: TcpStream,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It moves the bytes, and ends with the connection.
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let content = Limited::new(answer.into_body(), LONGEST).collect().await?.to_bytes();
    connection.abort();
    Ok((status, content))
}

/// What an answer means.
fn verdict(address: SocketAddr, status: StatusCode, content: &[u8]) -> Result<Value, String> {
    let value: Option<Value> = serde_json::from_slice(content).ok();
    let error = value.as_ref().and_then(|value| value.get("error")).and_then(Value::as_str);
    match (status, error) {
        (_, Some(error)) => Err(error.to_owned()),
        (StatusCode::OK, None) => {
            value.ok_or_else(|| format!("what listens at {address} is no Waystation of this release"))
        }
        (status, None) => Err(format!("the cache at {address} answered with status {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_means_what_it_says() {
        let verdict = |status: u16, content: &str| {
            let address = SocketAddr::from(([127, 0, 0, 1], 5001));
            verdict(address, StatusCode::from_u16(status).unwrap(), content.as_bytes())
        };
        assert_eq!(verdict(200, r#"{"pins":[]}"#).unwrap()["pins"], serde_json::json!([]));
        assert_eq!(verdict(403, r#"{"error":"why"}"#).unwrap_err(), "why");
        for (status, content, problem) in
            [(200, "<html>", "no Waystation"), (431, "", "status 431"), (500, "{}", "500")]
        {
            let error = verdict(status, content).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
    }
}
