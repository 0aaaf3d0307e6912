//! CONNECT: from the request to an open tunnel, or to the answer that there is none. What a tunnel carries passes in
//! `tunnel`; which hosts may be named is `resolve`'s business.

use http::Response;
use tokio::net::TcpStream;

use super::account::Account;
use super::body::SegmentBody;
use super::handler::Handler;
use super::outcome::{Outcome, Reply};
use super::rescue;
use super::respond::respond;
use super::tunnel::Tunnel;
use crate::decide::{CacheStatus, FwdReason};
use crate::fill::Toll;
use crate::resolve::{Inbound, resolve_connect};
use crate::telemetry::RequestResult;

impl Handler {
    /// Answers a CONNECT. A 200 carries its [`Tunnel`] as an extension; any other answer has none.
    pub(super) async fn connect(&self, inbound: &Inbound<'_>, mut account: Account) -> Response<SegmentBody> {
        match self.reach(inbound, &mut account).await {
            Ok((host, toll)) => {
                let status = CacheStatus::forwarded(FwdReason::Method, None);
                let outcome = Outcome { reply: Reply::Tunnel, result: RequestResult::Bypass, status };
                let mut response = respond(outcome, &self.settings.pseudonym, false);
                account.answered(response.status().as_u16(), RequestResult::Bypass);
                let tunnel = Tunnel::new(host, toll, account, self.settings.tunnel_idle_time);
                response.extensions_mut().insert(tunnel);
                response
            }
            Err(outcome) => self.finish(outcome, false, account),
        }
    }

    /// A connection to the host that is named, if it may be named.
    async fn reach(&self, inbound: &Inbound<'_>, account: &mut Account) -> Result<(TcpStream, Toll), Outcome> {
        if self.fill.is_loop(inbound.headers) {
            return Err(rescue::looped());
        }
        let target = resolve_connect(inbound, &self.resolve.connect).map_err(|refusal| rescue::refused(&refusal))?;
        account.tunnels_to(&target);
        let connected = self.fill.connect(target.host, target.port, target.allow_private, inbound.headers).await;
        connected.map_err(|error| rescue::unreached(&error))
    }
}
