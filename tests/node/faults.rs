//! The fault table: 20 devices, one cold file, one fault of the origin in each row.
//!
//! A device is a Delivery Optimization agent with an address of its own below a Device Update agent, which starts a
//! download anew when it made no progress for 8 s. Ten begin at once and ten while the file comes, eight of them pause
//! and resume. A file is right when it is one version of the content, by hash and length; it is wrong when its agent
//! believes to have it all the same. Each row is run in both ways of asking, ranged and whole, where both make sense.
//!
//! In all rows nobody bans the cache, nobody ends without a file, and nobody has a wrong file, except where bytes or a
//! short length are false and no digest says so. The origin sends 1.05 times the content at most where it has ranges and
//! validators and does not contradict itself. "Unseen" rows are those in which no device sees a cut or a 503.
//!
//! What the faults are (bytes are those that the origin has sent of the content, over all answers):
//! - cut, reset, stall: strike the connection that would send the byte at so many hundredths of the content; others go on.
//! - stall in head: the first head never comes, nor the third.
//! - 5xx, refused: for 4 s, from the first request on, or from 41 % on, when all running answers are cut.
//! - length too big: the origin takes its file for 1000 bytes longer than it is. It announces that length, in
//!   `Content-Length` of a 200, and in the total of a `Content-Range`; ranges within its real length are right. An answer
//!   that reaches the end announces more bytes than come, and the connection ends behind the last one.
//! - length too small: it takes its file for 1000 bytes shorter: the announced length and totals are consistent, and the
//!   last 1000 bytes do not come, or come behind the end of the answer that reaches the believed end.
//! - wrong byte: one byte at 57 % differs in the first answer that brings it.
//! - lies end when they have shown: when the answer that reaches the believed end, or has the wrong byte, was sent.
//! - new version at the cut: the connection is cut at 41 %, requests from then on get the other version, answers that
//!   run go on with theirs.
//!
//! Times are a quarter of those in the field unless `WAYSTATION_SCALE` says otherwise: limits of the node towards its
//! origin, the 20 s of the agents, spells of 4 s. Figures of each row are printed (`--nocapture`).

mod answers;
mod cuts;
mod lies;
mod table;
mod versions;
