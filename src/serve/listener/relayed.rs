//! Reads from a socket the header by which a proxy names its client. What it means is `serve::proxy_header`'s to say, who
//! may send one is the admission's.

use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::serve::proxy_header::{HeaderError, Named, Progress, parse};
use crate::serve::wire::Refusal;

/// Most headers are shorter.
const FIRST: usize = 64;

/// Reads the header within `time`, and no byte behind it: the next one is the client's.
///
/// # Errors
/// Why there is none; without a reason when the connection ended before its first byte, as a check of the port does.
pub(super) async fn read_header(stream: &mut TcpStream, time: Duration) -> Result<Named, Option<Refusal>> {
    let deadline = Instant::now() + time;
    let mut bytes = Vec::with_capacity(FIRST);
    loop {
        let missing = match parse(&bytes).map_err(refusal)? {
            Progress::Complete { named, .. } => return Ok(named),
            Progress::NeedMore { total } => total.saturating_sub(bytes.len()),
        };
        let mut rest = (&mut *stream).take(missing as u64);
        match timeout_at(deadline, rest.read_buf(&mut bytes)).await {
            Err(_) => return Err(Some(Refusal::ProxyHeaderTimeout)),
            Ok(Ok(0) | Err(_)) => return Err((!bytes.is_empty()).then_some(Refusal::ProxyHeaderCut)),
            Ok(Ok(_)) => {}
        }
    }
}

fn refusal(error: HeaderError) -> Refusal {
    match error {
        HeaderError::Missing => Refusal::ProxyHeaderMissing,
        HeaderError::Malformed => Refusal::ProxyHeaderMalformed,
        HeaderError::TooLong => Refusal::ProxyHeaderTooLong,
    }
}
