//! Keeps what librdkafka has open from the program that replaces this one.

#![allow(unsafe_code, reason = "there is no safe call for a range of files")]

use std::io;

/// The first file that isn't standard input, output or error.
const FIRST: libc::c_uint = 3;

/// Lets the system close all files but the standard ones when this process replaces itself by another program. The standard
/// library does so for its own, and librdkafka not for the pipes by which its threads wake each other.
///
/// # Errors
/// If the system refuses. Linux can do it since 5.11.
pub fn close_on_exec() -> io::Result<()> {
    // SAFETY: the call takes numbers alone. It closes nothing now, so no file is taken from its owner.
    let done =
        unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    #[test]
    fn no_file_is_left_open_for_another_program() {
        let mut pipe = [0; 2];
        // SAFETY: there is room for two numbers. They stay open until this process ends.
        assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
        let is_open = || {
            let open = format!("/proc/self/fd/{}", pipe[1]);
            Command::new("/bin/sh").args(["-c", "[ -e \"$0\" ]", &open]).status().unwrap().success()
        };
        assert!(is_open(), "librdkafka's pipes are like this one");
        super::close_on_exec().unwrap();
        assert!(!is_open());
    }
}
