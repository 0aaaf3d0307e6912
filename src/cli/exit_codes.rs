//! The one table of exit codes.

use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It did what was asked.
    Success,
    /// It failed, or what it looked at is not well.
    Failure,
    /// The command line or the configuration is wrong; nothing was started. Trying again does not help.
    Usage,
}

impl Exit {
    /// Every way to end.
    pub const ALL: [Self; 3] = [Self::Success, Self::Failure, Self::Usage];

    /// The code that the process gives to its parent.
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Usage => 2,
        }
    }

    /// What the code means, for `--help`.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Success => "done",
            Self::Failure => "failed, or not healthy",
            Self::Usage => "the command line or the configuration is wrong",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_stable() {
        assert_eq!(Exit::ALL.map(Exit::code), [0, 1, 2]);
    }
}
