//! How much CPU time a server has used.

use std::fs;

/// Of a process's times in `/proc/PID/stat`, in seconds: Linux counts them in hundredths for all programs.
const TICK: f64 = 0.01;

/// CPU seconds of all processes of a server since its start, of those too that have ended. `backend` is one of them. `None` if it
/// is gone.
pub(super) fn of_server(backend: i32) -> Option<f64> {
    let first = Process::read(backend)?.parent;
    let server = Process::read(first)?;
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let children = numbers.filter_map(Process::read).filter(|process| process.parent == first);
    Some(server.own + server.of_ended_children + children.map(|child| child.own).sum::<f64>())
}

struct Process {
    parent: i32,
    own: f64,
    of_ended_children: f64,
}

impl Process {
    fn read(number: i32) -> Option<Process> {
        let stat = fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
        // The name, in parentheses, may have anything in it.
        let fields: Vec<f64> =
            stat.rsplit_once(')')?.1.split_whitespace().skip(1).map_while(|field| field.parse().ok()).collect();
        let sum = |first: usize| Some((fields.get(first)? + fields.get(first + 1)?) * TICK);
        Some(Process { parent: *fields.first()? as i32, own: sum(10)?, of_ended_children: sum(12)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_a_parent_and_uses_time() {
        let own = |_: &u64| Process::read(std::process::id() as i32).unwrap().own;
        let busy = (0u64..).find(|work| own(work) > 0.02);
        assert!(busy.is_some());
        let parent = std::os::unix::process::parent_id() as i32;
        assert_eq!(Process::read(std::process::id() as i32).unwrap().parent, parent);
    }
}
