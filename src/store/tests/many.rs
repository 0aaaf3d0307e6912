//! Many drives.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_drives_share_the_content_in_any_order_and_one_that_is_away_costs_only_its_own() {
    let mut rig = Rig::watched(10);
    let bodies: Vec<_> = (0..60).map(|number| (number.to_string(), body_of(BLOCK + 5, 300 + number))).collect();
    {
        let store = rig.open();
        for (name, content) in &bodies {
            put(&store, name, content).await;
        }
        store.flush().await;
        for usage in store.usage() {
            assert!((5..=7).contains(&usage.blobs), "{usage:?}");
        }
    }
    rig.settings.drives.reverse();
    rig.settings.drives.swap(2, 7);
    {
        let store = rig.open();
        for (name, content) in &bodies {
            assert_eq!(get(&store, name).await.as_ref(), Some(content));
        }
    }
    let (mounted, elsewhere) = (rig.path_of(4), rig.root.path().join("away"));
    fs::rename(&mounted, &elsewhere).unwrap();
    {
        let store = rig.open();
        let mut missing = 0;
        for (name, content) in &bodies {
            match get(&store, name).await {
                Some(got) => assert_eq!(got, *content),
                None => missing += 1,
            }
        }
        assert!((5..=7).contains(&missing), "{missing}");
        assert_eq!(store.usage().iter().filter(|usage| usage.in_service()).count(), 9);
    }
    fs::rename(&elsewhere, &mounted).unwrap();
    let store = rig.open();
    for (name, content) in &bodies {
        assert_eq!(get(&store, name).await.as_ref(), Some(content));
    }
}
