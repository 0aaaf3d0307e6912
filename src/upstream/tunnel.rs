//! A bare connection to a host for a tunnel (CONNECT): the same name resolution and address guard as for content, no
//! TLS, no HTTP, no pool. Health is not kept: who tunnels speaks to the host itself and judges by itself.

use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::content::{Origin, Scheme};

use super::client::Upstream;
use super::error::FetchError;
use super::plan::Source;

impl Upstream {
    /// Connects to `host:port` within `upstream.timeouts.connect`.
    ///
    /// # Errors
    /// When nothing may be asked directly, the name has no address that may be connected to, or none answers.
    pub async fn connect(&self, host: Arc<str>, port: u16, allow_private: bool) -> Result<TcpStream, FetchError> {
        let settings = &self.inner.settings;
        if !settings.direct {
            return Err(FetchError::NoSource { host: host.to_string() });
        }
        // The scheme names no default port in messages; nothing is spoken here.
        let source = Source { origin: Origin { scheme: Scheme::Https, host, port }, address: None, allow_private };
        self.inner.connector.dial(&source, Instant::now() + settings.timeouts.connect).await
    }
}
