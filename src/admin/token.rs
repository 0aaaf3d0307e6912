//! Who may use `/api/v1`: those who know the token in `admin.token_file`, from this machine, or over the network where
//! the configuration says that it may pass unencrypted. There is no token unless one is configured.

use std::io;
use std::net::IpAddr;
use std::path::Path;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use subtle::ConstantTimeEq as _;

use super::Settings;

/// Shortest token, in characters: 16 of base64 are 96 bits.
const SHORTEST: usize = 16;
/// Longest token, in characters, so that no wrong file is read whole.
const LONGEST: usize = 4096;

/// Both ends of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    /// The client's.
    pub(super) client: IpAddr,
    /// Our own, if it is known.
    pub(super) local: Option<IpAddr>,
}

impl Peer {
    /// Whether the client is on this machine: what it sends passes no network.
    fn is_here(self) -> bool {
        let client = self.client.to_canonical();
        client.is_loopback() || self.local.is_some_and(|local| local.to_canonical() == client)
    }
}

/// Why a request may not use the API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denied {
    /// There is no token.
    #[error("the API is off: set admin.token_file to a file with a token of at least {SHORTEST} characters")]
    Off,
    /// The token would pass a network unencrypted.
    #[error("the API is offered to this machine only; admin.allow_plaintext: true opens it to others, unencrypted")]
    Plaintext,
    /// None, or a wrong one.
    #[error("send the token of admin.token_file as \"Authorization: Bearer TOKEN\"")]
    Unauthorized,
    /// The file cannot be used. The reason is for the log.
    #[error("the token of this cache cannot be read; its log has the reason")]
    File(String),
}

/// Checks a request. Reads the file each time, so that a token can be changed while the cache runs; blocking.
pub(super) fn check(settings: &Settings, peer: Peer, fields: &HeaderMap) -> Result<(), Denied> {
    let Some(path) = &settings.token_file else { return Err(Denied::Off) };
    if !peer.is_here() && !settings.allow_plaintext {
        return Err(Denied::Plaintext);
    }
    let token = read(path).map_err(|reason| Denied::File(format!("{}: {reason}", path.display())))?;
    let mut given = fields.get_all(AUTHORIZATION).iter();
    let (Some(given), None) = (given.next(), given.next()) else { return Err(Denied::Unauthorized) };
    let given = bearer(given.as_bytes()).ok_or(Denied::Unauthorized)?;
    // How far they agree must not be seen by the time that it takes.
    if bool::from(given.ct_eq(token.as_bytes())) { Ok(()) } else { Err(Denied::Unauthorized) }
}

/// The token in a file.
///
/// # Errors
/// When it cannot be read or has no token that can be sent, with the remedy.
pub fn read(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    io::Read::read_to_string(&mut io::Read::take(file, LONGEST as u64 + 1), &mut text)
        .map_err(|error| error.to_string())?;
    let token = text.trim_end();
    if token.len() < SHORTEST || token.len() > LONGEST || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("write one line of {SHORTEST} to {LONGEST} visible ASCII characters into it"));
    }
    Ok(token.to_owned())
}

/// The token of a field value (RFC 6750 section 2.1); the scheme's case does not matter (RFC 9110 section 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(b"Bearer".len())?;
    let token = rest.trim_ascii_start();
    (scheme.eq_ignore_ascii_case(b"Bearer") && token.len() < rest.len()).then_some(token)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const TOKEN: &str = "correct-horse-battery";

    #[test]
    fn only_the_token_opens_it() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, format!("{TOKEN}\n")).unwrap();
        let mut settings = Settings { token_file: Some(path.clone()), ..Settings::default() };
        let check = |settings: &Settings, client: &str, values: &[&'static str]| {
            let fields = values.iter().map(|value| (AUTHORIZATION, HeaderValue::from_static(value))).collect();
            let local = Some("192.168.1.5".parse().unwrap());
            check(settings, Peer { client: client.parse().unwrap(), local }, &fields)
        };
        let good = ["Bearer correct-horse-battery"];
        assert_eq!(check(&settings, "127.0.0.1", &good), Ok(()));
        assert_eq!(check(&settings, "::ffff:127.0.0.1", &["bearer  correct-horse-battery"]), Ok(()));
        let wrong = ["", "Bearer", "Bearer ", "Bearercorrect-horse-battery", "Bearer correct-horse-batterz"];
        for wrong in wrong.into_iter().chain(["Basic correct-horse-battery", "Bearer correct-horse-battery-"]) {
            assert_eq!(check(&settings, "127.0.0.1", &[wrong]), Err(Denied::Unauthorized), "{wrong}");
        }
        assert_eq!(check(&settings, "127.0.0.1", &[]), Err(Denied::Unauthorized));
        assert_eq!(check(&settings, "127.0.0.1", &[good[0], good[0]]), Err(Denied::Unauthorized));
        assert_eq!(check(&settings, "10.0.0.1", &good), Err(Denied::Plaintext));
        assert_eq!(check(&settings, "192.168.1.5", &good), Ok(()), "from this machine");
        settings.allow_plaintext = true;
        assert_eq!(check(&settings, "10.0.0.1", &good), Ok(()));
        // Another token takes its place at once.
        std::fs::write(&path, "another-token-of-good-length").unwrap();
        assert_eq!(check(&settings, "127.0.0.1", &good), Err(Denied::Unauthorized));
        for bad in ["short", "", "with a space in the token", &"x".repeat(LONGEST + 1)] {
            std::fs::write(&path, bad).unwrap();
            assert!(matches!(check(&settings, "127.0.0.1", &good), Err(Denied::File(_))), "{}", bad.len());
        }
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(check(&settings, "127.0.0.1", &good), Err(Denied::File(_))));
        assert_eq!(check(&Settings::default(), "127.0.0.1", &good), Err(Denied::Off));
    }
}
