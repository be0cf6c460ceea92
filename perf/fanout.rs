//! The product's stress tool by itself, for servers other than the product's.

use std::process::ExitCode;

use clap::Parser;
use uringcast::tools::stress::{self, StressArgs};

/// Holds N viewers, checks what they get, prints a report.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    stress: StressArgs,
}

fn main() -> anyhow::Result<ExitCode> {
    stress::main(&Args::parse().stress)
}
