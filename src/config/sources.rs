//! `upstream`: parents, proxies and time limits. What requests of each look like is the upstream side's business.

use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::content::{Origin, Scheme};
use crate::upstream::{Credentials, Exception, Parent, ParentKind, Proxies, Proxy, Settings, Timeouts, TlsFiles};

use super::budget::{budget, rate};
use super::host::{Host, parse_host_port};
use super::origins::{guard, scheme_of};
use super::reader::{Fault, Parsed, Section, list_of};
use super::tree::Value;
use super::values;

const MILLISECOND: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);
/// More parents than any site has.
const PARENTS: usize = 16;
/// The port of a proxy that names none, as in curl.
const PROXY_PORT: u16 = 1080;
/// Longest password file in bytes: more is no password.
const PASSWORD: u64 = 4096;
/// How a parent's address is written.
const PARENT: &str = "http://l4.example:8081";
/// What stands in place of a user and password that are not shown.
pub(super) const MASK: &str = "***";

/// `scheme://user:password@host:port`, taken apart.
struct Endpoint {
    scheme: Scheme,
    user: Option<String>,
    password: Option<String>,
    host: Host,
    port: Option<u16>,
}

/// Reads the section.
pub(super) fn upstream(section: &mut Section<'_>) -> Option<Settings> {
    let parents = section.sections("parents", parent);
    let direct = section.value("direct", values::optional(values::boolean));
    let http = section.secret("http_proxy", Value::Null, values::optional(proxy));
    let https = section.secret("https_proxy", Value::Null, values::optional(proxy));
    let password = section.value_or("proxy_password_file", Value::Null, values::optional(password));
    let except = section.values("no_proxy", Some(&[]), exception);
    let tls = section.section("tls", tls);
    let budget = section.section("budget", budget);
    let timeouts = section.section("timeouts", |section| {
        let limit = || values::duration(10 * MILLISECOND..=HOUR, "from 10ms to 1h");
        let connect = section.value("connect", limit());
        let first_byte = section.value("first_byte", limit());
        let stall = section.value("stall", limit());
        let request = section.value("request", limit());
        Some(Timeouts { connect: connect?, first_byte: first_byte?, stall: stall?, request: request? })
    });
    let parents = parents?;
    if parents.len() > PARENTS {
        section.fault("parents", Fault::new("there are too many parents", format!("write up to {PARENTS}")));
        return None;
    }
    let doubled = parents.iter().enumerate().any(|(index, parent)| parents.iter().skip(index + 1).any(|p| p == parent));
    if doubled {
        section.fault("parents", Fault::new("a parent is there twice", "leave one of them"));
        return None;
    }
    if parents.iter().all(|parent| parent.origin.scheme == Scheme::Http)
        && matches!(&tls, Some(TlsFiles { identity: Some(_), .. }))
    {
        section.fault(
            "tls",
            Fault::new(
                "no parent is asked over https, so nobody sees the certificate",
                "write https:// in the `url` of a parent, or leave certificate and key out",
            ),
        );
        return None;
    }
    let password = password?;
    let has_user = [&http, &https].iter().any(|proxy| matches!(proxy, Some(Some((_, Some(_))))));
    if password.is_some() && !has_user {
        let remedy = "write the user into the proxy's address, like http://user@proxy.lan:3128";
        section.fault("proxy_password_file", Fault::new("no proxy has a user that this is the password of", remedy));
        return None;
    }
    let mut complete = |name: &str, read: Option<(Proxy, Option<Login>)>| match read {
        Some((proxy, login)) => login_of(section, name, login, password.as_deref(), Some("proxy_password_file"))
            .map(|credentials| Some(Arc::new(Proxy { credentials, ..proxy }))),
        None => Some(None),
    };
    let http = complete("http_proxy", http?);
    let https = complete("https_proxy", https?);
    let direct = direct?.unwrap_or(parents.is_empty());
    let proxies = Proxies { http: http?, https: https?, except: except? };
    let mut budget = budget?;
    let rates = parents.iter().filter_map(|parent| Some((parent.origin.to_string().into(), parent.rate?)));
    budget.sources.extend(rates);
    Some(Settings { parents, direct, proxies, tls: tls?, timeouts: timeouts?, budget, budget_file: None })
}

