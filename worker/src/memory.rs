//! Memory of this process as `/proc/self/status` has it. Other systems than Linux have no such file.

use std::fs::File;
use std::io::Read;

/// Returns the resident memory in bytes; `None` where the system doesn't say.
pub fn resident_bytes() -> Option<u64> {
    status("VmRSS:")
}

/// Returns the greatest resident memory so far in bytes; `None` where the system doesn't say.
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
