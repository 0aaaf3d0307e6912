//! Clients that a name in their certificate lets in, whatever their address.

use rustls::HandshakeKind;

use super::super::rig::tls::{TLS12, TLS13};
use super::*;

/// A node whose clients are `clients`; on the TLS listener all have to show a certificate of `authority`.
fn admitting(authority: &Authority, origin: &FakeOrigin, clients: serde_json::Value) -> Setup {
    let setup = setup(authority, origin);
    let ca = setup.path("ca.pem");
    setup.set("listen.tls.client_ca", json!(ca)).set("listen.clients", clients)
}

#[tokio::test]
async fn a_name_lets_in_from_any_address_and_an_address_with_any_name() {
    let (authority, pattern) = (Authority::new("site"), Pattern::new(950, 5000));
    let origin = FakeOrigin::with("/f", Reply::file(pattern)).await;
    let clients = json!(["127.77.0.1", "name:*.plant.example", "name:child.example"]);
    let node = admitting(&authority, &origin, clients).start();
    let (address, text) = (node.tls.unwrap(), get(TARGET, &[]));
    let mut refused = 0;
    for versions in [&TLS12, &TLS13] {
        for (name, device, status) in [
            ("l3.plant.example", 2, 200),
            ("child.example", 2, 200),
            ("other.example", 2, 403),
            ("plant.example", 2, 403),
            ("a.child.example", 2, 403),
            ("*.plant.example", 2, 403),
            ("other.example", 1, 200),
            ("l3.plant.example", 1, 200),
        ] {
            let pair = authority.pair(name, 2000..2200);
            let caller = Caller { versions, ..Caller::new(&authority) }.showing(&pair);
            let stream = connect_as(device, address).await.unwrap();
            assert_eq!(caller.asks_on(stream, &text).await.unwrap(), status, "{name} from {device}");
            refused += u32::from(status == 403);
        }
        // Who shows no certificate of the authority does not even get through the handshake, from wherever.
        let foreign = Authority::new("stranger").pair("l3.plant.example", 2000..2200);
        for device in [1, 2] {
            let caller = || Caller { versions, ..Caller::new(&authority) };
            let stream = connect_as(device, address).await.unwrap();
            assert!(caller().asks_on(stream, &text).await.is_err());
            let stream = connect_as(device, address).await.unwrap();
            assert!(caller().showing(&foreign).asks_on(stream, &text).await.is_err());
        }
    }
    counted(&node, LIMITED, "client-names", refused).await;
    logged(&node, refused as usize, &["\"127.77.0.2\"", "\"status\":403", "\"reason\":\"client-names\""]).await;
    // A name is shown nowhere else: in the clear the address decides.
    for (device, status) in [(1, 200), (2, 403)] {
        let mut connection = Connection::open_as(device, node.data).await;
        connection.send(&text).await;
        assert_eq!(connection.answer(false).await.head.status, status, "{device}");
    }
    counted(&node, LIMITED, "clients", 1).await;
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn names_hold_in_resumed_sessions_and_behind_proxies() {
    let (authority, pattern) = (Authority::new("site"), Pattern::new(951, 5000));
    let origin = FakeOrigin::with("/f", Reply::file(pattern)).await;
    let clients = json!(["10.1.2.3", "name:l3.plant.example"]);
    let node = admitting(&authority, &origin, clients).set("limits.connections_per_client", json!(1)).start();
    let (address, text) = (node.tls.unwrap(), get(TARGET, &[]));
    let (named, other) = (authority.pair("l3.plant.example", 2000..2200), authority.pair("x.example", 2000..2200));
    let mut device = 100;
    for versions in [&TLS12, &TLS13] {
        for (pair, status) in [(&named, 200), (&other, 403)] {
            let caller = Caller { versions, ..Caller::new(&authority) }.showing(pair);
            let connector = caller.connector();
            for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
                device += 1;
                let stream = connect_as(device, address).await.unwrap();
                let mut connection = caller.shakes_hands(&connector, stream).await.unwrap();
                connection.send(&text).await;
                assert_eq!(connection.answer(false).await.head.status, status, "{kind:?}");
                assert_eq!(connection.stream().get_ref().1.handshake_kind(), Some(kind));
            }
        }
    }
    // The address that counts is the one that the proxy names.
    for (client, pair, status) in
        [("8.8.8.8", &named, 200), ("8.8.4.4", &other, 403), ("10.1.2.3", &other, 200), ("2001:db8::1", &named, 200)]
    {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&of(client, &[])).await.unwrap();
        let got = Caller::new(&authority).showing(pair).asks_on(stream, &text).await.unwrap();
        assert_eq!(got, status, "{client}");
    }
    logged(&node, 1, &["\"client\":\"8.8.8.8\"", "\"status\":200"]).await;
    // The limit for one client holds for those with a name, too.
    let header = of("8.8.8.8", &[]);
    let caller = Caller::new(&authority).showing(&named);
    let mut kept = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&header).await.unwrap();
        let mut connection = caller.shakes_hands(&caller.connector(), stream).await.unwrap();
        connection.send(&text).await;
        match (connection.answer(false).await.head.status, kept.len()) {
            (200, 0) => kept.push(connection),
            (503, 1) => break,
            (503, 0) if Instant::now() < deadline => {}
            other => panic!("{other:?}"),
        }
    }
}