/// A user, and the password if the address has one.
type Login = (String, Option<String>);

fn parent(section: &mut Section<'_>) -> Option<Parent> {
    let url = section.secret("url", Value::Null, |value| match value {
        Value::Null => Err(Fault::new("`url` is missing", format!("write the parent's address, like url: {PARENT}"))),
        value => endpoint(value, PARENT),
    });
    let kinds = &[("connected-cache", ParentKind::ConnectedCache), ("forward-proxy", ParentKind::ForwardProxy)];
    let kind = section.value_or("kind", "connected-cache", values::word(kinds));
    let file = section.value_or("password_file", Value::Null, values::optional(password));
    let name = section.value_or("tls_name", Value::Null, values::optional(|value| Host::parse(values::text(value)?)));
    let between = section.secret("proxy", Value::Null, values::optional(proxy));
    let rate = section.value_or("rate", Value::Null, values::optional(rate));
    let trusted = section.value_or("trusted", false, values::boolean);
    let (url, kind, file) = (url?, kind?, file?);
    if let Some(fault) = url.host.literal.and_then(|literal| guard(literal, true, "")) {
        section.fault("url", fault);
        return None;
    }
    if kind == ParentKind::ConnectedCache && (url.user.is_some() || file.is_some()) {
        let remedy = "leave user and password out, or write kind: forward-proxy";
        section.fault("url", Fault::new("a connected cache knows no users", remedy));
        return None;
    }
    if file.is_some() && url.user.is_none() {
        let remedy = "write the user into `url`, like http://user@proxy.lan:3128";
        section.fault("password_file", Fault::new("there is no user that this is the password of", remedy));
        return None;
    }
    if url.scheme == Scheme::Http && matches!(&name, Some(Some(_))) {
        section.fault(
            "tls_name",
            Fault::new("an http parent shows no certificate", "write https:// in `url`, or leave it out"),
        );
        return None;
    }
    let trusted = trusted?;
    if trusted && url.scheme == Scheme::Http {
        let fault = Fault::new(
            "over plain http anybody in between can say what content a URL has",
            "write https:// in `url`, or leave `trusted` out",
        );
        section.fault("trusted", fault);
        return None;
    }
    if trusted && kind == ParentKind::ForwardProxy {
        let fault = Fault::new(
            "a forward proxy passes on what others say of their content",
            "leave `trusted` out, or write kind: connected-cache if the parent is a Waystation",
        );
        section.fault("trusted", fault);
        return None;
    }
    let login = url.user.map(|user| (user, url.password));
    let credentials = login_of(section, "url", login, file.as_deref(), Some("password_file"))?;
    let between = match between? {
        Some((proxy, login)) => {
            let credentials = login_of(section, "proxy", login, None, None)?;
            Some(Arc::new(Proxy { credentials, ..proxy }))
        }
        None => None,
    };
    let port = url.port.unwrap_or(url.scheme.default_port());
    let origin = Origin { scheme: url.scheme, host: url.host.text.into(), port };
    let tls_name = name?.map(|name| name.text.into());
    Some(Parent { origin, kind, credentials, tls_name, proxy: between, trusted, rate: rate? })
}

/// Whether the files can be used turns out when they are read, at the start.
fn tls(section: &mut Section<'_>) -> Option<TlsFiles> {
    let ca = section.value("ca", values::optional(values::path));
    let certificate = section.value("certificate", values::optional(values::path));
    let key = section.value("key", values::optional(values::path));
    let identity = match (certificate?, key?) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (certificate, _) => {
            let (there, other) = if certificate.is_some() { ("certificate", "key") } else { ("key", "certificate") };
            section.fault(there, Fault::new(format!("there is no {other} with it"), format!("add `{other}`")));
            return None;
        }
    };
    Some(TlsFiles { ca: ca?, identity })
}

