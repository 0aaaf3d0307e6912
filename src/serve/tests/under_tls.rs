//! Answers under TLS: every byte arrives, and what stands for a file never does.

use std::collections::VecDeque;
use std::io::ErrorKind;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::port::{Layout, NEVER, Port, Shelf, context};
use super::sending::{file, mixed};
use super::*;
use crate::serve::tls::tests::Files;
use crate::serve::wire::WireContext;

/// Takes any certificate: whose it is does not matter here.
#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

async fn secured(stream: TcpStream) -> TlsStream<TcpStream> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous))
        .with_no_client_auth();
    let name = ServerName::try_from("cache.example").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

async fn open(context: WireContext, layout: Layout, len: u64) -> Port {
    let tls = Arc::new(Files::new().open().unwrap());
    Port::open_with(context, Some(tls), layout, len).await
}

/// Asks on a connection of its own; everything that came, and how it ended.
async fn ask(port: &Port, request: &str) -> (Vec<u8>, Result<usize, ErrorKind>) {
    let mut stream = secured(TcpStream::connect(port.address).await.unwrap()).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut got = Vec::new();
    let end = tokio::time::timeout(NEVER, stream.read_to_end(&mut got)).await.unwrap();
    (got, end.map_err(|error| error.kind()))
}

#[tokio::test]
async fn files_among_bytes_arrive_right_and_the_end_is_said() {
    let shelf = Shelf::new();
    let (layout, expected) = mixed(&shelf).await;
    let port = open(context(&shelf.metrics, Limits::default()), layout, expected.len() as u64).await;
    let kept = "GET /f HTTP/1.1\r\nHost: a\r\n\r\nGET /small HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2);
    let last = "GET /f HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    // rustls tells an end without close_notify as an error.
    let (got, end) = ask(&port, &format!("{kept}{last}")).await;
    assert_eq!(end, Ok(got.len()));
    let mut rest = &got[..];
    for body in [&expected[..], b"s", &expected, b"s", &expected] {
        let head = rest.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        rest = &rest[head..];
        assert!(rest.starts_with(body));
        rest = &rest[body.len()..];
    }
    assert!(rest.is_empty());
    // Of HTTP/1.0 the end of the connection is the end of the answer.
    let (got, end) = ask(&port, "GET /f HTTP/1.0\r\n\r\n").await;
    assert!(end.is_ok() && got.ends_with(&expected));
}

#[tokio::test]
async fn a_narrow_client_gets_every_byte_under_tls() {
    let shelf = Shelf::new();
    let (layout, expected) = mixed(&shelf).await;
    let port = open(context(&shelf.metrics, Limits::default()), layout, expected.len() as u64).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = secured(socket.connect(port.address).await.unwrap()).await;
    stream.write_all(b"GET /f HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut got = Vec::new();
    tokio::time::timeout(NEVER, stream.read_to_end(&mut got)).await.unwrap().unwrap();
    assert!(got.ends_with(&expected));
}

#[tokio::test]
async fn what_stands_for_a_file_never_leaves_under_tls() {
    let shelf = Shelf::new();
    let content = body_of(1_000_000, 3);
    let blob = shelf.put("a", &content).await;
    let request = "GET /f HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for (copies, reason) in
        [(false, "a file was to be sent past the encryption"), (true, "a write does not stand for the files that wait")]
    {
        let blob = blob.clone();
        let layout: Layout = Arc::new(move || VecDeque::from([file(&blob, 0, 1_000_000)]));
        // The body is made to hand out its file, which it never does by itself.
        let context = context(&shelf.metrics, Limits::default()).files_under_tls();
        let context = if copies { context.copying_writes() } else { context };
        let port = open(context, layout, 1_000_000).await;
        let (got, end) = ask(&port, request).await;
        assert!(got.is_empty(), "no head, and none of the zeros that stand for the file");
        assert!(end.is_err(), "a cut is no end");
        let lines = port.lines().await;
        assert!(lines.contains(&format!(" cut=\"{reason}\"")), "{lines}");
    }
}
