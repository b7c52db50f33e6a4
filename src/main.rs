//! Arguments, logging, exit status: see `cli`.

fn main() -> std::process::ExitCode {
    tallyd::cli::main()
}
