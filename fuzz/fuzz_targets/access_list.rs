//! Lists of who may use something: what is written in the settings, and whom it lets in.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use libfuzzer_sys::fuzz_target;
use waystation::config::{Config, Sources};
use waystation::content::AccessList;

fuzz_target!(|input: ([u8; 4], &str)| {
    let (bytes, text) = input;
    let address = Ipv4Addr::from(bytes);
    let entries: Vec<_> = text.lines().map(|line| format!("\"{}\"", line.replace(['"', '\\'], ""))).collect();
    let sources = Sources::new().set("--set", "admin.metrics_clients", &format!("[{}]", entries.join(",")));
    let Ok(loaded) = Config::load(&sources) else { return };
    let list = loaded.config.admin.metrics_clients;
    let is_in = list.allows(IpAddr::V4(address));
    assert_eq!(list.allows(IpAddr::V6(address.to_ipv6_mapped())), is_in, "another spelling of {address}");
    if let AccessList::Networks(networks) = &list {
        assert!(!networks.is_empty() || !is_in);
        assert!(networks.iter().all(|network| list.allows(network.network())), "a network is not in its own list");
    }
});
