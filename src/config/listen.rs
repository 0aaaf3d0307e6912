//! `listen`: where devices and operators connect, who of them may, and who speaks for others.

use std::net::SocketAddr;

use ipnet::IpNet;

use super::build::networks;
use super::reader::{Fault, Parsed, Section};
use super::tls::{client_name, tls};
use super::tree::Value;
use super::values::{self, ClientWord};
use crate::content::AccessList;
use crate::serve::{ClientName, ProxyProtocol, TlsSettings};

/// How an entry begins that is a name in a certificate.
const NAME: &str = "name:";

/// The section.
pub(super) struct Listen {
    pub(super) data: Vec<SocketAddr>,
    pub(super) tls: Option<TlsSettings>,
    pub(super) admin: Vec<SocketAddr>,
    pub(super) clients: AccessList,
    pub(super) named_clients: Vec<ClientName>,
    pub(super) trusted_proxies: Vec<IpNet>,
    pub(super) proxy_protocol: ProxyProtocol,
    pub(super) digest_clients: AccessList,
    pub(super) digest_certified: bool,
}

/// An entry of `clients`.
enum Client {
    At(ClientWord),
    Named(ClientName),
}

/// Reads the section.
pub(super) fn listen(section: &mut Section<'_>) -> Option<Listen> {
    let data = section.values("data", None, values::listener);
    let tls = section.section("tls", tls);
    let admin = section.values("admin", None, values::listener);
    let clients = section.values("clients", None, client);
    let trusted_proxies = section.values("trusted_proxies", None, values::network);
    let proxy_protocol =
        section.value("proxy_protocol", values::word(&[("none", ProxyProtocol::None), ("v2", ProxyProtocol::V2)]));
    let digest_clients = section.values("digest_clients", None, values::digest_client);
    if data.as_ref().is_some_and(Vec::is_empty) {
        section.fault("data", Fault::new("devices have no way in", "write at least one address, like \"[::]:8081\""));
    }
    if clients.as_ref().is_some_and(Vec::is_empty) {
        let remedy = "write private, any, networks or addresses";
        section.fault("clients", Fault::new("an empty list refuses every device", remedy));
    }
    if proxy_protocol == Some(ProxyProtocol::V2) && trusted_proxies.as_ref().is_some_and(Vec::is_empty) {
        let remedy = "write the addresses of your proxies in listen.trusted_proxies, or none here";
        section.fault("proxy_protocol", Fault::new("there is no proxy whose header would be taken", remedy));
    }
    if let (Some(data), Some(tls), Some(admin)) = (&data, &tls, &admin) {
        distinct(section, data, tls.as_ref(), admin);
    }
    let clients = clients?;
    let (mut words, mut named_clients) = (Vec::new(), Vec::new());
    for client in clients {
        match client {
            Client::At(word) => words.push(word),
            Client::Named(name) => named_clients.push(name),
        }
    }
    if let Some(fault) = tls.as_ref().and_then(|tls| unshown(&named_clients, tls.as_ref())) {
        section.fault("clients", fault);
    }
    let digest_clients = digest_clients?;
    let digest_certified = digest_clients.iter().any(Option::is_none);
    let asks_certificates = matches!(&tls, Some(Some(tls)) if tls.client_ca.is_some());
    if digest_certified && tls.is_some() && !asks_certificates {
        let remedy = "set listen.tls with a client_ca, or name networks";
        section.fault("digest_clients", Fault::new("nobody is asked for a certificate", remedy));
        return None;
    }
    let digest_words: Vec<ClientWord> = digest_clients.into_iter().flatten().collect();
    Some(Listen {
        data: data?,
        tls: tls?,
        admin: admin?,
        clients: networks(&words).map_or(AccessList::Any, AccessList::Networks),
        named_clients,
        trusted_proxies: trusted_proxies?,
        proxy_protocol: proxy_protocol?,
        digest_clients: networks(&digest_words).map_or(AccessList::Any, AccessList::Networks),
        digest_certified,
    })
}

fn client(value: &Value) -> Parsed<Client> {
    if let Some(name) = values::text(value)?.strip_prefix(NAME) {
        return client_name(&Value::from(name)).map(Client::Named);
    }
    let word = values::client(value).map_err(|fault| Fault {
        remedy: format!("{}; or {NAME} and a name like l3.plant.example in a client's certificate", fault.remedy),
        ..fault
    });
    word.map(Client::At)
}

/// What is wrong with names that no client can show.
fn unshown(names: &[ClientName], tls: Option<&TlsSettings>) -> Option<Fault> {
    let first = names.first()?;
    let Some(tls) = tls.filter(|tls| tls.client_ca.is_some()) else {
        let remedy = "write addresses and client_ca in listen.tls, or leave the names out";
        return Some(Fault::new(format!("{NAME}{first} lets nobody in: no listener asks for certificates"), remedy));
    };
    let shown = |name: &&ClientName| tls.client_names.iter().any(|required| required.overlaps(name));
    let unshown = names.iter().find(|name| !tls.client_names.is_empty() && !shown(name))?;
    let problem = format!("{NAME}{unshown} lets nobody in: listen.tls.client_names refuses its certificate before");
    Some(Fault::new(problem, "write the name there, too, or leave it out"))
}

/// Notes a fault when two listeners cannot exist side by side.
fn distinct(section: &mut Section<'_>, data: &[SocketAddr], tls: Option<&TlsSettings>, admin: &[SocketAddr]) {
    let tls = tls.into_iter().flat_map(|tls| tls.addresses.iter().chain(&tls.http2_addresses));
    let listeners: Vec<&SocketAddr> = data.iter().chain(tls.clone()).chain(admin).collect();
    let doubled = listeners
        .iter()
        .enumerate()
        .find(|(index, a)| listeners.iter().skip(index + 1).any(|b| collide(a, b)))
        .map(|(_, address)| address);
    if let Some(address) = doubled {
        let taken = |others: &mut dyn Iterator<Item = &SocketAddr>| others.filter(|o| collide(address, o)).count();
        let (in_data, in_tls) = (taken(&mut data.iter()), taken(&mut tls.clone()));
        let name = match (in_data, in_data + in_tls) {
            (2.., _) => "data",
            (_, 2..) => "tls",
            _ => "admin",
        };
        section.fault(name, Fault::new(format!("{address} is taken twice"), "give each listener its own port"));
    }
}

/// Whether two listeners cannot exist side by side. Port 0 is a different one each time; `[::]` takes IPv4, too.
fn collide(a: &SocketAddr, b: &SocketAddr) -> bool {
    let covers = |all: &SocketAddr, one: &SocketAddr| all.ip().is_unspecified() && (all.is_ipv6() || one.is_ipv4());
    a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || covers(a, b) || covers(b, a))
}
