//! Messages that are malformed, ambiguous or cut, byte for byte, and what must come of each: nothing is understood in two
//! ways or forwarded so, nothing that was cut passes for whole or leaves anything behind, and whoever asks behind or beside
//! it gets the right answer.

mod clients;
mod strict;
mod upstream;
