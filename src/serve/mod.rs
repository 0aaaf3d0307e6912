//! The data port: accept, resolve, decide, serve.
//!
//! `listener` accepts, `proxy_header` is what proxies say in front of a connection, `tls` shakes hands where clients speak it, `wire` speaks HTTP/1.1, `http2` HTTP/2, `limits` is the outer edge, `handler` tells the story of a request,
//! `deliver`, `present`, `verify` and `follow` lay out bodies, `pass` and `gather` those that are not stored, `respond` renders. What a URL means (`resolve`), what may be done with a
//! response (`decide`), where bytes are (`store`) and how they get there (`fill`) live elsewhere.

pub mod http2;
pub mod limits;
pub mod listener;
pub mod proxy_header;
pub mod tls;
pub mod wire;

mod account;
mod ask;
mod backlog;
mod body;
mod change;
mod connect;
mod deliver;
mod follow;
mod gather;
mod grow;
mod handler;
mod head;
mod mend;
mod multipart;
mod outcome;
mod pass;
mod present;
mod proof;
mod ready;
mod ready_table;
mod redirects;
mod rescue;
mod respond;
mod service;
mod settings;
mod stale;
#[cfg(test)]
mod tests;
mod tunnel;
mod verify;
mod version;
mod wanted;

pub use body::{BodyCut, SegmentBody};
pub use handler::Handler;
pub use limits::RequestLimit;
pub use listener::{
    Admission, AdmissionRules, BindError, DescriptorBudget, Inherited, accept, bind, raise_descriptor_limit,
};
pub use redirects::RuleRedirects;
pub use respond::{fields_now, prepared_fields};
pub use service::DataService;
pub use settings::{Limits, ProxyProtocol, Settings};
pub use tls::{ClientName, Handshakes, Tls, TlsFileError, TlsSettings};
pub use wire::WireContext;
