//! The `waystation` process: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    waystation::cli::main(std::env::args_os())
}
