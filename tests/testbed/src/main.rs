//! The `testbed` command, see [`testbed::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    testbed::cli::main()
}
