//! Composition: linuxkit yml to a root file system tar.
