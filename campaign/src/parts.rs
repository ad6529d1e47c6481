//! What a campaign consists of.

mod cell;
mod clocks;
mod exhaustion;
mod faults;
mod interrupts;
mod job_rights;
mod kills;
mod rights;
mod schedules;
mod soak;
mod sources;

use crate::run::Part;

/// All parts, as they run.
pub const PARTS: &[Part] = &[
    interrupts::PART,
    sources::PART,
    schedules::PART,
    faults::PART,
    exhaustion::PART,
    clocks::PART,
    kills::PART,
    rights::PART,
    job_rights::PART,
    soak::PART,
];
