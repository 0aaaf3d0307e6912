//! Files, renewals and handshakes on real sockets.
