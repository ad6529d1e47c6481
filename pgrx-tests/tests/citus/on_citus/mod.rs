//! All tests are below this module: its name tells scripts/test-outside.sh which to leave out where Citus is missing.

mod any_node;
mod copies;
mod dumps;
mod exporting;
mod faults;
mod importing;
mod kills;
mod kinds;
mod moves;
mod refusals;
mod spread;
mod spread_exports;
mod streams;
mod submissions;
mod tables;
