//! Whose a drive is, and which are refused.

use super::*;

#[tokio::test]
async fn a_drive_has_one_process() {
    let rig = Rig::new();
    let store = rig.open();
    let metrics = Arc::new(Metrics::new().unwrap());
    assert!(matches!(Store::open(rig.settings.clone(), Arc::clone(&metrics)), Err(OpenError::InUse { .. })));
    let elsewhere = Settings { state: rig.root.path().join("other"), ..rig.settings.clone() };
    assert!(matches!(Store::open(elsewhere, metrics), Err(OpenError::InUse { .. })));
    drop(store);
    rig.open().ready().await;
}

#[tokio::test]
async fn newer_and_damaged_drives_are_refused() {
    for (text, newer) in [(r#"{"format":99}"#, true), ("{", false), (r#"{"format":1,"drive":"x"}"#, false)] {
        let rig = Rig::new();
        fs::create_dir_all(rig.drive()).unwrap();
        fs::write(rig.drive().join("waystation.json"), text).unwrap();
        let error = Store::open(rig.settings.clone(), Arc::new(Metrics::new().unwrap())).unwrap_err();
        assert_eq!(matches!(error, OpenError::NewerFormat { found: 99, .. }), newer, "{error}");
        assert_eq!(fs::read_to_string(rig.drive().join("waystation.json")).unwrap(), text, "left as it was");
    }
}