/// The credentials of a user whose password stands in a file, or else in the address; `None` after a fault. `setting` names
/// the file, where there is such a setting.
fn login_of(
    section: &mut Section<'_>,
    name: &str,
    login: Option<Login>,
    file: Option<&str>,
    setting: Option<&str>,
) -> Option<Option<Credentials>> {
    let Some((user, password)) = login else { return Some(None) };
    let Some(password) = file.or(password.as_deref()) else {
        let address = "write it into the address, http://user:password@proxy.lan:3128";
        let remedy = match setting {
            Some(setting) => format!("name the file that it stands in with `{setting}`, or {address}"),
            None => address.to_owned(),
        };
        section.fault(name, Fault::new("the user's password is missing", remedy));
        return None;
    };
    let credentials = Credentials::basic(&user, password);
    if credentials.is_none() {
        section.fault(name, Fault::new("a user's name has no colon in it", "write it without"));
    }
    credentials.map(Some)
}

fn proxy(value: &Value) -> Parsed<(Proxy, Option<Login>)> {
    let text = values::text(value)?;
    // Without a scheme, as other programs take it.
    let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let endpoint = endpoint(&full.as_str().into(), "http://proxy.lan:3128")?;
    let is_scheme = |user: &str| ["http", "https"].iter().any(|scheme| user.eq_ignore_ascii_case(scheme));
    if full != text && endpoint.user.as_deref().is_some_and(is_scheme) {
        return Err(Fault::new("the scheme has no // behind it", "write for example http://user@proxy.lan:3128"));
    }
    if endpoint.scheme == Scheme::Https {
        let remedy = "write http://; what goes through to https origins is encrypted all the same";
        return Err(Fault::new("a proxy is not spoken to by TLS", remedy));
    }
    if let Some(fault) = endpoint.host.literal.and_then(|literal| guard(literal, true, "")) {
        return Err(fault);
    }
    let port = endpoint.port.unwrap_or(PROXY_PORT);
    let proxy = Proxy { host: endpoint.host.text.into(), port, credentials: None };
    Ok((proxy, endpoint.user.map(|user| (user, endpoint.password))))
}

fn endpoint(value: &Value, example: &str) -> Parsed<Endpoint> {
    let fault = || Fault::new("this is not an address", format!("write for example {example}"));
    let text = values::text(value)?;
    let (scheme, rest) = scheme_of(text).ok_or_else(fault)?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (login, authority) = rest.rsplit_once('@').map_or((None, rest), |(login, host)| (Some(login), host));
    let form = format!("write scheme, host and port alone, like {example}");
    if login.is_some_and(|login| login.contains('/')) {
        let remedy = format!("write it like {example}, a slash in a user or password as %2F");
        return Err(Fault::new("there is a slash before the host", remedy));
    }
    if authority.contains(['/', '?', '#']) {
        return Err(Fault::new("there is a path or query behind the host", format!("{form}, nothing behind it")));
    }
    if authority.starts_with('[') != authority.contains(']') {
        return Err(Fault::new(
            "an IPv6 address has no bracket at one end",
            format!("{form}, or http://[2001:db8::1]:8081"),
        ));
    }
    if login == Some(MASK) {
        return Err(Fault::new("user and password are not shown here", "write them anew"));
    }
    let decoded = |text: &str| {
        let text = percent_decode_str(text).decode_utf8().map_err(|_| fault())?;
        if text.chars().any(char::is_control) { Err(fault()) } else { Ok(text.into_owned()) }
    };
    let (user, password) = match login.map(|login| login.split_once(':').map_or((login, None), |(u, p)| (u, Some(p)))) {
        Some((user, password)) => (Some(decoded(user)?), password.map(decoded).transpose()?),
        None => (None, None),
    };
    if user.as_deref() == Some("") {
        return Err(Fault::new("the user's name is empty", "write http://user@host, or leave the @ out"));
    }
    let has_port = !authority.ends_with(']') && authority.contains(':');
    let (host, port) = if has_port {
        parse_host_port(authority).map(|(host, port)| (host, Some(port)))
    } else {
        Host::parse(authority).map(|host| (host, None))
    }
    .map_err(|fault| Fault::new(fault.problem, form))?;
    Ok(Endpoint { scheme, user, password, host, port })
}

