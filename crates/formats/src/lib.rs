//! Bytes to values and back: disk tables, file systems, archives, executables.
//!
//! No paths, clocks or randomness: seed and time are arguments. Every parser has a bound and a fuzz
//! target.
