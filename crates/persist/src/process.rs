//! Which boot and which process this is: what a heap records about its owner.
//!
//! A boot id that changed tells a loss of power from a killed process. A process id alone is reused by the
//! kernel; together with the start time it names one process of this boot.

use std::{fs, io};

/// The random number that the kernel drew at boot.
///
/// # Errors
///
/// That of reading `/proc`, most often that it isn't mounted.
pub fn boot_id() -> io::Result<u128> {
    parse_boot_id(&fs::read_to_string("/proc/sys/kernel/random/boot_id")?)
        .ok_or_else(|| invalid("/proc/sys/kernel/random/boot_id is not a uuid"))
}

fn parse_boot_id(text: &str) -> Option<u128> {
    let digits: String = text.trim().chars().filter(|&c| c != '-').collect();
    if digits.len() != 32 {
        return None;
    }
    u128::from_str_radix(&digits, 16).ok()
}

/// A process of this boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProcessId {
    /// The kernel's number, in this process's namespace.
    pub pid: u32,
    /// When the process started, in clock ticks since boot.
    pub start_time: u64,
}

impl ProcessId {
    /// The calling process.
    ///
    /// # Errors
    ///
    /// That of reading `/proc`, most often that it isn't mounted.
    pub fn current() -> io::Result<Self> {
        let stat = parse_stat(&fs::read("/proc/self/stat")?)?;
        Ok(Self { pid: std::process::id(), start_time: stat.start_time })
    }

    /// Whether the process still runs. A zombie does not; a process of another user that `/proc` hides
    /// does.
    ///
    /// # Errors
    ///
    /// That of reading `/proc`.
    pub fn is_alive(self) -> io::Result<bool> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw)
        else {
            return Ok(false);
        };
        if rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH) {
            return Ok(false);
        }
        match fs::read(format!("/proc/{}/stat", self.pid)) {
            Ok(bytes) => {
                let stat = parse_stat(&bytes)?;
                Ok(stat.start_time == self.start_time && !stat.is_dead)
            }
            // Hidden, or gone since the test above: the careful answer is that it lives.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    is_dead: bool,
    start_time: u64,
}

/// Fields between the command name and the start time: the state is the first, the start time the 20th.
const START_TIME_FIELD: usize = 19;

/// Reads `/proc/PID/stat`. The command name may hold blanks and parentheses, so that fields are counted
/// from the last closing one.
fn parse_stat(bytes: &[u8]) -> io::Result<Stat> {
    let text = String::from_utf8_lossy(bytes);
    let (_, fields) = text.rsplit_once(')').ok_or_else(|| invalid("/proc/PID/stat has no name"))?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next().ok_or_else(|| invalid("/proc/PID/stat has no state"))?;
    let start_time = fields
        .nth(START_TIME_FIELD - 1)
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| invalid("/proc/PID/stat has no start time"))?;
    Ok(Stat { is_dead: matches!(state, "Z" | "X" | "x"), start_time })
}

fn invalid(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(all(test, not(miri)))]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_boot_id_is_the_same_number_twice() {
        let id = boot_id().expect("/proc is mounted");
        assert_ne!(id, 0);
        assert_eq!(boot_id().expect("/proc is mounted"), id);
    }

    #[test]
    fn a_boot_id_that_is_no_uuid_is_refused() {
        let text = "00112233-4455-6677-8899-aabbccddeeff\n";
        assert_eq!(parse_boot_id(text), Some(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff));
        for wrong in ["", "0011", "00112233-4455-6677-8899-aabbccddeefg", &text.repeat(2)] {
            assert_eq!(parse_boot_id(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_name_full_of_parentheses_does_not_shift_the_fields() {
        let stat = b"42 (a) Z (b c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20\n";
        let expected = Stat { is_dead: false, start_time: 777 };
        assert_eq!(parse_stat(stat).expect("valid"), expected);
        assert!(parse_stat(b"42 (x) Z 1 2").is_err());
        assert!(parse_stat(b"").is_err());
    }

    #[test]
    fn this_process_lives_and_one_of_another_start_time_does_not() {
        let own = ProcessId::current().expect("/proc is mounted");
        assert!(own.is_alive().expect("/proc is mounted"));
        let former = ProcessId { start_time: own.start_time + 1, ..own };
        assert!(!former.is_alive().expect("/proc is mounted"));
        for pid in [0, u32::MAX] {
            assert!(!ProcessId { pid, start_time: 1 }.is_alive().expect("no read"));
        }
    }

    #[test]
    fn a_child_lives_until_it_is_killed_also_before_it_is_reaped() {
        let mut child =
            Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().expect("spawn");
        let stat = fs::read(format!("/proc/{}/stat", child.id())).expect("/proc is mounted");
        let start_time = parse_stat(&stat).expect("valid").start_time;
        let id = ProcessId { pid: child.id(), start_time };
        assert!(id.is_alive().expect("/proc is mounted"));
        child.kill().expect("kill");
        while id.is_alive().expect("/proc is mounted") {
            std::thread::yield_now();
        }
        child.wait().expect("reap");
        assert!(!id.is_alive().expect("/proc is mounted"));
    }
}
