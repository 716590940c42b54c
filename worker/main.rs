//! `keytide`: the command line.

fn main() {}
