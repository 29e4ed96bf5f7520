//! The command line: real servers for a terminal, a demo, or a test run.

fn main() {}
