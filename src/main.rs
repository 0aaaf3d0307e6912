//! The `waystation` process: arguments in, exit code out.

use std::process::ExitCode;

/// Half of what a small hit costs this program is memory that is taken and given back: see `docs/performance.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    waystation::cli::main(std::env::args_os())
}
