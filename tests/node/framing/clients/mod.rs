//! Messages of clients, in all request forms: malformed, ambiguous, smuggled, cut.
//!
//! Each is sent twice, in pieces and in one write with an honest request behind it, while others ask on connections of
//! their own. What the origin gets is read by a strict reader; nothing that was hidden in a message may come there, be
//! stored, or be answered.

mod cache_host_origin;
mod case;
mod codings;
mod cut;
mod field_lines;
mod fields;
mod forms;
mod lengths;
mod origin;
mod other_protocols;
mod pipelines;
mod request_line;
mod run;
mod ssrf;

use std::collections::BTreeSet;

#[test]
fn the_tables_have_at_least_250_different_messages() {
    let tables = [
        ("words", request_line::words()),
        ("targets", request_line::targets()),
        ("versions", request_line::versions()),
        ("absolute", forms::absolute()),
        ("others", forms::others()),
        ("hosts", forms::hosts()),
        ("line ends", field_lines::line_ends()),
        ("names", field_lines::names()),
        ("values", field_lines::values()),
        ("sizes", field_lines::sizes()),
        ("lengths", lengths::content_length()),
        ("bodies", lengths::bodies()),
        ("both", lengths::with_transfer_encoding()),
        ("codings", codings::transfer_encoding()),
        ("chunks", codings::whole_chunks()),
        ("broken chunks", codings::broken_chunks()),
        ("expectations", other_protocols::expectations()),
        ("unknown expectations", other_protocols::unknown_expectations()),
        ("upgrades", other_protocols::upgrades()),
        ("hop by hop", fields::hop_by_hop()),
        ("steering", fields::steering()),
        ("methods", fields::methods()),
        ("places", cache_host_origin::places()),
        ("origins", cache_host_origin::values()),
        ("pipelines", pipelines::pipelines()),
        ("early answers", pipelines::early_answers()),
        ("cut heads", cut::heads()),
        ("cut bodies", cut::bodies()),
        ("named", ssrf::named(1)),
        ("tunnels", ssrf::tunnels(1)),
        ("guarded", ssrf::guarded(1)),
    ];
    let counts: Vec<_> = tables.iter().map(|(table, cases)| format!("{table} {}", cases.len())).collect();
    let messages: BTreeSet<_> = tables.iter().flat_map(|(_, cases)| cases).map(|case| &case.bytes).collect();
    println!("{} messages: {}", messages.len(), counts.join(", "));
    assert!(messages.len() >= 250, "{}", messages.len());
}
