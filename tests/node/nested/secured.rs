//! Levels that know each other by their certificates: a parent over TLS that asks who is there.

use super::super::rig::tls::{Authority, CACHE, put};
use super::*;

/// A parent with a TLS listener that lets in whom `site` has signed as `*.l4.plant.example`.
fn secured(origin: &FakeOrigin, site: &Authority) -> Setup {
    let setup = top(origin, json!({}));
    let directory = setup.path("");
    site.pair(CACHE, 2000..2200).write(&directory);
    put(&directory, "ca.pem", &site.pem());
    setup.set(
        "listen.tls",
        json!({
            "addresses": ["127.0.0.1:0"],
            "certificate": directory.join("server.pem"),
            "key": directory.join("server.key"),
            "client_ca": directory.join("ca.pem"),
            "client_names": ["*.l4.plant.example"],
        }),
    )
}

/// A child of `parent` that trusts `site`, with a certificate of `signer` for `name`.
fn child(parent: &RunningNode, site: &Authority, signer: &Authority, name: &str) -> Setup {
    let url = format!("https://{}", parent.tls.unwrap());
    let setup = below(&[json!({ "url": url, "tls_name": CACHE })], json!({}));
    let directory = setup.path("");
    signer.pair(name, 2000..2200).write(&directory);
    put(&directory, "ca.pem", &site.pem());
    let files = [("ca", "ca.pem"), ("certificate", "server.pem"), ("key", "server.key")];
    files
        .into_iter()
        .fold(setup, |setup, (name, file)| setup.set(&format!("upstream.tls.{name}"), json!(directory.join(file))))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parent_over_tls_lets_in_whom_it_knows_and_a_renewed_certificate_is_used_without_a_restart() {
    let pattern = Pattern::new(800, 2 * MIB);
    let (site, stranger) = (Authority::new("site"), Authority::new("stranger"));
    let origin = FakeOrigin::with(PATH, Reply::file(pattern)).await;
    let l5 = secured(&origin, &site).start();
    let l4 = child(&l5, &site, &site, "line1.l4.plant.example").start();
    must_be(&l4.get(&asked(), &[]).await, pattern);

    for (signer, name) in [(&site, "line1.l3.plant.example"), (&stranger, "line1.l4.plant.example")] {
        let l4 = child(&l5, &site, signer, name).set("upstream.timeouts.request", json!("1s")).start();
        let answer = l4.get(&asked(), &[]).await;
        assert_eq!(answer.head.status, 503, "{name}: {}", answer.head.raw);
        assert!(l4.says("it refuses the certificate of this cache"), "{name}: {}", l4.said());
        let is_told = l4.says("it is not one that may come in");
        assert!(is_told || name.contains("l4"), "{name}: {}", l4.said());
    }

    let nameless = child(&l5, &site, &site, "line1.l4.plant.example");
    let nameless = nameless.set("upstream.tls.certificate", json!(null)).set("upstream.tls.key", json!(null)).start();
    assert_eq!(nameless.get(&asked(), &[]).await.head.status, 503);
    assert!(nameless.says("it asks for a certificate of this cache"), "{}", nameless.said());

    // A certificate that does not do is replaced by one that does.
    let l4 = child(&l5, &site, &stranger, "line2.l4.plant.example").start();
    assert_eq!(l4.get(&asked(), &[]).await.head.status, 503);
    put(&l4.setup().path(""), "server.key", "broken");
    assert!(l4.says("renewed files of upstream.tls cannot be used; the ones before stay in use"));
    site.pair("line2.l4.plant.example", 2000..2200).write(&l4.setup().path(""));
    assert!(l4.says("the renewed files of upstream.tls are in use for new connections"));
    let deadline = Instant::now() + Duration::from_secs(30);
    while l4.get(&asked(), &[]).await.head.status != 200 {
        assert!(Instant::now() < deadline, "the new certificate is not used");
    }
    // One that has expired takes nobody's place.
    site.pair("line2.l4.plant.example", 2000..2001).write(&l4.setup().path(""));
    assert!(l4.says("server.pem: it has expired at"));
    l5.stop().await;
    let l4 = l4.stop().await.start();
    assert!(l4.says("the certificate of upstream.tls will be refused by parents"));
    let l5 = secured(&origin, &site).start();
    // Who is not the parent that is meant gets no request.
    let l4 =
        child(&l5, &stranger, &site, "line1.l4.plant.example").set("upstream.timeouts.request", json!("1s")).start();
    assert_eq!(l4.get(&asked(), &[]).await.head.status, 503);
    assert!(l4.says("its certificate's issuer is not trusted"));
    assert!(state(&l4).await["reasons"].to_string().contains("its certificate's issuer is not trusted"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parent_that_cannot_be_trusted_is_told_of_before_a_device_has_to_find_out() {
    let (site, stranger) = (Authority::new("site"), Authority::new("stranger"));
    let origin = FakeOrigin::start().await;
    let l5 = secured(&origin, &site).start();
    let l4 = child(&l5, &stranger, &site, "line1.l4.plant.example").start();
    let deadline = Instant::now() + Duration::from_secs(30);
    let told = loop {
        let told = state(&l4).await;
        if told["parents"][0]["state"] != "untried" {
            break told;
        }
        assert!(Instant::now() < deadline, "{told}");
    };
    assert_eq!((&told["state"], &told["parents"][0]["state"]), (&json!("offline"), &json!("refused")), "{told}");
    assert!(told["parents"][0]["reason"].to_string().contains("its certificate's issuer is not trusted"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_cannot_be_used_stop_the_start() {
    let setup = below(&[json!({ "url": "https://127.0.0.1:9" })], json!({}));
    put(&setup.path(""), "ca.pem", "nothing");
    let file = setup.path("ca.pem");
    let output = setup.set("upstream.tls.ca", json!(file)).command().output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!output.status.success() && text.contains("ca.pem") && text.contains("upstream.tls"), "{text}");
}
