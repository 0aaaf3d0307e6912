//! Messages that two readers could understand differently, by raw sockets: none of them is forwarded, none leaves anything
//! behind, and what comes after each is answered as if it had not been there.

mod upstream;
