//! Memory of this process as `/proc/self/status` has it, and what its control group allows. Other systems than Linux have no
//! such files.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// Returns the resident memory in bytes; `None` where the system doesn't say.
pub fn resident_bytes() -> Option<u64> {
    status("VmRSS:")
}

/// Returns the greatest resident memory so far in bytes; `None` where the system doesn't say.
pub fn peak_bytes() -> Option<u64> {
    status("VmHWM:")
}

/// Returns the least limit of the process's control group and of those that it is in, in bytes; `None` without one.
pub fn limit_bytes() -> Option<u64> {
    least_limit(&read("/proc/self/cgroup")?, Path::new("/sys/fs/cgroup"))
}

/// Returns the least limit that files under `root` set to the groups of a process. Version 2 has one line without a controller,
/// and version 1 one that names `memory`. In a container the group may be outside of what is mounted: then it is the root.
fn least_limit(groups: &str, root: &Path) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, group) = (parts.next()?, parts.next()?.trim_start_matches('/'));
        let (root, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let group = root.join(group);
        let folders = group.ancestors().take_while(|folder| folder.starts_with(&root));
        let limit = |folder: &Path| read(folder.join(file))?.trim().parse::<u64>().ok();
        folders.filter_map(limit).min()
    });
    // Version 1 writes the largest number of pages for none.
    limits.min().filter(|limit| *limit < 1 << 60)
}

/// Returns the start of a file of the kernel; such files are short.
fn read(path: impl AsRef<Path>) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(1 << 16).read_to_string(&mut text).ok()?;
    Some(text)
}

fn status(field: &str) -> Option<u64> {
    let status = read("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1_024)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_process_has_memory() {
        assert!(resident_bytes().is_none_or(|bytes| bytes > 1 << 20));
        assert!(limit_bytes().is_none_or(|bytes| bytes > 1 << 20));
    }

    #[test]
    fn the_least_limit_of_the_groups_around_a_process_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let limit = |groups: &str| least_limit(groups, root.path());
        assert_eq!(limit("0::/a/b\n"), None);
        write("a/b/memory.max", "max\n");
        write("a/memory.max", "4096\n");
        assert_eq!(limit("0::/a/b\n"), Some(4_096));
        write("a/b/memory.max", "1024\n");
        assert_eq!((limit("0::/a/b\n"), limit("0::/a\n"), limit("0::/\n")), (Some(1_024), Some(4_096), None));
        // A group outside of what the container sees, and whose root has the limit.
        write("memory.max", "2048\n");
        assert_eq!(limit("0::/../../x\n"), Some(2_048));
        write("memory/pod/memory.limit_in_bytes", "512\n");
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(limit("5:cpu,cpuacct:/pod\n4:memory:/pod\n"), Some(512));
        assert_eq!((limit("4:memory:/\n"), limit("")), (None, None));
    }
}
