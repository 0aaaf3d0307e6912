//! `listen.tls`: the TLS listener. Only what is written is judged here; the files are read when the listener opens.

use super::reader::{Fault, Parsed, Section};
use super::tree::Value;
use super::values;
use crate::serve::{ClientName, TlsSettings};

/// Reads the section; without addresses there is no such listener.
pub(super) fn tls(section: &mut Section<'_>) -> Option<Option<TlsSettings>> {
    let addresses = section.values("addresses", None, values::listener);
    let http2_addresses = section.values("http2_addresses", None, values::listener);
    let certificate = section.value("certificate", values::optional(values::path));
    let key = section.value("key", values::optional(values::path));
    let client_ca = section.value("client_ca", values::optional(values::path));
    let client_names = section.values("client_names", None, client_name);
    let (addresses, certificate, key, client_ca) = (addresses?, certificate?, key?, client_ca?);
    let (client_names, http2_addresses) = (client_names?, http2_addresses?);
    if addresses.is_empty() && http2_addresses.is_empty() {
        let given = [
            ("certificate", certificate.is_some()),
            ("key", key.is_some()),
            ("client_ca", client_ca.is_some()),
            ("client_names", !client_names.is_empty()),
        ];
        for (name, _) in given.iter().filter(|(_, given)| *given) {
            let remedy = "write addresses, like [\"[::]:8443\"], or remove it";
            section.fault(name, Fault::new("there is no TLS listener that could use it", remedy));
        }
        return if given.iter().any(|(_, given)| *given) { None } else { Some(None) };
    }
    for (name, missing) in [("certificate", certificate.is_none()), ("key", key.is_none())] {
        if missing {
            section.fault(name, Fault::new("a TLS listener needs one", "write the path of a PEM file"));
        }
    }
    let unnamed = client_ca.is_some() || client_names.is_empty();
    if !unnamed {
        let remedy = "write client_ca, the PEM file of the authority that signs the certificates of clients";
        section.fault("client_names", Fault::new("nobody would vouch for these names", remedy));
    }
    let (certificate, key) = (certificate?, key?);
    unnamed.then_some(Some(TlsSettings { addresses, http2_addresses, certificate, key, client_ca, client_names }))
}

/// A name in the certificates of clients.
pub(super) fn client_name(value: &Value) -> Parsed<ClientName> {
    ClientName::parse(values::text(value)?).map_err(|error| {
        Fault::new(error.to_string(), "write a name like l3.plant.example, or *.plant.example for all below")
    })
}
