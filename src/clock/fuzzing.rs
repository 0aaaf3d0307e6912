//! A way in for the fuzz targets: the file in which the time is kept, and what a clock says then. No serving build has this.

use std::time::Duration;

use super::trust::Watch;
use super::{built, parse};

/// Reads the file, then looks at a clock that says these seconds since 1970 at these of a steady one.
///
/// # Panics
/// When certificates are judged before a time that is known to be over.
pub fn kept(file: &[u8], looks: &[(u32, u16)]) {
    let mut watch = Watch::new(built(), Duration::ZERO);
    parse(file).into_iter().for_each(|seconds| watch.keep(Duration::from_secs(seconds)));
    let mut steady = Duration::ZERO;
    for (system, passed) in looks {
        // Twice as far as 32 bits reach, so that times after the use of any release are among them.
        let system = Duration::from_secs(u64::from(*system) * 2);
        steady += Duration::from_secs((*passed).into());
        let is_believed = watch.look(system, steady).is_none();
        assert!(!is_believed || system >= built());
        assert!(watch.certificate_time(system, steady) >= built());
        let _ = watch.likely_ahead();
    }
}
