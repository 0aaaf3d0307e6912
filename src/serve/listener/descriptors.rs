//! The process's descriptor limit and how it is divided.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// More than this is never asked for: containers often allow a thousand million.
const MOST: u64 = 1 << 20;

/// Shares of the descriptor limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DescriptorBudget {
    /// For client connections, 70 %.
    pub sockets: usize,
    /// For files of the store, 20 %.
    pub files: usize,
    /// For everything else, 10 %: upstream connections, logs, refusals at the limit.
    pub reserve: usize,
}

impl DescriptorBudget {
    /// Divides `limit` descriptors.
    pub fn of(limit: usize) -> Self {
        let share = |percent: usize| limit / 100 * percent + limit % 100 * percent / 100;
        let (sockets, files) = (share(70), share(20));
        Self { sockets, files, reserve: limit.saturating_sub(sockets).saturating_sub(files) }
    }
}

/// Raises the soft limit to the hard one (at most 1,048,576) and divides what there is then.
pub fn raise_descriptor_limit() -> DescriptorBudget {
    let limit = getrlimit(Resource::Nofile);
    let soft = limit.current.unwrap_or(MOST);
    let wanted = limit.maximum.unwrap_or(MOST).min(MOST);
    let reached = if wanted > soft {
        match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }) {
            Ok(()) => wanted,
            Err(error) => {
                tracing::warn!(%error, soft, "the descriptor limit cannot be raised");
                soft
            }
        }
    } else {
        soft.min(MOST)
    };
    DescriptorBudget::of(usize::try_from(reached).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up() {
        for limit in [0, 1, 9, 1024, 20_000, 1_048_576, usize::MAX] {
            let budget = DescriptorBudget::of(limit);
            assert_eq!(budget.sockets + budget.files + budget.reserve, limit);
        }
        assert_eq!(DescriptorBudget::of(1000), DescriptorBudget { sockets: 700, files: 200, reserve: 100 });
    }

    #[test]
    fn the_soft_limit_is_the_hard_one_afterwards() {
        let budget = raise_descriptor_limit();
        let limit = getrlimit(Resource::Nofile);
        let hard = limit.maximum.unwrap_or(MOST).min(MOST);
        assert!(limit.current.unwrap_or(MOST) >= hard);
        assert!(budget.sockets > budget.files && budget.files > budget.reserve);
    }
}
