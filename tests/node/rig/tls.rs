//! Certificates of a site, clients that speak TLS, and an origin that speaks both https and http on one port.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::client::Connection;

/// The name in the certificate of the cache.
pub(crate) const CACHE: &str = "cache.plant.example";

/// A connection under TLS.
pub(crate) type Secured = Connection<TlsStream<TcpStream>>;

pub(crate) static TLS12: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS12];
pub(crate) static TLS13: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];

/// Signs certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub(crate) struct Pair {
    pub(crate) certificate: CertificateDer<'static>,
    key: KeyPair,
    pem: String,
}

/// Who a client is, and whom it trusts.
pub(crate) struct Caller<'a> {
    pub(crate) trusts: &'a Authority,
    pub(crate) shows: Option<&'a Pair>,
    pub(crate) versions: &'static [&'static SupportedProtocolVersion],
}

/// An origin that answers each request, whatever it asks for, with the name of its scheme and 200 times a line.
pub(crate) struct BothOrigin {
    pub(crate) address: SocketAddr,
    /// Schemes and targets of requests.
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

/// TLS before somebody who speaks none: what comes through it goes on in the clear.
pub(crate) struct Terminator {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for `name`, of servers and clients, from the first day of one year to that of another.
    pub(crate) fn pair(&self, name: &str, years: std::ops::Range<i32>) -> Pair {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(years.start, 1, 1);
        params.not_after = date_time_ymd(years.end, 1, 1);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Pair { certificate: certificate.der().clone(), key, pem: certificate.pem() }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }
}

impl Pair {
    /// Writes `server.pem` and `server.key`, each moved into place as a whole.
    pub(crate) fn write(&self, directory: &Path) {
        for (name, text) in [("server.pem", self.pem.clone()), ("server.key", self.key.serialize_pem())] {
            put(directory, name, &text);
        }
    }

    fn acceptor(&self) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], self.key())
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()))
    }
}

/// Writes a file and moves it into place.
pub(crate) fn put(directory: &Path, name: &str, text: &str) {
    std::fs::write(directory.join("new"), text).unwrap();
    std::fs::rename(directory.join("new"), directory.join(name)).unwrap();
}

impl<'a> Caller<'a> {
    pub(crate) fn new(trusts: &'a Authority) -> Self {
        Self { trusts, shows: None, versions: rustls::DEFAULT_VERSIONS }
    }

    pub(crate) fn showing(mut self, pair: &'a Pair) -> Self {
        self.shows = Some(pair);
        self
    }

    pub(crate) async fn connect(&self, address: SocketAddr) -> std::io::Result<Secured> {
        self.shakes_hands(&self.connector(), TcpStream::connect(address).await?).await
    }

    /// What it says of itself. Who uses it twice resumes the session of the first time.
    pub(crate) fn connector(&self) -> TlsConnector {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(self.versions).unwrap();
        let builder = builder.with_root_certificates(self.trusts.roots());
        let mut config = match self.shows {
            Some(pair) => builder.with_client_auth_cert(vec![pair.certificate.clone()], pair.key()).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        TlsConnector::from(Arc::new(config))
    }

    /// A connection on which both sides speak HTTP/2.
    pub(crate) async fn connect_http2(&self, address: SocketAddr) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let stream = self.connector().connect(ServerName::try_from(CACHE).unwrap(), stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        stream
    }

    /// On a connection that stands.
    pub(crate) async fn shakes_hands(&self, connector: &TlsConnector, stream: TcpStream) -> std::io::Result<Secured> {
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(CACHE).unwrap();
        let stream = connector.connect(name, stream).await?;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        Ok(Connection::on(stream))
    }

    /// Connects and asks; the error if the cache does not let the caller in. Under TLS 1.3 that is seen by who reads.
    pub(crate) async fn asks(&self, address: SocketAddr, text: &str) -> std::io::Result<u16> {
        self.asks_on(TcpStream::connect(address).await?, text).await
    }

    /// The same on a connection that stands.
    pub(crate) async fn asks_on(&self, stream: TcpStream, text: &str) -> std::io::Result<u16> {
        let mut connection = self.shakes_hands(&self.connector(), stream).await?;
        connection.try_send(text.as_bytes()).await?;
        Ok(connection.try_head().await?.status)
    }
}

/// The certificate that the other side showed.
pub(crate) fn shown(connection: &Secured) -> CertificateDer<'static> {
    connection.stream().get_ref().1.peer_certificates().unwrap()[0].clone()
}

impl BothOrigin {
    /// With a certificate for `name`.
    pub(crate) async fn start(authority: &Authority, name: &str) -> Self {
        let acceptor = authority.pair(name, 2000..2200).acceptor();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, log) = (acceptor.clone(), Arc::clone(&log));
                tokio::spawn(async move {
                    let mut first = [0; 1];
                    let _ = stream.peek(&mut first).await;
                    if first == [0x16] {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            answer(stream, "https", &log).await;
                        }
                    } else {
                        answer(stream, "http", &log).await;
                    }
                });
            }
        });
        Self { address, asked, task }
    }

    /// What it has under `scheme`.
    pub(crate) fn content(scheme: &str) -> String {
        format!("this came by {scheme}\n").repeat(200)
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().clone()
    }
}

impl Terminator {
    /// Before `plain`, with the certificate `pair`.
    pub(crate) async fn before(plain: SocketAddr, pair: &Pair) -> Self {
        let acceptor = pair.acceptor();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let Ok(mut plain) = TcpStream::connect(plain).await else { return };
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut plain).await;
                });
            }
        });
        Self { address, task }
    }
}

impl Drop for Terminator {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Drop for BothOrigin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, scheme: &str, log: &Mutex<Vec<String>>) {
    let mut buffer = Vec::new();
    while stream.read_buf(&mut buffer).await.is_ok_and(|count| count > 0) {
        while let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer.drain(..end + 4).collect::<Vec<_>>()).into_owned();
            log.lock().push(format!("{scheme} {}", head.split(' ').nth(1).unwrap_or_default()));
            let content = BothOrigin::content(scheme);
            let (date, len) = (httpdate::fmt_http_date(std::time::SystemTime::now()), content.len());
            let head = format!(
                "HTTP/1.1 200 OK\r\nDate: {date}\r\nETag: \"{scheme}\"\r\nCache-Control: max-age=1000\r\nContent-Length: {len}\r\n\r\n"
            );
            if stream.write_all(format!("{head}{content}").as_bytes()).await.is_err() || stream.flush().await.is_err() {
                return;
            }
        }
    }
}
