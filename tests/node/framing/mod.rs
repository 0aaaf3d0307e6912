//! Messages that are malformed, ambiguous or cut, byte for byte, and what must come of each: nothing is understood in two
//! ways, nothing that was cut passes for whole, and whoever asks behind or beside it gets the right answer.

mod clients;
mod strict;
