//! The `zsha` command: arguments in, exit code out. Everything it does is in the library beside it.

use std::process::ExitCode;

mod built;

fn main() -> ExitCode {
    ExitCode::from(zsha::main(built::BUILD).code())
}
