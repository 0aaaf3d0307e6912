//! HTTP/2 (RFC 9113) for clients that ask for it in the TLS handshake (ALPN `h2`), on listeners that offer it. Those of
//! Delivery Optimization agents do not: an agent finds `Content-Range` by exact spelling, and names are in small letters
//! here.
//!
//! The library speaks the protocol. `meter` bounds what a client may send besides requests, `request` gives a request the
//! one form that the service knows, `stream` sends an answer piece by piece, `connection` drives it all. Tunnels and
//! responses before the response are HTTP/1.1's alone.

mod answer;
mod connection;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod io;
mod meter;
mod request;
mod shared;
mod stream;

pub(in crate::serve) use connection::{serve, turn_away};