/// Reads the first line of a file that holds a password.
fn password(value: &Value) -> Parsed<String> {
    use std::io::Read as _;

    let path = values::path(value)?;
    let remedy = "write the password alone into the file, and let this user read it";
    let mut bytes = Vec::new();
    let file = std::fs::File::open(&path);
    file.and_then(|file| file.take(PASSWORD).read_to_end(&mut bytes))
        .map_err(|error| Fault::new(format!("the password cannot be read: {error}"), remedy))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| Fault::new("the password is not text", remedy))?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() { Err(Fault::new("the first line is empty", remedy)) } else { Ok(line.to_owned()) }
}

fn exception(value: &Value) -> Parsed<Exception> {
    let text = values::text(value)?;
    Exception::parse(text).ok_or_else(|| {
        let remedy = "write a name (for it and all names below it), name:port, an address, a network, or *";
        Fault::new("this names no host", remedy)
    })
}

/// The variable's list of exceptions as a value.
pub(super) fn exceptions(text: &str) -> Value {
    let entries: Vec<&str> = text.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty()).collect();
    list_of(&entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_proxies_take_the_usual_spellings() {
        for (text, host, port, user) in [
            ("http://proxy.lan:3128", "proxy.lan", 3128, None),
            ("proxy.lan:3128", "proxy.lan", 3128, None),
            ("http://Proxy.lan/", "proxy.lan", 1080, None),
            ("http://10.1.2.3:8080", "10.1.2.3", 8080, None),
            ("http://[2001:db8::1]:8080", "[2001:db8::1]", 8080, None),
            ("http://a%40b:c%3Ad@proxy.lan:3128", "proxy.lan", 3128, Some(("a@b", Some("c:d")))),
            ("http://a@proxy.lan:3128", "proxy.lan", 3128, Some(("a", None))),
        ] {
            let (proxy, login) = proxy(&text.into()).unwrap();
            assert_eq!((&*proxy.host, proxy.port), (host, port), "{text}");
            let expected =
                user.map(|(user, password): (&str, Option<&str>)| (user.to_owned(), password.map(str::to_owned)));
            assert_eq!(login, expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_proxy_is_refused() {
        for text in [
            "",
            "https://proxy.lan:3128",
            "socks5://proxy.lan:1080",
            "http://proxy.lan:0",
            "http://proxy.lan:x",
            "http://proxy.lan/path",
            "http://@proxy.lan",
            "http://***@proxy.lan",
            "http:/u:secret@proxy.lan:1",
            "http//u:secret@proxy.lan:1",
            "http:u:secret@proxy.lan:1",
            "http://u:sec/ret@proxy.lan:1",
            "http://a:%00@proxy.lan",
            "http://169.254.169.254:80",
            "http://",
        ] {
            assert!(proxy(&text.into()).is_err(), "{text}");
        }
    }

    #[test]
    fn remedies_fit_the_address_of_a_parent() {
        let found = |url: &str| {
            let text = format!("upstream: {{ parents: [{url}] }}");
            let sources = crate::config::Sources::new().file("f", &text);
            crate::config::Config::load(&sources).unwrap_err().to_string()
        };
        for (url, said) in [
            ("{ url: \"http://l4/path\" }", "path or query behind the host"),
            ("{ url: \"http://[::1\" }", "bracket"),
            ("{ url: \"http://a b\" }", "not a host name"),
            ("{}", "`url` is missing"),
        ] {
            let text = found(url);
            assert!(text.contains(said) && text.contains("http://l4.example:8081"), "{text}");
            assert!(!text.contains("under `port`") && !text.contains("no scheme"), "{text}");
        }
        let sources = crate::config::Sources::new().variable("http_proxy", "http:/u:SECRET@h:1");
        let text = crate::config::Config::load(&sources).unwrap_err().to_string();
        assert!(text.contains("http://proxy.lan:3128") && !text.contains("SECRET"), "{text}");
    }

    #[test]
    fn the_variable_separates_by_commas_and_spaces() {
        assert_eq!(exceptions(" a.lan,.b , 10.0.0.0/8").to_string(), "[a.lan, \".b\", \"10.0.0.0/8\"]");
    }
}
