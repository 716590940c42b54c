//! Memory of this process, as the system tells (Linux).

use std::fs::File;
use std::io::Read;

/// What it holds resident, in bytes.
pub fn resident_bytes() -> Option<u64> {
    status("VmRSS:")
}

/// The most it ever held resident, in bytes.
pub fn peak_bytes() -> Option<u64> {
    status("VmHWM:")
}

fn status(field: &str) -> Option<u64> {
    let mut status = String::new();
    File::open("/proc/self/status").ok()?.take(1 << 16).read_to_string(&mut status).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_has_memory() {
        assert!(resident_bytes().is_none_or(|bytes| bytes > 1 << 20));
    }
}
