//! Names of which the resolver does not tell in time.

use tokio::sync::Semaphore;

use super::*;

/// As many places as the system's resolver has. All names but one hang, and do not give their places back.
#[derive(Debug)]
struct Dead {
    places: Arc<Semaphore>,
    good: (&'static str, SocketAddr),
}

impl Resolver for Dead {
    fn resolve(&self, host: Arc<str>, _: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let (places, (name, address)) = (Arc::clone(&self.places), self.good);
        let look_up = async move {
            let _place = places.acquire().await.map_err(io::Error::other)?;
            if *name == *host { Ok(vec![address]) } else { std::future::pending().await }
        };
        // Goes on without who asked, as a thread does.
        let look_up = tokio::spawn(look_up);
        Box::pin(async move { look_up.await.map_err(io::Error::other)? })
    }
}

#[tokio::test]
async fn names_that_hang_leave_places_for_others() {
    let server = Server::always(vec![Act::Send(ok("here"))]).await;
    let dead = Dead { places: Arc::new(Semaphore::new(32)), good: ("good.example.org", server.address) };
    let metrics = Arc::new(Metrics::new().unwrap());
    let upstream =
        Upstream::with_parts(patient(), "x".into(), metrics, Vec::new(), Roots::System, Arc::new(dead)).unwrap();
    let named = |host: &str| Origin { scheme: Scheme::Http, host: host.into(), port: 80 };
    let mut asked = Vec::new();
    for number in 0..100 {
        let request = get(named(&format!("a{number}.b.example.com")), "/");
        let upstream = upstream.clone();
        asked.push(tokio::spawn(async move { fetch(&upstream, request).await.map(drop) }));
        tokio::task::yield_now().await;
    }
    assert_eq!(text(&upstream, get(named("good.example.org"), "/")).await, "here");
    asked.iter().for_each(tokio::task::JoinHandle::abort);
}
